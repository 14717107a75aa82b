"""One pooling as plain data: what every backend must agree on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling.geometry.window import Window
from pooling.runtime.cached_property import cached_property

Array = NDArray[Any]
Op = Literal["max", "avg", "lp"]
Ties = Literal["first", "last", "split", "all"]

TIES: tuple[Ties, ...] = ("first", "last", "split", "all")
"""Which cells get the gradient of a window whose maximum occurs more than once.

first, last
    The first or last of the tied cells, in row-major order.
split
    Each of them, in equal shares.
all
    Each of them, the whole of it. Not a subgradient: what the mask trick does.
"""

Kept = tuple[Array, ...]
"""The arrays a backward pass needs from its forward pass."""


@dataclass(frozen=True)
class Problem:
    """One pooling of arrays of one spatial size: what every backend must agree on.

    Parameters
    ----------
    op
        "max", "avg" or "lp".
    window
        The window, bound to the input's spatial size.
    ties
        Max only: which cells get the gradient of a tied window.
    count_include_pad
        Avg only: divide by the cells of the padded window instead of the real ones.
    divisor_override
        Avg only: divide by this number instead of by any count.
    p
        Lp only: the power, inf for the largest magnitude.
    signed
        Lp only: sum x ** p instead of abs(x) ** p.
    scale_partial
        Lp only: weigh a window's sum as if it had no cell less than the others.
    fitted
        The window was made for the array's size: arrays of another size have another one. No result depends on this field.
    drawn
        The window is one of many that are drawn for single planes: whatever has much to prepare for each is slow.
    """

    op: Op
    window: Window
    ties: Ties = "first"
    count_include_pad: bool = True
    divisor_override: int | None = None
    p: float = 2.0
    signed: bool = False
    scale_partial: bool = False
    fitted: bool = field(default=False, repr=False)
    drawn: bool = False

    @cached_property
    def _hash(self) -> int:
        norm = (self.p, self.signed, self.scale_partial)
        return hash((self.op, self.window, self.ties, self.count_include_pad, self.divisor_override, *norm))

    def __hash__(self) -> int:
        """Worked out once: tables are looked up by problem at every call."""
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash: another process hashes words in another way."""
        return {name: value for name, value in vars(self).items() if name != "_hash"}

    def divisors(self, dtype: DTypeLike) -> Array:
        """Avg: what each window's sum is divided by, in an array that broadcasts against the output."""
        n = self.window.ndim
        if self.divisor_override is not None:
            return np.full((1,) * (n + 1), self.divisor_override, dtype)
        counts = np.ones((1,) * n)
        for i, axis in enumerate(self.window.axes):
            along = (1,) * i + (axis.out,) + (1,) * (n - 1 - i)
            counts = counts * np.reshape(axis.counts(self.count_include_pad), along)
        # A window with no cell at all has the sum 0 and shall have the mean 0.
        return np.maximum(counts, 1).astype(dtype)[..., None]

    def weights(self) -> Array:
        """Lp: what each window's sum is multiplied by, in an array that broadcasts against the output."""
        if self.scale_partial:
            return self.window.n_taps / self.divisors(np.float64)
        return np.ones((1,) * (self.window.ndim + 1))


def describe(problem: Problem) -> str:
    """A problem in a few words: what differs from the defaults."""
    window = problem.window
    words = [f"{problem.op} pooling of {window.input_size} to {window.output_size}"]
    if window.slides:
        words.append(f"kernel {window.kernel_size}, stride {window.stride}, padding {window.padding}")
    plain = Problem(problem.op, window)
    rest = ((f.name, getattr(problem, f.name)) for f in fields(problem) if f.repr)
    words += [f"{name} {value!r}" for name, value in rest if value != getattr(plain, name)]
    return ", ".join(words)
