"""Sums that need more than the arrays' own dtype: of very many terms, or beyond the largest number.

A mean of numbers that fit is one that fits, though their sum may not. So where a sum overflows the means are taken once more, of
numbers scaled down by a power of two, which is exact. That a sum has overflowed NumPy notices by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pooling.backends.base import Backward, Forward
from pooling.geometry.argmax_rules import gradient_sum_dtype
from pooling.geometry.problem import Array, Kept, Problem


def with_wide_sums(backward: Backward) -> Backward:
    """Decorate a backward pass of maxima that adds in dx: where very many gradients meet in a cell, it is given a wider array."""

    @functools.wraps(backward)
    def add_wide(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
        dtype = gradient_sum_dtype(dx.dtype, problem)
        if dtype == dx.dtype:
            backward(dy, kept, problem, dx)
            return
        total = np.empty(dx.shape, dtype)
        backward(dy.astype(dtype), kept, problem, total)
        narrow(total, dx)

    return add_wide


def narrow(total: Array, result: Array) -> None:
    """Round sums to a narrower dtype. One that is beyond its largest number is infinite, as any sum would be."""
    with np.errstate(all="ignore"):
        result[...] = total


def again_scaled(run: Callable[[Array, Array], object], given: Array, result: Array, problem: Problem) -> None:
    """Where `result` is not finite, take it from ``run(given, result)`` on scaled numbers, whose sums do not overflow.

    Of the items (outer indices) that have such numbers, and only if those that `given` holds are large enough for a sum to
    overflow: other infinite results, and NaN, come from numbers that are so themselves.
    """
    lost = ~np.isfinite(result)
    if not lost.any():
        return
    power = max(problem.window.n_taps, problem.window.most_over).bit_length()
    finite = np.isfinite(given)
    largest = max(given.max(initial=0, where=finite), -given.min(initial=0, where=finite))
    with np.errstate(all="ignore"):
        if np.ldexp(largest, power) <= np.finfo(given.dtype).max:
            return
        items = np.flatnonzero(lost.reshape(len(lost), -1).any(axis=1))
        some = np.empty((len(items), *result.shape[1:]), result.dtype)
        run(np.ldexp(given[items], -power), some)
        result[items] = np.where(lost[items], np.ldexp(some, power), result[items])


class Overflow:
    """Whether NumPy's arithmetic has overflowed while it was watched."""

    def __init__(self) -> None:
        self.seen = False

    def note(self, kind: str, flags: int) -> None:
        self.seen = True

    def watched(self) -> Any:
        return np.errstate(all="ignore", over="call", call=self.note)


def finite_mean(forward: Forward) -> Forward:
    """Decorate a forward pass of means in NumPy."""

    @functools.wraps(forward)
    def mean(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
        overflow = Overflow()
        with overflow.watched():
            kept = forward(x, problem, y, training)
        if overflow.seen:
            again_scaled(lambda given, result: forward(given, problem, result, False), x, y, problem)
        return kept

    return mean


def finite_shares(backward: Backward) -> Backward:
    """Decorate a backward pass of means in NumPy."""

    @functools.wraps(backward)
    def share(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
        overflow = Overflow()
        with overflow.watched():
            backward(dy, kept, problem, dx)
        if overflow.seen:
            again_scaled(lambda given, result: backward(given, kept, problem, result), dy, dx, problem)

    return share
