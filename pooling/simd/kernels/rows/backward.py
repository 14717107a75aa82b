"""Backward of `forward.py` as a gather: each cell sums the gradients of the outputs that it won.

Which outputs lie over a cell depends only on its phase, its place within a stride. The cells of one phase are summed in one
vector, and the vectors of all phases are interleaved at the end. That takes a comparison per tap, but no addition waits for a
store, and dx is written once, in order, with sums in the order of the outputs. Outputs beyond a row's end are masked, or rows
are copied with margins, as in the forward pass; means whose divisors differ are always copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import inlined, kernel
from pooling.simd.kernels.rows.forward import copy_run, fill
from pooling.simd.memory.prefetch import prefetch_at
from pooling.simd.plan.box import D_FIRST, D_STOP, H_FIRST, H_STOP, band_box
from pooling.simd.plan.geometry import FACTOR, FIELDS, OUT, SIZE, STEP, TABLE, TAP_STEP
from pooling.simd.vector.interleave import edges, load_n, load_within, repeated, replaced, store_interleaved
from pooling.simd.vector.ops import load, load_like, select, splat, store, width

# Bound when a pass is made:
LANES = 4
K_W, S_W, D_W, BEFORE = 1, 1, 1, 0  # the window along the row
MOST_D, MOST_H = 1, 1  # outputs over a cell along the other axes
MAX = 1  # or 0: the mean
OVER = 0  # whether a row's last vector may be longer than the row: what it writes too much, the next row overwrites
STREAM = 0  # bytes of dx per streaming store; 0: ordinary stores
WITHIN = 0  # whether outputs outside of a row are masked
MARGINS = 0  # whether rows are copied with margins; means are then multiplied by their factors on the way


@inlined
def copy_scaled_run(a: Any, i: int, n: int, b: Any, p: int, factor: Any, factors: Any, f: int) -> None:
    """Copy a row of `n` elements from ``a[i]`` to ``b[p]``, multiplied by `factor` and those from ``factors[f]`` on.

    In a pass of its own, after the copy, multiplying took as long as all the rest.
    """
    lanes = width(load(b, p))
    if n < lanes:
        for k in range(n):
            b[np.uintp(p + k)] = a[np.uintp(i + k)] * (factor * factors[np.uintp(f + k)])
        return
    for k0 in range(0, n, lanes):
        k = min(k0, n - lanes)
        gradient = load(a, i + k)
        store(b, p + k, gradient * (splat(factor, gradient) * load(factors, f + k)))


@inlined
def spread_run(
    dy: Any, won: Any, at: int, h_by: int, d_by: int, dx: Any, p: int, n: int, n_d: int, n_h: int, tap: int, d_tap: int,
    h_tap: int, factor: Any, line: int,
) -> None:  # fmt: skip
    """The cells of `n` strides. ``dy[at]`` is output 0 of the first row over them; others are `h_by` and `d_by` apart."""
    zero = edges(dy, LANES, 0)
    scale = splat(factor, zero)
    for m0 in range(0, n, LANES):
        m = min(m0, max(n - LANES, 0))
        totals = repeated(zero, S_W)
        if not MARGINS:
            prefetch_at(dy, at + m)
            if MAX:
                prefetch_at(won, at + m)
        for c in range(S_W):
            total = zero
            for i in range(MOST_D):  # constants: what is not unrolled keeps its sum in memory
                for j in range(MOST_H):
                    for back in range(K_W):
                        k = K_W - 1 - back  # outputs in order
                        if i < n_d and j < n_h and (c + BEFORE - k * D_W) % S_W == 0:
                            place = m + (c + BEFORE - k * D_W) // S_W
                            o = at + i * d_by + j * h_by + place
                            gradient = load_within(dy, o, zero, place, line) if WITHIN else load_n(dy, o, LANES)
                            if MAX:
                                winner = load_within(won, o, zero, place, line) if WITHIN else load_like(won, o, zero)
                                mine = winner == splat(tap + i * d_tap + j * h_tap + k, winner)
                                total = select(mine, total + gradient, total)
                            elif MARGINS:
                                total = total + gradient
                            else:
                                total = total + gradient * scale
            totals = replaced(totals, c, total)
        store_interleaved(dx, p + m * S_W, totals, STREAM)


@kernel
def exact_row(
    dy: Any, won: Any, at: int, h_by: int, d_by: int, dx: Any, p: int, n: int, n_d: int, n_h: int, tap: int, d_tap: int,
    h_tap: int, factor: Any, line: int, g: Any, none: Any,
) -> None:  # fmt: skip
    """A row of `n` cells, not a cell more: with shorter vectors, and what is left of a stride one by one."""
    whole = n // S_W
    spread_run(dy, won, at, h_by, d_by, dx, p, whole, n_d, n_h, tap, d_tap, h_tap, factor, line)
    for w in range(whole * S_W, n):
        w_row = g[2 * FIELDS + TABLE] + 3 * w
        total = none
        for i in range(n_d):
            for j in range(n_h):
                for k in range(g[w_row + 2]):
                    o = at + i * d_by + j * h_by + g[w_row] + k * g[2 * FIELDS + STEP]
                    if MAX:
                        number = tap + i * d_tap + j * h_tap + g[w_row + 1] + k * g[2 * FIELDS + TAP_STEP]
                        if won[np.uintp(o)] == number:
                            total += dy[np.uintp(o)]
                    elif MARGINS:
                        total += dy[np.uintp(o)]
                    else:
                        total += dy[np.uintp(o)] * factor
        dx[np.uintp(p + w)] = total


@inlined
def spread_band(
    dy: Any, won: Any, at: int, line: int, dx: Any, p: int, box: Any, last: bool, factor: Any, g: Any, none: Any
) -> None:
    """The cells in `box`. ``dy[at]`` is the first output of all, rows are `line` apart.

    `last`: nothing may be read after this plane, so that no row may be overrun. `factor`: of all gradients of means.
    """
    n, rows = g[2 * FIELDS + OUT], g[FIELDS + SIZE]
    h_by, d_by = g[FIELDS + STEP] * line, g[STEP] * rows * line
    d_tap, h_tap = g[TAP_STEP], g[FIELDS + TAP_STEP]
    d_table, h_table = g[TABLE], g[FIELDS + TABLE]
    strides = -(-n // S_W)
    for d in range(box[D_FIRST], box[D_STOP]):
        d_row = np.uintp(d_table + 3 * d)
        n_d = g[d_row + np.uintp(2)]
        d_at = at + g[d_row] * rows * line
        d_first = g[d_row + np.uintp(1)]
        for h in range(box[H_FIRST], box[H_STOP]):
            h_row = np.uintp(h_table + 3 * h)
            n_h = g[h_row + np.uintp(2)]
            first = d_at + g[h_row] * line
            tap = d_first + g[h_row + np.uintp(1)]
            if OVER and (last or (h == box[H_STOP] - 1 and d == box[D_STOP] - 1)):
                exact_row(dy, won, first, h_by, d_by, dx, p, n, n_d, n_h, tap, d_tap, h_tap, factor, line, g, none)
            else:
                spread_run(dy, won, first, h_by, d_by, dx, p, strides, n_d, n_h, tap, d_tap, h_tap, factor, line)
            p += n


@kernel
def spread_rows(
    start: int, stop: int, dy: Any, dx: Any, won: Any, shape: Any, none: Any, no_tap: Any, g: Any, factors: Any, bands: Any,
    where: Any, v: Any, t: Any,
) -> None:  # fmt: skip
    """Bands of planes: gradients and taps are copied with margins if need be."""
    axis, out_slab, slab, outputs, cells = where  # the results are cells here
    left, right, planes, room = shape
    rows, line = g[FIELDS + SIZE], g[2 * FIELDS + SIZE]
    pitch = left + line + right
    d_factor, h_factor, w_factor = g[FACTOR], g[FIELDS + FACTOR], g[2 * FIELDS + FACTOR]
    factor = factors[d_factor] * factors[h_factor] * factors[w_factor]  # of all windows, without margins
    if MARGINS:
        fill(v, room, none)
        if MAX:
            fill(t, room, no_tap)
    for unit in range(start, stop):
        item, b = unit // len(bands), unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        box = band_box(g, axis, first, end, low, high)
        last = item == planes - 1 and not (MARGINS or WITHIN)
        p = item * cells + first * slab
        if MARGINS:
            row = low * out_slab // line
            for i in range(high * out_slab // line - row):
                o = item * outputs + (row + i) * line
                if MAX:
                    copy_run(dy, o, line, v, i * pitch + left)
                    copy_run(won, o, line, t, i * pitch + left)
                else:
                    across = factors[d_factor + (row + i) // rows] * factors[h_factor + (row + i) % rows]
                    copy_scaled_run(dy, o, line, v, i * pitch + left, across, factors, w_factor)
            spread_band(v, t, left - row * pitch, pitch, dx, p, box, last, factor, g, none)
        else:
            spread_band(dy, won, item * outputs, line, dx, p, box, last, factor, g, none)
