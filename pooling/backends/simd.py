"""Explicit vectors: lanes are channels, or as many planes turned into lanes, and every window is the same few loops.

A pooling does the same to every plane. So take as many planes as a vector has lanes: a cell of all of them is one vector, and
the loops of `numba_loops`, over vectors instead of numbers, have no row ends, no edges and no short rows to care for.
In channels_last the channels are such planes already. In channels_first a block of planes is turned, a band of rows at
a time, into a small buffer that stays in the cache, and the result is turned back; reading so many planes at once and
turning them costs no more than reading them. The vectors are explicit (`pooling/simd/`), because the auto-vectorizer
gives up on these loops.

The forward pass remembers one byte per output, the tap that won, already in lanes. Backward each cell asks the windows
over it whether it has won: dx is written once, in order, and sums are the same at any thread count.

Cost: forward reads x once and writes y and the taps; backward reads dy and the taps and writes dx. Nothing else leaves the
cache.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from pooling.backend import Array, Backend, Kept, Pass, Problem
from pooling.simd.geometry import geometry
from pooling.taps import lowest, tap_dtype
from pooling.threads import scratch, split
from pooling.window import Axis, Window

BAND = 1 << 18
"""Bytes of the buffer that a band of turned planes should fit: a quarter of a common L2 cache."""


@cache
def lanes_of(dtype: np.dtype[Any]) -> int:
    from pooling.simd.vectors import lanes

    return lanes(dtype)


@lru_cache(maxsize=256)
def bands(problem: Problem, pixel_bytes: int, backward: bool) -> Array:
    """Rows (first, stop, low, high): results from `first` to `stop` along the band axis need arguments `low` to `high`.

    A band's argument and result together fit :data:`BAND` where even one step along the axis does.
    """
    geo = geometry(problem)
    a = geo.band_axis
    if backward:
        results, of_result, of_argument = geo.size[a], geo.slab, geo.out_slab
        counts = np.diff(geo.starts[a])
        takers = geo.takers[a][:, 0]
        may_end = (np.arange(1, results + 1) + geo.before[a]) % geo.stride[a] == 0  # no group is cut
        low = np.array([takers[geo.starts[a][i]] if counts[i] else -1 for i in range(results)])
        high = np.array([takers[geo.starts[a][i + 1] - 1] + 1 if counts[i] else -1 for i in range(results)])
    else:
        results, of_result, of_argument = geo.out[a], geo.out_slab, geo.slab
        may_end = np.ones(results, bool)
        cell, _, counts = geo.reads[a].T
        other = cell + (counts - 1) * geo.steps[a]
        low = np.where(counts > 0, np.minimum(cell, other), -1)
        high = np.where(counts > 0, np.maximum(cell, other) + 1, -1)
    rows = []
    first = 0
    while first < results:
        stop = 0
        for end in range(first + 1, results + 1):
            if not may_end[end - 1] and end < results:
                continue
            wider = reach(low, high, first, end)
            nbytes = ((wider[1] - wider[0]) * of_argument + (end - first) * of_result) * pixel_bytes
            if nbytes > BAND and stop:
                break
            stop, need = end, wider
        rows.append((first, stop, *need))
        first = stop
    return np.array(rows, np.int64)


def reach(low: Array, high: Array, first: int, stop: int) -> tuple[int, int]:
    """The arguments that results ``first:stop`` need; none at all is (0, 0)."""
    some = low[first:stop] >= 0
    if not some.any():
        return 0, 0
    return int(low[first:stop][some].min()), int(high[first:stop][some].max())


@lru_cache(maxsize=256)
def with_channels(problem: Problem, channels: int) -> Problem:
    """The same problem with the channels, fewer than lanes, as one more spatial axis: planes are then whole items."""
    return replace(problem, window=Window((*problem.window.axes, Axis(size=channels, kernel=1))))


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    if x.dtype.kind == "b":
        x, y = x.view(np.uint8), y.view(np.uint8)
    taps = None
    if training:
        taps = np.empty(taps_shape(problem, y), tap_dtype(problem.window.n_taps)).reshape(-1)
    forward(x, problem, y, taps, lowest(x.dtype))
    return () if taps is None else (taps,)


def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    backward(dy, kept[0], problem, dx)


def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    forward(x, problem, y, None, x.dtype.type(0))
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    backward(dy, None, problem, dx)


def forward(x: Array, problem: Problem, y: Array, taps: Array | None, low: Any) -> None:
    """Run the op's forward pass; `low` is where a window's reduction starts."""
    from pooling.simd.passes import forward_passes

    if few_channels(x):
        if problem.window.ndim == 3:
            result = np.empty((len(y) * y.shape[-1], *y.shape[1:-1], 1), y.dtype)
            forward(channels_to_planes(x), problem, result, taps, low)
            planes_to_channels(result, y)
            return
        problem, x, y = with_channels(problem, x.shape[-1]), x[..., None], y[..., None]
    geo = geometry(problem)
    of_planes, of_channels = forward_passes(problem.op, geo.kernel)
    extra = taps if problem.op == "max" else geo.divisors
    lanes, inner = lanes_of(x.dtype), x.shape[-1]
    if inner > 1:
        rows = bands(problem, inner * x.itemsize, False)
        given = (x.reshape(-1), y.reshape(-1), extra, inner, geo.for_forward, rows, geo.where, low)
        split(lambda start, stop: of_channels(*given, start, stop), len(x) * len(rows), x.nbytes)
        return
    rows = bands(problem, lanes * x.itemsize, False)
    turned = (x.reshape(-1), y.reshape(-1), extra, len(x), lanes, geo.for_forward, rows, geo.where, low)
    sizes = band_sizes(rows, lanes, geo.out_slab, geo.slab)

    def work(start: int, stop: int) -> None:
        of_planes(*turned, scratch(sizes[1], x.dtype, 0), scratch(sizes[0], x.dtype, 1), start, stop)

    split(work, -(-len(x) // lanes) * len(rows), x.nbytes)


def backward(dy: Array, taps: Array | None, problem: Problem, dx: Array) -> None:
    """Run the op's backward pass."""
    from pooling.simd.passes import backward_passes

    if few_channels(dx):
        if problem.window.ndim == 3:
            result = np.empty((len(dx) * dx.shape[-1], *dx.shape[1:-1], 1), dx.dtype)
            backward(channels_to_planes(dy), taps, problem, result)
            planes_to_channels(result, dx)
            return
        problem, dx, dy = with_channels(problem, dx.shape[-1]), dx[..., None], dy[..., None]
    geo = geometry(problem)
    of_planes, of_channels = backward_passes(problem.op, geo.kernel, geo.stride, geo.dilated)
    extra = taps if problem.op == "max" else geo.factors
    lanes, inner, zero = lanes_of(dx.dtype), dx.shape[-1], dx.dtype.type(0)
    if inner > 1:
        rows = bands(problem, inner * dx.itemsize, True)
        given = (dy.reshape(-1), extra, dx.reshape(-1), inner, geo.for_backward, rows, geo.where, zero)
        split(lambda start, stop: of_channels(*given, start, stop), len(dx) * len(rows), dx.nbytes)
        return
    rows = bands(problem, lanes * dx.itemsize, True)
    turned = (dy.reshape(-1), extra, dx.reshape(-1), len(dx), lanes, geo.for_backward, rows, geo.where, zero)
    sizes = band_sizes(rows, lanes, geo.slab, geo.out_slab)

    def work(start: int, stop: int) -> None:
        of_planes(*turned, scratch(sizes[0], dx.dtype, 0), scratch(sizes[1], dx.dtype, 1), start, stop)

    split(work, -(-len(dx) // lanes) * len(rows), dx.nbytes)


def band_sizes(rows: Array, lanes: int, of_result: int, of_argument: int) -> tuple[int, int]:
    """Elements of the buffers that hold the results and the arguments of any of these bands."""
    first, stop, low, high = rows.T
    return int((stop - first).max()) * of_result * lanes, max(int((high - low).max()), 1) * of_argument * lanes


def few_channels(x: Array) -> bool:
    """Whether `x` has channels, but fewer than lanes: they become one more spatial axis, and whole items the planes."""
    return 1 < x.shape[-1] < lanes_of(x.dtype)


def channels_to_planes(array: Array) -> Array:
    """A copy with the channels as planes: for three spatial axes and few channels there is no fourth loop."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1)).reshape(-1, *array.shape[1:-1], 1)


def planes_to_channels(planes: Array, out: Array) -> None:
    out[...] = np.moveaxis(planes.reshape(len(out), out.shape[-1], *out.shape[1:-1]), 1, -1)


def taps_shape(problem: Problem, y: Array) -> tuple[int, ...]:
    """Shape of the taps as the kernels keep them: that of `y`, or (blocks, outputs, lanes)."""
    lanes, channels = lanes_of(y.dtype), y.shape[-1]
    if channels >= lanes:
        return y.shape
    planes = len(y) * channels if few_channels(y) and problem.window.ndim == 3 else len(y)
    return -(-planes // lanes), y.size // planes, lanes


def winning_taps(kept: Kept, problem: Problem, y: Array) -> Array:
    """The taps in the shape of `y`, out of lanes."""
    shape = taps_shape(problem, y)
    taps = kept[0].reshape(shape)
    if shape == y.shape:
        return taps
    in_planes = np.moveaxis(taps, 2, 1).reshape(-1, shape[1])
    result = np.empty(y.shape, taps.dtype)
    if few_channels(y) and problem.window.ndim == 3:
        planes_to_channels(in_planes[: y.size // shape[1]], result)
    else:
        result[...] = in_planes[: len(y)].reshape(y.shape)
    return result


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    if dtype == np.float16:
        return "it has no float16 vectors"
    if problem.window.ndim > 3:
        return f"its loops are written out for up to 3 spatial dimensions, not {problem.window.ndim}"
    return None


BACKEND = Backend(
    name="simd",
    note="explicit vectors over planes or channels: one pass, one byte of switch per output",
    ops={"max": Pass(max_forward, max_backward, winning_taps), "avg": Pass(avg_forward, avg_backward)},
    ties=("first", "last"),
    limits=limits,
)
