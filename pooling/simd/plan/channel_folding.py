"""Channel folding: fewer channels than lanes, in channels_last, become one more spatial axis, or planes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from pooling.geometry.axis import Axis
from pooling.geometry.problem import Array, Problem
from pooling.geometry.window import Window
from pooling.runtime.fork import prepares


@cache
@prepares
def lanes_of(dtype: np.dtype[Any]) -> int:
    from pooling.simd.vector.ops import lanes

    return lanes(dtype)


def few_channels(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether there are channels, but fewer than lanes: they become one more spatial axis, and whole items the planes."""
    return 1 < shape[-1] < lanes_of(dtype)


def channels_to_planes(array: Array) -> Array:
    """A copy with the channels as planes: for three spatial axes and few channels there is no fourth loop."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1)).reshape(-1, *array.shape[1:-1], 1)


def planes_to_channels(planes: Array, out: Array) -> None:
    out[...] = np.moveaxis(planes.reshape(len(out), out.shape[-1], *out.shape[1:-1]), 1, -1)


@lru_cache(maxsize=256)
def with_channels(problem: Problem, channels: int) -> Problem:
    """The same problem with the channels, fewer than lanes, as one more spatial axis: planes are then whole items."""
    return replace(problem, window=Window((*problem.window.axes, Axis(size=channels, kernel=1))))
