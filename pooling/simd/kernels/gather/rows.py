"""The gather of `cells.py` for sliding windows with little overlap: one stride of cells at a time.

Which outputs lie over a cell, and with which taps, depends only on its phase, its place within a stride. So nothing is looked up
per cell, the taps of a row stay in registers, and what neighbouring cells read is loaded once. At the ends of a row some outputs,
or cells, do not exist. Measurements: docs/experiments.md, gather by strides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import inlined, kernel
from pooling.simd.plan.box import D_FIRST, D_LOW, D_STOP, H_FIRST, H_LOW, H_N, H_STOP, W_FIRST, W_LOW, W_N, W_STOP
from pooling.simd.plan.geometry import FIELDS, OUT, SIZE, STEP, TABLE, TAP_STEP
from pooling.simd.vector.interleave import picked, repeated, replaced
from pooling.simd.vector.ops import load, load_like, select, splat, store_or_stream, width

# Bound when a pass is made:
K_W, S_W, D_W, BEFORE = 1, 1, 1, 0  # the window along the row
SHIFT_LOW, SHIFT_HIGH = 0, 0  # the outputs over the cells of stride m: from m + SHIFT_LOW to m + SHIFT_HIGH
MOST_D, MOST_H = 1, 1  # outputs over a cell along the other axes
VECTOR = 0  # whether a pixel is one vector
STREAM = 0  # whether dx is written with streaming stores
EDGE = 0  # whether to look, for each stride, which outputs and cells are there; a vector per pixel leaves time for that


@inlined
def gather_strides(
    dy: Any, q: int, won: Any, t: int, d_by: int, h_by: int, dx: Any, p: int, m0: int, m1: int, pixel: int, outputs: int,
    cells: int, n_d: int, n_h: int, tap: int, d_tap: int, h_tap: int,
) -> None:  # fmt: skip
    """The strides `m0` to `m1` of a row of `cells`. ``dy[q]`` is output 0 of the first row over them, of `outputs`."""
    zero = splat(0, load(dy, 0))
    lanes = width(zero)
    for m in range(m0, m1):
        for c0 in range(0, lanes if VECTOR else pixel, lanes):
            c = 0 if VECTOR else min(c0, pixel - lanes)  # the last vector overlaps the one before it
            totals = repeated(zero, S_W)  # stored at the end: nothing is read again because dx might be dy
            for place in range(S_W):
                total = zero
                for i in range(MOST_D):  # constants: what is not unrolled keeps its sum in memory
                    for j in range(MOST_H):
                        for back in range(K_W):
                            k = K_W - 1 - back  # outputs in order
                            if i < n_d and j < n_h and (place + BEFORE - k * D_W) % S_W == 0:
                                output = m + (place + BEFORE - k * D_W) // S_W
                                if not EDGE or 0 <= output < outputs:
                                    o = i * d_by + j * h_by + output * pixel + c
                                    gradient = load(dy, q + o)
                                    winner = load_like(won, t + o, gradient)
                                    mine = winner == splat(tap + i * d_tap + j * h_tap + k, winner)
                                    total = select(mine, total + gradient, total)
                totals = replaced(totals, place, total)
            for place in range(S_W):
                if not EDGE or m * S_W + place < cells:
                    store_or_stream(dx, p + (m * S_W + place) * pixel + c, picked(totals, place), STREAM)


gather_edge: Any = gather_strides


@kernel
def gather_rows(
    dy: Any, q: int, won: Any, t: int, x: Any, x0: int, y: Any, y0: int, dx: Any, p: int, inner: int, g: Any, taps: Any,
    box: Any,
) -> None:  # fmt: skip
    """The cells in `box`, whole strides; ``dy[q]`` is the first output there. In place of `gather_band`."""
    pixel = width(load(dy, 0)) if VECTOR else inner
    h_by, d_by = box[W_N] * pixel, box[H_N] * box[W_N] * pixel
    d_step, h_step = g[STEP] * d_by, g[FIELDS + STEP] * h_by
    d_tap, h_tap = g[TAP_STEP], g[FIELDS + TAP_STEP]
    outputs, cells = g[2 * FIELDS + SIZE], g[2 * FIELDS + OUT]
    low, high = box[W_FIRST] // S_W, -(-box[W_STOP] // S_W)
    first, stop = low, high
    if not EDGE:  # strides that miss nothing have a loop of their own
        first = min(max(low, -SHIFT_LOW), high)
        stop = max(min(outputs - SHIFT_HIGH, box[W_STOP] // S_W), first)
    two = np.uintp(2)
    p -= box[W_FIRST] * pixel
    for d in range(box[D_FIRST], box[D_STOP]):
        d_row = np.uintp(g[TABLE] + 3 * d)
        for h in range(box[H_FIRST], box[H_STOP]):
            h_row = np.uintp(g[FIELDS + TABLE] + 3 * h)
            o = (g[d_row] - box[D_LOW]) * d_by + (g[h_row] - box[H_LOW]) * h_by - box[W_LOW] * pixel
            tap = g[d_row + np.uintp(1)] + g[h_row + np.uintp(1)]
            n_d, n_h = g[d_row + two], g[h_row + two]
            if low < first:
                gather_edge(
                    dy, q + o, won, t + o, d_step, h_step, dx, p, low, first, pixel, outputs, cells, n_d, n_h, tap, d_tap, h_tap,
                )  # fmt: skip
            gather_strides(
                dy, q + o, won, t + o, d_step, h_step, dx, p, first, stop, pixel, outputs, cells, n_d, n_h, tap, d_tap, h_tap,
            )  # fmt: skip
            if stop < high:
                gather_edge(
                    dy, q + o, won, t + o, d_step, h_step, dx, p, stop, high, pixel, outputs, cells, n_d, n_h, tap, d_tap, h_tap,
                )  # fmt: skip
            p += (box[W_STOP] - box[W_FIRST]) * pixel
