"""Tiles: small matrices that stay in vector registers while products are added to them.

The heart of every fast matrix product is the same: rows times vectors of sums in registers, to which one outer product after the
other is added. Here a convolution's kernels have it to themselves, and need no patches: where a patch would lie in memory,
they read the image.

A row of a tile has `width` elements, in vectors of :func:`lanes`. Where these don't divide it the last vector overlaps the
one before: some sums are made twice, and nothing beside the row is touched.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.extending import intrinsic, register_model
from numba.np import numpy_support

from pooling.simd.vector.ops import address, broadcast, vector_bytes

WIDEST = 32
"""Bytes of a vector. Twice as wide is no faster where rows are short: 20 floats are 3 of these, or 2 of those."""


def lanes(dtype: Any) -> int:
    """Elements of a vector."""
    return int(min(vector_bytes(), WIDEST) // numpy_support.as_dtype(numpy_support.from_dtype(dtype)).itemsize)


def parts_for(width: int, dtype: Any) -> tuple[int, int]:
    """In how many parts to cut rows of `width`, so that a part and factors fit in registers; and the vectors of a part."""
    step = lanes(dtype)
    parts = math.ceil(width / (MOST_VECTORS * step))
    return parts, math.ceil(math.ceil(width / parts) / step)


def rows_for(n: int, vectors: int, most: int) -> tuple[int, int]:
    """Rows of a tile `vectors` wide, of at most `most` vectors; and how many the last tile over `n` rows has, if fewer.

    Examples
    --------
    >>> rows_for(24, 3, 14), rows_for(7, 3, 16)
    ((4, 0), (4, 3))
    """
    tiles = math.ceil(n / max(1, most // vectors))
    rows = math.ceil(n / tiles)
    return rows, n % rows


MOST_VECTORS = 7
"""Of a row of a tile. Wider tiles have fewer rows, and load more for each product."""


class TileType(types.Type):
    """The Numba type of a tile."""

    def __init__(self, element: types.Type, rows: int, vectors: int) -> None:
        self.element, self.rows, self.vectors = element, rows, vectors
        self.lanes = lanes(numpy_support.as_dtype(element))
        super().__init__(f"tile({element}, {rows}, {vectors})")


@register_model(TileType)
class TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: TileType) -> None:
        vector = ir.VectorType(manager.lookup(fe_type.element).get_data_type(), fe_type.lanes)
        super().__init__(manager, fe_type, ir.ArrayType(vector, fe_type.rows * fe_type.vectors))


def places(builder: Any, tile: TileType, start: Any, width: Any) -> list[Any]:
    """Where the vectors of a row begin that begins at `start`."""
    found = [builder.add(start, ir.Constant(start.type, v * tile.lanes)) for v in range(tile.vectors - 1)]
    return [*found, builder.add(start, builder.sub(width, ir.Constant(width.type, tile.lanes)))]


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once: what a processor does in the time of either."""
    kind = a.type
    name = f"llvm.fma.v{kind.count}f{64 if isinstance(kind.element, ir.DoubleType) else 32}"
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


@intrinsic
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of vectors of pooling/simd, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return fused(builder, *args)

    return a(a, b, c), codegen


@intrinsic
def empty_tile(typing: Any, array: Any, rows: Any, vectors: Any) -> Any:
    """A tile of zeros, of the array's dtype; `rows` and `vectors` are constants."""
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(vectors, types.IntegerLiteral):
        return None
    tile = TileType(array.dtype, rows.literal_value, vectors.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.data_model_manager[tile].get_value_type(), None)

    return tile(array, rows, vectors), codegen


@intrinsic
def add_outer(typing: Any, tile: Any, a: Any, at: Any, step: Any, b: Any, start: Any, width: Any) -> Any:
    """The tile with ``a[at + r * step] * b[start : start + width]`` added to each row r, each product rounded with its sum."""

    if a.dtype != tile.element or b.dtype != tile.element:
        return None  # the kernel does not compile, where it would read past the end

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, a_, at_, step_, b_, start_, width_ = args
        scalar = context.data_model_manager[tile.element].get_data_type()
        vector = ir.VectorType(scalar, tile.lanes)
        size = tile.element.bitwidth // 8
        row = [
            builder.load(address(context, builder, b, b_, place, vector), align=size)
            for place in places(builder, tile, start_, width_)
        ]
        for r in range(tile.rows):
            index = builder.add(at_, builder.mul(step_, ir.Constant(step_.type, r)))
            factor = broadcast(builder, builder.load(address(context, builder, a, a_, index, scalar)), tile.lanes)
            for v in range(tile.vectors):
                i = r * tile.vectors + v
                total = fused(builder, factor, row[v], builder.extract_value(sums, i))
                sums = builder.insert_value(sums, total, i)
        return sums

    return tile(tile, a, types.intp, types.intp, b, types.intp, types.intp), codegen


@intrinsic
def load_row(typing: Any, tile: Any, array: Any, start: Any, width: Any) -> Any:
    """The tile with ``array[start : start + width]`` in each row."""

    if array.dtype != tile.element:
        return None  # the kernel does not compile, where it would read past the end

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, array_, start_, width_ = args
        vector = ir.VectorType(context.data_model_manager[tile.element].get_data_type(), tile.lanes)
        for v, place in enumerate(places(builder, tile, start_, width_)):
            value = builder.load(
                address(context, builder, array, array_, place, vector), align=tile.element.bitwidth // 8
            )
            for r in range(tile.rows):
                sums = builder.insert_value(sums, value, r * tile.vectors + v)
        return sums

    return tile(tile, array, types.intp, types.intp), codegen


@intrinsic
def load_tile(typing: Any, tile: Any, array: Any, start: Any, step: Any, width: Any) -> Any:
    """The tile whose row r is ``array[start + r * step :][:width]``."""

    if array.dtype != tile.element:
        return None  # the kernel does not compile, where it would read past the end

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, array_, start_, step_, width_ = args
        vector = ir.VectorType(context.data_model_manager[tile.element].get_data_type(), tile.lanes)
        for r in range(tile.rows):
            row = builder.add(start_, builder.mul(step_, ir.Constant(step_.type, r)))
            for v, place in enumerate(places(builder, tile, row, width_)):
                pointer = address(context, builder, array, array_, place, vector)
                value = builder.load(pointer, align=tile.element.bitwidth // 8)
                sums = builder.insert_value(sums, value, r * tile.vectors + v)
        return sums

    return tile(tile, array, types.intp, types.intp, types.intp), codegen


@intrinsic
def store_tile(typing: Any, tile: Any, array: Any, start: Any, step: Any, width: Any) -> Any:
    """Write row r of the tile to ``array[start + r * step :][:width]``."""

    if array.dtype != tile.element:
        return None  # the kernel does not compile, where it would read past the end

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, array_, start_, step_, width_ = args
        vector = ir.VectorType(context.data_model_manager[tile.element].get_data_type(), tile.lanes)
        for r in range(tile.rows):
            row = builder.add(start_, builder.mul(step_, ir.Constant(step_.type, r)))
            for v, place in enumerate(places(builder, tile, row, width_)):
                pointer = address(context, builder, array, array_, place, vector)
                builder.store(
                    builder.extract_value(sums, r * tile.vectors + v), pointer, align=tile.element.bitwidth // 8
                )
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp, types.intp), codegen
