"""Overlapping windows, a few rows of results at a time: comparisons that windows have in common are done once.

For 3x3 windows at stride 1 the winner of each row of three is found once and not for each of the three windows over it: 5
comparisons per result instead of 8, with no buffer between the axes (docs/experiments.md, blocks of rows).
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.jit import UNBOUND, inlined
from pooling.simd.memory.prefetch import prefetch_close
from pooling.simd.plan.geometry import Program
from pooling.simd.vector.interleave import picked, repeated, replaced
from pooling.simd.vector.ops import any_lane, load, load_like, select, splat, store, store_or_stream, width

ROWS_AT_ONCE = 4
"""Rows of results of which what they share stays in registers."""

# Bound when a pass is made; ROWS = 0 where rows are not taken together.
ROWS, ROWS_READ = 0, 1
K_H, K_W = 1, 1
S_H, S_W, D_H = 1, 1, 1
VECTOR = 0
LAST = 0
STREAM = 0  # whether y is written with streaming stores
FLOATS = 1
nan_safe_window: Any = UNBOUND


@inlined
def pool_block(
    x: Any, at: int, y: Any, q: int, won: Any, p: int, pixel: int, g: Any, h_pitch: int, h_by: int, w_by: int, next_row: int,
    corner: int, n_w: int,
) -> None:  # fmt: skip
    """Maxima of windows one above the other, the first at ``x[at]``; results are `next_row` apart.

    Of each row there are `n_w` cells, from the one under the tap `corner` on. The last stands for those that are missing: it
    does not beat itself.
    """
    zero = load(x, at)
    lanes = width(zero)
    sign = -1 if LAST else 1
    top = at - (K_H - 1) * D_H * h_pitch if LAST else at
    last = max(n_w - 1, 0)  # in padding alone there is none
    suspect = zero != zero
    for c0 in range(0, pixel, lanes):
        c = 0 if VECTOR else min(c0, pixel - lanes)
        bests = repeated(zero, ROWS_READ)
        if won is not None:
            winners = repeated(splat(0, load_like(won, p, zero)), ROWS_READ)
        for r in range(ROWS_READ):
            cell = top + r * h_pitch + c
            best = load(x, cell)
            total = best
            if not VECTOR and r >= ROWS_READ - ROWS * S_H:  # the others were read with the windows above
                for k in range(S_W):
                    prefetch_close(x, cell + k * w_by)
            if won is not None:
                winner = splat(corner, load_like(won, p, best))
            for k in range(1, K_W):
                value = load(x, cell + min(k, last) * w_by)
                greater = value > best
                total = total + value
                best = select(greater, value, best)
                if won is not None:
                    winner = select(greater, splat(corner + sign * k, winner), winner)
            suspect = suspect | (total != total)
            bests = replaced(bests, r, best)
            if won is not None:
                winners = replaced(winners, r, winner)
            for o in range(ROWS):
                if r == o * S_H + (K_H - 1) * D_H:  # the last row of these windows
                    for i in range(K_H):
                        j = K_H - 1 - i if LAST else i
                        value = picked(bests, o * S_H + j * D_H)
                        greater = value > best
                        if i == 0:
                            best = value
                        else:
                            best = select(greater, value, best)
                        if won is not None:
                            tap = picked(winners, o * S_H + j * D_H) + splat(j * K_W, winner)
                            if i == 0:
                                winner = tap
                            else:
                                winner = select(greater, tap, winner)
                    store_or_stream(y, q + o * next_row + c, best, STREAM)
                    if won is not None:
                        store(won, p + o * next_row + c, winner)
    if FLOATS and any_lane(suspect):
        tap = corner + ((K_H - 1) * K_W if LAST else 0)
        for o in range(ROWS):
            cell, to = at + o * S_H * h_pitch, o * next_row
            nan_safe_window(x, cell, y, q + to, won, p + to, pixel, g, 0, h_by, w_by, 1, K_H, n_w, tap, 1)


def in_blocks(program: Program) -> dict[str, int]:
    """What :func:`pool_block` is bound to where it is faster; else nothing."""
    d, h, w = program.axes
    if d.kernel > 1 or h.kernel <= max(h.stride, 1) or w.kernel < 2:
        return {}
    rows_read = (ROWS_AT_ONCE - 1) * h.stride + (h.kernel - 1) * h.dilation + 1
    if rows_read > ROWS_AT_ONCE * h.kernel:  # dilated so far that more of them would be read for nothing
        return {}
    return {"ROWS": ROWS_AT_ONCE, "ROWS_READ": rows_read, "S_H": h.stride, "S_W": w.stride, "D_H": h.dilation}
