"""One pass along one axis by van Herk (1992) and Gil and Werman (1993): three comparisons per cell, whatever the window's
length.

The axis is cut into blocks as long as a window. A prefix scan and a suffix scan give each cell the maximum of its block up to it
and from it on; any window is the end of one block and the start of the next. Windows cut by the edges are shorter runs of the
same kind. Cells are numbered in traversal order, backwards with ties="last". During the scan a cell's tap is relative to the
first cell of the axis; the window's own start is subtracted at the end, modulo 256 or 65536.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import SUM_BLOCK
from pooling.runtime.jit import UNBOUND, inlined, kernel
from pooling.simd.plan.geometry import FACTOR, SCAN, SCAN_TABLE, SIZE, STEP, TABLE, TAP_STEP, TOGETHER
from pooling.simd.vector.ops import any_lane, beats, load, load_like, select, splat, store, width

# Bound when a pass is made, as in `kernels/separable/axis.py`:
MAX = 1
TAPPED = 0
VECTOR = 0
LAST = 0
NAN_SAFE = 1
LONG = 0
BEFORE, AFTER = 0, 0


nan_safe: Any = UNBOUND  # the same for windows with NaNs


@inlined
def greater(value: Any, best: Any) -> Any:
    """Where `value`, of a later cell, takes the place of `best`."""
    return beats(value, best, LAST) if NAN_SAFE else value > best


@inlined
def scan_blocks(
    x: Any, s: int, taps: Any, st: int, won: Any, by: int, n: int, base: int, block: int, tap_step: int, factors: Any, f: int,
    v: Any, v0: int, t: Any, t0: int,
) -> Any:  # fmt: skip
    """Both parts of the `n` cells of a line, `by` apart, a vector each, from `v0` and `t0` on; cell `base` is the first.

    Both at once, so that neither waits for its own last comparison. Returns the sum of the cells, NaN if one of them is.
    """
    total = load(x, s)
    lanes = width(total)
    total = splat(0, total)
    low, end = 0, min(block - base % block, n)
    while low < n:
        up, down = load(x, s + low * by), load(x, s + (end - 1) * by)
        if MAX and not NAN_SAFE:
            total = total + up
        if BEFORE:
            up, down = up * splat(factors[f + low], up), down * splat(factors[f + end - 1], down)
        if LONG:  # what the blocks of `SUM_BLOCK` cells before the one that is added to have come to
            below, above = splat(0, up), splat(0, up)
        store(v, v0 + 2 * low * lanes, up)
        store(v, v0 + (2 * end - 1) * lanes, down)
        if won is not None:
            rising = splat((base + low) * tap_step, load_like(won, 0, up))
            falling = splat((base + end - 1) * tap_step, rising)
            one = splat(tap_step, rising)
            up_tap, down_tap = rising, falling
            if TAPPED:
                up_tap = rising + load_like(taps, st + low * by, up)
                down_tap = falling + load_like(taps, st + (end - 1) * by, up)
            store(t, t0 + 2 * low * lanes, up_tap)
            store(t, t0 + (2 * end - 1) * lanes, down_tap)
        for i in range(1, end - low):
            q, r = low + i, end - 1 - i
            value, other = load(x, s + q * by), load(x, s + r * by)
            if BEFORE:
                value, other = value * splat(factors[f + q], value), other * splat(factors[f + r], other)
            if MAX:
                replaces, stays = greater(value, up), greater(down, other)
                if not NAN_SAFE:
                    total = total + value
                up, down = select(replaces, value, up), select(stays, down, other)
                if won is not None:
                    rising, falling = rising + one, falling - one
                    here, there = rising, falling
                    if TAPPED:
                        here = rising + load_like(taps, st + q * by, up)
                        there = falling + load_like(taps, st + r * by, up)
                    up_tap, down_tap = select(replaces, here, up_tap), select(stays, down_tap, there)
                    store(t, t0 + 2 * q * lanes, up_tap)
                    store(t, t0 + (2 * r + 1) * lanes, down_tap)
            elif LONG and i % SUM_BLOCK == 0:
                below, above = below + up, down + above
                up, down = value, other
            else:
                up, down = up + value, other + down
            store(v, v0 + 2 * q * lanes, below + up if LONG else up)
            store(v, v0 + (2 * r + 1) * lanes, down + above if LONG else down)
        low, end = end, min(end + block, n)
    return total


@kernel
def scan_lines(
    x: Any, s: int, taps: Any, st: int, y: Any, d: int, won: Any, dt: int, run: int, g: Any, a: int, first: int, stop: int,
    shift: int, n: int, factors: Any, v: Any, v0: int, t: Any, t0: int, last: int, many: int,
) -> None:  # fmt: skip
    """Results `first` to `stop` of the `n` cells of lines, `run` apart; cell `shift` is the first.

    A cell has `many` vectors side by side, the last of them `last` elements from the first. Their results are written side by
    side, too: line by line the lines of the cache came too far apart to be fetched in time. Taps written after all values took
    0.55 of the time where results lie 28 KB apart, and 1.0 to 1.1 times as long elsewhere.
    """
    f, step, tap_step = g[a + FACTOR], g[a + STEP], g[a + TAP_STEP]
    base = shift if step > 0 else g[a + SIZE] - shift - n
    away = 0 if step > 0 else (n - 1) * run
    total = splat(0, load(v, 0))
    lanes = width(total)
    parts = 2 * n * lanes
    for k in range(many):
        c = min(k * lanes, last)
        total = total + scan_blocks(
            x, s + c + away, taps, st + c + away, won, run * step, n, base, g[a + SCAN], tap_step, factors, f + shift,
            v, v0 + k * parts, t, t0 + k * parts,
        )  # fmt: skip
    of_values, of_taps = v0 - 2 * base * lanes, t0 - 2 * base * lanes
    for r in range(first, stop):
        row = np.uintp(g[a + SCAN_TABLE] + 3 * r)  # unsigned: no check for negative indices
        i, j, shifted = g[row], g[row + np.uintp(1)], g[row + np.uintp(2)]
        if not MAX:  # what a sum without terms has is replaced, but it must be there
            i = min(max(i, 2 * base), 2 * (base + n) - 1)
            j = min(max(j, 2 * base), 2 * (base + n) - 1)
        for k in range(many):
            to = (r - first) * run + min(k * lanes, last)
            best = load(v, of_values + i * lanes + k * parts)
            if MAX:
                value = load(v, of_values + j * lanes + k * parts)
                later = greater(value, best)
                best = select(later, value, best)
            else:
                if i != j:
                    best = best + load(v, of_values + j * lanes + k * parts)
                if g[g[a + TABLE] + 3 * r + 2] == 0:
                    best = splat(0, best)
            if AFTER:
                best = best / splat(factors[f + r], best)
            store(y, d + to, best)
            if won is not None:
                fall = load_like(t, of_taps + i * lanes + k * parts, best)
                winner = select(later, load_like(t, of_taps + j * lanes + k * parts, best), fall)
                store(won, dt + to, winner + splat(shifted, winner))
    if MAX and not NAN_SAFE and any_lane(total != total):
        nan_safe(
            x, s, taps, st, y, d, won, dt, run, g, a, first, stop, shift, n, factors, v, v0, t, t0, last, many
        )  # fmt: skip


@kernel
def scan_axis(
    x: Any, s: int, taps: Any, st: int, y: Any, d: int, won: Any, dt: int, outer: int, n: int, run: int, g: Any, a: int,
    first: int, stop: int, shift: int, factors: Any, v: Any, v0: int, t: Any, t0: int,
) -> None:  # fmt: skip
    """As `read_axis`."""
    lanes = width(load(x, 0))
    together = TOGETHER if won is not None else TOGETHER // 2
    for o in range(outer):
        i, j = o * n * run, o * (stop - first) * run
        for c in range(0, lanes if VECTOR else run, together * lanes):
            left = lanes if VECTOR else run - c
            scan_lines(
                x, s + i + c, taps, st + i + c, y, d + j + c, won, dt + j + c, run, g, a, first, stop, shift, n, factors,
                v, v0, t, t0, left - lanes, min(together, -(-left // lanes)),
            )  # fmt: skip
