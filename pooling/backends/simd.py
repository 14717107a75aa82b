"""Explicit vectors: lanes are channels, or as many planes transposed into lanes, and every window is the same few loops.

A pooling does the same to every plane. So take as many planes as a vector has lanes: the same cell of all of them is one vector,
and the loops of `numba_loops`, over vectors instead of numbers, have no row ends, no edges and no short rows to care for. In
channels_last the channels are such planes already. In channels_first a block of planes is transposed, a band of rows at a time,
into a small buffer that stays in the cache, and the result is transposed back. Where windows and strides are small, rows are
pooled as they lie in memory instead: a vector holds neighbouring outputs of one row, or of several short rows, and the cells
under a tap come by a shuffle. The vectors are explicit (`pooling/simd/`), because the auto-vectorizer gives up on these loops.

Small windows are read at once, others axis by axis, so that a window costs the sum of its lengths, and a scan makes even that a
constant. The forward pass keeps one byte per output: the tap that won. Maxima are computed without handling NaNs, whose
comparisons would cost as much again, and once more where one is detected. Backward, dx is written in order where windows are
disjoint. Where they overlap, each cell gathers from the few outputs over it, or, in large windows, each output scatters its
gradient to the cell that won; sums of maxima are in the order of the outputs, the same at any thread count. Under ties="split"
and "all" a cell has won if it equals the maximum. float16 is read as float32 and rounded when written, where the CPU has an
instruction for that. Large results are written with streaming stores. `pooling/simd/planner.py` chooses among these strategies.

Cost: forward reads x once and writes y and the taps; backward reads dy and the taps, with several winners x and y too, and
writes dx. Nothing else leaves the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

from pooling.backends._sums import again_scaled, narrow
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import gradient_sum_dtype, lowest, tap_dtype
from pooling.geometry.axis import LONG
from pooling.geometry.problem import TIES, Array, Kept, Problem
from pooling.runtime.availability import DISABLED, disabled, imports, missing
from pooling.runtime.buffer_pool import empty
from pooling.runtime.cached_property import cached_property
from pooling.runtime.fork import prepares
from pooling.simd.memory.streaming_stores import streaming_bytes
from pooling.simd.plan import specialization
from pooling.simd.plan.channel_folding import (
    channels_to_planes,
    few_channels,
    lanes_of,
    planes_to_channels,
    with_channels,
)
from pooling.simd.plan.job import Job
from pooling.simd.plan.specialization import is_specialized
from pooling.simd.planner import SHARED, backward_job, forward_job, plane_strategy, special_for, streaming_job


class Passes:
    """Both passes over arrays of one size, with what goes with them: one lookup in a call instead of four, which took 1.3 us."""

    def __init__(self, problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], specialized: bool) -> None:
        self.problem = problem
        self.given = problem, outer, inner, dtype, specialized
        self.specialized = specialized
        self.streaming: dict[tuple[bool, int], Job] = {}
        self.special: Passes | None = None  # the same with specialized kernels, once there are any
        self.special_for = None if specialized else special_for(problem, inner, dtype)
        self.either = specialized or self.special_for is not None
        self.wide_shares = problem.ties in SHARED and dtype == np.float32 != gradient_sum_dtype(dtype, problem)
        self.turned = problem.window.ndim == 3 and few_channels((inner,), dtype)
        self.empties = empty_outputs(problem) if problem.op == "max" else ()

    @cached_property
    def forward(self) -> Job:
        return forward_job(*self.given)

    @cached_property
    def backward(self) -> Job:
        return backward_job(*self.given)

    @cached_property
    def taps(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the taps to keep."""
        problem, outer, inner, dtype, specialized = self.given
        return taps_like(problem, (outer, *problem.window.output_size, inner), dtype, specialized)

    def of_planes(self, result: Array) -> Passes:
        """The same where channels have become planes."""
        return passes_of(self.problem, len(result), 1, result.dtype, self.specialized)

    def job(self, result: Array, back: bool) -> Job:
        """The pass that makes `result`."""
        some = streaming_bytes(self.problem, result, back)
        if some:
            found = self.streaming.get((back, some))
            if found is None:
                found = self.streaming[back, some] = streaming_job(*self.given, back, some)
            return found
        return self.backward if back else self.forward


short_passes = lru_cache(maxsize=512)(Passes)
medium_passes = lru_cache(maxsize=24)(Passes)
long_passes = lru_cache(maxsize=4)(Passes)
"""The larger the tables, the fewer are kept: some 2 MB in each cache, whatever sizes arrays have."""

SHORT = 1 << 8
"""The largest extent of a window (its axes' cells together) whose passes are kept in hundreds."""


def passes_of(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], specialized: bool) -> Passes:
    find = short_passes if problem.window.extent <= SHORT else fewer_passes(problem)
    return find(problem, outer, inner, dtype, specialized)


def fewer_passes(problem: Problem) -> Callable[..., Passes]:
    """The cache of passes whose tables are larger."""
    return medium_passes if problem.window.extent <= LONG else long_passes


def passes_for(problem: Problem, result: Array) -> Passes:
    """The passes over arrays as large as a result: y, or dx."""
    # As in `passes_of`, without a call.
    find = short_passes if problem.window.extent <= SHORT else fewer_passes(problem)
    passes = find(problem, len(result), result.shape[-1], result.dtype, False)
    if passes.special_for is None:
        return passes
    if passes.special is None and is_specialized(passes.special_for, problem):
        passes.special = passes_of(*passes.given[:4], True)
    return passes.special or passes


def specialize(problem: Problem, inner: int, dtype: np.dtype[Any]) -> None:
    """Compile for the size of such arrays at the next call."""
    what = special_for(problem, inner, dtype)
    if what is not None:
        specialization.specialize(what)


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    if x.dtype.kind == "b":
        x, y = x.view(np.uint8), y.view(np.uint8)
    passes = passes_for(problem, y)
    taps = empty(*passes.taps) if training else None
    forward(passes, x, y, taps)
    if taps is None:
        return ()
    return (taps, x, y) if problem.ties in SHARED else (taps,)


def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    passes = passes_for(problem, dx)
    if passes.wide_shares:  # once more in float64
        _, x, y = (array.astype(np.float64) for array in kept)
        total = empty(dx.shape, x.dtype)
        max_backward(dy.astype(np.float64), max_forward(x, problem, y, True), problem, total)
        narrow(total, dx)
        return
    # The forward pass may have come before kernels were specialized, or in a process where they are.
    if passes.either and kept[0].shape != passes.taps[0]:
        passes = passes_of(*passes.given[:4], not passes.specialized)
    backward(passes, dy, kept[0], dx, *kept[1:])


def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    if forward(passes_for(problem, y), x, y, None):
        again_scaled(lambda given, result: forward(passes_for(problem, result), given, result, None), x, y, problem)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    if backward(passes_for(problem, dx), dy, None, dx):
        again_scaled(lambda given, result: backward(passes_for(problem, result), given, None, result), dy, dx, problem)


def forward(passes: Passes, x: Array, y: Array, taps: Array | None) -> int:
    """Run the op's forward pass. Not 0 where some sum may have overflowed."""
    if passes.turned:
        result = empty((len(y) * y.shape[-1], *y.shape[1:-1], 1), y.dtype)
        overflowed = forward(passes.of_planes(result), channels_to_planes(x), result, taps)
        planes_to_channels(result, y)
        return overflowed
    overflowed = passes.job(y, False).run(x, y, taps)
    if passes.empties:
        fill_empty(passes, y, taps)
    return overflowed


def backward(passes: Passes, dy: Array, taps: Array | None, dx: Array, *tied: Array) -> int:
    """Run the op's backward pass. Not 0 where some sum may have overflowed. `tied` are x and y where several cells may win."""
    if passes.turned:
        result = empty((len(dx) * dx.shape[-1], *dx.shape[1:-1], 1), dx.dtype)
        planes = map(channels_to_planes, tied)
        overflowed = backward(passes.of_planes(result), channels_to_planes(dy), taps, result, *planes)
        planes_to_channels(result, dx)
        return overflowed
    return passes.job(dx, True).run(dy, dx, taps, *tied)


@lru_cache(maxsize=256)
def empty_outputs(problem: Problem) -> tuple[tuple[int, Array], ...]:
    """The outputs, as (axis, indices along it), whose windows hold padding alone."""
    counts = (np.array(axis.counts(include_pad=False)) for axis in problem.window.axes)
    found = ((i, np.flatnonzero(count == 0)) for i, count in enumerate(counts))
    return tuple((i, indices) for i, indices in found if len(indices))


def fill_empty(passes: Passes, y: Array, taps: Array | None) -> None:
    """Give windows without cells, which no kernel checks for, the dtype's lowest value and no tap."""
    output_size = passes.problem.window.output_size
    for axis, indices in passes.empties:
        y[(slice(None),) * (axis + 1) + (indices,)] = lowest(y.dtype)
        if taps is not None:
            shaped = taps if taps.shape == y.shape else taps.reshape(len(taps), *output_size, -1)
            shaped[(slice(None),) * (axis + 1) + (indices,)] = np.iinfo(taps.dtype).max


@lru_cache(maxsize=512)
@prepares
def taps_like(
    problem: Problem, shape: tuple[int, ...], dtype: np.dtype[Any], specialized: bool
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the taps of an output as the kernels keep them: its own shape, or (blocks, outputs, lanes)."""
    lanes, channels = lanes_of(dtype), shape[-1]
    numbers = tap_dtype(problem.window.n_taps)
    if channels >= lanes:
        return shape, numbers
    planes = shape[0]
    if few_channels(shape, dtype):
        if problem.window.ndim == 3:
            planes *= channels
        else:
            problem = with_channels(problem, channels)
    outputs = math.prod(shape) // max(planes, 1)
    if plane_strategy(problem, 1, dtype, specialized):
        return (planes, outputs, 1), numbers
    return (-(-planes // lanes), outputs, lanes), numbers


def winning_taps(kept: Kept, problem: Problem, y: Array) -> Array:
    """The taps in the shape of `y`, out of lanes."""
    taps = kept[0]
    shape = taps.shape
    if shape == y.shape:
        return taps
    in_planes = np.moveaxis(taps, 2, 1).reshape(-1, shape[1])
    if few_channels(y.shape, y.dtype) and problem.window.ndim == 3:
        result = np.empty(y.shape, taps.dtype)
        planes_to_channels(in_planes[: y.size // shape[1]], result)
        return result
    return in_planes[: len(y)].reshape(y.shape)


@cache
@prepares
def converts_halves() -> bool:
    from pooling.simd.vector.ops import converts_halves

    return converts_halves()


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    if disabled():
        return DISABLED
    if dtype == np.float16 and not (imports() and converts_halves()):
        return missing() or "this CPU has no instructions that convert float16"
    if problem.window.ndim > 3:
        return f"its loops are written out for up to 3 spatial dimensions, not {problem.window.ndim}"
    return None


BACKEND = Backend(
    name="simd",
    note="explicit vectors over planes or channels: one pass, one byte of switch per output",
    ops={"max": Pass(max_forward, max_backward, winning_taps), "avg": Pass(avg_forward, avg_backward)},
    ties=TIES,
    limits=limits,
    keeps_x=SHARED,
    compiled=True,
    specialize=specialize,
)
