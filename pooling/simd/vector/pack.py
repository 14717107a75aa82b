"""Several short rows in one vector, or one row in several: loads, stores and shuffles fixed at compile time.

A vector has room for more results than a short row has, so it holds those of several rows, one after the other.
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.numba_api import intrinsic, ir, types
from pooling.simd.vector.interleave import constants, gathered
from pooling.simd.vector.mask import first_lanes, has_masks, load_masked, store_masked
from pooling.simd.vector.ops import INT, VectorType, lanes_in, llvm_type, read, storage, write


@intrinsic(prefer_literal=True)
def load_first(typing: Any, array: Any, index: Any, vector: Any, count: Any) -> Any:
    """A vector like `vector` of which `count` elements, a constant, are ``array[index:]``; no others are read."""
    values = constants(count)
    if values is None:
        return None
    lanes, some = vector.count, values[0]
    result = VectorType(storage(array), lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = llvm_type(context, result).element
        if masked(some):
            kind = llvm_type(context, result)
            return load_masked(
                context, builder, array, args[0], args[1], first_lanes(lanes, some), ir.Constant(kind, None)
            )
        parts = []
        for start, n in pieces(some):
            at = builder.add(args[1], ir.Constant(args[1].type, start))
            part = read(context, builder, array, args[0], at, ir.VectorType(element, n))
            parts.append(({start + i: i for i in range(n)}, resized(builder, part, 0, lanes)))
        return gathered(builder, parts, [*range(some)] + [None] * (lanes - some))

    return result(array, types.intp, vector, count), codegen


@intrinsic(prefer_literal=True)
def store_first(typing: Any, array: Any, index: Any, vector: Any, count: Any) -> Any:
    """Write the first `count` elements of `vector`, a constant, and no more."""
    values = constants(count)
    if values is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        put(context, builder, array, args[0], args[1], args[2], values[0])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, count), codegen


@intrinsic(prefer_literal=True)
def copy_row(typing: Any, source: Any, s: Any, target: Any, t: Any, count: Any) -> Any:
    """Copy `count` elements, a constant, from ``source[s:]`` to ``target[t:]``, and no more."""
    values = constants(count)
    if values is None:
        return None
    n, lanes = values[0], lanes_in(target)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(storage(source))
        some = [(min(i, n - lanes), lanes) for i in range(0, n, lanes)] if n >= lanes else pieces(n)
        for start, length in some:
            first, second = (builder.add(args[i], ir.Constant(args[i].type, start)) for i in (1, 3))
            part = read(context, builder, source, args[0], first, ir.VectorType(element, length))
            write(context, builder, target, args[2], second, part)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, count), codegen


def read_at(n: int, n_rows: int, n_results: int, line: int, step: int, width: int) -> tuple[int, list[int]]:
    """How many elements to read at a time, and from where on, for all cells of the windows of some rows."""
    cells = (n_results - 1) * step + width
    end = (n_rows - 1) * line + cells
    some = min(n, 1 << (end.bit_length() - 1))
    starts: list[int] = []
    for row in range(0, n_rows * line, line):
        if not any(start <= row and row + cells <= start + some for start in starts):
            starts += [min(first, end - some) for first in range(row, row + cells, some)]
    return some, starts


@intrinsic(prefer_literal=True)
def load_rows(
    typing: Any, array: Any, index: Any, count: Any, rows: Any, results: Any, apart: Any, stride: Any, taps: Any
) -> Any:
    """The cells of `rows` of `results` windows of `taps` cells each, as they lie, in a tuple of vectors of `count` elements.

    Window o of row r begins at ``array[index + r * apart + o * stride]``. All but the index are constants. Nothing after the
    last cell is read.
    """
    values = constants(count, rows, results, apart, stride, taps)
    if values is None:
        return None
    n = values[0]
    vector = VectorType(storage(array), n)
    some, starts = read_at(*values)
    result = types.UniTuple(vector, len(starts))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(llvm_type(context, vector).element, some)
        places = [builder.add(args[1], ir.Constant(args[1].type, start)) for start in starts]
        found = [resized(builder, read(context, builder, array, args[0], at, kind), 0, n) for at in places]
        return context.make_tuple(builder, result, found)

    return result(array, types.intp, count, rows, results, apart, stride, taps), codegen


@intrinsic(prefer_literal=True)
def under_taps(typing: Any, loaded: Any, rows: Any, results: Any, apart: Any, stride: Any, taps: Any) -> Any:
    """What the windows have under each of their `taps`, in a tuple of vectors, from what :func:`load_rows` gave of the same rows.

    Lane ``r * results + o`` of vector k is cell k of window o of row r.
    """
    values = constants(rows, results, apart, stride, taps)
    if values is None:
        return None
    n_rows, n_results, line, step, width = values
    vector = loaded.dtype
    result = types.UniTuple(vector, width)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        n = vector.count
        some, starts = read_at(n, *values)
        parts: list[tuple[dict[int, int], Any]] = [
            ({start + lane: lane for lane in range(some)}, builder.extract_value(args[0], i))
            for i, start in enumerate(starts)
        ]
        wanted = [[r * line + o * step + k for r in range(n_rows) for o in range(n_results)] for k in range(width)]
        if width > 1:
            parts = merged(builder, parts, n, sorted({cell for some in wanted for cell in some}))
        rest = [None] * (n - n_rows * n_results)
        return context.make_tuple(builder, result, [gathered(builder, parts, [*some, *rest]) for some in wanted])

    return result(loaded, rows, results, apart, stride, taps), codegen


@intrinsic(prefer_literal=True)
def store_rows(
    typing: Any, array: Any, index: Any, vectors: Any, rows: Any, pitch: Any, strides: Any, apart: Any, line: Any
) -> Any:
    """Write `rows` rows of `line` elements, `apart` from each other, to ``array[index:]``.

    Element ``m * len(vectors) + c`` of row r is lane ``r * pitch + m`` of vector c, or zero where m is not one of so many
    `strides`.
    """
    values = constants(rows, pitch, strides, apart, line)
    if values is None:
        return None
    n_rows, by, n_strides, far, length = values
    vector, step = vectors.dtype, vectors.count
    n = vector.count

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sources = [({(c, lane): lane for lane in range(n)}, builder.extract_value(args[2], c)) for c in range(step)]
        zero = ir.Constant(llvm_type(context, vector), None)

        def source(row: int, cell: int) -> Any:
            stride, c = divmod(cell, step)
            return (c, row * by + stride) if stride < n_strides and row < n_rows else None

        def made(wanted: list[Any]) -> Any:
            if not any(wanted):
                return zero
            out = gathered(builder, sources, wanted)
            if all(wanted):
                return out
            mask = ir.Constant(ir.VectorType(ir.IntType(1), n), [bool(one) for one in wanted])
            return builder.select(mask, out, zero)

        def at(row: int, cell: int) -> Any:
            return builder.add(args[1], ir.Constant(args[1].type, row * far + cell))

        if length > n:
            for row in range(n_rows):
                for first in range(0, length, n):
                    start = min(first, length - n)
                    out = made([source(row, start + i) for i in range(n)])
                    put(context, builder, array, args[0], at(row, start), out, n)
            return context.get_dummy_value()
        # Each row begins where a part of the vector does that can be stored by itself.
        slot = 1 << (length - 1).bit_length()
        for first in range(0, n_rows, n // slot):
            some = range(first, min(first + n // slot, n_rows))
            wanted = [source(first + i // slot, i % slot) if i % slot < length else None for i in range(n)]
            out = made(wanted)
            for row in some:
                part = resized(builder, out, (row - first) * slot, slot)
                put(context, builder, array, args[0], at(row, 0), part, length)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors, rows, pitch, strides, apart, line), codegen


def put(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any, count: int) -> None:
    """Write the first `count` elements of an LLVM vector, and no more."""
    if masked(count):
        store_masked(context, builder, array_type, array, index, vector, first_lanes(vector.type.count, count))
        return
    for start, n in pieces(count):
        at = builder.add(index, ir.Constant(index.type, start))
        write(context, builder, array_type, array, at, resized(builder, vector, start, n))


def pieces(count: int) -> list[tuple[int, int]]:
    """As (start, length) what covers `count` elements: a vector of a power of two, and if need be another that overlaps it."""
    n = 1 << (count.bit_length() - 1)
    return [(0, n)] if n == count else [(0, n), (count - n, n)]


def resized(builder: Any, vector: Any, start: int, count: int) -> Any:
    """`count` lanes of `vector` from `start` on; what it has not is left open."""
    have = vector.type.count
    if start == 0 and count == have:
        return vector
    lanes = [INT((start + i) % have) for i in range(count)]
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT, count), lanes))


def merged(builder: Any, parts: list[tuple[dict[int, int], Any]], n: int, wanted: list[int]) -> list[Any]:
    """Fewer vectors with all that is wanted: of two that hold little of it one is made, once for all taps."""
    left = set(wanted)
    found: list[tuple[dict[int, int], Any]] = []
    for held, part in parts:
        here = {cell: held[cell] for cell in wanted if cell in held and cell in left}
        left -= set(here)
        if found and len(found[-1][0]) + len(here) <= n:
            before, other = found.pop()
            cells = [*before, *here]
            both = gathered(builder, [(before, other), (here, part)], [*cells, *[None] * (n - len(cells))])
            found.append(({cell: i for i, cell in enumerate(cells)}, both))
        else:
            found.append((here, part))
    return found


def masked(n: int) -> bool:
    """Whether some of `n` lanes are read or written in one instruction; else in two that overlap.

    Backward of 2x2 windows in 11x11 to 28x28 planes took 0.8 of the time.
    """
    return has_masks() and n & (n - 1) != 0
