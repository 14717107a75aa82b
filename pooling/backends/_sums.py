"""Sums of many terms: where the arrays' own dtype would lose more than 64 units in the last place."""

from __future__ import annotations

import functools

import numpy as np

from pooling.backend import Array, Backward, Kept, Problem
from pooling.taps import paid_in


def pays_in_wide_sums(backward: Backward) -> Backward:
    """Decorate a backward pass of maxima that adds in dx: where very many gradients meet in a cell, it is given a wider array."""

    @functools.wraps(backward)
    def pay(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
        dtype = paid_in(dx.dtype, problem)
        if dtype == dx.dtype:
            backward(dy, kept, problem, dx)
            return
        total = np.empty(dx.shape, dtype)
        backward(dy.astype(dtype), kept, problem, total)
        dx[...] = total

    return pay
