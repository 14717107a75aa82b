"""The window view: tell NumPy that the array has the windows' cells as axes, then reduce it and write through it.

``as_strided`` gives a view in which axis after axis steps from window to window and then from cell to cell, without
moving a byte; for windows side by side it is the well-known reshape to (outer, out, k, out, k, inner). Reducing the
view's cell axes is the forward pass. The same view of `dx` is writable where no two windows share a cell, so that
the backward pass is one assignment: the gradient where the view equals the maximum, zero elsewhere. To give it to one of several
tied cells, keep the mask's first True along the taps: the one before which no other occurs.

Cost: nothing is copied, but the reduction runs over axes of length k, where NumPy's loops cost more to start than
to run: 5 ns per cell and more. Backward makes a mask of a byte per cell, two for ties="first" and "last".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.backends._gather import needs_slides, windows
from pooling.backends._sums import finite_mean
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import bits, nan_taps, settle_zeros, sum_dtype, wide
from pooling.geometry.problem import TIES, Array, Kept, Problem


def cell_axes(problem: Problem) -> tuple[int, ...]:
    n = problem.window.ndim
    return tuple(range(n + 1, 2 * n + 1))


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    windows(x, problem).max(axis=cell_axes(problem), out=y)
    settle_zeros(x, y, problem)
    return (x, y)


def winners(x: Array, y: Array, problem: Problem) -> Array:
    """A mask of the cells that win their windows, which has the windows' cells as axes."""
    mask: Array = windows(x, problem) == np.expand_dims(y, cell_axes(problem))
    nans = nan_taps(x, y, problem)
    if nans is not None:
        numbers = np.arange(problem.window.n_taps).reshape(*problem.window.kernel_size, 1)
        mask |= numbers == np.expand_dims(nans, cell_axes(problem))
    return mask


def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    x, y = kept
    inside = cell_axes(problem)
    mask = winners(x, y, problem)
    if problem.ties == "split":
        dy = dy / mask.sum(axis=inside, dtype=wide(dy.dtype)).astype(dy.dtype, copy=False)
    elif problem.ties != "all":
        mask = keep_one(mask, problem)
    dx.fill(0)
    np.multiply(mask, bits(np.expand_dims(dy + dy.dtype.type(0), inside)), out=windows(bits(dx), problem))


def keep_one(mask: Array, problem: Problem) -> Array:
    """The mask with only its first (or last) True in each window."""
    n = problem.window.ndim
    flat = mask.reshape(*mask.shape[: n + 1], problem.window.n_taps, mask.shape[-1])
    if problem.ties == "last":
        flat = flat[..., ::-1, :]
    seen = np.logical_or.accumulate(flat, axis=n + 1)
    one = flat.copy()
    one[..., 1:, :] &= ~seen[..., :-1, :]
    return (one if problem.ties == "first" else one[..., ::-1, :]).reshape(mask.shape)


@finite_mean
def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    dtype = sum_dtype(x.dtype, problem.window.n_taps)
    y[...] = windows(x, problem).sum(axis=cell_axes(problem), dtype=dtype) / problem.divisors(dtype)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    dx.fill(0)
    windows(dx, problem)[...] = np.expand_dims(dy / problem.divisors(wide(dy.dtype)), cell_axes(problem))


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    reason = needs_slides(problem)
    if reason is not None:
        return reason
    if not problem.window.disjoint:
        return "its windows overlap: writing through a view in which they share cells would lose gradient"
    if problem.window.padded:
        return "it reads the input in place: a window that reaches into padding would read past the data"
    return None


BACKEND = Backend(
    name="strided_reshape",
    note="an as_strided view with the windows' cells as axes, reduced and written through",
    ops={"max": Pass(max_forward, max_backward), "avg": Pass(avg_forward, avg_backward)},
    ties=TIES,
    limits=limits,
    keeps_x=TIES,
)
