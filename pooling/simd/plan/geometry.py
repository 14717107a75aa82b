"""The geometry of a problem for kernels: a *program*, one flat array of integers.

Every problem has three spatial axes here; missing ones come first, with one cell and a window of 1. An axis is described by
``g[a + FIELD]``, where `a` is 0, FIELDS or 2 * FIELDS, and by a table of three numbers per result: the first cell that it reads
(the last one with ties="last", so that kernels implement only "first"), that cell's tap, and the number of cells. A step along an
axis advances the tap by as many taps as the later axes have together.

It is one array and not a tuple of values because Numba unboxes it in 0.1 us, a tuple in 10 us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import wide
from pooling.geometry.axis import Axis, Regions
from pooling.geometry.problem import Array, Problem
from pooling.runtime.buffer_pool import ALIGNMENT
from pooling.runtime.cached_property import cached_property

(
    SIZE,  # cells read along this axis
    OUT,  # results
    KERNEL,
    STRIDE,
    START,  # where the first window starts, in the padding perhaps
    STEP,  # from a window's cell to its next
    TAP_STEP,  # by how much the tap grows with it
    FULL,  # first result whose window lies wholly inside, and
    FULL_STOP,  # the one after the last such
    TABLE,  # where this axis' table starts
    FACTOR,  # where its factors start, in the other array
    SCAN,  # length of the blocks to scan where that is cheaper than reading each window's cells, else 0, and
    SCAN_TABLE,  # where it says which of what was scanned a result is made of (`scan_table`)
    FIELDS,
) = range(14)
D, H, W = 0, FIELDS, 2 * FIELDS

RECENT = 4
"""Programs, plans and jobs that are remembered while a pass is planned. What it needs of them is kept with it."""

POINT = Axis(size=1, kernel=1)

SCANNED = {"max": 6, "avg": 10}
"""A scan reads each cell twice; a window must have this many cells more than that per result for the scan to be faster.

At stride 1 scans of maxima of 7 took 1.1 (planes) and 1.7 (channels) of the time, of 9 0.85 and 1.1, of 11 0.75 and 1.0; of
means, whose reads are cheaper, of 9 1.05 and 1.4, of 11 0.9 and 1.2, of 13 0.9 and 1.1.
"""

TOGETHER = 4
"""Vectors side by side that are scanned together, half as many without taps.

One at a time took 1.2 to 1.35 times as long, and 1.1 times without taps, where four took 1.1 times as long as two.
"""


@dataclass(frozen=True, eq=False)
class Program:
    """Integers and factors (forward: divisors) for kernels, and sizes for their callers."""

    g: Array
    factors: Array
    size: tuple[int, int, int]
    out: tuple[int, int, int]
    tables: tuple[Array, Array, Array]
    steps: tuple[int, int, int]
    axes: tuple[Axis, Axis, Axis]

    @cached_property
    def band_axis(self) -> int:
        """The axis along which large planes are cut into bands: the first that has a length."""
        return next((i for i in range(3) if self.size[i] > 1 or self.out[i] > 1), 2)

    @cached_property
    def slab(self) -> int:
        """Cells in one step along the band axis."""
        return math.prod(self.size[self.band_axis + 1 :])

    @cached_property
    def out_slab(self) -> int:
        """Results in one step along the band axis."""
        return math.prod(self.out[self.band_axis + 1 :])

    @cached_property
    def where(self) -> tuple[int, ...]:
        """What the passes need to find a band: its axis, elements per step along it and per plane, of cells and results."""
        return self.band_axis, self.slab, self.out_slab, math.prod(self.size), math.prod(self.out)

    @cached_property
    def uniform(self) -> bool:
        """Whether an axis has the same factor everywhere, and so all windows have."""
        starts = [int(self.g[i * FIELDS + FACTOR]) for i in range(3)]
        ends = [*starts[1:], len(self.factors) - ALIGNMENT]
        return all(len(np.unique(self.factors[a:b])) <= 1 for a, b in zip(starts, ends, strict=True))

    @cached_property
    def passes(self) -> tuple[int, ...]:
        """The axes along which there is something to do, in the order of doing it: the last axis first."""
        return busy_axes(self.axes)


def busy_axes(axes: tuple[Axis, Axis, Axis]) -> tuple[int, ...]:
    """The axes along which a window does anything, last first; one of them at least."""
    return tuple(i for i in (2, 1, 0) if axes[i] != Axis(size=axes[i].size, kernel=1)) or (2,)


def axes_of(problem: Problem) -> tuple[Any, Any, Any]:
    """The three axes of a problem of up to three. One window alone has no stride: its cells are then all before the next."""
    axes: Any = (
        replace(a, stride=max(a.stride, a.span)) if isinstance(a, Axis) and a.out == 1 else a
        for a in problem.window.axes
    )
    d, h, w = [POINT] * (3 - problem.window.ndim) + list(axes)
    return d, h, w


@lru_cache(maxsize=RECENT)
def forward_program(problem: Problem, dtype: np.dtype[Any]) -> Program:
    """Results are outputs, and read the cells of their windows."""
    axes = axes_of(problem)
    last = problem.op == "max" and problem.ties == "last"
    tables = [read_table(axis, last) for axis in axes]
    steps = [-axis.step if last else axis.step for axis in axes]
    rises = [-1 if last else 1] * 3
    divisors = divisors_of(axes, problem)
    return assemble(
        axes, [a.size for a in axes], [a.out for a in axes], tables, steps, rises, divisors, dtype, SCANNED[problem.op]
    )


@lru_cache(maxsize=RECENT)
def backward_program(problem: Problem, dtype: np.dtype[Any]) -> Program:
    """Results are cells, and read the outputs whose windows cover them: the gradient of a mean, and what a band needs."""
    axes = axes_of(problem)
    tables, steps = zip(*map(taker_table, axes), strict=True)
    # From one region to the next the tap changes irregularly: a gather looks it up.
    falls = [-step * axis.stride // axis.dilation if axis.slides else 0 for step, axis in zip(steps, axes, strict=True)]
    factors = [1 / divisor for divisor in divisors_of(axes, problem)]
    return assemble(
        axes, [a.out for a in axes], [a.size for a in axes], tables, steps, falls, factors, dtype, SCANNED[problem.op]
    )


def assemble(
    axes: Any,
    sizes: Any,
    outs: Any,
    tables: Any,
    steps: Any,
    rises: Any,
    factors: Any,
    dtype: np.dtype[Any],
    scanned_from: int,
) -> Program:
    """Write it all into one array. `rises`: by how many places along its axis the tap changes with a step."""
    g = np.zeros(3 * FIELDS, np.int64)
    table_at, factor_at = len(g), 0
    scan_at, scanned = len(g) + sum(table.size for table in tables), []
    for i, axis in enumerate(axes):
        unit = math.prod(a.kernel for a in axes[i + 1 :])
        # What is the same for all windows of an axis that slides, regions read from their table alone.
        stride, start = (axis.stride, -axis.before) if axis.slides else (0, 0)
        full, full_stop = full_run(tables[i], axis.kernel) if axis.slides else (0, 0)
        scan = block_to_scan(tables[i], sizes[i], steps[i], scanned_from) if axis.slides else 0
        g[i * FIELDS : (i + 1) * FIELDS] = [
            sizes[i], outs[i], axis.kernel, stride, start, steps[i], unit * rises[i], full, full_stop, table_at, factor_at, scan,
            scan_at,
        ]  # fmt: skip
        tables[i][:, 1] *= unit
        if scan:
            scanned.append(scan_table(tables[i], sizes[i], steps[i], unit * rises[i], scan))
            scan_at += scanned[-1].size
        table_at += tables[i].size
        factor_at += len(factors[i])
    g = np.concatenate([g, *(table.reshape(-1) for table in (*tables, *scanned))])
    # A vector longer than its row reads on. What it reads there must not be just anything: Intel's CPUs take 150 cycles for a
    # product of numbers as small as integers look when read as floats, which made means of 24-wide planes 8 times as slow.
    factors = np.concatenate([*factors, np.ones(ALIGNMENT)]).astype(wide(dtype))
    return Program(g, factors, tuple(sizes), tuple(outs), tuple(tables), tuple(steps), axes)


def read_table(axis: Axis | Regions, last: bool) -> Array:
    """Rows (cell, tap, count), one per output; from the window's last real cell back with `last`."""
    cell, tap, count = axis.table.T
    if last:
        cell, tap = cell + (count - 1) * axis.step, tap + count - 1
    # A window without cells reads cell 0, whose value its caller replaces.
    return np.ascontiguousarray(np.stack([np.where(count > 0, cell, 0), tap, count], axis=1))


def taker_table(axis: Axis | Regions) -> tuple[Array, int]:
    """Rows (output, tap, count), one per cell, of the outputs whose windows cover it, and the step between these outputs."""
    if isinstance(axis, Axis) and axis.dilation == 1:
        place = np.arange(axis.size) + axis.before
        first = np.maximum((place - axis.kernel) // axis.stride + 1, 0)
        count = np.maximum(np.minimum(place // axis.stride, axis.out - 1) - first + 1, 0)
        first[count == 0] = 0
        tap = np.where(count > 0, place - first * axis.stride, 0)
        return np.ascontiguousarray(np.stack([first, tap, count], axis=1), dtype=np.int64), 1
    first_cell, first_tap, length = axis.table.T
    outputs = np.repeat(np.arange(axis.out), length)
    cells = first_cell[outputs] + (np.arange(len(outputs)) - np.repeat(np.cumsum(length) - length, length)) * axis.step
    count = np.bincount(cells, minlength=axis.size)
    first = np.full(axis.size, axis.out)
    np.minimum.at(first, cells, outputs)
    first = np.where(count > 0, first, 0)
    tap = np.where(count > 0, first_tap[first] + (np.arange(axis.size) - first_cell[first]) // axis.step, 0)
    rows = np.stack([first, tap, count], axis=1)
    step = axis.dilation // math.gcd(axis.stride, axis.dilation) if isinstance(axis, Axis) else 1
    return np.ascontiguousarray(rows, dtype=np.int64), step


def full_run(table: Array, kernel: int) -> tuple[int, int]:
    """The run of results that read as many cells as the window has: none unless they are one run."""
    full = np.flatnonzero(table[:, 2] == kernel)
    if not len(full) or full[-1] - full[0] >= len(full):
        return 0, 0
    return int(full[0]), int(full[-1]) + 1


def block_to_scan(table: Array, size: int, step: int, more: int) -> int:
    """Length of the longest run of cells that a result reads, if it is so many more that scanning is faster; else 0."""
    longest = int(table[:, 2].max(initial=0))
    return longest if abs(step) == 1 and longest > 2 * size / len(table) + more else 0


def scan_table(table: Array, size: int, step: int, tap_step: int, block: int) -> Array:
    """Rows (first, second, shift), one per result: the two parts it is made of, and what the winner's tap is off by.

    Cell c of a line, in walking order, has two parts: 2 * c, its block up to it, and 2 * c + 1, from it on. A result that is one
    part alone has it twice, for which maxima need no code of their own.
    """
    cell, tap, count = table.T
    start = cell if step > 0 else size - 1 - cell
    end = start + np.maximum(count, 1) - 1
    second = np.where(start // block < end // block, 2 * end, -1)
    # A run within one block is the block, or cut short by an edge, or, backward, a cell shorter: all begin where it begins,
    # or end where it ends.
    first = np.where((second < 0) & (start % block == 0), 2 * end, 2 * start + 1)
    return np.stack([first, np.where(second < 0, first, second), tap - start * tap_step], axis=1)


def divisors_of(axes: tuple[Axis, Axis, Axis], problem: Problem) -> list[Array]:
    """Per axis a divisor for each output, whose sum is divided by their product; backward takes their reciprocals as factors.

    Where windows have as many cells everywhere along an axis, another axis divides by them, the one that is summed last, so
    that rounding happens once: of nine ones a third of a third made 1.0000001.
    """
    if problem.op == "max":
        return [np.ones(1)] * 3
    if problem.divisor_override is not None:
        once = busy_axes(axes)[-1]
        return [np.full(axis.out, float(problem.divisor_override if i == once else 1)) for i, axis in enumerate(axes)]
    counts = [np.maximum(np.array(axis.counts(problem.count_include_pad), float), 1) for axis in axes]
    varying = [i for i, count in enumerate(counts) if (count != count[:1]).any()]
    once = varying[0] if varying else busy_axes(axes)[-1]
    for i, count in enumerate(counts):
        if i != once and i not in varying and count.size:
            counts[once] = counts[once] * count[0]
            counts[i] = np.ones_like(count)
    return counts
