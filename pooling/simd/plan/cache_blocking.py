"""Cache blocking: a pass is cut into bands of rows whose buffers fit the cache, each with the range of its input."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pooling.geometry.axis import LONG, Axis
from pooling.geometry.problem import Array
from pooling.runtime.jit import Kernel
from pooling.simd.plan.geometry import FIELDS, SCAN, TOGETHER, Program

BAND = 1 << 18
"""Bytes that the buffers of a band should not exceed: a quarter of a common L2 cache."""

MORE = 1 << 22
"""Bytes that they may come to where narrower bands would do much of their work again, and four times those of one result."""

AGAIN, WORTH = 1.25, 0.9
"""How often a cell is read from which on the limit is doubled, and by what part fewer reads that must bring."""

SizeOf = Callable[[int, int], int]
"""Bytes of the buffers for so many cells and so many results along the band axis."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """A pass: its kernel, what that takes between arrays and buffers, and how large these must be."""

    kernel: Kernel[..., None]
    given: tuple[Any, ...]
    units: int
    elements: int
    tap_elements: int


def bands(
    program: Program, size_of: SizeOf, whole_strides: bool = False, limit: int = BAND, wide_from: int | None = None
) -> Array:
    """Rows (first, stop, low, high, reach_low, reach_high) along the band axis.

    Results `first` to `stop` read what lies from `low` to `high`; with results that are cells, the windows of those outputs
    reach the cells `reach_low` to `reach_high`.

    Parameters
    ----------
    whole_strides
        Cut only where a stride ends.
    limit
        Bytes that the buffers should not exceed.
    wide_from
        Bands wanted at least, where a band's work is what it reads, some of which the band before has read too. Bands are then
        widened beyond the limit, until they read at most half as much again as is theirs. With bands of one row 9x9 windows at
        stride 1 over 112x112 cells and 64 channels took 4 times as long, with a quarter read again 1.2 to 2 times. Where that
        is not enough, the limit is twice as high.
    """
    size_of = cache(size_of)  # most bands are as large as the one before them
    rows = _bands(program, size_of, whole_strides, limit, wide_from)
    if wide_from is None or len(rows) <= wide_from:
        return rows
    # 9x9, 13x13 and 31x31 windows over 14x14 to 56x56 cells took 0.7 to 0.9 of the time so, 5x5 over 20x20, of which a fifth was
    # read again, 1.1 times as long. With four times the limit they took as long as with twice, or 1.1 to 1.5 times.
    wider = _bands(program, size_of, whole_strides, 2 * limit, wide_from)
    read, less = ((each[:, 3] - each[:, 2]).sum() for each in (rows, wider))
    enough = len(wider) >= wide_from and read > AGAIN * program.size[program.band_axis] and less < WORTH * read
    return wider if enough else rows


def _bands(program: Program, size_of: SizeOf, whole_strides: bool, limit: int, wide_from: int | None) -> Array:
    """As :func:`bands`, for one limit."""
    a = program.band_axis
    axis, table, results = program.axes[a], program.tables[a], program.out[a]
    step = axis.stride if whole_strides else 1
    spans = Spans(table, program.steps[a])
    each = program.size[a] / max(results, 1)  # of what is read, a result's own
    widest = 0 if wide_from is None else -(-results // wide_from)

    def read_by(first: int, stop: int) -> tuple[tuple[int, int], int]:
        need = spans.of(first, stop)
        return need, size_of(need[1] - need[0], stop - first)

    rows = []
    first, steps = 0, 1
    while first < results:
        ends = range(first + step, results + step, step)
        # As many as fit are found by halving: one after the other a line of a million cells took 11 s.
        while steps < len(ends) and read_by(first, min(ends[steps - 1], results))[1] <= limit:
            steps *= 2
        fit = bisect.bisect_left(ends[:steps], True, key=lambda end: read_by(first, min(end, results))[1] > limit)
        steps = max(fit, 1)
        stop = min(ends[steps - 1], results)
        need, _ = read_by(first, stop)
        most = max(MORE, 4 * read_by(first, min(first + step, results))[1])
        while stop < results and need[1] - need[0] > 1.5 * each * (stop - first):
            more = min(stop + step, results)
            wider, nbytes = read_by(first, more)
            if nbytes > most or more - first > widest:
                break
            stop, need = more, wider
        # Where results are outputs, nothing reads what their windows reach, and these numbers have no meaning.
        start, end = axis.reach(min(need[0], axis.out - 1), min(need[1], axis.out))
        rows.append((first, stop, *need, max(min(start, first), 0), min(max(end, stop), axis.size)))
        first = stop
    return np.array(rows, np.int64).reshape(-1, 6)


class Spans:
    """What runs of results read along an axis: looked up some hundred times for a plan, so in lists unless these are long."""

    def __init__(self, table: Array, step: int) -> None:
        cell, count = table[:, 0], table[:, 2]
        other = cell + (count - 1) * step  # cells may be read in descending order
        self.low = np.where(count > 0, np.minimum(cell, other), np.iinfo(np.int64).max)
        self.high = np.where(count > 0, np.maximum(cell, other) + 1, 0)
        reading = count > 0
        self.in_order = bool((np.diff(self.low[reading]) >= 0).all() and (np.diff(self.high[reading]) >= 0).all())
        # Of results in order the first that reads anything has the lowest cell, and the last such the highest.
        self.lows: Any = np.minimum.accumulate(self.low[::-1])[::-1]
        self.highs: Any = np.maximum.accumulate(self.high)
        self.reading: Any = np.concatenate([[0], np.cumsum(reading)])
        if len(table) <= LONG:
            self.lows, self.highs, self.reading = self.lows.tolist(), self.highs.tolist(), self.reading.tolist()

    def of(self, first: int, stop: int) -> tuple[int, int]:
        """The first cell that the results `first` to `stop` read, and the one after the last; (0, 0) where there is none."""
        if self.reading[first] == self.reading[stop]:
            return 0, 0
        if self.in_order:
            return int(self.lows[first]), int(self.highs[stop - 1])
        return int(self.low[first:stop].min()), int(self.high[first:stop].max())


def chain_pixels(program: Program, cells: int, results: int) -> int:
    """Pixels in the buffers between the passes along the axes, for a band of so many cells and results."""
    n, m = list(program.size), list(program.out)
    n[program.band_axis], m[program.band_axis] = max(cells, 1), results
    total = 0
    for axis in program.passes[:-1]:
        total += math.prod(n[:axis]) * math.prod(m[axis:])
    return total


def scan_vectors(program: Program, cells: int) -> int:
    """Vectors that scans need for a band of so many cells: two for each cell of the longest lines."""
    n = list(program.size)
    n[program.band_axis] = max(cells, 1)
    return 2 * TOGETHER * max([n[axis] for axis in program.passes if program.g[axis * FIELDS + SCAN]], default=0)


def shifts_of(axis: Axis) -> list[int]:
    """Where, from a stride's number on, the outputs lie that have one of its cells under some tap."""
    places = [c + axis.before - k * axis.dilation for c in range(axis.stride) for k in range(axis.kernel)]
    return [place // axis.stride for place in places if place % axis.stride == 0]


def first_reached(program: Program) -> Array:
    """Rows (cell, stop): the cells that output 0, 1, ... reach as the first along the band axis; last the rest."""
    axis = program.axes[program.band_axis]
    rows, done = [], 0
    for o in range(axis.out):
        stop = min(max(axis.reach(o, o + 1)[1], done), axis.size)
        rows.append((done, stop))
        done = stop
    rows.append((done, axis.size))
    return np.array(rows, np.int64)


def tap_offsets(program: Program) -> Array:
    """By tap, how many cells after its window's start it lies."""
    d, h, w = program.axes
    offset = np.zeros((), np.int64)
    for axis in (d, h, w):
        offset = offset[..., None] * axis.size + np.arange(axis.kernel) * axis.step
    return offset.reshape(-1)
