"""Horizontal operations: sums and maxima across the lanes of a vector, and masks as bits.

For use after the loops only: each halving costs a shuffle.
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.numba_api import intrinsic, ir, types
from pooling.simd.vector.ops import VectorType, broadcast


@intrinsic
def bits(typing: Any, mask: Any) -> Any:
    """A mask as an integer, lane 0 its lowest bit."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.count)), ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def lowest_bit(typing: Any, integer: Any) -> Any:
    """Which bit is the lowest that is set; one must be."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), codegen


@intrinsic
def highest_bit(typing: Any, integer: Any) -> Any:
    """Which bit is the highest that is set; one must be."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sub(ir.IntType(64)(63), builder.ctlz(args[0], ir.IntType(1)(1)))

    return types.int64(types.int64), codegen


@intrinsic
def from_lane(typing: Any, lane: Any, vector: Any) -> Any:
    """A mask like `vector`: true in `lane` and after it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        index = ir.IntType(32)
        numbers = ir.Constant(ir.VectorType(index, vector.count), list(range(vector.count)))
        return builder.icmp_signed(">=", numbers, broadcast(builder, builder.trunc(args[0], index), vector.count))

    return vector.mask()(types.intp, vector), codegen


@intrinsic
def sum_across(typing: Any, vector: Any) -> Any:
    """The sum of all lanes."""

    def add(builder: Any, a: Any, b: Any) -> Any:
        return builder.fadd(a, b) if isinstance(vector.element, types.Float) else builder.add(a, b)

    return vector.element(vector), _across(vector, add)


@intrinsic
def max_across(typing: Any, vector: Any) -> Any:
    """The greatest of all lanes; any of them if one is NaN."""

    def greater(builder: Any, a: Any, b: Any) -> Any:
        if isinstance(vector.element, types.Float):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)
        compare = builder.icmp_signed if vector.element.signed else builder.icmp_unsigned
        return builder.select(compare(">", a, b), a, b)

    return vector.element(vector), _across(vector, greater)


def _across(vector: VectorType, combine: Any) -> Any:
    """By halves: the upper lanes with the lower ones, until one is left."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, half = args[0], vector.count // 2
        while half:
            moved = [min(i + half, vector.count - 1) for i in range(vector.count)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), moved)
            value = combine(builder, value, builder.shuffle_vector(value, value, mask))
            half //= 2
        return builder.extract_element(value, ir.IntType(32)(0))

    return codegen
