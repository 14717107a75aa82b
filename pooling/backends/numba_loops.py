"""The loops one would write in C, compiled by Numba.

For each output, walk its window, keep the best value and the tap it came from; backward, send each gradient to that tap's
cell. Which cells a window has is looked up: per axis and output the first cell, its tap, and how many there are. So the
inner loop asks no question about edges, and windows of any kind, padded, dilated, or regions of uneven sizes, are the same
to it. One code for one, two and three spatial dimensions: missing ones have size 1.

The planes are split over threads from Python (`pooling/parallel/pool.py`); the kernels are serial and hold no GIL. Indices are
signed, which costs a wrap-around test each: unsigned ones brought 5% here, where the compare-and-branch per cell is what
takes the time, and the auto-vectorizer gives up on the winner either way.

Cost: x read once, y and one byte of tap per output written; backward reads those and dy, and writes dx twice (zeros,
then winners).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from pooling.backends._norms import with_infinity
from pooling.backends._sums import again_scaled, narrow, with_wide_sums
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import NO_TAP, kept_taps, lowest, sum_dtype, tap_dtype
from pooling.geometry.axis import Axis
from pooling.geometry.problem import Array, Kept, Problem
from pooling.geometry.window import Window
from pooling.parallel.pool import split
from pooling.runtime.buffer_pool import empty
from pooling.runtime.jit import kernel

D_OUT, H_OUT, W_OUT, D_STEP, H_STEP, W_STEP, H_TAPS, W_TAPS, SHAPE = range(9)


def as_3d(array: Array) -> Array:
    """(outer, *spatial, inner) with leading spatial axes of size 1 up to three."""
    return array.reshape(array.shape[0], *(1,) * (5 - array.ndim), *array.shape[1:])


@lru_cache(maxsize=32)
def walks(window: Window) -> tuple[Array, Array]:
    """Numbers that all windows share, and rows (cell, tap, count): of each output along the first axis, the second, the last."""
    axes = (*(Axis(size=1, kernel=1),) * (3 - window.ndim), *window.axes)
    shape = np.array(
        [*(a.out for a in axes), *(a.step for a in axes), axes[1].kernel, axes[2].kernel],
        np.int64,
    )
    return shape, np.ascontiguousarray(np.concatenate([axis.table for axis in axes]))


@kernel
def find_maxima(
    x: Any, y: Any, taps: Any, s: Any, rows: Any, low: Any, last: bool, keep: bool, start: int, stop: int
) -> None:
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(x.shape[4]):
                        best, winner = low, np.int64(-1)  # which, as plain Python, fits into what holds taps, too
                        for i in range(rows[e, 2]):
                            z = rows[e, 0] + i * s[D_STEP]
                            for j in range(rows[f, 2]):
                                u = rows[f, 0] + j * s[H_STEP]
                                tap = ((rows[e, 1] + i) * s[H_TAPS] + rows[f, 1] + j) * s[W_TAPS] + rows[g, 1]
                                for k in range(rows[g, 2]):
                                    value = x[b, z, u, rows[g, 0] + k * s[W_STEP], c]
                                    # Selects, not branches, which random data mispredicts: 1.25x faster.
                                    beats = (value > best) | (winner < 0) | ((value != value) & (best == best))
                                    beats |= last & (value == best)
                                    best = value if beats else best
                                    winner = tap + k if beats else winner
                        y[b, d, h, w, c] = best
                        if keep:
                            taps[b, d, h, w, c] = winner


@kernel
def add_to_winners(dy: Any, taps: Any, no_tap: int, s: Any, rows: Any, dx: Any, start: int, stop: int) -> None:
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(dx.shape[4]):
                        tap = int(taps[b, d, h, w, c])
                        if tap != no_tap:
                            i, j, k = tap // (s[H_TAPS] * s[W_TAPS]), tap // s[W_TAPS] % s[H_TAPS], tap % s[W_TAPS]
                            z = rows[e, 0] + (i - rows[e, 1]) * s[D_STEP]
                            u = rows[f, 0] + (j - rows[f, 1]) * s[H_STEP]
                            v = rows[g, 0] + (k - rows[g, 1]) * s[W_STEP]
                            dx[b, z, u, v, c] += dy[b, d, h, w, c]


@kernel
def add_shares(
    dy: Any, x: Any, y: Any, s: Any, rows: Any, dx: Any, one: Any, whole: bool, start: int, stop: int
) -> None:
    """To all tied cells, but to the first of several NaNs alone: equal shares, or (`whole`) everything."""
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(x.shape[4]):
                        best, tied = y[b, d, h, w, c], one - one
                        for adding in range(2):
                            given_to_nan = False
                            for i in range(rows[e, 2]):
                                z = rows[e, 0] + i * s[D_STEP]
                                for j in range(rows[f, 2]):
                                    u = rows[f, 0] + j * s[H_STEP]
                                    for k in range(rows[g, 2]):
                                        v = rows[g, 0] + k * s[W_STEP]
                                        value = x[b, z, u, v, c]
                                        if value == best or (value != value and not given_to_nan):
                                            given_to_nan = value != value
                                            if not adding:
                                                tied += one
                                            elif whole:
                                                dx[b, z, u, v, c] += dy[b, d, h, w, c]
                                            else:
                                                dx[b, z, u, v, c] += dy[b, d, h, w, c] / tied


@kernel
def add_cells(x: Any, y: Any, divisors: Any, s: Any, rows: Any, start: int, stop: int) -> None:
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(x.shape[4]):
                        total = np.float64(0)  # 0.0, to plain Python, is as wide as what is added to it
                        for i in range(rows[e, 2]):
                            z = rows[e, 0] + i * s[D_STEP]
                            for j in range(rows[f, 2]):
                                u = rows[f, 0] + j * s[H_STEP]
                                for k in range(rows[g, 2]):
                                    total += x[b, z, u, rows[g, 0] + k * s[W_STEP], c]
                        y[b, d, h, w, c] = total / divisors[d, h, w]


@kernel
def spread_cells(dy: Any, divisors: Any, s: Any, rows: Any, dx: Any, start: int, stop: int) -> None:
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(dx.shape[4]):
                        share = dy[b, d, h, w, c] / divisors[d, h, w]
                        for i in range(rows[e, 2]):
                            z = rows[e, 0] + i * s[D_STEP]
                            for j in range(rows[f, 2]):
                                u = rows[f, 0] + j * s[H_STEP]
                                for k in range(rows[g, 2]):
                                    dx[b, z, u, rows[g, 0] + k * s[W_STEP], c] += share


@kernel
def add_powers(x: Any, y: Any, weights: Any, p: float, signed: bool, s: Any, rows: Any, start: int, stop: int) -> None:
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(x.shape[4]):
                        total = 0.0
                        for i in range(rows[e, 2]):
                            z = rows[e, 0] + i * s[D_STEP]
                            for j in range(rows[f, 2]):
                                u = rows[f, 0] + j * s[H_STEP]
                                for k in range(rows[g, 2]):
                                    value = np.float64(x[b, z, u, rows[g, 0] + k * s[W_STEP], c])
                                    if p == 2:
                                        total += value * value
                                    else:
                                        total += (value if signed else abs(value)) ** p
                        total *= weights[d, h, w]
                        y[b, d, h, w, c] = np.sqrt(total) if p == 2 else total ** (1 / p)


@kernel
def spread_slopes(
    dy: Any, x: Any, y: Any, weights: Any, p: float, signed: bool, s: Any, rows: Any, dx: Any, start: int, stop: int
) -> None:
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(s[D_OUT]):
            for h in range(s[H_OUT]):
                for w in range(s[W_OUT]):
                    e, f, g = d, s[D_OUT] + h, s[D_OUT] + s[H_OUT] + w
                    for c in range(x.shape[4]):
                        norm, gradient = np.float64(y[b, d, h, w, c]), dy[b, d, h, w, c] * weights[d, h, w]
                        for i in range(rows[e, 2]):
                            z = rows[e, 0] + i * s[D_STEP]
                            for j in range(rows[f, 2]):
                                u = rows[f, 0] + j * s[H_STEP]
                                for k in range(rows[g, 2]):
                                    v = rows[g, 0] + k * s[W_STEP]
                                    value = np.float64(x[b, z, u, v, c])
                                    ratio = value / norm
                                    if norm == 0 or (value == 0 and p < 1):
                                        continue  # a kink
                                    if p == 2:
                                        slope = ratio
                                    elif signed:
                                        slope = ratio ** (p - 1)
                                    else:
                                        slope = np.sign(value) * abs(ratio) ** (p - 1)
                                    dx[b, z, u, v, c] += gradient * slope


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    find = training and problem.ties in ("first", "last")
    taps = empty(y.shape if find else (1,) * y.ndim, tap_dtype(problem.window.n_taps))
    low, last = lowest(x.dtype), problem.ties == "last"
    if x.dtype.kind == "b":
        x, y, low = x.view(np.uint8), y.view(np.uint8), np.uint8(0)
    arrays = (as_3d(x), as_3d(y), as_3d(taps), *walks(problem.window), low, last, find)
    split(lambda start, stop: find_maxima(*arrays, start, stop), len(x), x.nbytes)
    return (taps,) if find else (x, y)


@with_wide_sums
def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    where, dy, out = walks(problem.window), as_3d(dy), as_3d(dx)
    if problem.ties in ("first", "last"):
        taps, no_tap = as_3d(kept[0]), NO_TAP[kept[0].dtype]
        split(lambda a, b: add_to_winners(dy, taps, no_tap, *where, out, a, b), len(dx), dx.nbytes)
    else:
        x, y = map(as_3d, kept)
        one, whole = dx.dtype.type(1), problem.ties == "all"
        split(lambda a, b: add_shares(dy, x, y, *where, out, one, whole, a, b), len(dx), dx.nbytes)


def per_output(values: Array, window: Window) -> Array:
    """What broadcasts against the output, as an array over its three dimensions."""
    full = np.broadcast_to(values[..., 0], window.output_size)
    return np.ascontiguousarray(full).reshape((1,) * (3 - window.ndim) + window.output_size)


def room_for_sums(dx: Array, problem: Problem) -> Array:
    """dx itself, or, where many outputs send a share to a cell, an array of a wider dtype."""
    dtype = sum_dtype(dx.dtype, problem.window.most_over)
    return dx if dtype == dx.dtype else empty(dx.shape, dtype)


def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    means(x, y, problem)
    if x.dtype == np.float64:  # narrower numbers are added in it, where they can't overflow
        again_scaled(lambda given, result: means(given, result, problem), x, y, problem)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    shares(dy, dx, problem)
    again_scaled(lambda given, result: shares(given, result, problem), dy, dx, problem)


def means(x: Array, y: Array, problem: Problem) -> None:
    divisors = per_output(problem.divisors(np.float64), problem.window)
    arrays = (as_3d(x), as_3d(y), divisors, *walks(problem.window))
    split(lambda start, stop: add_cells(*arrays, start, stop), len(x), x.nbytes)


def shares(dy: Array, dx: Array, problem: Problem) -> None:
    divisors = per_output(problem.divisors(np.float64), problem.window)
    total = room_for_sums(dx, problem)
    arrays = (as_3d(dy), divisors, *walks(problem.window), as_3d(total))
    split(lambda start, stop: spread_cells(*arrays, start, stop), len(dx), dx.nbytes)
    if total is not dx:
        narrow(total, dx)


def norm_of(problem: Problem) -> tuple[Array, float, bool]:
    return per_output(problem.weights(), problem.window), float(problem.p), problem.signed


def lp_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    norm, (shape, rows) = norm_of(problem), walks(problem.window)
    cells, out = as_3d(x), as_3d(y)
    split(lambda start, stop: add_powers(cells, out, *norm, shape, rows, start, stop), len(x), x.nbytes)
    return (x, y)


def lp_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    norm, (shape, rows) = norm_of(problem), walks(problem.window)
    total = room_for_sums(dx, problem)
    (x, y), dy, out = map(as_3d, kept), as_3d(dy), as_3d(total)
    split(lambda start, stop: spread_slopes(dy, x, y, *norm, shape, rows, out, start, stop), len(dx), dx.nbytes)
    if total is not dx:
        narrow(total, dx)


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    if dtype == np.float16:
        return "Numba has no float16 arithmetic on the CPU"
    if problem.window.ndim > 3:
        return f"its loops are written out for up to 3 spatial dimensions, not {problem.window.ndim}"
    return None


BACKEND = Backend(
    name="numba_loops",
    note="plain loops compiled by Numba, planes split over threads",
    ops={
        "max": Pass(max_forward, max_backward, kept_taps),
        "avg": Pass(avg_forward, avg_backward),
        "lp": with_infinity(Pass(lp_forward, lp_backward), Pass(max_forward, max_backward)),
    },
    ties=("first", "last", "split", "all"),
    limits=limits,
    compiled=True,
    keeps_x=("split", "all"),
)
