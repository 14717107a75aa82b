"""Backward of `forward.py` as a gather: each cell sums the gradients of the outputs that it won.

A lane is a stride of cells here, and a vector holds the cells of one phase in several rows of strides. Where windows overlap,
gradients and taps are first copied into rows of such a length that the outputs over neighbouring strides are neighbours in
memory: each tap then needs one plain load. The phases are interleaved to rows of cells, and dx is written once. Sums are in the
order of the outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import inlined, kernel
from pooling.simd.kernels.rows.forward import fill
from pooling.simd.memory.prefetch import prefetch_range
from pooling.simd.plan.geometry import STEP, TABLE, TAP_STEP
from pooling.simd.vector.interleave import load_n, repeated, replaced
from pooling.simd.vector.ops import select, splat
from pooling.simd.vector.pack import copy_row, load_first, store_rows

# Bound when a pass is made:
LANES = 4
STRIDES, PITCH = 1, 1  # strides of a row, and places from a row to the next
ROWS, ACROSS = 1, 1  # rows of strides in a vector, and strides of each
READ = 1  # lanes that are read
K_H, K_W, S_H, S_W = 1, 1, 1, 1  # the window
BEFORE_H, BEFORE_W = 0, 0  # padding
MOST_D = 1  # outputs over a cell along the first axis
MAX = 1  # or 0: the mean
MARGINS = 0  # whether gradients and taps are copied with margins
TOP, LEFT, GAP_H = 0, 0, 0  # the margins before them all, and rows between copied planes
SIZE_W, APART = 1, 1  # cells of a row, and from a row to that of the next stride
CELLS, LAST = 1, 1  # of these, cells of as many strides as a vector has, and of the last ones of a row
RESULTS = 1  # outputs of a row
FEWER = 0  # ROWS - 1, as a constant of its own


@inlined
def spread(
    dy: Any, won: Any, at: int, n_d: int, d_by: int, tap: int, d_tap: int, dx: Any, p: int, rows: int, cells: int, factors: Any
) -> None:  # fmt: skip
    """`cells` rows of cells from `rows` rows of strides, the first over ``dy[at]``; the rest is zero."""
    zero = splat(0, load_n(factors, 0, LANES))
    factor = splat(factors[0], zero)
    for r0 in range(0, rows, ROWS):
        r = min(r0, rows - ROWS)  # the last rows may be written twice
        if not MARGINS:
            prefetch_range(dy, at + r * PITCH, ROWS * PITCH)
            if MAX:
                prefetch_range(won, at + r * PITCH, ROWS * PITCH)
        for a in range(S_H):
            for m0 in range(0, STRIDES, ACROSS):
                m = min(m0, STRIDES - ACROSS)  # and the last strides of a row
                totals = repeated(zero, S_W)
                for c in range(S_W):
                    total = zero
                    for i in range(MOST_D):
                        for up in range(K_H):
                            for back in range(K_W):
                                j, k = K_H - 1 - up, K_W - 1 - back  # outputs in order
                                if i < n_d and (a + BEFORE_H - j) % S_H == 0 and (c + BEFORE_W - k) % S_W == 0:
                                    o = at + i * d_by + r * PITCH + m
                                    o += (a + BEFORE_H - j) // S_H * PITCH + (c + BEFORE_W - k) // S_W
                                    gradient = load_first(dy, o, zero, READ)
                                    if MAX:
                                        winner = load_first(won, o, zero, READ)
                                        mine = winner == splat(tap + i * d_tap + j * K_W + k, winner)
                                        total = select(mine, total + gradient, total)
                                    elif MARGINS:
                                        total = total + gradient
                                    else:
                                        total = total + gradient * factor
                    totals = replaced(totals, c, total)
                q = p + r * APART + a * SIZE_W + m * S_W
                if (r + ROWS - 1) * S_H + a >= cells:
                    store_rows(dx, q, totals, FEWER, PITCH, ACROSS, APART, LAST)
                elif m0 + ACROSS < STRIDES:
                    store_rows(dx, q, totals, ROWS, PITCH, ACROSS, APART, CELLS)
                else:
                    store_rows(dx, q, totals, ROWS, PITCH, ACROSS, APART, LAST)
    for h in range(rows * S_H, cells):
        store_rows(dx, p + h * SIZE_W, repeated(zero, S_W), 1, PITCH, 0, APART, SIZE_W)


@kernel
def backward_short(
    start: int, stop: int, dy: Any, dx: Any, won: Any, shape: Any, none: Any, no_tap: Any, factors: Any, g: Any, v: Any, t: Any
) -> None:  # fmt: skip
    """Planes, some at a time; gradients and taps are copied with margins if need be."""
    planes, groups, pieces, one, depth, out_depth, size_h, out_h, rows, room = shape
    cells, outputs = depth * size_h * SIZE_W, out_depth * out_h * RESULTS
    plane = (out_h + GAP_H) * PITCH
    corner = TOP * PITCH + LEFT
    d_tap = g[TAP_STEP]
    if MARGINS:
        fill(v, room, none)
        if MAX:
            fill(t, room, no_tap)
    for unit in range(start, stop):
        group, piece = unit // pieces, unit % pieces
        first = planes * group // groups
        n = planes * (group + 1) // groups - first
        if MARGINS:
            for slab in range(n * out_depth):
                for row in range(out_h):
                    o = first * outputs + (slab * out_h + row) * RESULTS
                    copy_row(dy, o, v, corner + slab * plane + row * PITCH, RESULTS)
                    if MAX:
                        copy_row(won, o, t, corner + slab * plane + row * PITCH, RESULTS)
                if not MAX:
                    for k in range(plane):
                        v[np.uintp(corner + slab * plane + k)] *= factors[np.uintp(k)]
        some = n if one else 1
        for i in range(0, n, max(some, 1)):
            for d in range(depth * piece // pieces, depth * (piece + 1) // pieces):
                d_row = g[TABLE] + 3 * d
                n_d, tap = g[d_row + 2], g[d_row + 1]
                p = (first + i) * cells + d * size_h * SIZE_W
                if MARGINS:
                    at = corner + (i * out_depth + g[d_row]) * plane
                    spread(v, t, at, n_d, g[STEP] * plane, tap, d_tap, dx, p, rows, size_h, factors)
                else:
                    at = (first + i) * outputs + g[d_row] * plane
                    spread(dy, won, at, n_d, g[STEP] * plane, tap, d_tap, dx, p, rows * some, size_h * some, factors)
