"""What the kernels need to know of a problem, as plain numbers and small integer tables.

Every problem has three spatial axes here; missing ones come first and have size 1. Kernels see pixels: a pixel is a
run of `inner` elements, one vector or several of them. Two tables per axis say which cells and outputs meet:

- *reads*, one row per output: the first real cell of its window, the tap that lies there, and how many cells follow;
- *takers*, for each input cell the outputs whose windows cover it, and by which tap: rows ``starts[i]:starts[i + 1]`` of a
  list in the outputs' order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from pooling.backend import Array, Problem
from pooling.window import Axis

POINT = Axis(size=1, kernel=1)


@dataclass(frozen=True)
class Geometry:
    """See the module. `reads` walk from the last tap back when `ties` is "last", so that kernels know only "first"."""

    size: tuple[int, int, int]
    out: tuple[int, int, int]
    kernel: tuple[int, int, int]
    reads: tuple[Array, Array, Array]
    steps: tuple[int, int, int]
    tap_step: int
    starts: tuple[Array, Array, Array]
    takers: tuple[Array, Array, Array]
    divisors: tuple[Array, Array, Array]
    stride: tuple[int, int, int]
    before: tuple[int, int, int]
    dilated: bool
    full: tuple[int, int]
    groups: tuple[Array, Array, Array]
    w_groups: tuple[int, int]
    band_axis: int

    @cached_property
    def outputs(self) -> int:
        """Output pixels of a plane."""
        return math.prod(self.out)

    @cached_property
    def slab(self) -> int:
        """Input pixels in one step along the band axis."""
        return math.prod(self.size[self.band_axis + 1 :])

    @cached_property
    def out_slab(self) -> int:
        """Output pixels in one step along the band axis."""
        return math.prod(self.out[self.band_axis + 1 :])

    @cached_property
    def where(self) -> tuple[int, ...]:
        """What the passes need to find a band: its axis, and pixels per step and per plane, of input and output."""
        return self.band_axis, self.slab, self.out_slab, math.prod(self.size), self.outputs

    @cached_property
    def for_forward(self) -> tuple[Any, ...]:
        return self.size, self.out, self.kernel, self.reads, self.steps, self.tap_step, self.full, self.stride

    @cached_property
    def for_backward(self) -> tuple[Any, ...]:
        return self.size, self.out, self.kernel, self.starts, self.takers, self.groups, self.w_groups

    @cached_property
    def factors(self) -> tuple[Array, Array, Array]:
        """Per axis the factors of what a mean's gradient is multiplied by."""
        d, h, w = self.divisors
        return 1 / d, 1 / h, 1 / w


@lru_cache(maxsize=256)
def geometry(problem: Problem) -> Geometry:
    """The geometry of a problem of up to three spatial dimensions."""
    axes = (POINT,) * (3 - problem.window.ndim) + problem.window.axes
    d, h, w = axes
    last = problem.ties == "last" and problem.op == "max"
    starts, takers = zip(*map(taker_table, axes), strict=True)
    return Geometry(
        size=(d.size, h.size, w.size),
        out=(d.out, h.out, w.out),
        kernel=(d.kernel, h.kernel, w.kernel),
        reads=tuple(read_table(axis, last) for axis in axes),  # type: ignore[arg-type]
        steps=tuple(-a.dilation if last else a.dilation for a in axes),  # type: ignore[arg-type]
        tap_step=-1 if last else 1,
        starts=starts,
        takers=takers,
        divisors=divisor_tables(axes, problem),
        stride=(d.stride, h.stride, w.stride),
        before=(d.before, h.before, w.before),
        dilated=any(axis.dilation > 1 for axis in axes),
        full=full_windows(w),
        groups=tuple(map(group_table, axes)),  # type: ignore[arg-type]
        w_groups=run_of_groups(group_table(w)),
        band_axis=next((i for i, a in enumerate(axes) if a.size > 1), 2),
    )


def read_table(axis: Axis, last: bool) -> Array:
    """Rows (cell, tap, count), one per output; from the window's last real cell back with `last`."""
    start = np.arange(axis.out) * axis.stride - axis.before
    first = np.maximum(0, -(start // axis.dilation))
    stop = np.minimum(axis.kernel, (axis.size - 1 - start) // axis.dilation + 1)
    count = np.maximum(stop - first, 0)
    tap = stop - 1 if last else first
    return np.ascontiguousarray(np.stack([start + tap * axis.dilation, tap, count], axis=1), dtype=np.int64)


def taker_table(axis: Axis) -> tuple[Array, Array]:
    """Where each cell's rows (output, tap) start, and these rows, in the order of the outputs."""
    outputs, taps = np.divmod(np.arange(axis.out * axis.kernel), axis.kernel)
    cells = outputs * axis.stride - axis.before + taps * axis.dilation
    real = (cells >= 0) & (cells < axis.size)
    order = np.argsort(cells[real], kind="stable")
    starts = np.zeros(axis.size + 1, np.int64)
    np.cumsum(np.bincount(cells[real], minlength=axis.size), out=starts[1:])
    return starts, np.ascontiguousarray(np.stack([outputs[real], taps[real]], axis=1)[order], dtype=np.int64)


def full_windows(axis: Axis) -> tuple[int, int]:
    """The run of outputs whose windows lie wholly inside the data."""
    start = np.arange(axis.out) * axis.stride - axis.before
    inside = np.flatnonzero((start >= 0) & (start + axis.span <= axis.size))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def group_table(axis: Axis) -> Array:
    """For each cell where a whole group starts, the output whose window starts there too; -1 for other cells.

    A group is as many cells as the stride, all inside the data, and every window that may reach it exists.
    """
    before = -(-axis.kernel // axis.stride) - 1
    table = np.full(axis.size, -1, np.int64)
    outputs = np.arange(before, axis.out)
    cells = outputs * axis.stride - axis.before
    whole = (cells >= 0) & (cells + axis.stride <= axis.size)
    table[cells[whole]] = outputs[whole]
    return table


def run_of_groups(table: Array) -> tuple[int, int]:
    """Where the first group starts, and how many groups follow each other from there."""
    cells = np.flatnonzero(table >= 0)
    return (int(cells[0]), len(cells)) if len(cells) else (0, 0)


def divisor_tables(axes: tuple[Axis, Axis, Axis], problem: Problem) -> tuple[Array, Array, Array]:
    """Per axis the factors of each output's divisor (of float64)."""
    if problem.divisor_override is not None:
        tables = [np.ones(axis.out) for axis in axes]
        tables[2] *= problem.divisor_override
    else:
        tables = [np.maximum(np.array(axis.counts(problem.count_include_pad), float), 1) for axis in axes]
    return tables[0], tables[1], tables[2]
