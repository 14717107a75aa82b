"""Forward kernels that visit each window's cells one by one: the fastest way for small windows.

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


# The kernel_size, bound as constants where a pass is made for one window, so that LLVM unrolls the taps; 0: any window.
K_D, K_H, K_W = 0, 0, 0


@kernel
def max_window(x: Any, cell: int, y: Any, q: int, taps: Any, t: int, inner: int, counts: Any, by: Any, tap: int, geo: Any, low: Any) -> None:
    """The maximum of any window, and its tap unless `taps` is None: the window at the edge, or of a rare size."""
    n_d, n_h, n_w = counts
    kernel_size, tap_step = geo[2], geo[5]
    lanes = width(load(x, 0))
    some = n_d * n_h * n_w > 0
    for c0 in range(0, inner, lanes):
        c = min(c0, inner - lanes)
        best = splat(low, load(x, 0))
        if some:
            best = load(x, cell + c)
        if taps is not None:
            winner = splat(tap if some else NOBODY, load_like(taps, 0, best))
        for i in range(n_d):
            for j in range(n_h):
                row = cell + c + i * by[0] + j * by[1]
                number = tap + (i * kernel_size[1] + j) * kernel_size[2] * tap_step
                for k in range(n_w):
                    value = load(x, row + k * by[2])
                    beats = (value > best) | (is_nan(value) & ~is_nan(best))
                    best = select(beats, value, best)
                    if taps is not None:
                        winner = select(beats, splat(number + k * tap_step, winner), winner)
        store(y, q + c, best)
        if taps is not None:
            store(taps, t + c, winner)


@kernel
def max_full_windows(
    x: Any, cell: int, cell_by: int, y: Any, q: int, taps: Any, t: int, n: int, inner: int, by: Any, tap: int, tap_step: int
) -> None:
    """The maxima of `n` windows in a row that lie wholly inside the data: their taps are unrolled."""
    lanes = width(load(x, 0))
    for o in range(n):
        for c0 in range(0, inner, lanes):
            c = min(c0, inner - lanes)
            at = cell + o * cell_by + c
            best = load(x, at)
            if taps is not None:
                winner = splat(tap, load_like(taps, 0, best))
            for i in range(K_D):
                for j in range(K_H):
                    for k in range(K_W):
                        if i + j + k > 0:
                            value = load(x, at + i * by[0] + j * by[1] + k * by[2])
                            beats = (value > best) | (is_nan(value) & ~is_nan(best))
                            best = select(beats, value, best)
                            if taps is not None:
                                number = tap + ((i * K_H + j) * K_W + k) * tap_step
                                winner = select(beats, splat(number, winner), winner)
            store(y, q + o * inner + c, best)
            if taps is not None:
                store(taps, t + o * inner + c, winner)


@kernel
def max_windows(x: Any, x0: int, y: Any, y0: int, taps: Any, t0: int, inner: int, geo: Any, ranges: Any, low: Any) -> None:
    """Maxima of the outputs in `ranges`, and the taps that won unless `taps` is None.

    A cell beats the best so far if it is greater, or the window's first NaN.
    """
    size, out, kernel_size, reads, steps, tap_step, full, stride = geo
    d_reads, h_reads, w_reads = reads
    d0, d1, h0, h1, w0, w1 = ranges
    by = (steps[0] * size[1] * size[2] * inner, steps[1] * size[2] * inner, steps[2] * inner)
    for d in range(d0, d1):
        for h in range(h0, h1):
            n_d, n_h = d_reads[d, 2], h_reads[h, 2]
            row = (d_reads[d, 0] * size[1] + h_reads[h, 0]) * size[2]
            q = (d * out[1] + h) * out[2]
            tap = (d_reads[d, 1] * kernel_size[1] + h_reads[h, 1]) * kernel_size[2]
            a, b = w1, w1
            if n_d == K_D and n_h == K_H:
                a, b = max(w0, min(full[0], w1)), max(w0, min(full[1], w1))
            for w in range(w0, a):
                max_window(
                    x, x0 + (row + w_reads[w, 0]) * inner, y, y0 + (q + w) * inner, taps, t0 + (q + w) * inner, inner,
                    (n_d, n_h, w_reads[w, 2]), by, tap + w_reads[w, 1], geo, low,
                )  # fmt: skip
            if a < b:
                max_full_windows(
                    x, x0 + (row + w_reads[a, 0]) * inner, stride[2] * inner, y, y0 + (q + a) * inner, taps,
                    t0 + (q + a) * inner, b - a, inner, by, tap + w_reads[a, 1], tap_step,
                )  # fmt: skip
            for w in range(b, w1):
                max_window(
                    x, x0 + (row + w_reads[w, 0]) * inner, y, y0 + (q + w) * inner, taps, t0 + (q + w) * inner, inner,
                    (n_d, n_h, w_reads[w, 2]), by, tap + w_reads[w, 1], geo, low,
                )  # fmt: skip


@kernel
def mean_windows(x: Any, x0: int, y: Any, y0: int, divisors: Any, _: int, inner: int, geo: Any, ranges: Any, zero: Any) -> None:
    """Means of the windows of the outputs in `ranges`."""
    size, out, kernel_size, reads, steps, tap_step, full, stride = geo
    d_reads, h_reads, w_reads = reads
    d0, d1, h0, h1, w0, w1 = ranges
    lanes = width(load(x, 0))
    d_by, h_by, w_by = steps[0] * size[1] * size[2] * inner, steps[1] * size[2] * inner, steps[2] * inner
    for d in range(d0, d1):
        for h in range(h0, h1):
            n_d, n_h = d_reads[d, 2], h_reads[h, 2]
            row = (d_reads[d, 0] * size[1] + h_reads[h, 0]) * size[2]
            q = (d * out[1] + h) * out[2]
            rows_divisor = divisors[0][d] * divisors[1][h]
            for w in range(w0, w1):
                n_w = w_reads[w, 2]
                factor = 1.0 / (rows_divisor * divisors[2][w])
                for c0 in range(0, inner, lanes):
                    c = min(c0, inner - lanes)
                    cell = x0 + (row + w_reads[w, 0]) * inner + c
                    total = splat(zero, load(x, 0))
                    if n_d == K_D and n_h == K_H and n_w == K_W:
                        for i in range(K_D):
                            for j in range(K_H):
                                for k in range(K_W):
                                    total = total + load(x, cell + i * d_by + j * h_by + k * w_by)
                    else:
                        for i in range(n_d):
                            for j in range(n_h):
                                for k in range(n_w):
                                    total = total + load(x, cell + i * d_by + j * h_by + k * w_by)
                    store(y, y0 + (q + w) * inner + c, total * splat(factor, total))
