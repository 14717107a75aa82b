"""Rules: from an operator's arguments to the window of an input of any size.

An operator is not bound to one size; its rule is asked for the window of each size that comes. Sliding windows have a kernel
and a stride, adaptive ones as many regions as the output shall have cells, and global ones take everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pooling.errors import PoolingError, shown
from pooling.geometry.axis import regions
from pooling.geometry.window import LARGEST, IntOrSeq, Padding, Window, as_int, check_not_empty
from pooling.operators.validation import as_plain

LISTED = 1 << 24
"""Regions along an axis, at most: they are listed one by one."""

OutputSize = int | None | Sequence[int | None]


class Rule(Protocol):
    """What an operator asks of its rule."""

    @property
    def ndim(self) -> int | None:
        """Number of spatial dimensions; None: all of x but two."""

    @property
    def keepdims(self) -> bool:
        """Whether the output has the spatial dimensions at all."""

    @property
    def described(self) -> str:
        """The argument that says how many dimensions there are."""

    @property
    def dimensions(self) -> str:
        """The arguments as error messages show them."""

    @property
    def fitted(self) -> bool:
        """Whether windows are made for the input's size."""

    def window(self, size: Sequence[int]) -> Window: ...


def entries_of(name: str, value: Any) -> int | None:
    """How many dimensions an argument is for; None when it does not say."""
    if not isinstance(value, tuple):
        return None
    if not value:
        raise PoolingError(f"{name}={shown(value)} has no entry: give one per spatial dimension")
    return len(value)


def dimensions_of(holder: Any, names: Sequence[str]) -> list[int]:
    """For how many dimensions each of these arguments is; without those that are for any number of them."""
    counts = (entries_of(name, getattr(holder, name)) for name in names)
    return [count for count in counts if count is not None]


def for_others(value: Any, counts: Sequence[int]) -> Any:
    """`value`, with a single entry for each of the dimensions that another argument is for."""
    return value * max(counts) if isinstance(value, tuple) and len(value) == 1 else value


@dataclass(frozen=True)
class Sliding:
    """One window in many places; PyTorch's terms."""

    kernel_size: IntOrSeq
    stride: IntOrSeq | None
    padding: Padding
    dilation: IntOrSeq
    ceil_mode: bool

    keepdims = True
    fitted = False
    dimensions = "an int pools over x.ndim - 2 dimensions, a tuple over as many as it has entries"

    @classmethod
    def of(
        cls, kernel_size: IntOrSeq, stride: IntOrSeq | None, padding: Padding, dilation: IntOrSeq, ceil_mode: bool
    ) -> Sliding:
        """The rule of these arguments, if they make sense: wrong ones are found here and not at the first call."""
        if not isinstance(ceil_mode, bool | np.bool_):
            raise PoolingError(f"ceil_mode={shown(ceil_mode)}: it must be True or False")
        rule = cls(as_plain(kernel_size), as_plain(stride), as_plain(padding), as_plain(dilation), bool(ceil_mode))
        counts = dimensions_of(rule, ("kernel_size", "stride", "padding", "dilation"))
        rule = replace(rule, kernel_size=for_others(rule.kernel_size, counts))
        rule.window((LARGEST,) * (rule.ndim or max(counts, default=1)))  # a size that fits any
        return rule

    @property
    def ndim(self) -> int | None:
        return entries_of("kernel_size", self.kernel_size)

    @property
    def described(self) -> str:
        return f"kernel_size={shown(self.kernel_size)}"

    def window(self, size: Sequence[int]) -> Window:
        return Window.over(size, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


@dataclass(frozen=True)
class Whole:
    """One window, as large as the input."""

    keepdims: bool

    fitted = True
    ndim = None
    described = "global pooling"
    dimensions = "it pools over all but two, the batch and the channels"

    def window(self, size: Sequence[int]) -> Window:
        check_not_empty(size)
        return Window(tuple(regions(n, (0,), (n,)) for n in size))


@dataclass(frozen=True)
class Adaptive:
    """As many regions as the output shall have cells: from floor(i * size / out) to ceil((i + 1) * size / out)."""

    output_size: Any

    keepdims = True
    fitted = True
    dimensions = "an int or None pools over x.ndim - 2 dimensions, a tuple over as many as it has entries"

    @classmethod
    def of(cls, output_size: OutputSize) -> Adaptive:
        rule = cls(as_plain(output_size))
        entries_of("output_size", rule.output_size)
        rule.sizes((1,) * (rule.ndim or 1))
        return rule

    @property
    def ndim(self) -> int | None:
        return entries_of("output_size", self.output_size)

    @property
    def described(self) -> str:
        return f"output_size={shown(self.output_size)}"

    def sizes(self, size: Sequence[int]) -> list[int]:
        """Cells of the output, where None means as many as the input has."""
        wanted = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * len(size)
        return [
            n if out is None else as_int("output_size", out, self.output_size, least=0, most=LISTED)
            for n, out in zip(size, wanted, strict=True)
        ]

    def window(self, size: Sequence[int]) -> Window:
        check_not_empty(size)
        axes = []
        for n, out in zip(size, self.sizes(size), strict=True):
            starts = [i * n // out for i in range(out)]
            stops = [-(-(i + 1) * n // out) for i in range(out)]
            axes.append(regions(n, starts, stops))
        return Window(tuple(axes))
