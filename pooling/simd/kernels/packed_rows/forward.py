"""Short rows of a known length: a vector holds the outputs of several rows, or a row takes a few vectors.

In channels_first the rows of deep layers are shorter than a vector. Which lane is which output of which row is known at compile
time, so the cells under a tap are a few fixed shuffles (`vector/pack.py`) away; transposing planes into lanes took 2 to 5 times
as long. Where windows may extend beyond the data, planes are first copied with margins that never win. `backward.py` has the
backward pass, `plan.py` says when this strategy is used.
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.jit import UNBOUND, inlined, kernel
from pooling.simd.kernels.rows.forward import fill
from pooling.simd.memory.prefetch import prefetch_range
from pooling.simd.vector.interleave import added, load_n, picked
from pooling.simd.vector.ops import any_lane, beats, load_like, select, splat
from pooling.simd.vector.pack import copy_row, load_rows, store_first, under_taps

# Bound when a pass is made:
LANES = 4
RESULTS = 1  # outputs of a row
ROWS, ACROSS, OUTPUTS = 1, 1, 1  # rows in a vector, outputs of each, and of all
LINE, APART = 1, 1  # cells from a row to the next, and to that of the next row of outputs
K_D, K_H, K_W = 1, 1, 1  # the window
S_D, S_H, S_W = 1, 1, 1
MAX = 1  # or 0: the mean
NAN_SAFE = 1  # whether NaNs are handled; otherwise they are only detected
MARGINS = 0  # whether planes are copied with margins
GAP_H, GAP_W = 0, 0  # rows between copied planes, and cells between rows
BEFORE_H, BEFORE_W = 0, 0  # padding
SIZE_W = 1  # cells of a row


nan_safe: Any = UNBOUND  # the same for windows with NaNs


@inlined
def pool_rows(
    x: Any, at: int, plane: int, y: Any, q: int, won: Any, rows: int, starts: Any, divisors: Any
) -> None:  # fmt: skip
    """All outputs of `rows` rows, the first of which has its first window at ``x[at]``.

    `starts` are the taps at which the walks through the windows begin, `divisors` what means are divided by: with margins one
    for each output, else one for all.
    """
    suspect = load_n(divisors, 0, LANES)
    suspect = suspect != suspect
    for h0 in range(0, rows, ROWS):
        h = min(h0, rows - ROWS)  # the last rows may be pooled twice
        if not MARGINS:
            for i in range(min(S_D, K_D)):
                prefetch_range(x, at + (K_D - 1 - i) * plane + h * APART, ROWS * APART)
        for w0 in range(0, RESULTS, ACROSS):
            w = min(w0, RESULTS - ACROSS)  # and the last outputs of a row
            o = h * RESULTS + w
            best = load_n(divisors, 0, LANES)
            total = best
            if won is not None:
                winner = splat(0, load_like(starts, 0, best))
                if MARGINS:
                    winner = load_like(starts, o, best)
            first = at + h * APART + w * S_W
            if not MAX:
                # Along the other axes first, before anything is shuffled. Of maxima the first zero of -0 and 0 would not win.
                loaded = load_rows(x, first, LANES, ROWS, ACROSS, APART, S_W, K_W)
                for i in range(K_D):
                    for j in range(K_H):
                        if i + j > 0:
                            at_row = first + i * plane + j * LINE
                            loaded = added(loaded, load_rows(x, at_row, LANES, ROWS, ACROSS, APART, S_W, K_W))
                cells = under_taps(loaded, ROWS, ACROSS, APART, S_W, K_W)
                best = picked(cells, 0)
                for k in range(1, K_W):
                    best = best + picked(cells, k)
                divisor = splat(divisors[0], best)
                if MARGINS:
                    divisor = load_like(divisors, o, best)
                best = best / divisor
            else:
                for i in range(K_D):
                    for j in range(K_H):
                        row = load_rows(x, first + i * plane + j * LINE, LANES, ROWS, ACROSS, APART, S_W, K_W)
                        cells = under_taps(row, ROWS, ACROSS, APART, S_W, K_W)
                        for k in range(K_W):
                            value = picked(cells, k)
                            if i + j + k == 0:
                                best = value
                                total = value
                            else:
                                greater = beats(value, best, 0) if NAN_SAFE else value > best
                                total = total + value
                                best = select(greater, value, best)
                                if won is not None:
                                    number = splat((i * K_H + j) * K_W + k, winner)
                                    winner = select(greater, number, winner)
            if MAX and not NAN_SAFE:
                suspect = suspect | (total != total)
            store_first(y, q + o, best, OUTPUTS)
            if won is not None:
                store_first(won, q + o, winner, OUTPUTS)
    if MAX and not NAN_SAFE and any_lane(suspect):
        nan_safe(x, at, plane, y, q, won, rows, starts, divisors)


@kernel
def nan_safe_rows(
    x: Any, at: int, plane: int, y: Any, q: int, won: Any, rows: int, starts: Any, divisors: Any
) -> None:  # fmt: skip
    """The same, not inlined, with NaNs."""
    pool_rows(x, at, plane, y, q, won, rows, starts, divisors)


@kernel
def forward_short(
    start: int, stop: int, x: Any, y: Any, won: Any, shape: Any, edge: Any, starts: Any, divisors: Any, v: Any, t: Any
) -> None:  # fmt: skip
    """Planes, some at a time, copied with margins if need be."""
    planes, groups, pieces, one, depth, out_depth, size_h, rows, room = shape
    plane = (size_h + GAP_H) * LINE
    cells, outputs = depth * size_h * SIZE_W, out_depth * rows * RESULTS
    corner = GAP_H * LINE + GAP_W
    if MARGINS:
        fill(v, room, edge)
    for unit in range(start, stop):
        group, piece = unit // pieces, unit % pieces
        first = planes * group // groups
        n = planes * (group + 1) // groups - first
        if MARGINS:
            for slab in range(n * depth):
                for row in range(size_h):
                    s = first * cells + (slab * size_h + row) * SIZE_W
                    prefetch_range(x, s, SIZE_W)
                    copy_row(x, s, v, corner + slab * plane + row * LINE, SIZE_W)
        together = n if one else 1
        for p in range(0, n, max(together, 1)):
            for d in range(out_depth * piece // pieces, out_depth * (piece + 1) // pieces):
                q = (first + p) * outputs + d * rows * RESULTS
                if MARGINS:
                    at = corner - BEFORE_H * LINE - BEFORE_W + (p * depth + d * S_D) * plane
                    pool_rows(v, at, plane, y, q, won, rows, starts, divisors)
                else:
                    at = (first + p) * cells + d * S_D * plane
                    pool_rows(x, at, plane, y, q, won, together * rows, starts, divisors)
