"""The loops one would write in C, compiled by Numba.

For each output, walk its window, keep the best value and the tap it came from; backward, send each gradient to that tap's
cell. Any window, any padding: the loop bounds of a window are clipped to the data, so that the inner loop asks no
question about edges. One code for one, two and three spatial dimensions: missing ones have size 1.

The planes are split over threads from Python (`pooling/threads.py`); the kernels are serial and hold no GIL. Indices are
signed, which costs a wrap-around test each: unsigned ones brought 5% here, where the compare-and-branch per cell is what
takes the time, and the auto-vectorizer gives up on the winner either way.

Cost: x read once, y and one byte of tap per output written; backward reads those and dy, and writes dx twice (zeros,
then winners).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.backend import Array, Backend, Kept, Pass, Problem
from pooling.jit import kernel
from pooling.memory import empty
from pooling.taps import NOBODY, kept_taps, lowest, tap_dtype
from pooling.threads import split

Span = tuple[int, int, int, int, int, int]


def as_3d(array: Array) -> Array:
    """(outer, *spatial, inner) with leading spatial axes of size 1 up to three."""
    return array.reshape(array.shape[0], *(1,) * (5 - array.ndim), *array.shape[1:])


def spans(problem: Problem) -> tuple[Span, Span, Span]:
    """Per axis of :func:`as_3d`: output cells, input cells, kernel, stride, padding before, dilation."""
    axes = [(a.out, a.size, a.kernel, a.stride, a.before, a.dilation) for a in problem.window.axes]
    d, h, w = [(1, 1, 1, 1, 0, 1)] * (3 - len(axes)) + axes
    return d, h, w


@kernel
def first_tap(o: int, span: Any) -> Any:
    """The first tap of output `o` that has a real cell, the one past the last, and the cell of tap 0."""
    _, size, taps, stride, before, dilation = span
    start = o * stride - before
    first = max(0, (dilation - 1 - start) // dilation)
    stop = min(taps, (size - 1 - start) // dilation + 1)
    return first, stop, start


@kernel
def find_maxima(x: Any, y: Any, taps: Any, spans: Any, low: Any, last: bool, keep: bool, start: int, stop: int) -> None:
    d_span, h_span, w_span = spans
    for b in range(start, stop):
        for d in range(d_span[0]):
            d_first, d_stop, d0 = first_tap(d, d_span)
            for h in range(h_span[0]):
                h_first, h_stop, h0 = first_tap(h, h_span)
                for w in range(w_span[0]):
                    w_first, w_stop, w0 = first_tap(w, w_span)
                    for c in range(x.shape[4]):
                        best, winner = low, -1
                        for i in range(d_first, d_stop):
                            for j in range(h_first, h_stop):
                                for k in range(w_first, w_stop):
                                    value = x[b, d0 + i * d_span[5], h0 + j * h_span[5], w0 + k * w_span[5], c]
                                    # Selects, not branches, which random data mispredicts: 1.25x faster.
                                    beats = (value > best) | (winner < 0) | ((value != value) & (best == best))
                                    beats |= last & ((value == best) | (value != value))
                                    best = value if beats else best
                                    winner = (i * h_span[2] + j) * w_span[2] + k if beats else winner
                        y[b, d, h, w, c] = best
                        if keep:
                            taps[b, d, h, w, c] = winner


@kernel
def pay_winners(dy: Any, taps: Any, nobody: int, spans: Any, dx: Any, start: int, stop: int) -> None:
    d_span, h_span, w_span = spans
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(d_span[0]):
            for h in range(h_span[0]):
                for w in range(w_span[0]):
                    for c in range(dx.shape[4]):
                        tap = int(taps[b, d, h, w, c])
                        if tap != nobody:
                            i, j, k = tap // (h_span[2] * w_span[2]), tap // w_span[2] % h_span[2], tap % w_span[2]
                            z = d * d_span[3] - d_span[4] + i * d_span[5]
                            u = h * h_span[3] - h_span[4] + j * h_span[5]
                            v = w * w_span[3] - w_span[4] + k * w_span[5]
                            dx[b, z, u, v, c] += dy[b, d, h, w, c]


@kernel
def pay_shares(dy: Any, x: Any, y: Any, spans: Any, dx: Any, one: Any, start: int, stop: int) -> None:
    d_span, h_span, w_span = spans
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(d_span[0]):
            d_first, d_stop, d0 = first_tap(d, d_span)
            for h in range(h_span[0]):
                h_first, h_stop, h0 = first_tap(h, h_span)
                for w in range(w_span[0]):
                    w_first, w_stop, w0 = first_tap(w, w_span)
                    for c in range(x.shape[4]):
                        best, tied = y[b, d, h, w, c], one - one
                        for paying in range(2):
                            for i in range(d_first, d_stop):
                                for j in range(h_first, h_stop):
                                    for k in range(w_first, w_stop):
                                        z, u, v = d0 + i * d_span[5], h0 + j * h_span[5], w0 + k * w_span[5]
                                        value = x[b, z, u, v, c]
                                        if value == best or value != value:
                                            if paying:
                                                dx[b, z, u, v, c] += dy[b, d, h, w, c] / tied
                                            else:
                                                tied += one


@kernel
def add_cells(x: Any, y: Any, divisors: Any, spans: Any, start: int, stop: int) -> None:
    d_span, h_span, w_span = spans
    for b in range(start, stop):
        for d in range(d_span[0]):
            d_first, d_stop, d0 = first_tap(d, d_span)
            for h in range(h_span[0]):
                h_first, h_stop, h0 = first_tap(h, h_span)
                for w in range(w_span[0]):
                    w_first, w_stop, w0 = first_tap(w, w_span)
                    for c in range(x.shape[4]):
                        total = 0.0
                        for i in range(d_first, d_stop):
                            for j in range(h_first, h_stop):
                                for k in range(w_first, w_stop):
                                    total += x[b, d0 + i * d_span[5], h0 + j * h_span[5], w0 + k * w_span[5], c]
                        y[b, d, h, w, c] = total / divisors[d, h, w]


@kernel
def spread_cells(dy: Any, divisors: Any, spans: Any, dx: Any, start: int, stop: int) -> None:
    d_span, h_span, w_span = spans
    dx[start:stop] = 0
    for b in range(start, stop):
        for d in range(d_span[0]):
            d_first, d_stop, d0 = first_tap(d, d_span)
            for h in range(h_span[0]):
                h_first, h_stop, h0 = first_tap(h, h_span)
                for w in range(w_span[0]):
                    w_first, w_stop, w0 = first_tap(w, w_span)
                    for c in range(dx.shape[4]):
                        share = dy[b, d, h, w, c] / divisors[d, h, w]
                        for i in range(d_first, d_stop):
                            for j in range(h_first, h_stop):
                                for k in range(w_first, w_stop):
                                    dx[b, d0 + i * d_span[5], h0 + j * h_span[5], w0 + k * w_span[5], c] += share


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    find = training and problem.ties != "split"
    taps = empty(y.shape if find else (1,) * y.ndim, tap_dtype(problem.window.n_taps))
    low, last = lowest(x.dtype), problem.ties == "last"
    if x.dtype.kind == "b":
        x, y, low = x.view(np.uint8), y.view(np.uint8), np.uint8(0)
    arrays = (as_3d(x), as_3d(y), as_3d(taps), spans(problem), low, last, find)
    split(lambda start, stop: find_maxima(*arrays, start, stop), len(x), x.nbytes)
    return (taps,) if find else (x, y)


def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    where, dy, out = spans(problem), as_3d(dy), as_3d(dx)
    if problem.ties == "split":
        x, y = map(as_3d, kept)
        split(lambda a, b: pay_shares(dy, x, y, where, out, dx.dtype.type(1), a, b), len(dx), dx.nbytes)
    else:
        taps, nobody = as_3d(kept[0]), NOBODY[kept[0].dtype]
        split(lambda a, b: pay_winners(dy, taps, nobody, where, out, a, b), len(dx), dx.nbytes)


def divisors_3d(problem: Problem) -> Array:
    size = problem.window.output_size
    divisors = np.broadcast_to(problem.divisors(np.float64)[..., 0], size)
    return np.ascontiguousarray(divisors).reshape((1,) * (3 - len(size)) + size)


def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    arrays = (as_3d(x), as_3d(y), divisors_3d(problem), spans(problem))
    split(lambda start, stop: add_cells(*arrays, start, stop), len(x), x.nbytes)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    arrays = (as_3d(dy), divisors_3d(problem), spans(problem), as_3d(dx))
    split(lambda start, stop: spread_cells(*arrays, start, stop), len(dx), dx.nbytes)


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    if dtype == np.float16:
        return "Numba has no float16 arithmetic on the CPU"
    if problem.window.ndim > 3:
        return f"its loops are written out for up to 3 spatial dimensions, not {problem.window.ndim}"
    return None


BACKEND = Backend(
    name="numba_loops",
    note="plain loops compiled by Numba, planes split over threads",
    ops={"max": Pass(max_forward, max_backward, kept_taps), "avg": Pass(avg_forward, avg_backward)},
    ties=("first", "last", "split"),
    limits=limits,
    keeps_x=("split",),
)
