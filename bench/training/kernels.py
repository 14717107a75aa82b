"""What NumPy has no fast function for, compiled by Numba: convolution, gradients that are mostly zeros, the optimizer's step.

A kernel works on flat arrays, in explicit vectors, and without the GIL. Sums are kept in registers until they are whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

from bench.training.tiles import add_outer, empty_tile, load_row, load_tile, multiply_add, store_tile
from pooling.runtime.jit import Kernel
from pooling.simd.vector.ops import load, select, splat, store, width

P = ParamSpec("P")

SOURCES = zlib.crc32(b"".join(Path(__file__).with_name(name).read_bytes() for name in ("kernels.py", "tiles.py")))
"""A part of each kernel's name in the cache, which knows the library's files only: an edit leads to another name."""

GROUP = 4
"""Vectors that :func:`combine` sums at a time, in registers: as many as a multiplication takes cycles."""


def compiled(function: Callable[P, None]) -> Kernel[P, None]:
    """Decorate a function as a kernel that is cached on disk."""
    return Kernel(function, SOURCES=SOURCES)


ROWS, VECTORS, REST = 1, 1, 0
"""Of a tile, and rows of a last one that has fewer; bound when a kernel is made for so many filters."""


@compiled
def convolve(x: Any, n: int, g: Any, filters: int, parts: int, w: Any, b: Any, y: Any) -> None:
    """``y[pixel] = b + sum over the patch of x * w``, for ROWS pixels and a part of the filters at a time.

    Parameters
    ----------
    g
        (height, width, channels, kernel size); a row of y has at least ROWS pixels.
    parts
        In how many parts to cut the filters; each fills VECTORS vectors.
    w
        (elements of a patch, filters), flat.
    """
    height, columns, channels, k = g
    rows_out, columns_out = height - k + 1, columns - k + 1
    run = k * channels  # elements of a patch that lie side by side in the image
    for p in range(parts):
        low, high = filters * p // parts, filters * (p + 1) // parts
        for i in range(n * rows_out):
            first = (i // rows_out * height + i % rows_out) * columns
            for begin in range(0, columns_out, ROWS):
                c = min(begin, columns_out - ROWS)  # the last tile may overlap the one before
                tile = load_row(empty_tile(w, ROWS, VECTORS), b, low, high - low)
                for j in range(k):
                    source = (first + j * columns + c) * channels
                    for t in range(run):
                        tile = add_outer(tile, x, source + t, channels, w, (j * run + t) * filters + low, high - low)
                store_tile(tile, y, (i * columns_out + c) * filters + low, filters, high - low)


@compiled
def add_patches(
    tile: Any, x: Any, at: int, g: Any, filters: int, dy: Any, begin: int, dw: Any, start: int, width: int
) -> None:
    """Add one image's ``sum over pixels of patch * dy`` to as many rows of `dw` as `tile` has, from the patch's `at` on."""
    height, columns, channels, k = g
    tile = load_tile(tile, dw, start, filters, width)
    for r in range(height - k + 1):
        for c in range(columns - k + 1):
            pixel = begin + (r * (columns - k + 1) + c) * filters
            tile = add_outer(tile, x, at + (r * columns + c) * channels, 1, dy, pixel, width)
    store_tile(tile, dw, start, filters, width)


@compiled
def convolve_backward(x: Any, n: int, g: Any, filters: int, parts: int, dy: Any, dw: Any, db: Any, one: Any) -> None:
    """Gradient with respect to the weights: ``sum over pixels of patch * dy``, for ROWS elements of the patch at a time.

    A bias is a weight whose input is always 1: `one`, an array of it.
    """
    height, columns, channels, k = g
    pixels, run = (height - k + 1) * (columns - k + 1), k * channels
    for i in range(k * run * filters):
        dw[i] = 0
    for f in range(filters):
        db[f] = 0
    whole = run - REST
    for i in range(n):
        begin = i * pixels * filters
        for p in range(parts):
            low, high = filters * p // parts, filters * (p + 1) // parts
            for j in range(k):
                source, row = (i * height + j) * columns * channels, j * run
                for t in range(0, whole, ROWS):
                    tile = empty_tile(dw, ROWS, VECTORS)
                    start = (row + t) * filters + low
                    add_patches(tile, x, source + t, g, filters, dy, begin + low, dw, start, high - low)
                if REST:
                    rest = empty_tile(dw, REST, VECTORS)
                    start = (row + whole) * filters + low
                    add_patches(rest, x, source + whole, g, filters, dy, begin + low, dw, start, high - low)
        for p in range(parts):
            low, high = filters * p // parts, filters * (p + 1) // parts
            total = load_tile(empty_tile(db, 1, VECTORS), db, low, filters, high - low)
            for q in range(pixels):
                total = add_outer(total, one, 0, 0, dy, begin + q * filters + low, high - low)
            store_tile(total, db, low, filters, high - low)


@compiled
def scatter(back: Any, first: int, count: int, g: Any, dx: Any) -> None:
    """Add the gradients with respect to patches to the pixels they came from: im2col reversed."""
    height, columns, channels, k = g
    pixels = height * columns * channels
    run = k * channels
    lanes = width(load(back, 0))
    at = 0
    for n in range(first, first + count):
        for i in range(pixels):
            dx[n * pixels + i] = 0
        for r in range(height - k + 1):
            for c in range(columns - k + 1):
                for i in range(k):
                    target = n * pixels + ((r + i) * columns + c) * channels
                    whole = run - run % lanes
                    for v in range(0, whole, lanes):
                        store(dx, target + v, load(dx, target + v) + load(back, at + v))
                    for v in range(whole, run):
                        dx[target + v] += back[at + v]
                    at += run


@compiled
def combine(m: int, places: Any, factors: Any, source: Any, taken: Any, target: Any, start: int, put: Any) -> None:
    """Add `m` rows, each times a factor, to a row; a row's vectors lie where `taken` and `put` say.

    ``target[start + put] += sum over q of factors[q] * source[places[q] + taken]``
    """
    for v in range(0, len(put), GROUP):
        from_0, from_1, from_2, from_3 = taken[v], taken[v + 1], taken[v + 2], taken[v + 3]
        to_0, to_1, to_2, to_3 = start + put[v], start + put[v + 1], start + put[v + 2], start + put[v + 3]
        sum_0, sum_1, sum_2, sum_3 = load(target, to_0), load(target, to_1), load(target, to_2), load(target, to_3)
        for q in range(m):
            place, factor = places[q], splat(factors[q], sum_0)
            sum_0 = multiply_add(factor, load(source, place + from_0), sum_0)
            sum_1 = multiply_add(factor, load(source, place + from_1), sum_1)
            sum_2 = multiply_add(factor, load(source, place + from_2), sum_2)
            sum_3 = multiply_add(factor, load(source, place + from_3), sum_3)
        store(target, to_0, sum_0)
        store(target, to_1, sum_1)
        store(target, to_2, sum_2)
        store(target, to_3, sum_3)


@compiled
def sparse_backward(
    dy: Any,
    x: Any,
    n: int,
    g: Any,
    filters: int,
    pitch: int,
    w: Any,
    dw: Any,
    db: Any,
    dx: Any,
    in_image: Any,
    in_weights: Any,
    image: Any,
    places: Any,
    factors: Any,
) -> None:
    """Both gradients of a convolution, without multiplying by the zeros in `dy`.

    Parameters
    ----------
    g
        (height, width, channels, kernel size).
    w, dw
        A row of `pitch` elements for each filter; see `in_weights`.
    dx
        None where nobody needs it.
    in_image, in_weights
        Where the vectors of a patch lie in an image, from its first pixel on, and in a row of `w`.
    image, places, factors
        Buffers: for an image with as much room again behind it, and for as many numbers as there are pixels or filters.
    """
    height, columns, channels, k = g
    pixels = height * columns * channels
    rows_out, columns_out = height - k + 1, columns - k + 1
    for i in range(n):
        at = i * rows_out * columns_out * filters
        for j in range(pixels):
            image[j] = x[i * pixels + j]
        for f in range(filters):
            m = 0
            total = db[f]
            for r in range(rows_out):
                for c in range(columns_out):
                    value = dy[at + (r * columns_out + c) * filters + f]
                    # Written always, kept by counting it: a branch would be mispredicted every other time.
                    places[m] = (r * columns + c) * channels
                    factors[m] = value
                    total += value
                    m += value != 0
            db[f] = total
            combine(m, places, factors, image, in_image, dw, f * pitch, in_weights)
        if dx is not None:
            for j in range(pixels):
                image[j] = 0
            for r in range(rows_out):
                for c in range(columns_out):
                    m = 0
                    for f in range(filters):
                        value = dy[at + (r * columns_out + c) * filters + f]
                        places[m] = f * pitch
                        factors[m] = value
                        m += value != 0
                    combine(m, places, factors, w, in_weights, image, (r * columns + c) * channels, in_image)
            for j in range(pixels):
                dx[i * pixels + j] = image[j]


@compiled
def count_nonzero(dy: Any, counted: Any) -> None:
    """How many elements are not 0, to ``counted[0]``."""
    m = 0
    for i in range(len(dy)):
        m += dy[i] != 0
    counted[0] = m


@compiled
def pass_where_positive(dy: Any, y: Any, dx: Any) -> None:
    """`dy` where `y` is positive, else 0."""
    lanes = width(load(dy, 0))
    whole = len(dy) - len(dy) % lanes
    zero = splat(0, load(dy, 0))
    for i in range(0, whole, lanes):
        store(dx, i, select(load(y, i) > zero, load(dy, i), zero))
    for i in range(whole, len(dy)):
        dx[i] = dy[i] if y[i] > 0 else 0


@compiled
def descend(
    w: Any, v: Any, gradients: Any, rows: int, start: int, stop: int, rate: float, momentum: float, decay: float
) -> None:
    """Gradient descent with momentum on elements `start` to `stop`: `rows` rows of gradients are added up first, in order.

    ``v = momentum * v - rate * (gradient + decay * w); w += v``. What is beside the range but within its last vector is
    updated too: begin and end at multiples of a vector, or where nobody minds.
    """
    n = len(w)
    lanes = width(load(w, 0))
    step, kept, decayed = splat(-rate, load(w, 0)), splat(momentum, load(w, 0)), splat(decay, load(w, 0))
    for i in range(start, stop, lanes):
        total = load(gradients, i)
        for s in range(1, rows):
            total = total + load(gradients, s * n + i)
        before = load(w, i)
        velocity = kept * load(v, i) + step * (total + decayed * before)
        store(v, i, velocity)
        store(w, i, before + velocity)
