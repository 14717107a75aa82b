"""Where a window's cells lie: the arithmetic of pooling, apart from any execution.

A :class:`Window` is one :class:`Axis` per spatial dimension, bound to the input's size, so that whatever a
backend asks of it (output shape, the cells of one tap, how many cells a window covers) needs no argument.
Everything above one dimension is a product of axes: no formula here knows how many there are.

Terms. A *tap* is one position inside the window; taps are numbered in row-major order, from 0. Output ``o`` of an
axis reads with tap ``k`` the input cell ``o * stride + k * dilation - before``, if that cell exists.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pooling.errors import PoolingError

LARGEST = 1 << 40
"""Largest value of an argument: products with the number of cells in memory stay within 64 bits."""

AUTO_PADDING = ("valid", "same_upper", "same_lower")

IntOrSeq = int | Sequence[int]
Index = tuple[slice, ...]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]


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
    def disjoint(self) -> bool:
        """Whether no cell belongs to two windows."""
        return self.out <= 1 or self.span <= self.stride

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
        low, high = (-self.before, self.size + self.after) if include_pad else (0, self.size)
        starts = (o * self.stride - self.before for o in range(self.out))
        return [sum(low <= s + k * self.dilation < high for k in range(self.kernel)) for s in starts]


@dataclass(frozen=True)
class Window:
    """The axes of one pooling, bound to the input's spatial size.

    Layout is not its business: backends see every array as ``(outer, *spatial, inner)``, where `inner` is the number
    of channels in channels_last and 1 in channels_first, and `outer` is the product of all other axes.

    Examples
    --------
    >>> window = Window.over((5, 7), kernel_size=2, ceil_mode=True)
    >>> window.output_size
    (3, 4)
    >>> window.n_taps
    4
    """

    axes: tuple[Axis, ...]

    @classmethod
    def over(
        cls,
        size: Sequence[int],
        kernel_size: IntOrSeq,
        stride: IntOrSeq | None = None,
        padding: Padding = 0,
        dilation: IntOrSeq = 1,
        ceil_mode: bool = False,
    ) -> Window:
        """The window that these arguments (PyTorch's terms) mean on an input of this spatial `size`.

        Raises
        ------
        PoolingError
            A value is not a positive integer, has the wrong number of entries, or no window fits; the message
            names the argument, its value and the remedy.
        """
        n = len(size)
        kernels = per_axis("kernel_size", kernel_size, n, least=1)
        strides = kernels if stride is None else per_axis("stride", stride, n, least=1)
        dilations = per_axis("dilation", dilation, n, least=1)
        pads = _pads(padding, size, kernels, strides, dilations)
        axes = tuple(
            Axis(cells, k, s, *pad, d, bool(ceil_mode))
            for cells, k, s, pad, d in zip(size, kernels, strides, pads, dilations, strict=True)
        )
        for i, axis in enumerate(axes):
            _check_fits(i, axis, size)
        return cls(axes)

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @cached_property
    def kernel_size(self) -> tuple[int, ...]:
        return tuple(axis.kernel for axis in self.axes)

    @cached_property
    def stride(self) -> tuple[int, ...]:
        return tuple(axis.stride for axis in self.axes)

    @cached_property
    def padding(self) -> tuple[tuple[int, int], ...]:
        return tuple((axis.before, axis.after) for axis in self.axes)

    @cached_property
    def dilation(self) -> tuple[int, ...]:
        return tuple(axis.dilation for axis in self.axes)

    @cached_property
    def input_size(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def output_size(self) -> tuple[int, ...]:
        return tuple(axis.out for axis in self.axes)

    @cached_property
    def n_taps(self) -> int:
        return math.prod(self.kernel_size)

    @cached_property
    def n_outputs(self) -> int:
        return math.prod(self.output_size)

    @cached_property
    def disjoint(self) -> bool:
        """Whether no input cell belongs to two windows (so that a backward pass may write instead of add)."""
        return all(axis.disjoint for axis in self.axes)

    @cached_property
    def padded(self) -> bool:
        """Whether some window reaches past the data: some tap has no cell under it."""
        return any(axis.before or (axis.out - 1) * axis.stride + axis.span > axis.size for axis in self.axes)

    @cached_property
    def tiles(self) -> bool:
        """Whether the windows cut the input's start into boxes side by side (a reshape is then a view)."""
        return all(
            axis.kernel == axis.stride
            and axis.dilation == 1
            and not axis.before
            and axis.out * axis.kernel <= axis.size
            for axis in self.axes
        )

    @cached_property
    def covers(self) -> bool:
        """Whether the windows tile the input and leave no cell out."""
        return self.tiles and all(axis.out * axis.kernel == axis.size for axis in self.axes)

    def slices(self) -> Iterator[tuple[int, Index, Index]]:
        """Per tap, in row-major order: its number, an index into the output and one of equal shape into the input.

        The indices are basic, so that indexing gives views of arrays ``(outer, *spatial, inner)``. Taps that have no
        cell under any window are left out.
        """
        per_axis_cells = [[axis.cells(k) for k in range(axis.kernel)] for axis in self.axes]
        for number, cells in enumerate(itertools.product(*per_axis_cells)):
            if all(outputs.stop > outputs.start for outputs, _ in cells):
                yield (number, (slice(None), *(o for o, _ in cells)), (slice(None), *(i for _, i in cells)))


def per_axis(name: str, value: IntOrSeq, n: int, least: int) -> tuple[int, ...]:
    """`value` as one int per spatial dimension, each at least `least`."""
    entries = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * n
    if len(entries) != n:
        raise PoolingError(
            f"{name}={value!r} has {len(entries)} entries: give one int, or {n} (one per spatial dimension)"
        )
    return tuple(as_int(name, entry, value, least) for entry in entries)


def as_int(name: str, entry: Any, value: Any, least: int) -> int:
    try:
        if isinstance(entry, bool):
            raise TypeError
        number = operator.index(entry)
    except TypeError:
        raise PoolingError(f"{name}={value!r}: {entry!r} is not an int") from None
    if number < least:
        raise PoolingError(f"{name}={value!r}: {number} is too small, it must be at least {least}")
    if number > LARGEST:
        raise PoolingError(f"{name}={value!r}: {number} is too large, it must be at most {LARGEST}")
    return number


def _pads(
    padding: Padding,
    sizes: Sequence[int],
    kernels: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> list[tuple[int, int]]:
    n = len(sizes)
    if isinstance(padding, str):
        if padding not in AUTO_PADDING:
            raise PoolingError(f"padding={padding!r}: as a word it is one of {', '.join(map(repr, AUTO_PADDING))}")
        if padding == "valid":
            return [(0, 0)] * n
        pads = []
        for size, k, s, d in zip(sizes, kernels, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if padding == "same_upper" else (large, small))
        return pads
    entries: Sequence[Any] = padding if isinstance(padding, Sequence) else (padding,) * n
    if len(entries) != n:
        raise PoolingError(
            f"padding={padding!r} has {len(entries)} entries: give an int, or {n} ints or (before, after) pairs, "
            "one per spatial dimension"
        )
    pads = []
    for entry, k, d in zip(entries, kernels, dilations, strict=True):
        pair = tuple(entry) if isinstance(entry, Sequence) else (entry, entry)
        if len(pair) != 2:
            raise PoolingError(f"padding={padding!r}: {entry!r} is not an int or a (before, after) pair")
        before, after = (as_int("padding", p, padding, least=0) for p in pair)
        limit = d * (k - 1)
        if max(before, after) > limit:
            raise PoolingError(
                f"padding={padding!r}: {max(before, after)} is too large for kernel_size {k} with dilation {d}: a window "
                f"would lie in the padding alone; use at most {limit}"
            )
        pads.append((before, after))
    return pads


def _check_fits(i: int, axis: Axis, size: Sequence[int]) -> None:
    if axis.size < 1:
        raise PoolingError(
            f"x of spatial size {tuple(size)} is empty in dimension {i}: pooling needs at least one cell"
        )
    if axis.out < 1:
        padded = axis.before + axis.size + axis.after
        raise PoolingError(
            f"kernel_size {axis.kernel} (dilation {axis.dilation}) spans {axis.span} cells, but spatial dimension {i} of x "
            f"has {padded} with its padding (its spatial size is {tuple(size)}): use a smaller window or more padding"
        )
