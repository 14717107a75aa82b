"""Are results as accurate as they have to be? Held against those of the same numbers in float64."""

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
    """Check ``forward`` and ``backward`` in float32 and float16, at `x` and at an array of one number.

    The rounding errors of sums of equal numbers have one sign, where those of others cancel. What is beyond the range of the
    dtype is not compared, and a dtype that `operator` refuses is left out.

    Parameters
    ----------
    operator
        Has ``forward(x) -> (y, saved)`` and ``backward(dy, saved) -> dx``, on floats of any width.
    x
        Finite numbers.
    arguments
        What ``forward`` takes beside x.
    exact_operator
        What gives the results in float64: `operator`, unless another one is known to be right.

    Raises
    ------
    GradientError
        A result is off by more than 64 units in the last place of the largest number: the message names the worst.
    """
    exact_operator = exact_operator or operator
    for dtype in (np.dtype(np.float32), np.dtype(np.float16)):
        for values in (x, np.full(x.shape, 0.1)):
            with np.errstate(over="ignore", under="ignore"):
                given = values.astype(dtype)
            if np.isfinite(given).all():
                _check(operator, exact_operator, given, arguments)


def _check(operator: Any, exact_operator: Any, x: Array, arguments: tuple[Any, ...]) -> None:
    try:
        y, saved = operator.forward(x, *arguments)
    except Exception:  # in whatever way it refuses the dtype: others it has taken
        return
    if y.dtype != x.dtype:
        return
    exact, exactly = exact_operator.forward(x.astype(np.float64), *arguments)
    _compare("forward of x in {} gives y", y, exact, x)
    if not _fits(exact, x.dtype).all():
        return  # and neither does what backward makes of it
    for dy in (np.random.default_rng(0).uniform(0.5, 1.5, y.shape), np.full(y.shape, 0.1)):
        narrow = dy.astype(x.dtype)
        dx, exact_dx = operator.backward(narrow, saved), exact_operator.backward(narrow.astype(np.float64), exactly)
        _compare("backward of dy in {} gives the gradient", dx, exact_dx, narrow)


def _fits(exact: Array, dtype: np.dtype[Any]) -> Array:
    """Where a number, or the infinity that a window of padding alone gives, is one of `dtype`, too."""
    fits: Array = (np.abs(exact) < float(np.finfo(dtype).max) / 2) | np.isneginf(exact)
    return fits


def _compare(what: str, got: Array, exact: Array, given: Array) -> None:
    precision = np.finfo(given.dtype)
    here = _fits(exact, given.dtype) & np.isfinite(exact)
    largest = max(float(np.abs(given).max(initial=0)), float(np.abs(exact).max(initial=0, where=here)))
    with np.errstate(invalid="ignore"):
        off = np.where(here, np.abs(got - exact), 0)
    allowed = ULPS * max(float(precision.eps) * largest, float(precision.smallest_subnormal))
    if not off.max(initial=0) <= allowed:
        at = most(np.where(np.isnan(off), np.inf, off))
        raise GradientError(
            f"{what.format(given.dtype)} {got[at]:.9g} at {at}, in float64 {exact[at]:.9g}: it has to be within {ULPS} units in "
            "the last place; add many terms in blocks, or in a wider dtype"
        )


def shown(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-9 else value:.6g}"


def index(i: int, shape: Cell) -> Cell:
    return tuple(map(int, np.unravel_index(i, shape)))


def most(values: Array) -> Cell:
    """Where the largest magnitude is; of a mask, the first True."""
    return index(int(np.abs(values).argmax()), values.shape)
