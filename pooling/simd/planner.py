"""Which strategy computes a pass, and the job that runs it.

There are three data layouts in vectors: planes as they lie in memory (`kernels/global_.py`, `kernels/packed_rows/`,
`kernels/rows/`), channels as lanes, and planes transposed into lanes (both in `kernels/drivers.py`). Kernels are compiled for a
window, not for an array size. The exceptions, the length of short rows and windows fitted to the array, are compiled for one
size only where `specialized` is set (`plan/specialization.py`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import gradient_sum_dtype
from pooling.geometry.axis import Regions
from pooling.geometry.problem import Problem, Ties
from pooling.geometry.window import Window
from pooling.runtime.fork import prepares
from pooling.runtime.jit import Kernel
from pooling.simd.plan.cache_blocking import first_reached, tap_offsets
from pooling.simd.plan.channel_folding import few_channels, lanes_of, with_channels
from pooling.simd.plan.geometry import RECENT, backward_program, forward_program
from pooling.simd.plan.job import Job, cut, in_lines, planned

SHARED: tuple[Ties, ...] = ("split", "all")
"""Tie policies under which several cells may win."""

CHUNKS = 4
"""Units of work wanted at least; where items are fewer, their channels are cut."""


@lru_cache(maxsize=512)
@prepares
def plane_strategy(problem: Problem, inner: int, dtype: np.dtype[Any], specialized: bool) -> ModuleType | None:
    """Where planes are pooled as they lie, what plans that; None where cells become lanes.

    Two of these ways compile for the window, and one for the length of rows.
    """
    from pooling.simd.kernels import global_
    from pooling.simd.kernels.packed_rows import plan as packed_rows
    from pooling.simd.kernels.rows import plan as rows

    if inner != 1:
        return None
    if global_.is_whole(problem, dtype):
        return global_
    if specialized and packed_rows.short_fit(problem, dtype):
        return packed_rows
    return rows if (specialized or not problem.fitted) and rows.rows_fit(problem, dtype) else None


@lru_cache(maxsize=RECENT)
@prepares
def plane_job(problem: Problem, outer: int, dtype: np.dtype[Any], specialized: bool, back: bool) -> Job:
    """Either pass over planes as they lie."""
    plans = plane_strategy(problem, 1, dtype, specialized)
    assert plans is not None
    return planned((plans.backward_plan if back else plans.forward_plan)(problem, outer, dtype))


@lru_cache(maxsize=RECENT)
def for_any_size(problem: Problem) -> Problem:
    """Windows that are fitted to the array as regions, which are read from tables: one kernel for all.

    Those that lie side by side stay what they are: their kernels need no table.
    """
    if not problem.fitted or not problem.window.affine or problem.window.covers:
        return problem
    axes = (
        Regions(axis.size, tuple(axis.table[:, 0].tolist()), tuple((axis.table[:, 0] + axis.table[:, 2]).tolist()))
        for axis in problem.window.axes
    )
    return replace(problem, window=Window(tuple(axes)))


@lru_cache(maxsize=RECENT)
@prepares
def forward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], specialized: bool) -> Job:
    """Forward of either op."""
    if few_channels((inner,), dtype):
        return forward_job(with_channels(problem, inner), outer, 1, dtype, specialized)
    if plane_strategy(problem, inner, dtype, specialized):
        return plane_job(problem, outer, dtype, specialized, False)
    unrolled = specialized or not problem.fitted
    problem = problem if specialized else for_any_size(problem)
    from pooling.simd.kernels.direct.windows import at_one_go, windows
    from pooling.simd.kernels.drivers import forward_channels, forward_planes
    from pooling.simd.kernels.separable.chain import chain
    from pooling.simd.memory.prefetch import from_memory

    program = forward_program(problem, dtype)
    in_lanes, maximum, floats = inner == 1, problem.op == "max", dtype.kind == "f"
    last = maximum and problem.ties == "last"
    pixel = (lanes_of(dtype) if in_lanes else inner) * dtype.itemsize
    at_once = at_one_go(program, pixel, maximum)
    if at_once:
        memory = from_memory(problem, outer, inner, dtype)
        visit = windows(program, pixel, maximum, in_lanes, floats, last, memory, unrolled)
    else:
        counts = tuple(axis.kernel if axis.slides and unrolled else 0 for axis in program.axes)
        visit = chain(
            program, counts, in_lanes, maximum and floats, MAX=int(maximum), LAST=int(last), AFTER=int(not maximum)
        )
    job: Kernel[..., None] = forward_planes if in_lanes else forward_channels
    return cut(job.bind(visit=visit), program, outer, inner, dtype, not at_once)


@lru_cache(maxsize=RECENT)
@prepares
def backward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], specialized: bool) -> Job:
    """Backward of either op."""
    if few_channels((inner,), dtype):
        return backward_job(with_channels(problem, inner), outer, 1, dtype, specialized)
    if plane_strategy(problem, inner, dtype, specialized):
        return plane_job(problem, outer, dtype, specialized, True)
    make = max_backward_job if problem.op == "max" else mean_backward_job
    unrolled = specialized or not problem.fitted
    return make(problem if specialized else for_any_size(problem), outer, inner, dtype, unrolled)


@lru_cache(maxsize=RECENT)
@prepares
def streaming_job(
    problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], specialized: bool, back: bool, some: int
) -> Job:
    """Either pass, with streaming stores if its kernel can: not where the result is in a buffer first."""
    from pooling.simd.kernels.rows import plan as rows

    job = (backward_job if back else forward_job)(problem, outer, inner, dtype, specialized)
    direct = inner > 1 or plane_strategy(problem, inner, dtype, specialized) is rows
    return replace(job, kernel=job.kernel.bind(STREAM=some)) if direct and job.kernel.mentions("STREAM") else job


def mean_backward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], unrolled: bool) -> Job:
    """Each cell's sum of what the outputs over it send: a forward pass with the roles exchanged."""
    from pooling.simd.kernels.disjoint import are_disjoint, disjoint_windows
    from pooling.simd.kernels.drivers import forward_channels, forward_planes, spread_channels, spread_planes
    from pooling.simd.kernels.separable.chain import chain

    program = backward_program(problem, dtype)
    in_lanes = inner == 1
    if are_disjoint(program.axes):
        visit = disjoint_windows(program.axes, False, in_lanes, unrolled)
        spread = spread_planes if in_lanes else spread_channels
        return cut(spread.bind(visit=visit), program, outer, inner, dtype, False, True)
    counts = tuple(axis.kernel if axis.slides and axis.stride == 1 and unrolled else 0 for axis in program.axes)
    visit = chain(program, counts, in_lanes, MAX=0, BEFORE=1)
    job: Kernel[..., None] = forward_planes if in_lanes else forward_channels
    return cut(job.bind(visit=visit), program, outer, inner, dtype, True)


def max_backward_job(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], unrolled: bool) -> Job:
    """Each output's gradient to the cell that won, or to those that did."""
    from pooling.simd.kernels.disjoint import are_disjoint, disjoint_windows
    from pooling.simd.kernels.drivers import scatter_channels, scatter_planes, spread_channels, spread_planes
    from pooling.simd.kernels.gather.plan import gather_is_cheap, gather_plan
    from pooling.simd.kernels.regions import scatter_regions, with_starts

    program = backward_program(problem, dtype)
    in_lanes, lanes = inner == 1, lanes_of(dtype)
    if problem.ties in SHARED:
        return planned(gather_plan(problem, outer, inner, dtype))
    if are_disjoint(program.axes):
        visit = disjoint_windows(program.axes, True, in_lanes, unrolled)
        job = spread_planes if in_lanes else spread_channels
        return cut(job.bind(visit=visit), program, outer, inner, dtype, False, True)
    if gather_is_cheap(program, problem, dtype) or dtype == np.float16:  # whose numbers scalar code can't add
        return planned(gather_plan(problem, outer, inner, dtype))
    given = forward_program(problem, dtype)
    offsets = tap_offsets(given) * (lanes if in_lanes else inner)
    if not problem.window.slides:
        offsets = with_starts(offsets, given)
        scatter_planes = scatter_planes.bind(scatter=scatter_regions)
        scatter_channels = scatter_channels.bind(scatter=scatter_regions)
    wide_sums = gradient_sum_dtype(dtype, problem) != dtype
    scatter_planes = scatter_planes.bind(WIDE=int(wide_sums))
    scatter_channels = scatter_channels.bind(WIDE=int(wide_sums))
    if in_lanes:
        scattered = cut(
            scatter_planes.bind(VECTOR=1), program, outer, inner, dtype, False, again=True, wide_sums=wide_sums
        )
        _, _, _, rows, where = scattered.given
        return replace(scattered, given=(outer, given.g, offsets, rows, where))
    chunk = inner
    while -(-inner // chunk) * outer < CHUNKS and chunk >= 2 * lanes:
        chunk = -(-chunk // (2 * lanes)) * lanes
    where = (given.band_axis, given.slab, given.out_slab, *given.where[3:], chunk)
    units = outer * -(-inner // chunk)
    room = in_lines(2 * given.where[3] * inner) if wide_sums else 0
    arguments = (inner, given.g, offsets, first_reached(given), where)
    return Job(scatter_channels, arguments, units, room, int(wide_sums))


@prepares
def special_for(problem: Problem, inner: int, dtype: np.dtype[Any]) -> Hashable | None:
    """What of the arrays' size kernels may be compiled for; None where they would be the same."""
    from pooling.simd.kernels.packed_rows import plan as packed_rows

    if few_channels((inner,), dtype):
        problem, inner = problem if problem.window.ndim == 3 else with_channels(problem, inner), 1
    if plane_strategy(problem, inner, dtype, True) is packed_rows:
        return packed_rows.row_length(problem, dtype)
    if problem.fitted and problem.window.affine:
        windows = tuple((axis.kernel, axis.stride) for axis in problem.window.affine)
        return problem.op, problem.ties, dtype.char, inner == 1, windows
    return None
