"""What the kernels of `gather.py` are bound to, and how their work is cut."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from pooling.axis import Axis, Regions
from pooling.backend import Array, Problem
from pooling.simd.gather import gather_channels, gather_planes
from pooling.simd.gather_rows import ask_rows, ask_strides
from pooling.simd.program import RECENT, Program, backward_program, forward_program
from pooling.simd.schedule import Plan, bands, shifts_of
from pooling.simd.vectors import lanes, vector_bytes
from pooling.taps import paid_in, wide

ASKED_TAPS, ASKED_OUTPUTS, ASKED_IN_ROW = 25, 16, 72
"""Taps of a window, and outputs over a cell, up to which cells ask, in unrolled loops, and outputs do not scatter instead.

The more lanes, the more a question answers at once; an addition of a scatter is one. Without AVX-512, whose masks make a question
two instructions, a cell asks no more outputs than a vector has lanes. Asking took, of the time of scattering, over channels:
3x3 at stride 1 0.5 (16 lanes), 1.2 (8), 2.3 (4); at stride 2 0.3 to 0.6, 0.4 to 0.9, 0.7 to 1.5; 4x4 at stride 1 0.8, 2.0, 4.5;
2x2 at stride 1 0.2, 0.3, 0.7. With 16 lanes 5x5 took 1.0 and in planes 1.4, 3x3x3 at stride 2 1.5 and 0.8, 6x6 at stride 2 1.2
and 2.1. The last is how often a stride of a row is unrolled, kernel times stride: LLVM does so 72 times (9, stride 8), but at 156
(13, stride 12) it took 3 times as long.
"""


def most_over(program: Program) -> list[int]:
    """How many outputs lie over a cell along each axis, at most."""
    return [int(table[:, 2].max(initial=0)) for table in program.tables]


def few_ask(program: Program, problem: Problem, dtype: np.dtype[Any]) -> bool:
    """Whether a cell may ask each output over it by name."""
    if not problem.window.slides or problem.window.n_taps > ASKED_TAPS:
        return False
    d, h, w = most_over(program)
    row = program.axes[2]
    outputs = ASKED_OUTPUTS if vector_bytes() == 64 else lanes(dtype)
    return d * h * w <= outputs and d * h * row.kernel * row.stride <= ASKED_IN_ROW


@lru_cache(maxsize=RECENT)
def gather_plan(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> Plan:
    """A pass in which cells ask outputs, which pay the winner or (ties "split" and "all") every tied cell."""
    program = backward_program(problem, dtype)
    tied, split = problem.ties in ("split", "all"), problem.ties == "split"
    in_lanes, most = inner == 1, most_over(program)
    # Where many may win one kernel does for all windows: its own for each took 0.8 of the time, but seconds to compile.
    unrolled = not tied and few_ask(program, problem, dtype)
    in_strides = unrolled and dtype != np.float16
    names = {"VECTOR": int(in_lanes), "HALVES": int(paid_in(dtype, problem) == np.float16)}
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
        None if unrolled else asked_taps(program, most),
        rows,
        program.where,
    )
    kernel = (gather_planes if in_lanes else gather_channels).over(**names)
    if in_strides:
        w = program.axes[2]
        shifts = shifts_of(w)
        names |= {"K_W": w.kernel, "S_W": w.stride, "D_W": w.dilation, "BEFORE": w.before}
        names |= {"SHIFT_LOW": min(shifts), "SHIFT_HIGH": max(shifts)}
        edge = ask_strides.over(**names, EDGE=1).apart()
        kernel = kernel.over(ask=ask_rows.over(**names, EDGE=int(in_lanes), ask_edge=edge))
    return Plan(kernel, given if tied else (None, None, *given), units, max(room, pixel), 1)


def asked_taps(program: Program, most: list[int]) -> Array:
    """For windows of any kind, the tap by which each cell asks each of the outputs over it.

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
