"""Lp pooling: the terms of a sum, their derivative, and the limit p = inf, which is a maximum.

The norm of a window is ``(sum |x| ** p) ** (1 / p)``; its derivative with respect to a cell, ``sign(x) * (|x| / y) ** (p - 1)``.
Taken as that quotient, and not as a quotient of powers, it neither overflows nor underflows before the end.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from pooling.backends.base import Pass
from pooling.geometry.problem import Array, Kept, Problem

quiet = functools.partial(np.errstate, all="ignore")
"""Powers overflow, and negative numbers have none that is not whole: inf and NaN say it, as in PyTorch."""


def powered(x: Any, p: float, signed: bool) -> Any:
    """What a cell adds to its window's sum."""
    with quiet():
        if p == 2:
            return x * x
        return np.power(x if signed else np.abs(x), p)


def slope_of(x: Any, y: Any, p: float, signed: bool) -> Any:
    """The derivative of a window's norm `y` with respect to its cell `x`: 0 where there is none, at zeros."""
    with quiet():
        ratio = x / y
        slope = np.power(ratio, p - 1) if signed else np.sign(x) * np.power(np.abs(ratio), p - 1)
    kink = (y == 0) | ((x == 0) & (p < 1))
    return np.where(kink, 0.0, slope)


def root(total: Array, p: float) -> Array:
    with quiet():
        return np.sqrt(total) if p == 2 else np.power(total, 1 / p)


def with_infinity(finite: Pass, largest: Pass) -> Pass:
    """`finite`, and for p = inf the maximum of magnitudes, whose gradient goes to the first of them with its cell's sign."""
    # No closures: operators and what they saved are pickled.
    return Pass(functools.partial(_forward, finite, largest), functools.partial(_backward, finite, largest))


def _forward(finite: Pass, largest: Pass, x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    if math.isfinite(problem.p):
        return finite.forward(x, problem, y, training)
    with quiet():
        kept = largest.forward(np.abs(x), as_max(problem), y, training)
        y[y == -np.inf] = 0  # a window of padding alone has nothing to add up
        return (np.sign(x), *kept) if training else ()


def _backward(finite: Pass, largest: Pass, dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    if math.isfinite(problem.p):
        finite.backward(dy, kept, problem, dx)
        return
    with quiet():
        largest.backward(dy, kept[1:], as_max(problem), dx)
        np.multiply(dx, kept[0], out=dx, where=dx != 0)


@functools.lru_cache(maxsize=256)
def as_max(problem: Problem) -> Problem:
    return replace(problem, op="max", ties="first")
