"""Explicit vectors: lanes are channels, or as many planes turned into lanes, and every window is the same few loops.

A pooling does the same to every plane. So take as many planes as a vector has lanes: a cell of all of them is one vector, and
the loops of `numba_loops`, over vectors instead of numbers, have no row ends, no edges and no short rows to care for.
In channels_last the channels are such planes already. In channels_first a block of planes is turned, a band of rows at
a time, into a small buffer that stays in the cache, and the result is turned back. Where windows are small and their strides
few cells, rows are pooled as they lie instead: a vector is a run of outputs (`simd/rows.py`), or the outputs of several short
rows (`simd/short_rows.py`), and what stands under a tap comes by a shuffle. The vectors are explicit (`pooling/simd/`), because
the auto-vectorizer gives up on these loops.

Small windows are read at one go (`simd/windows.py`), others axis by axis (`simd/axis.py`), so that a window costs its
lengths added up, and a scan makes even that a constant. The forward pass remembers one byte per output, the tap that
won. Maxima are taken without minding NaNs, whose comparisons would cost as much again, and once more where one is noticed.
Backward, dx is written in order where windows lie side by side. Where they overlap, every cell asks the few outputs over it
whether it won (`simd/gather.py`, `simd/rows_back.py`), or, in large windows, each output adds its gradient to the cell that
won (`simd/scatter.py`); sums of maxima run in the outputs' order, and all are the same at any thread count. Under
ties="split" and "all" a cell asks whether it equals the maximum. float16 is read as float32 and rounded when written,
where the CPU has an instruction for that. Large results are written past the caches (`simd/past.py`).

Cost: forward reads x once and writes y and the taps; backward reads dy and the taps, with several winners x and y too, and
writes dx. Nothing else leaves the cache.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from pooling.available import DISABLED, disabled, imports, missing
from pooling.backend import TIES, Array, Backend, Kept, Pass, Problem, Ties
from pooling.forks import prepares
from pooling.jit import Kernel
from pooling.lazy import cached_property
from pooling.memory import empty
from pooling.simd.channels import channels_to_planes, few_channels, lanes_of, planes_to_channels, with_channels
from pooling.simd.job import Job, cut, planned
from pooling.simd.past import past
from pooling.simd.program import backward_program, forward_program
from pooling.simd.schedule import first_reached, tap_offsets
from pooling.taps import lowest, tap_dtype

SHARED: tuple[Ties, ...] = ("split", "all")
"""Tie policies under which several cells may win."""

CHUNKS = 4
"""Units of work wanted at least; where items are fewer, their channels are cut."""


@lru_cache(maxsize=512)
@prepares
def in_place(problem: Problem, inner: int, dtype: np.dtype[Any]) -> ModuleType | None:
    """Where planes are pooled as they lie, what plans that; None where cells become lanes."""
    from pooling.simd import rowplan, shortplan, whole

    if inner != 1:
        return None
    if whole.is_whole(problem, dtype):
        return whole
    if shortplan.short_fit(problem, dtype):
        return shortplan
    return rowplan if rowplan.rows_fit(problem, dtype) else None


@lru_cache(maxsize=512)
@prepares
def plane_job(problem: Problem, outer: int, dtype: np.dtype[Any], back: bool) -> Job:
    """Either pass over planes as they lie."""
    plans = in_place(problem, 1, dtype)
    assert plans is not None
    return planned((plans.backward_plan if back else plans.forward_plan)(problem, outer, dtype))


@lru_cache(maxsize=512)
@prepares
def forward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Job:
    """Forward of either op."""
    if few_channels((inner,), dtype):
        return forward_job(with_channels(problem, inner), outer, 1, dtype)
    if in_place(problem, inner, dtype):
        return plane_job(problem, outer, dtype, False)
    from pooling.simd.ahead import from_memory
    from pooling.simd.chain import chain
    from pooling.simd.passes import forward_channels, forward_planes
    from pooling.simd.windows import at_one_go, windows

    program = forward_program(problem, dtype)
    in_lanes, maximum, floats = inner == 1, problem.op == "max", dtype.kind == "f"
    last = maximum and problem.ties == "last"
    pixel = (lanes_of(dtype) if in_lanes else inner) * dtype.itemsize
    at_once = at_one_go(program, pixel, maximum)
    if at_once:
        memory = from_memory(problem, outer, inner, dtype)
        visit = windows(program, pixel, maximum, in_lanes, floats, last, memory)
    else:
        counts = tuple(axis.kernel if axis.slides else 0 for axis in program.axes)
        visit = chain(
            program, counts, in_lanes, maximum and floats, MAX=int(maximum), LAST=int(last), AFTER=int(not maximum)
        )
    job: Kernel[..., None] = forward_planes if in_lanes else forward_channels
    return cut(job.over(visit=visit), program, outer, inner, dtype, not at_once)


@lru_cache(maxsize=512)
@prepares
def backward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Job:
    """Backward of either op."""
    if few_channels((inner,), dtype):
        return backward_job(with_channels(problem, inner), outer, 1, dtype)
    if in_place(problem, inner, dtype):
        return plane_job(problem, outer, dtype, True)
    return (max_backward_job if problem.op == "max" else mean_backward_job)(problem, outer, inner, dtype)


@lru_cache(maxsize=512)
@prepares
def past_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], back: bool, some: int) -> Job:
    """Either pass, its result written past the caches if that can be done: not by kernels that have it in a buffer first."""
    from pooling.simd import rowplan

    job = (backward_job if back else forward_job)(problem, outer, inner, dtype)
    direct = inner > 1 or in_place(problem, inner, dtype) is rowplan
    return replace(job, kernel=job.kernel.over(PAST=some)) if direct and job.kernel.mentions("PAST") else job


def mean_backward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Job:
    """Each cell's sum of what the outputs over it send: a forward pass with the roles exchanged."""
    from pooling.simd.chain import chain
    from pooling.simd.passes import forward_channels, forward_planes, spread_channels, spread_planes
    from pooling.simd.tiles import are_tiles, tiles

    program = backward_program(problem, dtype)
    in_lanes = inner == 1
    if are_tiles(program.axes):
        visit = tiles(program.axes, False, in_lanes)
        spread = spread_planes if in_lanes else spread_channels
        return cut(spread.over(visit=visit), program, outer, inner, dtype, False, True)
    counts = tuple(axis.kernel if axis.slides and axis.stride == 1 else 0 for axis in program.axes)
    visit = chain(program, counts, in_lanes, MAX=0, BEFORE=1)
    job: Kernel[..., None] = forward_planes if in_lanes else forward_channels
    return cut(job.over(visit=visit), program, outer, inner, dtype, True)


def max_backward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Job:
    """Each output's gradient to the cell that won, or to those that did."""
    from pooling.simd.gatherplan import few_ask, gather_plan
    from pooling.simd.passes import scatter_channels, scatter_planes, spread_channels, spread_planes
    from pooling.simd.regions import scatter_regions, with_starts
    from pooling.simd.tiles import are_tiles, tiles

    program = backward_program(problem, dtype)
    in_lanes, lanes = inner == 1, lanes_of(dtype)
    if problem.ties in SHARED:
        return planned(gather_plan(problem, outer, inner, dtype))
    if are_tiles(program.axes):
        visit = tiles(program.axes, True, in_lanes)
        job = spread_planes if in_lanes else spread_channels
        return cut(job.over(visit=visit), program, outer, inner, dtype, False, True)
    if few_ask(program, problem, dtype) or dtype == np.float16:  # whose numbers scalar code can't add
        return planned(gather_plan(problem, outer, inner, dtype))
    given = forward_program(problem, dtype)
    offsets = tap_offsets(given) * (lanes if in_lanes else inner)
    if not problem.window.slides:
        offsets = with_starts(offsets, given)
        scatter_planes = scatter_planes.over(scatter=scatter_regions)
        scatter_channels = scatter_channels.over(scatter=scatter_regions)
    if in_lanes:
        scattered = cut(scatter_planes.over(VECTOR=1), program, outer, inner, dtype, False, again=True)
        _, _, _, rows, where = scattered.given
        return replace(scattered, given=(outer, given.g, offsets, rows, where))
    chunk = inner
    while -(-inner // chunk) * outer < CHUNKS and chunk >= 2 * lanes:
        chunk = -(-chunk // (2 * lanes)) * lanes
    where = (given.band_axis, given.slab, given.out_slab, *given.where[3:], chunk)
    units = outer * -(-inner // chunk)
    return Job(
        scatter_channels,
        (inner, given.g, offsets, first_reached(given), where),
        units,
        0,
        0,
    )


class Passes:
    """Both passes over arrays of one size, with what goes with them: one lookup in a call instead of four, which took 1.3 us."""

    def __init__(self, problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> None:
        self.problem = problem
        self.given = problem, outer, inner, dtype
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
        problem, outer, inner, dtype = self.given
        return taps_like(problem, (outer, *problem.window.output_size, inner), dtype)

    def job(self, result: Array, back: bool) -> Job:
        """The pass that makes `result`."""
        some = past(self.problem, result, back)
        if some:
            return past_job(*self.given, back, some)
        return self.backward if back else self.forward


@lru_cache(maxsize=512)
def passes_of(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Passes:
    return Passes(problem, outer, inner, dtype)


def passes_for(problem: Problem, result: Array) -> Passes:
    """The passes over arrays as large as a result: y, or dx."""
    return passes_of(problem, len(result), result.shape[-1], result.dtype)


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
    backward(passes_for(problem, dx), dy, kept[0], dx, *kept[1:])


def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    forward(passes_for(problem, y), x, y, None)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    backward(passes_for(problem, dx), dy, None, dx)


def forward(passes: Passes, x: Array, y: Array, taps: Array | None) -> None:
    """Run the op's forward pass."""
    if passes.turned:
        result = empty((len(y) * y.shape[-1], *y.shape[1:-1], 1), y.dtype)
        forward(passes_for(passes.problem, result), channels_to_planes(x), result, taps)
        planes_to_channels(result, y)
        return
    passes.job(y, False).run(x, y, taps)
    if passes.empties:
        fill_empty(passes, y, taps)


def backward(passes: Passes, dy: Array, taps: Array | None, dx: Array, *tied: Array) -> None:
    """Run the op's backward pass. `tied` are x and y where several cells may win."""
    if passes.turned:
        result = empty((len(dx) * dx.shape[-1], *dx.shape[1:-1], 1), dx.dtype)
        planes = map(channels_to_planes, tied)
        backward(passes_for(passes.problem, result), channels_to_planes(dy), taps, result, *planes)
        planes_to_channels(result, dx)
        return
    passes.job(dx, True).run(dy, dx, taps, *tied)


@lru_cache(maxsize=256)
def empty_outputs(problem: Problem) -> tuple[tuple[int, Array], ...]:
    """The outputs, as (axis, indices along it), whose windows hold padding alone."""
    counts = (np.array(axis.counts(include_pad=False)) for axis in problem.window.axes)
    found = ((i, np.flatnonzero(count == 0)) for i, count in enumerate(counts))
    return tuple((i, indices) for i, indices in found if len(indices))


def fill_empty(passes: Passes, y: Array, taps: Array | None) -> None:
    """Give windows without cells, which no kernel looks for, the dtype's lowest value and nobody's tap."""
    output_size = passes.problem.window.output_size
    for axis, indices in passes.empties:
        y[(slice(None),) * (axis + 1) + (indices,)] = lowest(y.dtype)
        if taps is not None:
            shaped = taps if taps.shape == y.shape else taps.reshape(len(taps), *output_size, -1)
            shaped[(slice(None),) * (axis + 1) + (indices,)] = np.iinfo(taps.dtype).max


@lru_cache(maxsize=512)
@prepares
def taps_like(problem: Problem, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
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
    if in_place(problem, 1, dtype):
        return (planes, outputs, 1), numbers
    return (-(-planes // lanes), outputs, lanes), numbers


def winning_taps(kept: Kept, problem: Problem, y: Array) -> Array:
    """The taps in the shape of `y`, out of lanes."""
    shape, _ = taps_like(problem, y.shape, y.dtype)
    taps = kept[0].reshape(shape)
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
    from pooling.simd.vectors import converts_halves

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
)
