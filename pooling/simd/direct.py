"""Kernels that visit each window's cells, or each cell's windows, one by one: the fastest way for small windows.

Arrays are 1-D; pixel p of an array lies at ``array[p0 + p * inner]``. A pixel is `inner` elements, of which a vector takes
as many as it has lanes; the last vector of a pixel overlaps the one before it.
"""

from __future__ import annotations

from typing import Any

from pooling.jit import kernel
from pooling.simd.vectors import is_nan, load, load_like, select, splat, store, width

NOBODY = -1
"""In the taps' unsigned type, its largest value."""


@kernel
def box(axis: int, first: int, stop: int, size: Any) -> Any:
    """The ranges of all three axes when `axis` is cut to ``first:stop``."""
    d0, d1, h0, h1, w0, w1 = 0, size[0], 0, size[1], 0, size[2]
    if axis == 0:
        d0, d1 = first, stop
    elif axis == 1:
        h0, h1 = first, stop
    else:
        w0, w1 = first, stop
    return d0, d1, h0, h1, w0, w1


@kernel
def max_windows(x: Any, x0: int, y: Any, y0: int, taps: Any, t0: int, inner: int, geo: Any, ranges: Any, low: Any) -> None:
    """Maxima of the outputs in `ranges`, and the taps that won unless `taps` is None.

    A cell beats the best so far if it is greater, or the window's first NaN. Both comparisons are cheap: arrays that
    fit the cache take 5% longer for them, larger ones wait for memory.
    """
    size, out, kernel_size, reads, steps, tap_step = geo
    d_reads, h_reads, w_reads = reads
    d0, d1, h0, h1, w0, w1 = ranges
    lanes = width(load(x, 0))
    d_by, h_by, w_by = steps[0] * size[1] * size[2] * inner, steps[1] * size[2] * inner, steps[2] * inner
    for d in range(d0, d1):
        for h in range(h0, h1):
            for w in range(w0, w1):
                n_d, n_h, n_w = d_reads[d, 2], h_reads[h, 2], w_reads[w, 2]
                p = (d_reads[d, 0] * size[1] + h_reads[h, 0]) * size[2] + w_reads[w, 0]
                q = (d * out[1] + h) * out[2] + w
                tap = (d_reads[d, 1] * kernel_size[1] + h_reads[h, 1]) * kernel_size[2] + w_reads[w, 1]
                some = n_d * n_h * n_w > 0
                for c0 in range(0, inner, lanes):
                    c = min(c0, inner - lanes)
                    cell = x0 + p * inner + c
                    best = splat(low, load(x, 0))
                    if some:
                        best = load(x, cell)
                    if taps is not None:
                        winner = splat(tap if some else NOBODY, load_like(taps, 0, best))
                    for i in range(n_d):
                        for j in range(n_h):
                            for k in range(n_w):
                                value = load(x, cell + i * d_by + j * h_by + k * w_by)
                                beats = (value > best) | (is_nan(value) & ~is_nan(best))
                                best = select(beats, value, best)
                                if taps is not None:
                                    number = tap + ((i * kernel_size[1] + j) * kernel_size[2] + k) * tap_step
                                    winner = select(beats, splat(number, winner), winner)
                    store(y, y0 + q * inner + c, best)
                    if taps is not None:
                        store(taps, t0 + q * inner + c, winner)


@kernel
def mean_windows(x: Any, x0: int, y: Any, y0: int, divisors: Any, _: int, inner: int, geo: Any, ranges: Any, zero: Any) -> None:
    """Means of the windows of the outputs in `ranges`."""
    size, out, kernel_size, reads, steps, tap_step = geo
    d_reads, h_reads, w_reads = reads
    d0, d1, h0, h1, w0, w1 = ranges
    lanes = width(load(x, 0))
    d_by, h_by, w_by = steps[0] * size[1] * size[2] * inner, steps[1] * size[2] * inner, steps[2] * inner
    for d in range(d0, d1):
        for h in range(h0, h1):
            for w in range(w0, w1):
                p = (d_reads[d, 0] * size[1] + h_reads[h, 0]) * size[2] + w_reads[w, 0]
                q = (d * out[1] + h) * out[2] + w
                factor = 1.0 / (divisors[0][d] * divisors[1][h] * divisors[2][w])
                for c0 in range(0, inner, lanes):
                    c = min(c0, inner - lanes)
                    cell = x0 + p * inner + c
                    total = splat(zero, load(x, 0))
                    for i in range(d_reads[d, 2]):
                        for j in range(h_reads[h, 2]):
                            for k in range(w_reads[w, 2]):
                                total = total + load(x, cell + i * d_by + j * h_by + k * w_by)
                    store(y, y0 + q * inner + c, total * splat(factor, total))


@kernel
def gather_won(dy: Any, y0: int, taps: Any, t0: int, dx: Any, x0: int, inner: int, geo: Any, ranges: Any, zero: Any) -> None:
    """The gradient of the cells in `ranges`: of each window over a cell, its gradient if the cell has won it.

    Each cell is written once, in order; the windows' shares are added in the windows' order.
    """
    size, out, kernel_size, starts, takers = geo
    d0, d1, h0, h1, w0, w1 = ranges
    lanes = width(load(dy, 0))
    for d in range(d0, d1):
        for h in range(h0, h1):
            for w in range(w0, w1):
                p = (d * size[1] + h) * size[2] + w
                for c0 in range(0, inner, lanes):
                    c = min(c0, inner - lanes)
                    total = splat(zero, load(dy, 0))
                    for i in range(starts[0][d], starts[0][d + 1]):
                        for j in range(starts[1][h], starts[1][h + 1]):
                            row = (takers[0][i, 0] * out[1] + takers[1][j, 0]) * out[2]
                            tap_row = (takers[0][i, 1] * kernel_size[1] + takers[1][j, 1]) * kernel_size[2]
                            for k in range(starts[2][w], starts[2][w + 1]):
                                q = (row + takers[2][k, 0]) * inner + c
                                winner = load_like(taps, t0 + q, total)
                                won = winner == splat(tap_row + takers[2][k, 1], winner)
                                total = total + select(won, load(dy, y0 + q), splat(zero, total))
                    store(dx, x0 + p * inner + c, total)


@kernel
def gather_mean(dy: Any, y0: int, divisors: Any, _: int, dx: Any, x0: int, inner: int, geo: Any, ranges: Any, zero: Any) -> None:
    """The gradient of the cells in `ranges` through means: the shares of all windows over a cell."""
    size, out, kernel_size, starts, takers = geo
    d0, d1, h0, h1, w0, w1 = ranges
    lanes = width(load(dy, 0))
    for d in range(d0, d1):
        for h in range(h0, h1):
            for w in range(w0, w1):
                p = (d * size[1] + h) * size[2] + w
                for c0 in range(0, inner, lanes):
                    c = min(c0, inner - lanes)
                    total = splat(zero, load(dy, 0))
                    for i in range(starts[0][d], starts[0][d + 1]):
                        for j in range(starts[1][h], starts[1][h + 1]):
                            row = (takers[0][i, 0] * out[1] + takers[1][j, 0]) * out[2]
                            rows_factor = divisors[0][takers[0][i, 0]] * divisors[1][takers[1][j, 0]]
                            for k in range(starts[2][w], starts[2][w + 1]):
                                share = load(dy, y0 + (row + takers[2][k, 0]) * inner + c)
                                total = total + share * splat(1.0 / (rows_factor * divisors[2][takers[2][k, 0]]), share)
                    store(dx, x0 + p * inner + c, total)
