"""Max backward as a gather: each cell checks which of the outputs over it it won, and sums their gradients.

That is one comparison per window over a cell, for a vector of cells at a time, and dx is written once, in order. The alternative,
`kernels/scatter.py`, is one scalar addition per output and channel, for any window. Both sum in the order of the outputs.

A cell has won if its tap is the kept one. With ties="split" and "all" it has also won if it equals the maximum; the kept tap then
decides only for NaNs, which equal nothing, and of which the first takes the gradient. The share of each tied cell is computed
once per output, before the gather; where two bands need the same outputs, both compute their shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import kernel
from pooling.simd.memory.transpose import lanes_to_planes, planes_to_lanes
from pooling.simd.plan.box import (
    D_FIRST,
    D_LOW,
    D_STOP,
    H_FIRST,
    H_LOW,
    H_N,
    H_STOP,
    W_FIRST,
    W_LOW,
    W_N,
    W_STOP,
    band_box,
)
from pooling.simd.plan.geometry import FIELDS, STEP, TABLE, TAP_STEP
from pooling.simd.vector.ops import floats, load, load_like, ones, rounded, select, splat, store, width

# Bound when a pass is made:
MOST_D, MOST_H, MOST_W = 0, 0, 0  # outputs over a cell along each axis; 0: any number
VECTOR = 0  # whether a pixel is one vector
HALVES = 0  # whether dx is float16: sums are rounded with each addition, as in all backends


@kernel
def share_band(
    dy: Any, q: int, x: Any, x0: int, y: Any, y0: int, shares: Any, s0: int, inner: int, g: Any, box: Any
) -> None:
    """The share of each output in `box` that each of its winners gets. Here `g` is the forward program."""
    lanes = width(load(x, 0))
    pixel = lanes if VECTOR else inner
    d_by, h_by = box[H_N] * box[W_N] * pixel, box[W_N] * pixel
    d_step, h_step, w_step = g[STEP] * d_by, g[FIELDS + STEP] * h_by, g[2 * FIELDS + STEP] * pixel
    o = 0
    for d in range(box[D_FIRST], box[D_STOP]):
        d_row = g[TABLE] + 3 * d
        for h in range(box[H_FIRST], box[H_STOP]):
            h_row = g[FIELDS + TABLE] + 3 * h
            row = x0 + (g[d_row] - box[D_LOW]) * d_by + (g[h_row] - box[H_LOW]) * h_by - box[W_LOW] * pixel
            for w in range(box[W_FIRST], box[W_STOP]):
                w_row = g[2 * FIELDS + TABLE] + 3 * w
                cell = row + g[w_row] * pixel
                for c0 in range(0, pixel, lanes):
                    c = 0 if VECTOR else min(c0, pixel - lanes)  # the last vector overlaps the one before it
                    best = load(y, y0 + o + c)
                    count = ones(best != best, best)  # a NaN is one winner, though it equals nothing
                    for i in range(g[d_row + 2]):
                        for j in range(g[h_row + 2]):
                            for k in range(g[w_row + 2]):
                                value = load(x, cell + i * d_step + j * h_step + k * w_step + c)
                                count = count + ones(value == best, best)
                    share = load(dy, q + o + c) / rounded(floats(count, best), HALVES)
                    store(shares, s0 + o + c, rounded(share, HALVES))
                o += pixel


@kernel
def gather_cell(
    dy: Any, q: int, won: Any, t: int, x: Any, x0: int, y: Any, y0: int, d_by: int, h_by: int, w_by: int, dx: Any, p: int,
    pixel: int, n_d: int, n_h: int, n_w: int, tap: int, d_tap: int, h_tap: int, w_tap: int, taps: Any, d_at: int, h_at: int,
    w_at: int,
) -> None:  # fmt: skip
    """All channels of a cell. ``dy[q]`` is the first output over it, the others are `d_by`, `h_by` and `w_by` apart."""
    zero = splat(0, load(dy, 0))
    lanes = width(zero)
    for c0 in range(0, lanes if VECTOR else pixel, lanes):
        c = 0 if VECTOR else min(c0, pixel - lanes)  # the last vector overlaps the one before it
        total = zero
        if x is not None:
            value = load(x, x0 + c)
        for i in range(MOST_D or n_d):  # constants where they are few: what is not unrolled keeps its sum in memory
            for j in range(MOST_H or n_h):
                for k in range(MOST_W or n_w):
                    if i < n_d and j < n_h and k < n_w:
                        o = i * d_by + j * h_by + k * w_by + c
                        gradient = load(dy, q + o)
                        winner = load_like(won, t + o, gradient)
                        number = tap + i * d_tap + j * h_tap + k * w_tap
                        if taps is not None:
                            number = taps[d_at + i] + taps[h_at + j] + taps[w_at + k]
                        mine = winner == splat(number, winner)
                        if x is not None:
                            mine = mine | (value == load(y, y0 + o))
                        total = select(mine, rounded(total + gradient, HALVES), total)
        store(dx, p + c, total)


@kernel
def gather_band(
    dy: Any, q: int, won: Any, t: int, x: Any, x0: int, y: Any, y0: int, dx: Any, p: int, inner: int, g: Any, taps: Any,
    box: Any,
) -> None:  # fmt: skip
    """The cells in `box`; ``dy[q]`` is the first output there.

    `x` and `y` are None where only the kept tap wins, `taps` where the taps of the outputs over a cell follow from one another.
    """
    pixel = width(load(dy, 0)) if VECTOR else inner
    w_by, h_by, d_by = pixel, box[W_N] * pixel, box[H_N] * box[W_N] * pixel
    d_step, h_step, w_step = g[STEP] * d_by, g[FIELDS + STEP] * h_by, g[2 * FIELDS + STEP] * w_by
    d_tap, h_tap, w_tap = g[TAP_STEP], g[FIELDS + TAP_STEP], g[2 * FIELDS + TAP_STEP]
    two = np.uintp(2)
    at = 0
    for d in range(box[D_FIRST], box[D_STOP]):
        d_row = np.uintp(g[TABLE] + 3 * d)
        for h in range(box[H_FIRST], box[H_STOP]):
            h_row = np.uintp(g[FIELDS + TABLE] + 3 * h)
            row = (g[d_row] - box[D_LOW]) * d_by + (g[h_row] - box[H_LOW]) * h_by
            first = g[d_row + np.uintp(1)] + g[h_row + np.uintp(1)]
            n_d, n_h = g[d_row + two], g[h_row + two]
            for w in range(box[W_FIRST], box[W_STOP]):
                w_row = np.uintp(g[2 * FIELDS + TABLE] + 3 * w)
                o = row + (g[w_row] - box[W_LOW]) * w_by
                tap = first + g[w_row + np.uintp(1)]
                n_w = g[w_row + two]
                d_at, h_at, w_at = 0, 0, 0
                if taps is not None:
                    d_at, h_at, w_at = taps[3] + d * taps[0], taps[4] + h * taps[1], taps[5] + w * taps[2]
                gather_cell(
                    dy, q + o, won, t + o, x, x0 + at, y, y0 + o, d_step, h_step, w_step, dx, p + at, pixel, n_d, n_h, n_w,
                    tap, d_tap, h_tap, w_tap, taps, d_at, h_at, w_at,
                )  # fmt: skip
                at += pixel


gather: Any = gather_band  # or `gather_rows` of `rows.py`


@kernel
def gather_channels(
    start: int, stop: int, dy: Any, dx: Any, won: Any, x: Any, y: Any, inner: int, g: Any, reads: Any, taps: Any, bands: Any,
    where: Any, v: Any, t: Any,
) -> None:  # fmt: skip
    """Bands of items. `reads` is the forward program where gradients are shared, else None."""
    axis, out_slab, slab, outputs, cells = where  # the results are cells here
    for unit in range(start, stop):
        item, b = unit // len(bands), unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        box = band_box(g, axis, first, end, low, high)
        p = (item * cells + first * slab) * inner
        q = (item * outputs + low * out_slab) * inner
        if reads is None:
            gather(dy, q, won, q, x, p, y, q, dx, p, inner, g, taps, box)
        else:
            reach_low, reach_high = bands[b, 4], bands[b, 5]
            read = band_box(reads, axis, low, high, reach_low, reach_high)
            share_band(dy, q, x, (item * cells + reach_low * slab) * inner, y, q, v, 0, inner, reads, read)
            gather(v, 0, won, q, x, p, y, q, dx, p, inner, g, taps, box)


@kernel
def gather_planes(
    start: int, stop: int, dy: Any, dx: Any, won: Any, x: Any, y: Any, planes: int, g: Any, reads: Any, taps: Any, bands: Any,
    where: Any, v: Any, t: Any,
) -> None:  # fmt: skip
    """Bands of planes transposed into lanes: dy, y, x, and dx, one after the other in `v`."""
    axis, out_slab, slab, outputs, cells = where  # the results are cells here
    lanes = width(load(v, 0))
    for unit in range(start, stop):
        b = unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        reach_low, reach_high = bands[b, 4], bands[b, 5]
        plane = unit // len(bands) * lanes
        last = min(planes - plane, lanes) - 1
        n = (high - low) * out_slab
        box = band_box(g, axis, first, end, low, high)
        won_at = plane * outputs + low * out_slab * lanes
        planes_to_lanes(dy, plane * outputs + low * out_slab, n, outputs, last, v, 0, lanes)
        out = n * lanes
        if x is None:
            gather(v, 0, won, won_at, x, 0, y, 0, v, out, lanes, g, taps, box)
        else:
            y0 = n * lanes
            x0 = 2 * n * lanes
            out = x0 + (reach_high - reach_low) * slab * lanes
            planes_to_lanes(y, plane * outputs + low * out_slab, n, outputs, last, v, y0, lanes)
            planes_to_lanes(
                x, plane * cells + reach_low * slab, (reach_high - reach_low) * slab, cells, last, v, x0, lanes
            )
            if reads is not None:
                read = band_box(reads, axis, low, high, reach_low, reach_high)
                share_band(v, 0, v, x0, v, y0, v, 0, lanes, reads, read)
            own = x0 + (first - reach_low) * slab * lanes
            gather(v, 0, won, won_at, v, own, v, y0, v, out, lanes, g, taps, box)
        lanes_to_planes(v, out, (end - first) * slab, dx, plane * cells + first * slab, cells, last, lanes)
