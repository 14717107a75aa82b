"""Strided loads and interleaved stores: elements a fixed step apart in memory, for windows with a stride along the row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pooling.geometry.argmax_rules import lowest
from pooling.runtime.numba_api import intrinsic, ir, numpy_support, types
from pooling.simd.vector.mask import lanes_below, load_masked
from pooling.simd.vector.ops import INT, VectorType, address, broadcast, itemsize, llvm_type, mark_nontemporal, storage


def constants(*arguments: Any) -> list[int] | None:
    """The values of arguments that must be known when a kernel is compiled; None when one isn't."""
    if all(isinstance(argument, types.IntegerLiteral) for argument in arguments):
        return [argument.literal_value for argument in arguments]
    return None


@intrinsic(prefer_literal=True)
def load_n(typing: Any, array: Any, index: Any, count: Any) -> Any:
    """The vector of the `count`, a constant, elements from ``array[index]`` on."""
    values = constants(count)
    if values is None:
        return None
    vector = VectorType(storage(array), values[0])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = address(context, builder, array, args[0], args[1], llvm_type(context, vector))
        return builder.load(pointer, align=itemsize(vector.element))

    return vector(array, types.intp, count), codegen


@intrinsic(prefer_literal=True)
def load_within(typing: Any, array: Any, index: Any, vector: Any, place: Any, size: Any) -> Any:
    """A vector from ``array[index:]`` with as many lanes as `vector`, 0 where they lie outside of a row.

    ``array[index]`` has the `place`, perhaps a negative one, in a row of `size`; nothing outside of that is read.
    """
    result = VectorType(storage(array), vector.count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = lanes_below(builder, result.count, args[3], args[4])
        zero = ir.Constant(llvm_type(context, result), None)
        return load_masked(context, builder, array, args[0], args[1], mask, zero)

    return result(array, types.intp, vector, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def edges(typing: Any, array: Any, count: Any, greatest: Any) -> Any:
    """A vector of what never wins: the lowest value there is where the `greatest` of several is wanted, else 0."""
    values = constants(count, greatest)
    if values is None:
        return None
    vector = VectorType(storage(array), values[0])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        edge = lowest(numpy_support.as_dtype(vector.element)) if values[1] else 0
        return broadcast(builder, context.get_constant(vector.element, edge), vector.count)

    return vector(array, count, greatest), codegen


@intrinsic(prefer_literal=True)
def load_taps(typing: Any, array: Any, index: Any, count: Any, stride: Any, taps: Any, dilation: Any) -> Any:
    """What `count` windows side by side have under each tap of a row: `taps` vectors, in a tuple.

    Vector k is ``array[index + k * dilation :: stride]``. All but the index are constants. Neighbouring taps share what they
    load, deinterleaved; nothing after the last element is read.
    """
    values = constants(count, stride, taps, dilation)
    if values is None:
        return None
    vector = VectorType(storage(array), values[0])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = llvm_type(context, vector)

        def part(start: int) -> Any:
            at = builder.add(args[1], ir.Constant(args[1].type, start))
            return builder.load(address(context, builder, array, args[0], at, kind), align=itemsize(vector.element))

        return context.make_tuple(builder, signature.return_type, taps_of(builder, part, *values))

    return types.UniTuple(vector, values[2])(array, types.intp, count, stride, taps, dilation), codegen


@intrinsic(prefer_literal=True)
def load_taps_within(
    typing: Any, array: Any, index: Any, count: Any, stride: Any, taps: Any, dilation: Any, place: Any, size: Any, edge: Any
) -> Any:  # fmt: skip
    """The same, and as in the vector `edge` what lies outside of a row, which is not read.

    ``array[index]`` has the `place`, perhaps a negative one, in the row of `size`.
    """
    values = constants(count, stride, taps, dilation)
    if values is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def part(start: int) -> Any:
            at, first = (builder.add(args[i], ir.Constant(args[i].type, start)) for i in (1, 6))
            mask = lanes_below(builder, values[0], first, args[7])
            return load_masked(context, builder, array, args[0], at, mask, args[8])

        return context.make_tuple(builder, signature.return_type, taps_of(builder, part, *values))

    found = types.UniTuple(edge, values[2])
    return found(array, types.intp, count, stride, taps, dilation, types.intp, types.intp, edge), codegen


def taps_of(builder: Any, part: Callable[[int], Any], n: int, stride: int, taps: int, dilation: int) -> list[Any]:
    """What `n` windows have under each tap, where ``part(i)`` loads a vector from the i-th element on."""
    part = functools.cache(part)
    found = []
    for k in range(taps):
        first = k * dilation
        last = first + (n - 1) * stride
        if dilation == 1 and k - k % stride + stride <= taps:
            base = k - k % stride  # the taps of a whole stride take turns in the same vectors
            starts = [base + m * n for m in range(stride)]
        else:
            starts = [min(first + m * n, last + 1 - n) for m in range(stride)]
        parts = [({start + i: i for i in range(n)}, part(start)) for start in starts]
        found.append(gathered(builder, parts, [first + i * stride for i in range(n)]))
    return found


def gathered(builder: Any, parts: Sequence[tuple[Mapping[Any, int], Any]], wanted: Sequence[Any]) -> Any:
    """The vector of the elements `wanted`, from vectors of which it is known which elements are in which lane.

    None: any will do.
    """
    n = len(wanted)
    result: Any = None
    before: Mapping[Any, int] | None = None
    have = [False] * n
    for held, part in parts:
        here = [not have[i] and w is not None and w in held for i, w in enumerate(wanted)]
        if not any(here):
            continue
        if result is None:
            result, before, have = part, held, here
            continue
        # Lanes taken in the first vector are still where they lay; later on they are in their place.
        placed = [before[w] if before is not None and have[i] else i for i, w in enumerate(wanted)]
        lanes = [INT(n + held[w] if here[i] else placed[i]) for i, w in enumerate(wanted)]
        result = builder.shuffle_vector(result, part, ir.Constant(ir.VectorType(INT, n), lanes))
        have, before = [a or b for a, b in zip(have, here, strict=True)], None
    if before is not None:  # all in one vector
        lanes = [INT(i if w is None else before[w]) for i, w in enumerate(wanted)]
        result = builder.shuffle_vector(result, result, ir.Constant(ir.VectorType(INT, n), lanes))
    return result


@intrinsic
def replaced(typing: Any, vectors: Any, index: Any, vector: Any) -> Any:
    """The tuple `vectors` with another one at `index`, which need not be a constant before loops are unrolled."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result = context.get_constant_undef(vectors)
        for i in range(vectors.count):
            here = builder.icmp_signed("==", args[1], ir.Constant(args[1].type, i))
            result = builder.insert_value(result, builder.select(here, args[2], builder.extract_value(args[0], i)), i)
        return result

    return vectors(vectors, types.intp, vector), codegen


@intrinsic(prefer_literal=True)
def repeated(typing: Any, vector: Any, count: Any) -> Any:
    """A tuple of `vector` `count` times, a constant."""
    values = constants(count)
    if values is None:
        return None
    result = types.UniTuple(vector, values[0])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, result, [args[0]] * values[0])

    return result(vector, count), codegen


@intrinsic
def added(typing: Any, some: Any, more: Any) -> Any:
    """Two tuples of vectors of floats, added up one by one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = [[builder.extract_value(arg, i) for arg in args] for i in range(some.count)]
        return context.make_tuple(builder, some, [builder.fadd(a, b) for a, b in pairs])

    return some(some, more), codegen


@intrinsic
def picked(typing: Any, vectors: Any, index: Any) -> Any:
    """A vector of a tuple, by an index that need not be a constant before loops are unrolled."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result = builder.extract_value(args[0], 0)
        for i in range(1, vectors.count):
            here = builder.icmp_signed("==", args[1], ir.Constant(args[1].type, i))
            result = builder.select(here, builder.extract_value(args[0], i), result)
        return result

    return vectors.dtype(vectors, types.intp), codegen


@intrinsic(prefer_literal=True)
def store_interleaved(typing: Any, array: Any, index: Any, vectors: Any, stream: Any) -> Any:
    """Write to ``array[index:]`` the first elements of each of `vectors`, then the second ones, and so on.

    `stream`, a constant: bytes per streaming store, as in :func:`store_stream`; 0: ordinary stores.
    """
    values = constants(stream)
    if values is None:
        return None
    vector, step = vectors.dtype, vectors.count
    n = vector.count

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, size = llvm_type(context, vector), itemsize(vector.element)
        parts = [({(i, lane): lane for lane in range(n)}, builder.extract_value(args[2], i)) for i in range(step)]
        for m in range(step):
            wanted = [divmod(m * n + i, step)[::-1] for i in range(n)]
            out = gathered(builder, parts, wanted)
            at = builder.add(args[1], ir.Constant(args[1].type, m * n))
            if not values[0]:
                builder.store(out, address(context, builder, array, args[0], at, kind), align=size)
                continue
            some = min(values[0] // size, n)
            for start in range(0, n, some):
                lanes = ir.Constant(ir.VectorType(INT, some), [INT(start + i) for i in range(some)])
                part = builder.shuffle_vector(out, out, lanes)
                place = builder.add(at, ir.Constant(at.type, start))
                to = address(context, builder, array, args[0], place, part.type)
                mark_nontemporal(builder, builder.store(part, to, align=size * some))
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors, stream), codegen
