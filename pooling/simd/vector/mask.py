"""Masked loads and stores: some lanes of a vector, in one instruction; the other elements in memory are not accessed."""

from __future__ import annotations

from typing import Any

from pooling.runtime.numba_api import cgutils, ir
from pooling.simd.vector.ops import INT, address, broadcast, itemsize, vector_bytes


def has_masks() -> bool:
    """Whether masked access works for every element size at full speed: AVX-512. AVX2's lost (docs/experiments.md, masks)."""
    return vector_bytes() == 64


def load_masked(context: Any, builder: Any, array_type: Any, array: Any, index: Any, mask: Any, otherwise: Any) -> Any:
    """The lanes of `mask` from ``array[index:]``, the others from the vector `otherwise`."""
    kind = otherwise.type
    at = address(context, builder, array_type, array, index, kind)
    function = vector_function(builder, "load", kind, ir.FunctionType(kind, [at.type, INT, mask.type, kind]))
    return builder.call(function, [at, INT(itemsize(array_type.dtype)), mask, otherwise])


def store_masked(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any, mask: Any) -> None:
    """Write the lanes of `mask` to ``array[index:]``."""
    kind = vector.type
    at = address(context, builder, array_type, array, index, kind)
    function = vector_function(builder, "store", kind, ir.FunctionType(ir.VoidType(), [kind, at.type, INT, mask.type]))
    builder.call(function, [vector, at, INT(itemsize(array_type.dtype)), mask])


def first_lanes(n: int, count: int) -> Any:
    """Of `n` lanes the first `count`."""
    return ir.Constant(ir.VectorType(ir.IntType(1), n), [i < count for i in range(n)])


def lanes_below(builder: Any, n: int, place: Any, size: Any) -> Any:
    """Of `n` lanes, the first of which is at an integer `place` that may be negative, those at one from 0 to `size` - 1."""
    counting = ir.Constant(ir.VectorType(INT, n), [INT(i) for i in range(n)])
    first, end = (broadcast(builder, builder.trunc(number, INT), n) for number in (place, size))
    return builder.icmp_unsigned("<", builder.add(first, counting), end)  # negative ones are larger than any


def vector_function(builder: Any, what: str, kind: Any, function: Any) -> Any:
    """LLVM's own function for a part of a vector."""
    name = f"llvm.masked.{what}.v{kind.count}{kind.element.intrinsic_name}.p0"
    return cgutils.get_or_insert_function(builder.module, function, name)
