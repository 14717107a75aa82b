"""One spatial dimension of a window: which cells of the input each output reads.

Terms. A *tap* is one position inside the window; taps are numbered from 0. On an :class:`Axis`, output ``o`` reads with tap
``k`` the input cell ``o * stride + k * dilation - before``, if that cell exists. On :class:`Regions` it reads the cell
``starts[o] + k``, if that comes before ``stops[o]``: adaptive and fractional pooling. Both answer the same questions, so
that a backend that asks them need not know which of the two it has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pooling.runtime.cached_property import cached_property

Run = tuple[slice, slice]
"""Outputs, and the cells that these read with one tap: two slices of equal length."""


LONG = 1 << 11
"""Cells of an axis, or of all together, whose tables take so much memory that they are kept for few sizes only."""

KEPT = 1 << 8
"""Rows of the largest table that an axis keeps: axes live as long as an operator's plans."""


@dataclass(frozen=True)
class Axis:
    """One spatial dimension of a window over an input of `size` cells.

    Examples
    --------
    >>> axis = Axis(size=5, kernel=2, stride=2, before=0, after=0)
    >>> axis.out
    2
    >>> axis.cells(1)  # the outputs that have a cell under tap 1, and those cells
    (slice(0, 2, 1), slice(1, 4, 2))
    """

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    slides: ClassVar[bool] = True

    @property
    def span(self) -> int:
        """Distance from a window's first cell to its last, both counted."""
        return self.dilation * (self.kernel - 1) + 1

    @cached_property
    def out(self) -> int:
        """Number of windows; 0 or less when not even one fits.

        PyTorch's formula: with `ceil_mode` a last, partial window counts too, unless it would start in the
        padding after the data.
        """
        room = self.before + self.size + self.after - self.span
        if not self.ceil_mode:
            return room // self.stride + 1
        out = -(-room // self.stride) + 1
        return out - 1 if (out - 1) * self.stride >= self.before + self.size else out

    @property
    def step(self) -> int:
        """From a tap's cell to the next tap's."""
        return self.dilation

    @property
    def disjoint(self) -> bool:
        """Whether no cell belongs to two windows."""
        return self.out <= 1 or self.span <= self.stride

    @property
    def most_over(self) -> int:
        """To how many windows a cell belongs at most."""
        return min(-(-self.kernel // (self.stride // math.gcd(self.stride, self.dilation))), max(self.out, 0))

    @property
    def padded(self) -> bool:
        """Whether some window reaches past the data."""
        return bool(self.before) or (self.out - 1) * self.stride + self.span > self.size

    @property
    def tiles(self) -> bool:
        """Whether the windows cut the input's start into pieces side by side."""
        side_by_side = self.kernel == self.stride and self.dilation == 1 and not self.before
        return side_by_side and self.out * self.kernel <= self.size

    @property
    def table(self) -> NDArray[np.int64]:
        """Rows (cell, tap, count), one per output: its first real cell, that cell's tap, and how many there are."""
        return self._new_table() if self.out > KEPT else self._table

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        return self._new_table()

    def _new_table(self) -> NDArray[np.int64]:
        start = np.arange(self.out) * self.stride - self.before
        tap = np.maximum(0, -(start // self.dilation))
        stop = np.minimum(self.kernel, (self.size - 1 - start) // self.dilation + 1)
        return np.stack([start + tap * self.dilation, tap, np.maximum(stop - tap, 0)], axis=1, dtype=np.int64)

    def reach(self, first: int, stop: int) -> tuple[int, int]:
        """Where the windows of outputs `first` to `stop` begin and end, in the padding perhaps."""
        return first * self.stride - self.before, (stop - 1) * self.stride - self.before + self.span

    def runs(self, tap: int) -> list[Run]:
        """As :meth:`cells`, in as many pieces as slices need: here one, or none."""
        outputs, cells = self.cells(tap)
        return [(outputs, cells)] if outputs.stop > outputs.start else []

    def cells(self, tap: int) -> tuple[slice, slice]:
        """The outputs that have a real cell under `tap`, and those cells, as two slices of equal length."""
        offset = tap * self.dilation - self.before
        first = max(0, -(offset // self.stride))  # ceil(-offset / stride)
        stop = min(self.out, (self.size - 1 - offset) // self.stride + 1)
        if stop <= first:
            return slice(0, 0, 1), slice(0, 0, self.stride)
        start = first * self.stride + offset
        return slice(first, stop, 1), slice(start, (stop - 1) * self.stride + offset + 1, self.stride)

    def counts(self, include_pad: bool) -> list[int]:
        """Cells under each window: the real ones, or (`include_pad`) those of the padded input."""
        if not include_pad:
            counts: list[int] = self.table[:, 2].tolist()
            return counts
        start = np.arange(self.out) * self.stride  # in the padded input, which every window starts in
        padded = self.before + self.size + self.after
        within: list[int] = np.minimum(self.kernel, (padded - 1 - start) // self.dilation + 1).tolist()
        return within


@dataclass(frozen=True)
class Regions:
    """One spatial dimension whose windows are given one by one: output ``o`` reads the cells ``starts[o]`` to ``stops[o]``.

    Neither starts nor stops ever go back from one output to the next, so that a cell's outputs are neighbours.

    Examples
    --------
    >>> Regions(size=5, starts=(0, 1, 3), stops=(2, 4, 5)).runs(1)
    [(slice(0, 2, 1), slice(1, 3, 1)), (slice(2, 3, 1), slice(4, 5, 1))]
    """

    size: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]

    step: ClassVar[int] = 1
    tiles: ClassVar[bool] = False
    slides: ClassVar[bool] = False

    @property
    def out(self) -> int:
        return len(self.starts)

    @cached_property
    def kernel(self) -> int:
        """Cells of the longest region."""
        return max((b - a for a, b in zip(self.starts, self.stops, strict=True)), default=1)

    @cached_property
    def disjoint(self) -> bool:
        return all(stop <= start for stop, start in zip(self.stops, self.starts[1:], strict=False))

    @cached_property
    def most_over(self) -> int:
        opened = np.bincount(self.starts, minlength=self.size + 1)
        closed = np.bincount(self.stops, minlength=self.size + 1)
        return int(np.cumsum(opened[: self.size + 1] - closed).max(initial=0))

    @cached_property
    def padded(self) -> bool:
        """Whether some region is shorter than the longest: some tap has no cell under it."""
        return any(b - a < self.kernel for a, b in zip(self.starts, self.stops, strict=True))

    @cached_property
    def table(self) -> NDArray[np.int64]:
        starts, stops = np.array(self.starts, np.int64), np.array(self.stops, np.int64)
        return np.stack([starts, np.zeros_like(starts), stops - starts], axis=1)

    def reach(self, first: int, stop: int) -> tuple[int, int]:
        return (self.starts[first], self.stops[stop - 1]) if stop > first else (0, 0)

    def counts(self, include_pad: bool) -> list[int]:
        """Cells of each region; there is no padding."""
        return [b - a for a, b in zip(self.starts, self.stops, strict=True)]

    def runs(self, tap: int) -> list[Run]:
        """The outputs that have a cell under `tap`, and those cells, as pairs of slices: runs of equal distance."""
        found = [(o, a + tap) for o, (a, b) in enumerate(zip(self.starts, self.stops, strict=True)) if a + tap < b]
        runs: list[list[tuple[int, int]]] = []
        for o, cell in found:
            run = runs[-1] if runs else []
            by = cell - run[-1][1] if run else 0
            if run and by > 0 and o == run[-1][0] + 1 and (len(run) == 1 or by == run[-1][1] - run[-2][1]):
                run.append((o, cell))
            else:
                runs.append([(o, cell)])
        pieces = []
        for run in runs:
            (o, cell), (last, last_cell) = run[0], run[-1]
            by = run[1][1] - cell if len(run) > 1 else 1
            pieces.append((slice(o, last + 1, 1), slice(cell, last_cell + 1, by)))
        return pieces


def regions(size: int, starts: Sequence[int], stops: Sequence[int]) -> Axis | Regions:
    """The axis with these regions: where they are as long and as far apart as each other, a plain :class:`Axis`."""
    lengths = {b - a for a, b in zip(starts, stops, strict=True)}
    steps = {b - a for a, b in itertools.pairwise(starts)}
    if len(lengths) == 1 and len(steps) <= 1 and starts[0] == 0:
        kernel = lengths.pop()
        axis = Axis(size, kernel, stride=steps.pop() if steps else size)
        if axis.stride > 0 and axis.out == len(starts):
            return axis
    return Regions(size, tuple(starts), tuple(stops))
