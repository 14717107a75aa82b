"""Small or disjoint windows: all taps of a window are loaded and combined at once, unrolled, and only the result is written.

Where windows overlap much, one pass per axis (`kernels/separable/`) needs fewer comparisons, but writes and reads values and
argmax indices between its passes; small windows are processed several rows at a time instead (`blocks.py`). Windows that are cut
by an edge, and those in which a NaN was seen, have kernels of their own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import SUM_BLOCK
from pooling.runtime.buffer_pool import ALIGNMENT
from pooling.runtime.jit import Kernel, inlined, kernel
from pooling.simd.kernels.direct.blocks import in_blocks, pool_block
from pooling.simd.memory.prefetch import interleaves_prefetch, prefetch_at
from pooling.simd.plan.box import D_FIRST, D_LOW, D_STOP, H_FIRST, H_LOW, H_N, H_STOP, W_FIRST, W_LOW, W_N, W_STOP
from pooling.simd.plan.geometry import (
    FACTOR,
    FIELDS,
    FULL,
    FULL_STOP,
    KERNEL,
    SCAN,
    STEP,
    STRIDE,
    TABLE,
    TAP_STEP,
    Program,
)
from pooling.simd.vector.ops import any_lane, beats, load, load_like, select, splat, store, store_or_stream, width

UNROLLED = 16
"""Taps up to which windows are unrolled; beyond, only the compile time grows."""

FAR = 512
"""Bytes of a pixel from which the pixels of a large window are far apart."""

MOST_ADDED = 3 * SUM_BLOCK
"""Cells of a window of which a mean is taken here: they are added one after the other, and each addition rounds."""

# Bound when a pass is made for one window; 0 stands for any.
K_D, K_H, K_W = 0, 0, 0
MAX = 1  # or 0: the mean
VECTOR = 0  # whether a pixel is one vector
PREFETCH = 0  # whether x is prefetched
STREAM = 0  # whether y is written with streaming stores
LAST = 0  # ties="last": windows are traversed backwards
FLOATS = 1  # whether there may be NaNs, which full windows only detect
INSIDE = 0  # whether all windows are full
ROWS = 0  # rows of full windows that are processed together (`blocks.py`), or 0


@kernel
def any_window(
    x: Any, cell: int, y: Any, q: int, won: Any, p: int, pixel: int, g: Any, d_by: int, h_by: int, w_by: int, n_d: int,
    n_h: int, n_w: int, tap: int, divisor: Any,
) -> None:  # fmt: skip
    """A window of n_d x n_h x n_w cells, from `cell` and `tap` on, with NaNs handled."""
    lanes = width(load(x, 0))
    d_tap, h_tap, w_tap = g[TAP_STEP], g[FIELDS + TAP_STEP], g[2 * FIELDS + TAP_STEP]
    for c0 in range(0, pixel, lanes):
        c = 0 if VECTOR else min(c0, pixel - lanes)
        best = load(x, cell + c)
        if not MAX:
            best = splat(0, best)
        if won is not None:
            winner = splat(tap, load_like(won, 0, best))
        for i in range(n_d):
            for j in range(n_h):
                for k in range(n_w):
                    value = load(x, cell + i * d_by + j * h_by + k * w_by + c)
                    if MAX:
                        greater = beats(value, best, LAST)
                        best = select(greater, value, best)
                        if won is not None:
                            winner = select(greater, splat(tap + i * d_tap + j * h_tap + k * w_tap, winner), winner)
                    else:
                        best = best + value
        if not MAX:
            best = best / splat(divisor, best)
        store(y, q + c, best)
        if won is not None:
            store(won, p + c, winner)


nan_safe_window: Any = any_window


@kernel
def edge_window(
    x: Any, cell: int, y: Any, q: int, won: Any, p: int, pixel: int, g: Any, d_by: int, h_by: int, w_by: int, n_d: int,
    n_h: int, n_w: int, tap: int, divisor: Any,
) -> None:  # fmt: skip
    """The maximum of a small window, unrolled as if nothing were missing: the last cell along an axis stands for what is.

    It comes after itself, and does not beat itself. In loops over what is there the edges of 14x14 planes took half the time.
    """
    lanes = width(load(x, 0))
    d_tap, h_tap, w_tap = g[TAP_STEP], g[FIELDS + TAP_STEP], g[2 * FIELDS + TAP_STEP]
    last_d, last_h, last_w = max(n_d - 1, 0), max(n_h - 1, 0), max(n_w - 1, 0)  # in padding alone there is none
    suspect = load(x, cell) != load(x, cell)
    for c0 in range(0, pixel, lanes):
        c = 0 if VECTOR else min(c0, pixel - lanes)
        best = load(x, cell + c)
        total = best
        if won is not None:
            winner = splat(tap, load_like(won, 0, best))
        for i in range(K_D):
            for j in range(K_H):
                for k in range(K_W):
                    if i + j + k > 0:
                        at = cell + min(i, last_d) * d_by + min(j, last_h) * h_by + min(k, last_w) * w_by + c
                        value = load(x, at)
                        greater = value > best
                        total = total + value
                        best = select(greater, value, best)
                        if won is not None:
                            winner = select(greater, splat(tap + i * d_tap + j * h_tap + k * w_tap, winner), winner)
        suspect = suspect | (total != total)
        store(y, q + c, best)
        if won is not None:
            store(won, p + c, winner)
    if FLOATS and any_lane(suspect):
        nan_safe_window(x, cell, y, q, won, p, pixel, g, d_by, h_by, w_by, n_d, n_h, n_w, tap, divisor)


edge: Any = any_window


@inlined
def full_window(
    x: Any, cell: int, y: Any, q: int, won: Any, p: int, d_by: int, h_by: int, w_by: int, k_d: int, k_h: int, k_w: int,
    divisor: Any,
) -> Any:  # fmt: skip
    """A vector of a window that lacks nothing; the sum of its cells."""
    first_tap = k_d * k_h * k_w - 1 if LAST else 0
    sign = -1 if LAST else 1
    best = load(x, cell)
    if PREFETCH:
        prefetch_at(x, cell)
    total = best
    if won is not None:
        winner = splat(first_tap, load_like(won, 0, best))
    for i in range(k_d):
        for j in range(k_h):
            for k in range(k_w):
                if i + j + k > 0:
                    at = cell + i * d_by + j * h_by + k * w_by
                    value = load(x, at)
                    if PREFETCH:
                        prefetch_at(x, at)
                    total = total + value
                    if MAX:
                        greater = value > best
                        best = select(greater, value, best)
                        if won is not None:
                            tap = first_tap + sign * ((i * k_h + j) * k_w + k)
                            winner = select(greater, splat(tap, winner), winner)
    store_or_stream(y, q, best if MAX else total / splat(divisor, total), STREAM)
    if won is not None:
        store(won, p, winner)
    return total


@kernel
def pool_windows(
    x: Any, x0: int, y: Any, y0: int, won: Any, t0: int, inner: int, g: Any, factors: Any, box: Any, v: Any, v0: int, t: Any
) -> None:  # fmt: skip
    """Forward: the maxima, with their taps unless `won` is None, or the means, of the outputs in `box`."""
    k_d, k_h, k_w = K_D or g[KERNEL], K_H or g[FIELDS + KERNEL], K_W or g[2 * FIELDS + KERNEL]
    d_table, h_table, w_table = g[TABLE], g[FIELDS + TABLE], g[2 * FIELDS + TABLE]
    lanes = width(load(x, 0))
    pixel = lanes if VECTOR else inner
    h_pitch = box[W_N] * pixel
    d_pitch = box[H_N] * h_pitch
    d_by, h_by, w_by = g[STEP] * d_pitch, g[FIELDS + STEP] * h_pitch, g[2 * FIELDS + STEP] * pixel
    first_tap = k_d * k_h * k_w - 1 if LAST else 0
    next_window = g[2 * FIELDS + STRIDE] * pixel
    q = 0
    done = 0
    for d in range(box[D_FIRST], box[D_STOP]):
        for h in range(box[H_FIRST], box[H_STOP]):
            if done > 1:  # pooled with the rows above
                done -= 1
                continue
            # A window without cells stands at cell 0, which may lie before all that is there.
            row = (
                x0
                + max(g[d_table + 3 * d] - box[D_LOW], 0) * d_pitch
                + max(g[h_table + 3 * h] - box[H_LOW], 0) * h_pitch
            )
            full, full_stop = box[W_FIRST], box[W_STOP]
            if not INSIDE:
                if g[d_table + 3 * d + 2] == k_d and g[h_table + 3 * h + 2] == k_h:
                    full, full_stop = g[2 * FIELDS + FULL], g[2 * FIELDS + FULL_STOP]
                else:
                    full_stop = full
            if ROWS and g[FIELDS + FULL] <= h and h + ROWS <= min(g[FIELDS + FULL_STOP], box[H_STOP]):
                next_row = (box[W_STOP] - box[W_FIRST]) * pixel
                for w in range(box[W_FIRST], box[W_STOP]):
                    at = row + max(g[w_table + 3 * w] - box[W_LOW], 0) * pixel
                    corner, n_w = g[w_table + 3 * w + 1], g[w_table + 3 * w + 2]
                    pool_block(x, at, y, y0 + q, won, t0 + q, pixel, g, h_pitch, h_by, w_by, next_row, corner, n_w)
                    q += pixel
                q += (ROWS - 1) * next_row
                done = ROWS
                continue
            suspect = load(x, x0) != load(x, x0)
            row_factor = factors[0]
            if not MAX:
                row_factor = factors[g[FACTOR] + d] * factors[g[FIELDS + FACTOR] + h]
            w = box[W_FIRST]
            while w < box[W_STOP]:
                at = row + max(g[np.uintp(w_table + 3 * w)] - box[W_LOW], 0) * pixel
                divisor = row_factor
                if not MAX:
                    divisor = row_factor * factors[g[2 * FIELDS + FACTOR] + w]
                if INSIDE or full <= w < full_stop:
                    end = box[W_STOP] if INSIDE else min(full_stop, box[W_STOP])
                    for _ in range(w, end):
                        for c0 in range(0, pixel, lanes):
                            c = 0 if VECTOR else min(c0, pixel - lanes)
                            o, p = y0 + q + c, t0 + q + c
                            total = full_window(x, at + c, y, o, won, p, d_by, h_by, w_by, k_d, k_h, k_w, divisor)
                            if MAX and FLOATS:
                                suspect = suspect | (total != total)
                        at += next_window
                        q += pixel
                    w = end
                else:
                    n_d, n_h, n_w = g[d_table + 3 * d + 2], g[h_table + 3 * h + 2], g[w_table + 3 * w + 2]
                    tap = g[d_table + 3 * d + 1] + g[h_table + 3 * h + 1] + g[w_table + 3 * w + 1]
                    edge(x, at, y, y0 + q, won, t0 + q, pixel, g, d_by, h_by, w_by, n_d, n_h, n_w, tap, divisor)
                    q += pixel
                    w += 1
            if MAX and FLOATS and any_lane(suspect):
                for w in range(max(full, box[W_FIRST]), min(full_stop, box[W_STOP])):  # a band may be part of a row
                    at = row + max(g[w_table + 3 * w] - box[W_LOW], 0) * pixel
                    o = q + (w - box[W_STOP]) * pixel
                    nan_safe_window(
                        x, at, y, y0 + o, won, t0 + o, pixel, g, d_by, h_by, w_by, k_d, k_h, k_w, first_tap, factors[0]
                    )


def windows(
    program: Program, pixel: int, maximum: bool, in_lanes: bool, floats: bool, last: bool, memory: bool, unrolled: bool
) -> Kernel[..., Any]:
    """The pass, made for the program's window if that is small.

    Parameters
    ----------
    pixel
        Bytes of a pixel.
    floats
        Whether NaNs are possible.
    last
        Whether the last of tied cells wins.
    memory
        Whether x comes from memory.
    unrolled
        Whether small windows are unrolled.
    """
    inside = all((program.tables[i][:, 2] == axis.kernel).all() for i, axis in enumerate(program.axes))
    names: dict[str, Any] = {"MAX": int(maximum), "VECTOR": int(in_lanes), "LAST": int(last)}
    nan_safe_window = any_window.bind(**names).noinline()
    names |= {"nan_safe_window": nan_safe_window, "edge": nan_safe_window, "FLOATS": int(maximum and floats)}
    if unrolled and math.prod(axis.kernel for axis in program.axes) <= UNROLLED:
        names |= {f"K_{name}": axis.kernel for name, axis in zip("DHW", program.axes, strict=True)}
        if maximum:
            names |= {"edge": edge_window.bind(**edge_window.known(names)).noinline(), **in_blocks(program)}
    # Inside the caches only pixels that end within a line gain, which hardware prefetchers lose (docs/experiments.md, prefetch).
    disjoint = not in_lanes and all(axis.disjoint for axis in program.axes)
    prefetched = disjoint and bool(memory or pixel % ALIGNMENT)
    return pool_windows.bind(
        **names,
        INSIDE=int(inside),
        PREFETCH=int(prefetched),
        INTERLEAVED=int(prefetched and memory and interleaves_prefetch()),
    )


def at_one_go(program: Program, pixel: int, maximum: bool) -> bool:
    """Whether windows are read as here, where pixels have so many bytes, and not axis by axis."""
    axes = program.axes
    if not all(axis.slides for axis in axes) or any(program.g[i * FIELDS + SCAN] for i in range(3)):
        return False
    taps = math.prod(axis.kernel for axis in axes)
    if taps > MOST_ADDED and not maximum:
        return False
    if all(axis.disjoint for axis in axes):
        # Pixels far apart fall into the same few places of the cache, and nothing is fetched ahead: 7x7 windows over 2048
        # channels took 3 to 6 times as long as axis by axis, with 256 channels 1.3 to 1.9 times, with 64 as long.
        return taps <= UNROLLED or pixel < FAR
    # By axes, a result costs a comparison for each cell along an axis, times the strides that are still to be merged. Where that
    # is as many, one go took 0.55 to 0.85 of the time (3x3, stride 2); where it is less, 1.1 to 1.5 times (3x3, stride 1), but
    # for rows in blocks.
    by_axes = sum(axes[i].kernel * math.prod(axes[j].stride for j in program.passes if j < i) for i in program.passes)
    return taps <= (UNROLLED if maximum and in_blocks(program) else min(UNROLLED, by_axes))
