"""A vocabulary of vectors: values in Numba kernels that are LLVM vectors.

A vector is made by :func:`load`, :func:`load_like` or :func:`splat`; compared with ``> >= == !=`` it gives a mask, and masks
combine with ``& | ~``; :func:`select` takes lanes by a mask. Arithmetic is ``+ - *``. Memory is a 1-D array and an
element index: no bounds are checked, and no alignment is assumed except by streaming stores.

How many lanes a vector has follows from the array's dtype and the CPU (:func:`lanes`), so that no kernel names a width.

float16 is a way to store: :func:`load` gives float32, and :func:`store` rounds. Numba can't type its values, so that arrays of it
are passed as arrays of :data:`HALF`, which nothing else is.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from pooling.runtime.numba_api import (
    config,
    intrinsic,
    ir,
    llvm,
    lower_builtin,
    models,
    numpy_support,
    register_model,
    type_callable,
    types,
)

BYTE, INT = ir.IntType(8), ir.IntType(32)

HALF: np.dtype[Any] = np.dtype([("half", np.uint16)])
"""As what arrays of float16 are passed to kernels."""


@functools.cache
def features() -> set[str]:
    """What this CPU can do, in LLVM's words, as far as Numba may use it."""
    if config.CPU_NAME == "generic" or config.CPU_FEATURES is not None:
        return {f[1:] for f in (config.CPU_FEATURES or "").split(",") if f.startswith("+")}
    return {name for name, on in llvm.get_host_cpu_features().items() if on}


@functools.cache
def converts_halves() -> bool:
    """Whether this CPU converts float16 from and to float32; LLVM would else call functions that are not linked."""
    return "f16c" in features() or llvm.get_process_triple().startswith(("aarch64", "arm64"))


@functools.cache
def vector_bytes() -> int:
    """Width of this CPU's vector registers, as LLVM reports them; 16 (SSE2, NEON) when nothing wider is known."""
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= features():
        return 64
    return 32 if "avx2" in features() else 16


def lanes(dtype: Any) -> int:
    """Lanes of a vector of `dtype`: a register full of floats, and as many of anything smaller."""
    return max(vector_bytes() // max(np.dtype(dtype).itemsize, 4), 4)


class VectorType(types.Type):
    """The Numba type of a vector of `count` elements; of booleans, a mask."""

    def __init__(self, element: types.Type, count: int) -> None:
        self.element, self.count = element, count
        super().__init__(f"vector({element}, {count})")

    def mask(self) -> VectorType:
        return VectorType(types.boolean, self.count)


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: VectorType) -> None:
        element = ir.IntType(1) if fe_type.element == types.boolean else manager.lookup(fe_type.element).get_data_type()
        super().__init__(manager, fe_type, ir.VectorType(element, fe_type.count))


def llvm_type(context: Any, vector: VectorType) -> ir.VectorType:
    return context.data_model_manager[vector].get_value_type()


def address(context: Any, builder: Any, array_type: types.Array, array: Any, index: Any, to: ir.Type) -> Any:
    """Pointer to element `index` of a 1-D C-contiguous array, as a pointer to `to`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def storage(array_type: types.Array) -> types.Type:
    """What the vocabulary computes on for an array: its dtype; bytes for booleans, float32 for float16."""
    if array_type.dtype == types.boolean:
        return types.uint8
    return types.float32 if is_half(array_type) else array_type.dtype


def is_half(array_type: types.Array) -> bool:
    return isinstance(array_type.dtype, types.Record)


def itemsize(element: types.Type) -> int:
    size: int = numpy_support.as_dtype(element).itemsize
    return size


def lanes_in(array_type: types.Array) -> int:
    return lanes(numpy_support.as_dtype(array_type.dtype))


def read(context: Any, builder: Any, array_type: types.Array, array: Any, index: Any, kind: Any) -> Any:
    """From ``array[index:]``, a vector or a number of the LLVM type `kind`, of what the vocabulary computes on."""
    size = itemsize(array_type.dtype)
    stored = stored_as(array_type, kind)
    value = builder.load(address(context, builder, array_type, array, index, stored), align=size)
    return builder.fpext(value, kind) if is_half(array_type) else value


def write(
    context: Any, builder: Any, array_type: types.Array, array: Any, index: Any, value: Any, aligned: bool = False
) -> Any:
    """The way back; the instruction. `aligned`: it begins at a multiple of its size."""
    stored = stored_as(array_type, value.type)
    size = itemsize(array_type.dtype) * (stored.count if aligned else 1)
    if is_half(array_type):
        value = builder.fptrunc(value, stored)
    return builder.store(value, address(context, builder, array_type, array, index, stored), align=size)


def stored_as(array_type: types.Array, kind: Any) -> Any:
    """The LLVM type in memory."""
    if not is_half(array_type):
        return kind
    return ir.VectorType(ir.HalfType(), kind.count) if isinstance(kind, ir.VectorType) else ir.HalfType()


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """A vector from ``array[index:]``, with the lanes of the array's dtype."""
    result = VectorType(storage(array), lanes_in(array))
    return result(array, types.intp), _load(array, result)


@intrinsic
def load_like(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """A vector from ``array[index:]`` with as many lanes as `vector`."""
    result = VectorType(storage(array), vector.count)
    return result(array, types.intp, vector), _load(array, result)


def _load(array: Any, result: VectorType) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return read(context, builder, array, args[0], args[1], llvm_type(context, result))

    return codegen


def _store(array: Any, vector: Any, stream: bool) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        instruction = write(context, builder, array, args[0], args[1], args[2], stream)
        if stream:
            mark_nontemporal(builder, instruction)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


def mark_nontemporal(builder: Any, store: Any) -> None:
    """Make the store of a whole aligned vector a streaming (non-temporal) one."""
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(INT, 1)]))


@intrinsic
def move(typing: Any, source: Any, s: Any, target: Any, t: Any) -> Any:
    """Copy ``source[s]`` to ``target[t]``, converted."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(storage(source))
        value = read(context, builder, source, args[0], args[1], kind)
        write(context, builder, target, args[2], args[3], value)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), codegen


@intrinsic
def number(typing: Any, array: Any, index: Any) -> Any:
    """``array[index]`` alone."""
    result = storage(array)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return read(context, builder, array, args[0], args[1], context.get_value_type(result))

    return result(array, types.intp), codegen


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write `vector`, or one number of the array's own type, to ``array[index:]``."""
    if not isinstance(vector, VectorType) and vector != storage(array):
        return None
    return _store(array, vector, stream=False)


@intrinsic(prefer_literal=True)
def store_or_stream(typing: Any, array: Any, index: Any, vector: Any, stream: Any) -> Any:
    """As :func:`store_stream` where the constant `stream` is not 0, else as :func:`store`."""
    if not isinstance(stream, types.IntegerLiteral):
        return None
    _, codegen = _store(array, vector, stream=bool(stream.literal_value))
    return types.void(array, types.intp, vector, stream), codegen


@intrinsic
def store_stream(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write `vector` with a streaming (non-temporal) store; ``array[index]`` must lie at a multiple of the vector's size.

    `memory/streaming_stores.py` says for which results.
    """
    return _store(array, vector, stream=True)


@intrinsic
def splat(typing: Any, scalar: Any, vector: Any) -> Any:
    """A vector like `vector` (its element type, its lanes) with `scalar` in each lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[0], signature.args[0], vector.element)
        return broadcast(builder, value, vector.count)

    return vector(scalar, vector), codegen


def broadcast(builder: Any, value: Any, count: int) -> Any:
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, INT(0))
    zeros = ir.Constant(ir.VectorType(INT, count), [0] * count)
    return builder.shuffle_vector(one, one, zeros)


@intrinsic
def select(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Lane by lane `yes` where `mask`, else `no`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return yes(mask, yes, no), codegen


@intrinsic(prefer_literal=True)
def beats(typing: Any, value: Any, best: Any, back: Any) -> Any:
    """A mask of the lanes where `value` takes the place of `best`: it is greater, or the first NaN of the window.

    With `back`, a constant, windows are walked from their last cell: the first NaN is the one that comes last.
    """
    if not isinstance(back, types.IntegerLiteral):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value_, best_ = args[:2]
        if not isinstance(value.element, types.Float):
            greater = builder.icmp_signed if getattr(value.element, "signed", False) else builder.icmp_unsigned
            return greater(">", value_, best_)
        if back.literal_value:
            return builder.or_(builder.fcmp_ordered(">", value_, best_), builder.fcmp_unordered("uno", value_, value_))
        # "Not less or equal" holds for any NaN; two comparisons, where spelling the rule out takes three.
        return builder.and_(builder.fcmp_unordered(">", value_, best_), builder.fcmp_ordered("ord", best_, best_))

    return value.mask()(value, best, back), codegen


@intrinsic
def ones(typing: Any, mask: Any, vector: Any) -> Any:
    """1 where `mask`, else 0, in integers as wide as the elements of `vector`: to count with."""
    result = VectorType(types.int64 if itemsize(vector.element) == 8 else types.int32, vector.count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(args[0], llvm_type(context, result))

    return result(mask, vector), codegen


@intrinsic
def floats(typing: Any, integers: Any, vector: Any) -> Any:
    """Counts as a vector like `vector`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(args[0], llvm_type(context, vector))

    return vector(integers, vector), codegen


@intrinsic(prefer_literal=True)
def rounded(typing: Any, vector: Any, half: Any) -> Any:
    """`vector`, and with `half`, a constant, rounded to what float16 can hold."""
    if not isinstance(half, types.IntegerLiteral):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not half.literal_value:
            return args[0]
        narrow = builder.fptrunc(args[0], ir.VectorType(ir.HalfType(), vector.count))
        return builder.fpext(narrow, llvm_type(context, vector))

    return vector(vector, half), codegen


@intrinsic
def any_lane(typing: Any, mask: Any) -> Any:
    """Whether `mask` is true anywhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(mask.count)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], whole), whole(0))

    return types.boolean(mask), codegen


def _compares(function: Any, symbol: str) -> None:
    @type_callable(function)
    def typer(context: Any) -> Any:
        def resolve(a: Any, b: Any) -> Any:
            return a.mask() if isinstance(a, VectorType) and a == b else None

        return resolve

    @lower_builtin(function, VectorType, VectorType)
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = signature.args[0].element
        if isinstance(element, types.Float):
            compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
        else:
            compare = builder.icmp_signed if getattr(element, "signed", False) else builder.icmp_unsigned
        return compare(symbol, *args)


def _combines(function: Any, of_float: str, of_integer: str) -> None:
    @type_callable(function)
    def typer(context: Any) -> Any:
        def resolve(a: Any, b: Any) -> Any:
            return a if isinstance(a, VectorType) and a == b else None

        return resolve

    @lower_builtin(function, VectorType, VectorType)
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        floating = isinstance(signature.args[0].element, types.Float)
        return getattr(builder, of_float if floating else of_integer)(*args)


for _function, _symbol in ((operator.gt, ">"), (operator.ge, ">="), (operator.eq, "=="), (operator.ne, "!=")):
    _compares(_function, _symbol)
for _function, _of_float, _of_integer in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", "sdiv"),
    (operator.and_, "and_", "and_"),
    (operator.or_, "or_", "or_"),
):
    _combines(_function, _of_float, _of_integer)


@type_callable(operator.invert)
def _type_invert(context: Any) -> Any:
    def resolve(mask: Any) -> Any:
        return mask if isinstance(mask, VectorType) else None

    return resolve


@lower_builtin(operator.invert, VectorType)
def _lower_invert(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.not_(args[0])


@intrinsic
def width(typing: Any, vector: Any) -> Any:
    """Number of lanes, a constant."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, vector.count)

    return types.intp(vector), codegen
