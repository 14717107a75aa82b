"""Every window at once as a strided view of a padded copy: what the tricks on gathered windows share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pooling.geometry.problem import Array, Problem

MOST_DIMENSIONS = 30
TOO_MANY_DIMENSIONS = (
    f"its view has two axes for each spatial dimension, and NumPy ends at 64: at most {MOST_DIMENSIONS}"
)


def needs_slides(problem: Problem) -> str | None:
    """The limit of a backend that works on :func:`windows`."""
    if problem.window.ndim > MOST_DIMENSIONS:
        return TOO_MANY_DIMENSIONS
    return None if problem.window.slides else "its view needs windows of one size, and these are regions of several"


def padded_shape(x: Array, problem: Problem) -> tuple[int, ...]:
    """Shape of `x` (or `y`: only its ends count) with room for every cell that some window reaches."""
    reach = [max(a.before + a.size, (a.out - 1) * a.stride + a.span) for a in problem.window.affine]
    return (x.shape[0], *reach, x.shape[-1])


def inner_part(problem: Problem) -> tuple[slice, ...]:
    """Where the real cells lie in the padded array."""
    return (slice(None), *(slice(a.before, a.before + a.size) for a in problem.window.affine))


def pad(x: Array, problem: Problem, value: Any) -> Array:
    """`x` with `value` around it; `x` itself when no window reaches past the data."""
    if not problem.window.padded:
        return x
    wide = np.full(padded_shape(x, problem), value, x.dtype)
    wide[inner_part(problem)] = x
    return wide


def windows(wide: Array, problem: Problem) -> Array:
    """The padded array as (outer, *out, *kernel, inner): a view, in which overlapping windows share their cells."""
    axes = problem.window.affine
    steps = wide.strides[1:-1]
    return as_strided(
        wide,
        (wide.shape[0], *problem.window.output_size, *problem.window.kernel_size, wide.shape[-1]),
        (
            wide.strides[0],
            *(step * axis.stride for step, axis in zip(steps, axes, strict=True)),
            *(step * axis.dilation for step, axis in zip(steps, axes, strict=True)),
            wide.strides[-1],
        ),
    )
