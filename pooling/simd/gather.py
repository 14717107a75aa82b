"""Max backward in channels_last where windows overlap: every cell asks the outputs over it whether it won.

That is a comparison per window over a cell, a vector of channels at a time, and dx is written once, in order; `scatter.py` takes
an addition per output and channel, one by one, for any window. Sums run over the outputs in order, in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.jit import kernel
from pooling.simd.box import band_box
from pooling.simd.program import FIELDS, SIZE, STEP, TABLE, TAP_STEP
from pooling.simd.vectors import load, load_like, select, splat, store, width

# Bound when a pass is made:
MOST_D, MOST_H, MOST_W = 1, 1, 1  # outputs over a cell along each axis


@kernel
def gather_cell(
    dy: Any, won: Any, at: int, d_by: int, h_by: int, w_by: int, dx: Any, p: int, inner: int, n_d: int, n_h: int, n_w: int,
    tap: int, d_tap: int, h_tap: int, w_tap: int,
) -> None:  # fmt: skip
    """All channels of a cell. ``dy[at]`` is the first output over it, the others are `d_by`, `h_by` and `w_by` apart."""
    zero = splat(0, load(dy, 0))
    lanes = width(zero)
    for c0 in range(0, inner, lanes):
        c = min(c0, inner - lanes)  # the last vector overlaps the one before it
        total = zero
        for i in range(MOST_D):  # constants: what is not unrolled keeps its sum in memory
            for j in range(MOST_H):
                for k in range(MOST_W):
                    if i < n_d and j < n_h and k < n_w:
                        o = at + i * d_by + j * h_by + k * w_by + c
                        gradient = load(dy, o)
                        winner = load_like(won, o, gradient)
                        mine = winner == splat(tap + i * d_tap + j * h_tap + k * w_tap, winner)
                        total = select(mine, total + gradient, total)
        store(dx, p + c, total)


@kernel
def gather_band(dy: Any, won: Any, q: int, dx: Any, p: int, inner: int, g: Any, box: Any) -> None:
    """The cells in `box`; ``dy[q]`` is the item's first output."""
    h_size, w_size = g[FIELDS + SIZE], g[2 * FIELDS + SIZE]
    w_by, h_by = g[2 * FIELDS + STEP] * inner, g[FIELDS + STEP] * w_size * inner
    d_by = g[STEP] * h_size * w_size * inner
    d_tap, h_tap, w_tap = g[TAP_STEP], g[FIELDS + TAP_STEP], g[2 * FIELDS + TAP_STEP]
    two = np.uintp(2)
    for d in range(box[0], box[1]):
        d_row = np.uintp(g[TABLE] + 3 * d)
        for h in range(box[2], box[3]):
            h_row = np.uintp(g[FIELDS + TABLE] + 3 * h)
            row = g[d_row] * h_size + g[h_row]
            first = g[d_row + np.uintp(1)] + g[h_row + np.uintp(1)]
            n_d, n_h = g[d_row + two], g[h_row + two]
            for w in range(box[4], box[5]):
                w_row = np.uintp(g[2 * FIELDS + TABLE] + 3 * w)
                at = q + (row * w_size + g[w_row]) * inner
                tap = first + g[w_row + np.uintp(1)]
                n_w = g[w_row + two]
                gather_cell(
                    dy, won, at, d_by, h_by, w_by, dx, p, inner, n_d, n_h, n_w, tap, d_tap, h_tap, w_tap
                )  # fmt: skip
                p += inner


@kernel
def gather_channels(
    start: int,
    stop: int,
    dy: Any,
    dx: Any,
    won: Any,
    inner: int,
    g: Any,
    factors: Any,
    bands: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    """Bands of items."""
    axis, _, slab, outputs, cells = where  # the results are cells here
    for unit in range(start, stop):
        item, b = unit // len(bands), unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        box = band_box(g, axis, first, end, low, high)
        p = (item * cells + first * slab) * inner
        gather_band(dy, won, item * outputs * inner, dx, p, inner, g, box)
