"""The original code path: scikit-image forward, an upscaled mask backward.

``skimage.measure.block_reduce`` cuts the array into blocks and reduces each. Backward, every axis of the output is
repeated until it has the input's size again. For a mean, that is all: divide by the window's area. For a maximum, a cell
has won where it equals the repeated maximum, and takes the repeated gradient there. Whole windows tie after ReLU, and
each of the tied cells gets all of it (ties="all").

Cost: forward reduces over short strided axes, some 20 ns per cell. Backward makes four temporaries of the
input's size (two repeats of two axes each) and a mask.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pooling.backends._sums import finite_mean
from pooling.backends._tiles import covered, needs_tiles, zero_uncovered
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import nan_taps, settle_zeros, sum_dtype, wide
from pooling.geometry.problem import Array, Kept, Problem


def reduce_blocks(x: Array, problem: Problem, func: Any) -> Array:
    from skimage.measure import block_reduce

    result: Array = block_reduce(covered(x, problem), (1, *problem.window.kernel_size, 1), func)
    return result


def upscaled(small: Array, problem: Problem) -> Array:
    """Each cell of the output repeated over its window."""
    for i, axis in enumerate(problem.window.affine):
        small = np.repeat(small, axis.kernel, axis=i + 1)
    return small


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    y[...] = reduce_blocks(x, problem, np.max)
    settle_zeros(x, y, problem)
    return (x, y)


def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    x, y = kept
    mask = covered(x, problem) == upscaled(y, problem)
    nans = nan_taps(x, y, problem)
    if nans is not None:  # of several NaNs only the first has won
        numbers = np.arange(problem.window.n_taps).reshape(*problem.window.kernel_size, 1)
        mask |= np.tile(numbers, (*problem.window.output_size, 1)) == upscaled(nans, problem)
    # np.where, not mask * gradient: 0 * inf is NaN, and 0 * -1 is -0.
    covered(dx, problem)[...] = np.where(mask, upscaled(dy + dy.dtype.type(0), problem), dy.dtype.type(0))
    zero_uncovered(dx, problem)


@finite_mean
def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    # np.mean adds along short axes one after the other: of many cells in float64.
    dtype = sum_dtype(x.dtype, problem.window.n_taps)
    y[...] = reduce_blocks(x, problem, np.mean if dtype == wide(x.dtype) else partial(np.mean, dtype=dtype))
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    covered(dx, problem)[...] = upscaled(dy, problem) / wide(dy.dtype).type(problem.window.n_taps)
    zero_uncovered(dx, problem)


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    try:
        import skimage.measure  # noqa: F401
    except ImportError:
        return "it needs scikit-image, which is not installed (pip install scikit-image)"
    if problem.divisor_override is not None:
        return "np.mean divides by the window's area: it has no divisor_override"
    return needs_tiles(problem, dtype)


BACKEND = Backend(
    name="block_reduce",
    note="skimage.measure.block_reduce forward, repeat and compare backward: the original answer",
    ops={"max": Pass(max_forward, max_backward), "avg": Pass(avg_forward, avg_backward)},
    ties=("all",),
    limits=limits,
    keeps_x=("all",),
)
