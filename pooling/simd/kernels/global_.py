"""Global pooling in channels_first: one window covers a whole plane, whose cells are contiguous.

A vector is a run of cells; its lanes are reduced at the end, and the plane, now in the cache, is searched once more for the first
maximum: cheaper than carrying argmax indices along. Transposing planes into lanes took 1.7 to 4 times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import SUM_BLOCK
from pooling.geometry.axis import Axis
from pooling.geometry.problem import Problem
from pooling.runtime.jit import Kernel, inlined, kernel
from pooling.simd.plan.cache_blocking import Plan
from pooling.simd.plan.geometry import FACTOR, FIELDS, Program, backward_program, forward_program
from pooling.simd.vector.ops import any_lane, lanes, load, move, number, select, splat, store, width
from pooling.simd.vector.reduce import bits, from_lane, highest_bit, lowest_bit, max_across, sum_across

BLOCK = 1 << 13
"""Bytes of planes whose maxima are found before the first is searched for; one after the other they waited for memory, and a
batch of 26 MB took 4 times as long."""

# Bound when a plan is made:
MAX = 1  # or 0: the mean
LAST = 0  # whether the last of tied cells wins
LONG = 0  # whether sums have so many terms that they are added in blocks


@kernel
def pool_means(
    start: int, stop: int, x: Any, y: Any, won: Any, n: int, block: int, divisor: Any, v: Any, t: Any
) -> None:
    """Forward: of each `n` cells their sum, divided."""
    for plane in range(start, stop):
        mean(x, plane * n, n, y, plane, divisor)


@kernel
def pool_maxima(
    start: int, stop: int, x: Any, y: Any, won: Any, n: int, block: int, divisor: Any, v: Any, t: Any
) -> None:
    """Forward: of each `n` cells the one that wins, and its tap unless `won` is None; `block` planes at a time."""
    for first in range(start, stop, block):
        for plane in range(first, min(first + block, stop)):
            find(x, plane * n, n, v, plane - first)
        for plane in range(first, min(first + block, stop)):
            seek(x, plane * n, n, y, plane, won, number(v, plane - first))


@inlined
def mean(x: Any, at: int, n: int, y: Any, plane: int, divisor: Any) -> None:
    """Four sums side by side, so that none waits for the one before; of long planes in blocks (`SUM_BLOCK`)."""
    first = load(x, at)
    lanes = width(first)
    zero = splat(0, first)
    total, once = zero, zero
    a, b, c, d = first, zero, zero, zero
    whole = n // lanes
    start = 1
    if LONG:
        a = zero
        start = whole - whole % 4
        for block in range(0, start, 4 * SUM_BLOCK):
            for i in range(block, min(block + 4 * SUM_BLOCK, start), 4):
                q = at + i * lanes
                a, b = a + load(x, q), b + load(x, q + lanes)
                c, d = c + load(x, q + 2 * lanes), d + load(x, q + 3 * lanes)
            once = once + ((a + b) + (c + d))
            a, b, c, d = zero, zero, zero, zero
            if block // (4 * SUM_BLOCK) % SUM_BLOCK == SUM_BLOCK - 1:
                total, once = total + once, zero
    for i in range(start, whole - 3, 4):
        q = at + i * lanes
        a, b = a + load(x, q), b + load(x, q + lanes)
        c, d = c + load(x, q + 2 * lanes), d + load(x, q + 3 * lanes)
    for i in range(whole - (whole - start) % 4, whole):
        b = b + load(x, at + i * lanes)
    if n % lanes:  # the last vector overlaps the one before it
        c = c + select(from_lane(lanes - n % lanes, first), load(x, at + n - lanes), zero)
    result = (a + b) + (c + d)
    if LONG:
        result = total + once + result
    store(y, plane, sum_across(result) / divisor)


@inlined
def find(x: Any, at: int, n: int, v: Any, i: int) -> None:
    """Into ``v[i]`` what is greatest, or a NaN if there is one."""
    first = load(x, at)
    lanes = width(first)
    best, other = first, first
    is_nan, nan_total = first != first, first
    for c in range(lanes, n - lanes, 2 * lanes):  # two maxima side by side; vectors may overlap those before
        value, beside = load(x, at + c), load(x, at + min(c + lanes, n - lanes))
        is_nan = is_nan | (value != value) | (beside != beside)
        best, other = select(value > best, value, best), select(beside > other, beside, other)
        nan_total = nan_total + value + beside
    end = load(x, at + n - lanes)
    is_nan = is_nan | (end != end)
    if any_lane(is_nan):
        store(v, i, sum_across(select(is_nan, nan_total + end, splat(0, first))))
    else:
        best = select(other > best, other, best)
        store(v, i, max_across(select(end > best, end, best)))


@inlined
def seek(x: Any, at: int, n: int, y: Any, plane: int, won: Any, value: Any) -> None:
    """The first cell of this value, or the last; of NaNs, if the value is one, always the first.

    Cells are compared 64 at a time, because which vector it is can't be predicted.
    """
    top = splat(value, load(x, at))
    lanes = width(top)
    some = min(n, 64)
    back = LAST and value == value
    for i in range(0, n, 64):
        start = max(n - 64 - i, 0) if back else max(min(i, n - 64), 0)
        found = 0
        for j in range(0, some, lanes):
            c = min(j, some - lanes)
            cells = load(x, at + start + c)
            found |= bits((cells == top) | (cells != cells)) << c
        if found != 0:
            tap = start + (highest_bit(found) if back else lowest_bit(found))
            move(x, at + tap, y, plane)
            if won is not None:
                won[plane] = tap
            break


@kernel
def spread_planes(
    start: int, stop: int, dy: Any, dx: Any, won: Any, n: int, block: int, factor: Any, v: Any, t: Any
) -> None:
    """Backward: the gradient to the cell that won, or its share to every cell."""
    for plane in range(start, stop):
        at = plane * n
        share = number(dy, plane) * factor
        shares = splat(share, load(dx, at))
        if MAX:
            shares = splat(0, shares)
        lanes = width(shares)
        for i in range(0, n, lanes):
            store(dx, at + min(i, n - lanes), shares)
        if MAX:
            store(dx, at + int(won[plane]), share + (factor - factor))  # -0.0 becomes 0.0, as where several are added


def is_whole(problem: Problem, dtype: np.dtype[Any]) -> bool:
    """Whether the window is the plane, no more and no less, and a vector at least."""
    axes = problem.window.axes
    return (
        all(axis.out == 1 and axis.table.tolist() == [[0, 0, axis.size]] and axis.kernel == axis.size for axis in axes)
        and all(not isinstance(axis, Axis) or axis.dilation == 1 or axis.size == 1 for axis in axes)
        and math.prod(axis.size for axis in axes) >= lanes(dtype)
        and problem.ties in ("first", "last")
    )


def forward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """A plane is a unit of work."""
    maximum = problem.op == "max"
    long = problem.window.n_taps > 4 * SUM_BLOCK * lanes(dtype)
    kernel = pool_maxima.bind(LAST=int(problem.ties == "last")) if maximum else pool_means.bind(LONG=int(long))
    return planned(kernel, forward_program(problem, dtype), problem, outer, dtype)


def backward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """The same planes."""
    kernel = spread_planes.bind(MAX=int(problem.op == "max"))
    return planned(kernel, backward_program(problem, dtype), problem, outer, dtype)


def planned(kernel: Kernel[..., None], program: Program, problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    n = math.prod(problem.window.input_size)
    factor = program.factors.dtype.type(1)
    if problem.op == "avg":
        for axis in range(3):
            factor *= program.factors[program.g[axis * FIELDS + FACTOR]]
    block = max(BLOCK // (n * dtype.itemsize), 1)
    return Plan(kernel, (n, block, factor), outer, block, 1)
