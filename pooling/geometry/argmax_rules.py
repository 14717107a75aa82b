"""Rules that every max pooling in NumPy shares: which cell wins a window, and what its bits are.

A *tap* is a position in the window, numbered in row-major order. Which tap won is kept in one byte (two from 256 taps
on) instead of an eight-byte index: the memory traffic of switches is what limits a backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pooling.geometry.problem import Array, Kept, Problem
from pooling.geometry.window import Index

NO_TAP: dict[np.dtype[Any], int] = {np.dtype(t): np.iinfo(t).max for t in (np.uint8, np.uint16, np.uint32)}
"""The tap number, by dtype, that says that a window has no cell."""


MOST_TAPS = max(NO_TAP.values())
"""Cells of the largest window whose taps have numbers."""


def tap_dtype(n_taps: int) -> np.dtype[Any]:
    """The smallest dtype that holds the numbers of `n_taps` taps and :data:`NOBODY`."""
    return next(dtype for dtype, no_tap in NO_TAP.items() if n_taps <= no_tap)


def lowest(dtype: np.dtype[Any]) -> Any:
    """What a window without cells gives: -inf, the smallest integer, or False."""
    if dtype.kind == "f":
        return dtype.type(-np.inf)
    return dtype.type(np.iinfo(dtype).min if dtype.kind in "iu" else False)


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to add, count and divide in: float16 stops counting at 2048, and ends at 65504."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


SUM_BLOCK = 32
"""Terms that are added one after the other at most, where a sum has more than some blocks of them; then sums are added.

A rounding error is up to half a unit in the last place of the sum so far: 784 equal terms, one after the other, were off by 67
units, and a million by 2^17. In blocks, and blocks of blocks, the worst case grows with the logarithm.
"""


MOST_ADDED = 3 * SUM_BLOCK
"""Terms that may be added one after the other without blocks."""

MOST_NARROW_TERMS = 256
"""Gradients of maxima that may meet in a cell before they are added in a wider dtype. All backends have to agree on it."""


def sum_dtype(dtype: np.dtype[Any], terms: int) -> np.dtype[Any]:
    """The dtype in which arrays are added that can't be added in blocks."""
    return np.dtype(np.float64) if terms > MOST_ADDED else wide(dtype)


def gradient_sum_dtype(dtype: np.dtype[Any], problem: Problem) -> np.dtype[Any]:
    """The dtype in which the gradients of maxima are added: the arrays' own, rounded at each addition, or one that is wider."""
    if problem.window.most_over <= MOST_NARROW_TERMS:
        return dtype
    return np.dtype(np.float32) if dtype == np.float16 else np.dtype(np.float64)


def bits(array: Array) -> Array:
    """The same memory seen as unsigned integers, where a multiplication by 0 or 1 is exact.

    Multiplying floats by a mask turns inf into NaN and 0 * -3 into -0; multiplying their bits does neither.
    """
    unsigned: Array = array.view(f"u{array.dtype.itemsize}")
    return unsigned


def loses(cells: Array, y: Array, nan: bool) -> Array:
    """Where a cell is not its window's maximum. `nan`: whether any y is NaN; a NaN cell does not lose."""
    lost: Array = cells != y
    return lost & ~np.isnan(cells) if nan else lost


def has_nan(y: Array) -> bool:
    return y.dtype.kind == "f" and bool(np.isnan(y).any())


def in_order(problem: Problem) -> list[tuple[int, Index, Index]]:
    """The window's slices, each window's most entitled tap first: row-major, or from the end with ties="last"."""
    slices = list(problem.window.slices())
    return slices[::-1] if problem.ties == "last" else slices


def kept_taps(kept: Kept, problem: Problem, y: Array) -> Array:
    """`Pass.taps` of a backend that keeps just the taps, in y's shape."""
    return kept[0].reshape(y.shape)


def winning_taps(x: Array, y: Array, problem: Problem) -> Array:
    """The tap that wins each window, by comparing the input with its maximum."""
    dtype = tap_dtype(problem.window.n_taps)
    taps = np.full(y.shape, NO_TAP[dtype], dtype)
    for number, outputs, inputs in reversed(in_order(problem)):  # the most entitled writes last
        np.copyto(taps[outputs], dtype.type(number), where=x[inputs] == y[outputs])
    nans = nan_taps(x, y, problem)
    return taps if nans is None else np.where(np.isnan(y), nans, taps)


def nan_taps(x: Array, y: Array, problem: Problem) -> Array | None:
    """The tap of each window's first NaN, NOBODY where it has none; None when no window has one.

    A NaN wins its window, and the first one gets the whole gradient, under every tie policy.
    """
    if not has_nan(y):
        return None
    dtype = tap_dtype(problem.window.n_taps)
    taps = np.full(y.shape, NO_TAP[dtype], dtype)
    for number, outputs, inputs in reversed(list(problem.window.slices())):
        np.copyto(taps[outputs], dtype.type(number), where=np.isnan(x[inputs]))
    return taps


def settle_zeros(x: Array, y: Array, problem: Problem) -> None:
    """Give each y that is zero the sign of the winning zero.

    -0.0 == 0.0 is a tie, and which of the two ``np.maximum`` and ``max`` return depends on the vector instructions of
    the machine. Nothing to do for most inputs: no y is zero, or no x is -0.0, whose bits are the smallest integer.
    """
    if x.dtype.kind != "f" or not (y == 0).any() or (x.view(f"i{x.itemsize}").min() != np.iinfo(f"i{x.itemsize}").min):
        return
    slices: Iterable[tuple[int, Index, Index]] = reversed(in_order(problem))
    for _, outputs, inputs in slices:
        np.copyto(y[outputs], x[inputs], where=(y[outputs] == 0) & (x[inputs] == 0))
