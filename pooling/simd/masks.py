"""Some lanes of a vector in and out of memory, in one instruction, of which nothing else is touched."""

from __future__ import annotations

from typing import Any

from pooling.compiler import cgutils, ir
from pooling.simd.vectors import INT, address, broadcast, itemsize, vector_bytes


def has_masks() -> bool:
    """Whether this CPU does that with elements of any size, and as fast as with whole vectors: with AVX-512.

    AVX2 has masks for four and eight bytes: rows read so in forward (`rows.py`) took 1.1 to 1.4 times as long as copied ones.
    """
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
