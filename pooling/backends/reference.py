"""Plain loops over windows and cells: the oracle, for reference only.

Max pooling looks at one window after another and remembers which cell won; the backward pass sends each window's gradient to
its winner. Nothing is vectorized, and the rules of the contract stand here one by one: padding is no cell, a NaN beats
every number and the first NaN takes it all, the first (or last) of equals wins, shares of a split are equal. Averages and
norms are taken in float64 and rounded once.

Cost: some microseconds per cell, a thousand times what the other backends need. It supports everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from pooling.backends._norms import powered, root, slope_of, with_infinity
from pooling.backends._sums import again_scaled, with_wide_sums
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import lowest
from pooling.geometry.problem import TIES, Array, Kept, Problem

Cell = tuple[int, ...]


def windows(problem: Problem) -> Iterator[tuple[Cell, list[Cell]]]:
    """Each output's position with the positions of the real cells under its window, both in row-major order."""
    along = [
        [range(cell, cell + count * axis.step, axis.step) for cell, _, count in axis.table.tolist()]
        for axis in problem.window.axes
    ]
    for out in itertools.product(*(range(axis.out) for axis in problem.window.axes)):
        yield out, list(itertools.product(*(cells[o] for cells, o in zip(along, out, strict=True))))


def winners(plane: Array, cells: list[Cell], problem: Problem) -> list[Cell]:
    """The cells that take the window's gradient; the first of them gives the window's value."""
    nans = [cell for cell in cells if plane[cell] != plane[cell]]
    if nans:
        return nans[:1]
    largest = max((plane[cell] for cell in cells), default=None)
    tied = [cell for cell in cells if plane[cell] == largest]
    if problem.ties == "first":
        return tied[:1]
    return tied[-1:] if problem.ties == "last" else tied


def planes(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The arrays' spatial planes, as views, in step."""
    outer, inner = arrays[0].shape[0], arrays[0].shape[-1]
    for b, c in itertools.product(range(outer), range(inner)):
        yield tuple(array[b, ..., c] for array in arrays)


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    for x_plane, y_plane in planes(x, y):
        for out, cells in windows(problem):
            won = winners(x_plane, cells, problem)
            y_plane[out] = x_plane[won[0]] if won else lowest(x.dtype)
    return (x.copy(),) if training else ()


@with_wide_sums
def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    (x,) = kept
    dx.fill(0)
    for x_plane, dy_plane, dx_plane in planes(x, dy, dx):
        for out, cells in windows(problem):
            won = winners(x_plane, cells, problem)
            for cell in won:
                share = dy_plane[out] / dy.dtype.type(len(won)) if problem.ties == "split" else dy_plane[out]
                dx_plane[cell] += share


def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    means(x, y, problem)
    again_scaled(lambda given, result: means(given, result, problem), x, y, problem)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    shares(dy, dx, problem)
    again_scaled(lambda given, result: shares(given, result, problem), dy, dx, problem)


def means(x: Array, y: Array, problem: Problem) -> None:
    divisors = np.broadcast_to(problem.divisors(np.float64)[..., 0], problem.window.output_size)
    for x_plane, y_plane in planes(x, y):
        for out, cells in windows(problem):
            y_plane[out] = sum(float(x_plane[cell]) for cell in cells) / divisors[out]


def shares(dy: Array, dx: Array, problem: Problem) -> None:
    divisors = np.broadcast_to(problem.divisors(np.float64)[..., 0], problem.window.output_size)
    total = np.zeros(dx.shape)
    for dy_plane, total_plane in planes(dy, total):
        for out, cells in windows(problem):
            for cell in cells:
                total_plane[cell] += float(dy_plane[out]) / divisors[out]
    dx[...] = total


def lp_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    weights = np.broadcast_to(problem.weights()[..., 0], problem.window.output_size)
    for x_plane, y_plane in planes(x, y):
        for out, cells in windows(problem):
            values = np.array([x_plane[cell] for cell in cells], np.float64)
            y_plane[out] = root(weights[out] * powered(values, problem.p, problem.signed).sum(), problem.p)
    return (x.copy(), y.copy()) if training else ()


def lp_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    weights = np.broadcast_to(problem.weights()[..., 0], problem.window.output_size)
    total = np.zeros(dx.shape)
    for x_plane, y_plane, dy_plane, total_plane in planes(*kept, dy, total):
        for out, cells in windows(problem):
            values = np.array([x_plane[cell] for cell in cells], np.float64)
            slopes = slope_of(values, np.float64(y_plane[out]), problem.p, problem.signed)
            for cell, slope in zip(cells, slopes, strict=True):
                total_plane[cell] += float(dy_plane[out]) * weights[out] * slope
    dx[...] = total


BACKEND = Backend(
    name="reference",
    note="plain loops, one cell at a time; for reference only",
    ops={
        "max": Pass(max_forward, max_backward),
        "avg": Pass(avg_forward, avg_backward),
        "lp": with_infinity(Pass(lp_forward, lp_backward), Pass(max_forward, max_backward)),
    },
    ties=TIES,
    reference_only=True,
)
