"""When max backward is a gather, what its kernels are bound to, and how the work is cut."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import gradient_sum_dtype, wide
from pooling.geometry.axis import Axis, Regions
from pooling.geometry.problem import Array, Problem
from pooling.simd.kernels.gather.cells import gather_channels, gather_planes
from pooling.simd.kernels.gather.rows import gather_rows, gather_strides
from pooling.simd.plan.cache_blocking import Plan, bands, shifts_of
from pooling.simd.plan.geometry import RECENT, Program, backward_program, forward_program
from pooling.simd.vector.ops import lanes, vector_bytes

GATHERED_TAPS, GATHERED_OUTPUTS, GATHERED_IN_ROW = 25, 16, 72
"""The most taps of a window, outputs over a cell, and unrolled steps per stride of a row for which a gather beats a scatter.

A comparison serves all lanes of a vector, an addition of the scatter one element. Without AVX-512, whose masks make a comparison
with its addition two instructions, the limit on outputs is the number of lanes (docs/experiments.md, gather or scatter).
"""


def most_over(program: Program) -> list[int]:
    """How many outputs lie over a cell along each axis, at most."""
    return [int(table[:, 2].max(initial=0)) for table in program.tables]


def gather_is_cheap(program: Program, problem: Problem, dtype: np.dtype[Any]) -> bool:
    """Whether the loop over the outputs of a cell is unrolled."""
    if not problem.window.slides or problem.window.n_taps > GATHERED_TAPS:
        return False
    d, h, w = most_over(program)
    row = program.axes[2]
    outputs = GATHERED_OUTPUTS if vector_bytes() == 64 else lanes(dtype)
    return d * h * w <= outputs and d * h * row.kernel * row.stride <= GATHERED_IN_ROW


@lru_cache(maxsize=RECENT)
def gather_plan(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Plan:
    """Max backward as a gather: to the winner, or with ties "split" and "all" to every tied cell."""
    program = backward_program(problem, dtype)
    tied, split = problem.ties in ("split", "all"), problem.ties == "split"
    in_lanes, most = inner == 1, most_over(program)
    # Where many may win one kernel does for all windows: its own for each took 0.8 of the time, but seconds to compile.
    unrolled = not tied and gather_is_cheap(program, problem, dtype)
    in_strides = unrolled and dtype != np.float16
    names = {"VECTOR": int(in_lanes), "HALVES": int(gradient_sum_dtype(dtype, problem) == np.float16)}
    if unrolled:
        names |= {f"MOST_{name}": max(n, 1) for name, n in zip("DHW", most, strict=True)}
    pixel = lanes(dtype) if in_lanes else inner

    def elements(outputs: int, cells: int, reached: int) -> int:
        """Of the buffer."""
        if not in_lanes:
            return outputs * program.slab * pixel if split else 0
        turned = (outputs * program.slab + cells * program.out_slab) * pixel
        return turned + (outputs * program.slab + reached * program.out_slab) * pixel * tied

    def moved(outputs: int, cells: int) -> int:
        """About as many elements have to be near at hand."""
        return (outputs * program.slab + cells * program.out_slab) * pixel * (2 if tied else 1)

    rows = bands(program, lambda outputs, cells: moved(outputs, cells) * wide(dtype).itemsize, in_strides)
    room = max(elements(high - low, stop - first, end - start) for first, stop, low, high, start, end in rows.tolist())
    units = (-(-outer // pixel) if in_lanes else outer) * len(rows)
    given = (
        outer if in_lanes else inner,
        program.g,
        forward_program(problem, dtype).g if split else None,
        None if unrolled else gathered_taps(program, most),
        rows,
        program.where,
    )
    kernel = (gather_planes if in_lanes else gather_channels).bind(**names)
    if in_strides:
        w = program.axes[2]
        shifts = shifts_of(w)
        names |= {"K_W": w.kernel, "S_W": w.stride, "D_W": w.dilation, "BEFORE": w.before}
        names |= {"SHIFT_LOW": min(shifts), "SHIFT_HIGH": max(shifts)}
        edge = gather_strides.bind(**gather_strides.known(names), EDGE=1).noinline()
        rows_kernel = gather_rows.bind(**gather_rows.known(names), EDGE=int(in_lanes), gather_edge=edge)
        kernel = kernel.bind(gather=rows_kernel)
    return Plan(kernel, given if tied else (None, None, *given), units, max(room, pixel), 1)


def gathered_taps(program: Program, most: list[int]) -> Array:
    """For windows of any kind, the tap of each cell in each of the outputs over it.

    First the most outputs over a cell along each axis, then where each axis' taps start, then so many taps per cell.
    """
    tables = [
        taps_over(axis, table, step, n) * math.prod(a.kernel for a in program.axes[i + 1 :])
        for i, (axis, table, step, n) in enumerate(zip(program.axes, program.tables, program.steps, most, strict=True))
    ]
    starts = 6 + np.cumsum([0, *(table.size for table in tables[:-1])])
    return np.concatenate([most, starts, *(table.reshape(-1) for table in tables)]).astype(np.int64)


def taps_over(axis: Axis | Regions, table: Array, step: int, most: int) -> Array:
    """Along one axis, per cell the tap under which each of up to `most` outputs has it."""
    first_cell, first_tap, length = axis.table.T
    outputs = np.repeat(np.arange(axis.out), length)
    nth = np.arange(len(outputs)) - np.repeat(np.cumsum(length) - length, length)
    cells = first_cell[outputs] + nth * axis.step
    taps = np.zeros((axis.size, most), np.int64)
    taps[cells, (outputs - table[cells, 0]) // step] = first_tap[outputs] + nth
    return taps
