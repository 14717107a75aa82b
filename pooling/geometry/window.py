"""Where a window's cells lie: one axis per spatial dimension, and what a user's arguments mean.

A :class:`Window` is bound to the input's size, so that whatever a backend asks of it (output shape, the cells of one tap,
how many cells a window covers) needs no argument. Everything above one dimension is a product of axes: no formula here
knows how many there are.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from pooling.errors import PoolingError, shown
from pooling.geometry.axis import Axis, Regions
from pooling.runtime.cached_property import cached_property

LARGEST = 1 << 40
"""Largest value of an argument: products with the number of cells in memory stay within 64 bits."""

AUTO_PADDING = ("valid", "same_upper", "same_lower")

IntOrSeq = int | Sequence[int]
Index = tuple[slice, ...]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]


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

    axes: tuple[Axis | Regions, ...]

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
        check_not_empty(size)
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
    def affine(self) -> tuple[Axis, ...]:
        """The axes of a window that slides: none of them is made of regions."""
        return tuple(axis for axis in self.axes if isinstance(axis, Axis))

    @cached_property
    def slides(self) -> bool:
        """Whether all windows are one, in different places."""
        return len(self.affine) == self.ndim

    @cached_property
    def stride(self) -> tuple[int, ...]:
        return tuple(axis.stride for axis in self.affine)

    @cached_property
    def padding(self) -> tuple[tuple[int, int], ...]:
        return tuple((axis.before, axis.after) for axis in self.affine)

    @cached_property
    def dilation(self) -> tuple[int, ...]:
        return tuple(axis.step for axis in self.axes)

    @cached_property
    def input_size(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def output_size(self) -> tuple[int, ...]:
        return tuple(axis.out for axis in self.axes)

    @cached_property
    def extent(self) -> int:
        """Cells of all axes together: the memory of tables grows with it."""
        return sum(self.input_size)

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
    def most_over(self) -> int:
        """To how many windows a cell belongs at most."""
        return math.prod(axis.most_over for axis in self.axes)

    @cached_property
    def padded(self) -> bool:
        """Whether some tap of some window has no cell under it: it reaches past the data, or is shorter than others."""
        return any(axis.padded for axis in self.axes)

    @cached_property
    def tiles(self) -> bool:
        """Whether the windows cut the input's start into boxes side by side (a reshape is then a view)."""
        return all(axis.tiles for axis in self.axes)

    @cached_property
    def covers(self) -> bool:
        """Whether the windows tile the input and leave no cell out."""
        return self.tiles and all(axis.out * axis.kernel == axis.size for axis in self.axes)

    def slices(self, backwards: bool = False) -> Iterator[tuple[int, Index, Index]]:
        """Per tap, in row-major order: its number, an index into the output and one of equal shape into the input.

        The indices are basic, so that indexing gives views of arrays ``(outer, *spatial, inner)``. Taps that have no
        cell under any window are left out; regions that lie at uneven distances come in several pieces per tap.
        With `backwards`, a cell is met in the order of its windows: taps from the last to the first.
        """
        along = []
        for axis in self.axes:
            taps = range(axis.kernel)
            along.append([(k, *run) for k in (reversed(taps) if backwards else taps) for run in axis.runs(k)])
        for pieces in itertools.product(*along):
            number = 0
            for axis, (tap, _, _) in zip(self.axes, pieces, strict=True):
                number = number * axis.kernel + tap
            yield (number, (slice(None), *(o for _, o, _ in pieces)), (slice(None), *(c for _, _, c in pieces)))


def is_many(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether an argument has entries; the letters of a word, and its bytes, are none."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def per_axis(name: str, value: IntOrSeq, n: int, least: int) -> tuple[int, ...]:
    """`value` as one int per spatial dimension, each at least `least`. An int alone is for all, and so is a single entry."""
    entries = for_all(tuple(value) if is_many(value) else (value,), n)
    if len(entries) != n:
        raise PoolingError(
            f"{name}={shown(value)} has {len(entries)} entries: give one int, or {n} (one per spatial dimension)"
        )
    return tuple(as_int(name, entry, value, least) for entry in entries)


def for_all(entries: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """A single entry for each of `n` dimensions; others as they are."""
    return entries * n if len(entries) == 1 else entries


def as_int(name: str, entry: Any, value: Any, least: int, most: int = LARGEST) -> int:
    try:
        if isinstance(entry, bool):
            raise TypeError
        number = operator.index(entry)
    except Exception:  # a foreign `__index__` may raise anything
        raise PoolingError(f"{name}={shown(value)}: {shown(entry)} is not an int; give one") from None
    if number < least:
        raise PoolingError(f"{name}={shown(value)}: {shown(number)} is too small, it must be at least {least}")
    if number > most:
        raise PoolingError(f"{name}={shown(value)}: {shown(number)} is too large, it must be at most {most}")
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
            raise PoolingError(f"padding={shown(padding)}: as a word it is one of {', '.join(map(repr, AUTO_PADDING))}")
        if padding == "valid":
            return [(0, 0)] * n
        pads = []
        for size, k, s, d in zip(sizes, kernels, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if padding == "same_upper" else (large, small))
        return pads
    entries = for_all(tuple(padding) if is_many(padding) else (padding,), n)
    if len(entries) != n:
        raise PoolingError(
            f"padding={shown(padding)} has {len(entries)} entries: give an int, or {n} ints or (before, after) pairs, "
            "one per spatial dimension"
        )
    pads = []
    for entry, k, d in zip(entries, kernels, dilations, strict=True):
        pair = tuple(entry) if is_many(entry) else (entry, entry)
        if len(pair) != 2:
            raise PoolingError(
                f"padding={shown(padding)}: {shown(entry)} is not an int or a (before, after) pair; give one of them"
            )
        before, after = (as_int("padding", p, padding, least=0) for p in pair)
        limit = d * (k - 1)
        if max(before, after) > limit:
            raise PoolingError(
                f"padding={shown(padding)}: {max(before, after)} is too large for kernel_size {k} with dilation {d}: a window "
                f"would lie in the padding alone; use at most {limit}"
            )
        pads.append((before, after))
    return pads


def check_not_empty(size: Sequence[int]) -> None:
    for i, cells in enumerate(size):
        if cells < 1:
            raise PoolingError(
                f"x of spatial size {tuple(size)} is empty in dimension {i}: pooling needs at least one cell; give a larger x"
            )


def _check_fits(i: int, axis: Axis, size: Sequence[int]) -> None:
    if axis.out < 1:
        padded = axis.before + axis.size + axis.after
        raise PoolingError(
            f"kernel_size {axis.kernel} (dilation {axis.dilation}) spans {axis.span} cells, but spatial dimension {i} of x "
            f"has {padded} with its padding (its spatial size is {tuple(size)}): use a smaller window or more padding"
        )
