"""Rows as they lie in memory: in channels_first a vector holds neighbouring outputs of one row.

The cells under one tap of neighbouring outputs are a stride apart: strided loads and shuffles, shared by neighbouring taps,
instead of a transposition (`memory/transpose.py`). Where a window extends beyond a row, the missing cells are masked; on CPUs
without masked loads rows are first copied with margins that never win. Above and below, only the existing rows of a window are
counted. `backward.py` has the backward pass, `plan.py` says when this strategy is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import UNBOUND, inlined, kernel
from pooling.simd.memory.prefetch import prefetch_at, prefetch_range
from pooling.simd.plan.box import D_FIRST, D_STOP, H_FIRST, H_STOP, band_box
from pooling.simd.plan.geometry import FACTOR, FIELDS, FULL, FULL_STOP, OUT, SIZE, STEP, TABLE
from pooling.simd.vector.interleave import edges, load_taps, load_taps_within, picked
from pooling.simd.vector.ops import any_lane, beats, load, load_like, select, splat, store, store_or_stream, width

# Bound when a pass is made:
LANES = 4
K_D, K_H, K_W = 1, 1, 1  # the window
S_W = 1
D_D, D_H, D_W = 1, 1, 1  # dilation
BEFORE = 0  # padding before a row
MAX = 1  # or 0: the mean
LAST = 0  # ties="last": windows are traversed backwards
NAN_SAFE = 1  # whether NaNs are handled; otherwise they are only detected
OVER = 0  # whether a row's only vector may be longer than the row: what it writes too much, the next row overwrites
MARGINS = 0  # whether rows are copied with margins
WITHIN = 0  # whether cells outside of a row are masked
NEW_D, NEW_H = 1, 1  # planes and rows of a window that the one before it does not read: these are prefetched
STREAM = 0  # bytes of y per streaming store, in whole vectors that do not overlap; 0: ordinary stores
INTERLEAVED = 0  # whether x is prefetched a row at a time, interleaved, and not by vectors


@kernel
def fill(b: Any, n: int, edge: Any) -> None:
    """Write `edge` everywhere; rows are copied over it, and what is left are the margins."""
    for i in range(n):
        b[np.uintp(i)] = edge  # unsigned: checks for negative indices were vectorized into slow scatters


@inlined
def copy_run(a: Any, i: int, n: int, b: Any, p: int) -> None:
    """Copy a row of `n` elements from ``a[i]`` to ``b[p]``."""
    lanes = width(load(a, i))
    if n < lanes:
        for k in range(n):
            b[np.uintp(p + k)] = a[np.uintp(i + k)]
        return
    for k0 in range(0, n, lanes):
        k = min(k0, n - lanes)
        store(b, p + k, load(a, i + k))
        prefetch_at(a, i + k)


@inlined
def row_taps(x: Any, at: int, place: int, size: int, edge: Any) -> Any:
    """What outputs side by side have under each tap of a row; the first cell, ``x[at]``, has this place in it."""
    if WITHIN:
        return load_taps_within(x, at, LANES, S_W, K_W, D_W, place, size, edge)
    return load_taps(x, at, LANES, S_W, K_W, D_W)


@inlined
def new_rows(at: int, line: int, plane: int, i: int) -> int:
    """Where the rows begin that the window before does not read, in the i-th plane; ``x[at]`` is the first cell read."""
    down = 1 - NEW_H if LAST else (K_H - NEW_H) * D_H
    deep = -i if LAST else i + K_D - NEW_D
    return at + down * line + deep * D_D * plane


nan_safe: Any = UNBOUND  # the same for windows with NaNs


@inlined
def pool_run(
    x: Any, at: int, line: int, plane: int, y: Any, q: int, won: Any, t: int, n: int, first: int, n_d: int, n_h: int,
    taps: Any, factors: Any, f: int, factor: Any,
) -> None:  # fmt: skip
    """`n` outputs side by side, the first of which has its first row at ``x[at]``, with the tap `first`.

    Rows are `line` elements apart, planes of three dimensions `plane`; there are `n_d` times `n_h` rows.
    """
    sign = -1 if LAST else 1
    corner = K_W - 1 if LAST else 0
    edge = edges(x, LANES, MAX)
    suspect = edge != edge
    for o0 in range(0, n, LANES):
        o = 0 if OVER else min(o0, n - LANES)  # the last vector overlaps the one before it
        place = o * S_W - BEFORE
        cells = row_taps(x, at + o * S_W, place, line, edge)
        best = picked(cells, corner)
        total = best
        if won is not None:
            winner = splat(first, load_like(won, 0, best))
            if MARGINS or WITHIN:
                winner = winner + load_like(taps, o, best)
        if not MARGINS:
            if not INTERLEAVED:
                for i in range(NEW_D):
                    for k in range(NEW_H * S_W):
                        prefetch_at(x, new_rows(at, line, plane, i) + o * S_W * NEW_H + k * LANES)
        for i in range(n_d):
            for j in range(n_h):
                row = at + o * S_W + sign * (i * D_D * plane + j * D_H * line)
                cells = row_taps(x, row, place, line, edge)
                for step in range(K_W):
                    if i + j + step > 0:
                        value = picked(cells, corner + sign * step)
                        if MAX:
                            greater = beats(value, best, LAST) if NAN_SAFE else value > best
                            total = total + value
                            best = select(greater, value, best)
                            if won is not None:
                                number = splat(first + sign * ((i * K_H + j) * K_W + step), winner)
                                winner = select(greater, number, winner)
                        else:
                            best = best + value
        if not MAX:
            best = best / (splat(factor, best) * load_like(factors, f + o, best))
        if MAX and not NAN_SAFE:
            suspect = suspect | (total != total)
        store_or_stream(y, q + o, best, STREAM)
        if won is not None:
            store(won, t + o, winner)
    if MAX and not NAN_SAFE:
        if any_lane(suspect):
            nan_safe(x, at, line, plane, y, q, won, t, n, first, n_d, n_h, taps, factors, f, factor)


@kernel
def nan_safe_run(
    x: Any, at: int, line: int, plane: int, y: Any, q: int, won: Any, t: int, n: int, first: int, n_d: int, n_h: int,
    taps: Any, factors: Any, f: int, factor: Any,
) -> None:  # fmt: skip
    """The same, not inlined, for any window, with NaNs, and in vectors that do not overrun their row."""
    pool_run(x, at, line, plane, y, q, won, t, n, first, n_d, n_h, taps, factors, f, factor)


@kernel
def pool_row(
    x: Any, x0: int, line: int, plane: int, y: Any, q: int, won: Any, t: int, d: int, h: int, g: Any, taps: Any, factors: Any
) -> None:  # fmt: skip
    """One row of outputs, whose windows may lack rows. ``x[x0]`` is where the first window of row 0 of plane 0 starts."""
    d_row, h_row = g[TABLE] + 3 * d, g[FIELDS + TABLE] + 3 * h
    n_d, n_h, n = g[d_row + 2], g[h_row + 2], g[2 * FIELDS + OUT]
    f = g[2 * FIELDS + FACTOR]
    factor = factors.dtype.type(1)
    if not MAX:
        factor = factors[g[FACTOR] + d] * factors[g[FIELDS + FACTOR] + h]
    if n_d * n_h > 0:
        at = x0 + g[d_row] * plane + g[h_row] * line
        first = g[d_row + 1] + g[h_row + 1] + (K_W - 1 if LAST else 0)
        nan_safe(x, at, line, plane, y, q, won, t, n, first, n_d, n_h, taps, factors, f, factor)
    else:  # padding alone
        for i in range(n):
            y[np.uintp(q + i)] = 0


@inlined
def pool_band(
    x: Any, x0: int, line: int, plane: int, y: Any, q: int, won: Any, t: int, box: Any, last: bool, g: Any, taps: Any,
    factors: Any, source: Any, s: int, left: int, low: int,
) -> None:  # fmt: skip
    """The outputs in `box`. `last`: nothing may be read after this plane, so that no row may be overrun.

    With margins, rows from `low` on, the first at ``source[s]``, are copied to ``x[left:]``, each just before it is needed: so
    memory is busy all the time.
    """
    n, f = g[2 * FIELDS + OUT], g[2 * FIELDS + FACTOR]
    full, full_stop = max(g[FIELDS + FULL], box[H_FIRST]), min(g[FIELDS + FULL_STOP], box[H_STOP])
    first = K_D * K_H * K_W - 1 if LAST else 0
    size, rows = g[2 * FIELDS + SIZE], g[FIELDS + SIZE]
    # Of the walk through a window, how far after its first row the last one lies.
    d_span, h_span = (0, 0) if LAST else (g[STEP], g[FIELDS + STEP])
    d_table, h_table, two = g[TABLE], g[FIELDS + TABLE], np.uintp(2)
    copied = low
    for d in range(box[D_FIRST], box[D_STOP]):
        d_row = np.uintp(d_table + 3 * d)  # unsigned: an index that can't be negative needs no check
        d_cell, d_count = g[d_row], g[d_row + two]
        start, stop = (full, full_stop) if d_count == K_D else (0, 0)
        if OVER and last:
            stop = start
        elif OVER and d == box[D_STOP] - 1:
            stop = min(stop, box[H_STOP] - 1)
        for h in range(box[H_FIRST], box[H_STOP]):
            h_row = np.uintp(h_table + 3 * h)
            h_cell = g[h_row]
            if MARGINS:
                d_last, h_last = d_cell + (d_count - 1) * d_span, h_cell + (g[h_row + two] - 1) * h_span
                while copied <= d_last * rows + h_last:
                    copy_run(source, s + (copied - low) * size, size, x, (copied - low) * line + left)
                    copied += 1
            if start <= h < stop:
                at = x0 + d_cell * plane + h_cell * line
                factor = factors.dtype.type(1)
                if not MAX:
                    factor = factors[g[FACTOR] + d] * factors[g[FIELDS + FACTOR] + h]
                if INTERLEAVED:
                    for i in range(NEW_D):
                        prefetch_range(x, new_rows(at, line, plane, i), NEW_H * line)
                pool_run(x, at, line, plane, y, q, won, t, n, first, K_D, K_H, taps, factors, f, factor)
            else:
                pool_row(x, x0, line, plane, y, q, won, t, d, h, g, taps, factors)
            q += n
            t += n


@kernel
def forward_rows(
    start: int, stop: int, x: Any, y: Any, won: Any, shape: Any, edge: Any, g: Any, factors: Any, bands: Any, where: Any, v: Any,
    t: Any,
) -> None:  # fmt: skip
    """Bands of planes, copied with margins if need be."""
    axis, slab, out_slab, cells, outputs = where
    left, right, planes, room = shape
    line, n, h_size = g[2 * FIELDS + SIZE], g[2 * FIELDS + OUT], g[FIELDS + SIZE]
    pitch = left + line + right
    if MARGINS:
        fill(v, room, edge)
    if (MARGINS or WITHIN) and won is not None:
        corner = K_W - 1 if LAST else 0
        for o in range(n):
            t[o] = g[g[2 * FIELDS + TABLE] + 3 * o + 1] - corner
    for unit in range(start, stop):
        item, b = unit // len(bands), unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        box = band_box(g, axis, first, end, low, high)
        last = item == planes - 1 and not (MARGINS or WITHIN)
        q = item * outputs + first * out_slab
        row = low * slab // line
        s = item * cells + row * line
        if MARGINS:
            x0 = left - BEFORE - row * pitch
            pool_band(v, x0, pitch, h_size * pitch, y, q, won, q, box, last, g, t, factors, x, s, left, row)
        else:
            pool_band(
                x, s - row * line - BEFORE, line, h_size * line, y, q, won, q, box, last, g, t, factors, x, s, left, row
            )
