"""One pass along one axis: for each result the maximum of a run of cells, with its tap, or the sum.

Pooling is separable: the maximum of a box is the maximum over its rows' maxima. A pass along the last axis, then one along each
axis before it, costs the sum of a window's lengths and not their product, and rows shared by overlapping windows are reduced
once. "First" survives: a row's winner is its first, and only something greater in a later row replaces it.

Source and target hold `outer` x n x `run` elements; a run is one vector or many. Windows much longer than their stride are
scanned instead (`van_herk.py`).
"""

from __future__ import annotations

from typing import Any

from pooling.geometry.argmax_rules import SUM_BLOCK
from pooling.runtime.jit import UNBOUND, inlined, kernel
from pooling.simd.plan.geometry import FACTOR, FULL, FULL_STOP, STEP, STRIDE, TABLE, TAP_STEP
from pooling.simd.vector.ops import any_lane, beats, load, load_like, select, splat, store, store_or_stream, width

# Bound when a pass is made:
MAX = 1  # or 0: the sum
COUNT = 0  # cells of a full window, which are then unrolled; 0: any number
TAPPED = 0  # whether the source has taps of its own, of an axis after this one
VECTOR = 0  # whether a run is one vector
LAST = 0  # whether windows are walked back, so that the last of tied cells wins
NAN_SAFE = 1  # whether NaNs are handled; otherwise they are only detected, and `nan_safe` runs again
STREAM = 0  # whether results are written with streaming stores
LONG = 0  # whether some result has so many terms that they are added in blocks
BEFORE, AFTER = (
    0,
    0,
)  # whether sources are scaled by their factors (backward), or sums divided by their divisors (forward)


nan_safe: Any = UNBOUND  # the same for windows with NaNs


@inlined
def blocked_sum(x: Any, s: int, by: int, count: int, factors: Any, f: int, f_step: int) -> Any:
    """The sum of a vector from each of `count` runs, in blocks, and blocks of blocks (`SUM_BLOCK`)."""
    zero = splat(0, load(x, s))
    once, twice, total = zero, zero, zero
    for i in range(0, count, SUM_BLOCK):
        part = zero
        for k in range(i, min(i + SUM_BLOCK, count)):
            value = load(x, s + k * by)
            if BEFORE:
                value = value * splat(factors[f + k * f_step], value)
            part = part + value
        once = once + part
        if i % SUM_BLOCK**2 == SUM_BLOCK**2 - SUM_BLOCK:
            twice, once = twice + once, zero
        if i % SUM_BLOCK**3 == SUM_BLOCK**3 - SUM_BLOCK:
            total, twice = total + twice, zero
    return once + twice + total


@kernel
def fold(
    x: Any, s: int, taps: Any, st: int, y: Any, d: int, won: Any, dt: int, run: int, by: int, count: int, tap: int,
    tap_step: int, factors: Any, f: int, f_step: int,
) -> None:  # fmt: skip
    """One result, a run long, from `count` runs that are `by` apart. Taps are kept unless `won` is None."""
    lanes = width(load(x, 0))
    suspect = load(x, s) != load(x, s)
    for c0 in range(0, lanes if VECTOR else run, lanes):
        c = 0 if VECTOR else min(c0, run - lanes)  # the last vector overlaps the one before it
        best = load(x, s + c)
        total = best
        if BEFORE:
            best = best * splat(factors[f], best)
        if won is not None:
            winner = splat(tap, load_like(won, 0, best))
            if TAPPED:
                winner = winner + load_like(taps, st + c, best)
        if LONG:
            best = blocked_sum(x, s + c, by, count, factors, f, f_step)
        for k in range(1, 1 if LONG else count):
            value = load(x, s + k * by + c)
            if MAX:
                greater = beats(value, best, LAST) if NAN_SAFE else value > best
                total = total + value
                best = select(greater, value, best)
                if won is not None:
                    number = splat(tap + k * tap_step, winner)
                    if TAPPED:
                        number = number + load_like(taps, st + k * by + c, best)
                    winner = select(greater, number, winner)
            else:
                if BEFORE:
                    value = value * splat(factors[f + k * f_step], best)
                best = best + value
        if MAX and not NAN_SAFE:
            suspect = suspect | (total != total)
        if AFTER:
            best = best / splat(factors[f], best)
        store_or_stream(y, d + c, best, STREAM)
        if won is not None:
            store(won, dt + c, winner)
    if MAX and not NAN_SAFE and any_lane(suspect):
        nan_safe(x, s, taps, st, y, d, won, dt, run, by, count, tap, tap_step, factors, f, f_step)


@kernel
def read_windows(
    x: Any, s: int, taps: Any, st: int, y: Any, d: int, won: Any, dt: int, run: int, g: Any, a: int, first: int, stop: int,
    shift: int, factors: Any,
) -> None:  # fmt: skip
    """Results `first` to `stop`, each from the cells of its window; cell `shift` is the first in the source."""
    table, f = g[a + TABLE], g[a + FACTOR]
    by, tap_step = g[a + STEP] * run, g[a + TAP_STEP]
    full, full_stop = stop, stop
    if COUNT:
        full, full_stop = max(first, min(g[a + FULL], stop)), max(first, min(g[a + FULL_STOP], stop))
    for part in range(2):
        for r in range(full_stop if part else first, stop if part else full):
            cell, tap, count = g[table + 3 * r], g[table + 3 * r + 1], g[table + 3 * r + 2]
            at, to = max(cell - shift, 0) * run, (r - first) * run
            if MAX or count > 0:
                scale = f + (cell if BEFORE else r)
                fold(
                    x, s + at, taps, st + at, y, d + to, won, dt + to, run, by, max(count, 1), tap, tap_step, factors, scale,
                    g[a + STEP],
                )  # fmt: skip
            else:
                clear(y, d + to, run)
    if COUNT and full < full_stop:
        cell, tap = g[table + 3 * full], g[table + 3 * full + 1]
        for r in range(full_stop - full):
            at, to = (cell + r * g[a + STRIDE] - shift) * run, (full - first + r) * run
            scale = f + (cell + r * g[a + STRIDE] if BEFORE else full + r)
            fold(
                x,
                s + at,
                taps,
                st + at,
                y,
                d + to,
                won,
                dt + to,
                run,
                by,
                COUNT,
                tap,
                tap_step,
                factors,
                scale,
                g[a + STEP],
            )


@kernel
def clear(y: Any, d: int, run: int) -> None:
    """An empty sum."""
    zero = load(y, d)
    lanes = width(zero)
    for c0 in range(0, run, lanes):
        store(y, d + min(c0, run - lanes), splat(0, zero))


@kernel
def read_axis(
    x: Any, s: int, taps: Any, st: int, y: Any, d: int, won: Any, dt: int, outer: int, n: int, run: int, g: Any, a: int,
    first: int, stop: int, shift: int, factors: Any, v: Any, v0: int, t: Any, t0: int,
) -> None:  # fmt: skip
    """Reduce axis `a` of `outer` x `n` x `run` elements to the results `first` to `stop`, reading each one's window."""
    for o in range(outer):
        i, j = o * n * run, o * (stop - first) * run
        read_windows(x, s + i, taps, st + i, y, d + j, won, dt + j, run, g, a, first, stop, shift, factors)
