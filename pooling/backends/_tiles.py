"""What the tricks share that see the input as boxes side by side: the view, and the windows it can't do."""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.backends._gather import MOST_DIMENSIONS, TOO_MANY_DIMENSIONS
from pooling.geometry.argmax_rules import nan_taps
from pooling.geometry.problem import Array, Problem

NEEDS_TILES = (
    "its view cuts the input into boxes side by side: it needs stride equal to kernel_size, no dilation, no padding, "
    "and no partial window"
)


def needs_tiles(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    """The limit of a backend that works on :func:`tiles`."""
    if problem.window.ndim > MOST_DIMENSIONS:
        return TOO_MANY_DIMENSIONS
    return None if problem.window.tiles else NEEDS_TILES


def covered(x: Array, problem: Problem) -> Array:
    """The part of `x` that the windows cover: a floor-mode pooling of an odd size leaves out the last cells."""
    return x[(slice(None), *(slice(0, axis.out * axis.kernel) for axis in problem.window.affine))]


def tiles(x: Array, problem: Problem) -> tuple[Array, tuple[int, ...]]:
    """`x` as (outer, out, kernel, out, kernel, ..., inner), a view, and which of its axes run inside a window."""
    # Splitting an axis never needs a copy, unlike merging two: the reshape below is a view of any strides.
    boxes = [n for axis in problem.window.affine for n in (axis.out, axis.kernel)]
    part = covered(x, problem)
    return part.reshape(x.shape[0], *boxes, x.shape[-1]), tuple(range(2, 2 * problem.window.ndim + 1, 2))


def winners(x: Array, y: Array, problem: Problem) -> Array:
    """A mask of the cells that win their windows, in the form of :func:`tiles`."""
    boxes, inside = tiles(x, problem)
    mask: Array = boxes == np.expand_dims(y, inside)
    nans = nan_taps(x, y, problem)
    if nans is not None:
        sides = [n for k in problem.window.kernel_size for n in (1, k)]
        mask |= np.arange(problem.window.n_taps).reshape(*sides, 1) == np.expand_dims(nans, inside)
    return mask


def zero_uncovered(dx: Array, problem: Problem) -> None:
    """Write the zeros that no window will: the cells that :func:`covered` leaves out."""
    for i, axis in enumerate(problem.window.affine):
        dx[(slice(None),) * (i + 1) + (slice(axis.out * axis.kernel, None),)] = 0
