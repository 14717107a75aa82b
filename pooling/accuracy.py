"""Are float32 results as accurate as they have to be? Held against those of the same numbers in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling.errors import GradientError

Array = NDArray[Any]
Cell = tuple[int, ...]

ULPS = 64
"""Units in the last place of the largest number by which results may be off, other than maxima."""


def units(dtype: np.dtype[Any], terms: int) -> float:
    """Units in the last place by which a sum of so many terms may be off.

    In float64, which nothing wider can be added in, one for four terms if that is more: the worst of equal ones, one by one.
    """
    return max(ULPS, terms / 4) if dtype == np.float64 else ULPS


def check_accuracy(operator: Any, x: Array, arguments: tuple[Any, ...] = (), exact_operator: Any = None) -> None:
    """Check ``forward`` and ``backward`` of `x` in float32.

    Parameters
    ----------
    operator
        Has ``forward(x) -> (y, saved)`` and ``backward(dy, saved) -> dx``, on float32 and on float64 arrays.
    x
        Finite numbers within the range of float32.
    arguments
        What ``forward`` takes beside x.
    exact_operator
        What gives the results in float64: `operator`, unless another one is known to be right.

    Raises
    ------
    GradientError
        A result is off by more than 64 units in the last place of the largest number: the message names the worst.
    """
    x = x.astype(np.float32)
    exact_operator = exact_operator or operator
    y, saved = operator.forward(x, *arguments)
    exact, exactly = exact_operator.forward(x.astype(np.float64), *arguments)
    _compare("forward of x in float32 gives y", y, exact, x)
    dy = np.random.default_rng(0).uniform(0.5, 1.5, y.shape).astype(np.float32)
    dx, exact_dx = operator.backward(dy, saved), exact_operator.backward(dy.astype(np.float64), exactly)
    _compare("backward of dy in float32 gives the gradient", dx, exact_dx, dy)


def _compare(what: str, got: Array, exact: Array, given: Array) -> None:
    here = np.isfinite(exact)  # windows of padding alone give -inf
    largest = max(float(np.abs(given).max(initial=0)), float(np.abs(exact).max(initial=0, where=here)))
    with np.errstate(invalid="ignore"):
        off = np.where(here, np.abs(got - exact), 0)
    if not off.max(initial=0) <= ULPS * float(np.finfo(np.float32).eps) * largest:
        at = most(np.where(np.isnan(off), np.inf, off))
        raise GradientError(
            f"{what} {got[at]:.9g} at {at}, in float64 {exact[at]:.9g}: it has to be within {ULPS} units in the last place; "
            "add many terms in blocks, or in float64"
        )


def shown(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-9 else value:.6g}"


def index(i: int, shape: Cell) -> Cell:
    return tuple(map(int, np.unravel_index(i, shape)))


def most(values: Array) -> Cell:
    """Where the largest magnitude is; of a mask, the first True."""
    return index(int(np.abs(values).argmax()), values.shape)
