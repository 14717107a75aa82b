"""Right and wrong gradients to hand to gradcheck."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import pooling

Array = Any
# One backend for what is not about backends, and one that need not compile.
max_pool = partial(pooling.MaxPool, backend="strided_slices")
avg_pool = partial(pooling.AvgPool, backend="strided_slices")
RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((2, 2, 6, 6))
TIED = np.maximum(np.round(2 * X), 0)
ZEROS = np.zeros((2, 2, 6, 6))
CELL = re.compile(r"cell \((\d+), (\d+), (\d+), (\d+)\)")


class Spoiled:
    """Max or mean pooling whose dx is changed by `spoil` on its way out."""

    def __init__(self, spoil: Callable[[Array, Array], Array], pool: Any = None) -> None:
        self.spoil, self.pool = spoil, pool or max_pool(2)

    def forward(self, x: Array) -> tuple[Array, Any]:
        y, saved = self.pool.forward(x)
        return y, saved

    def backward(self, dy: Array, saved: Any) -> Array:
        return self.spoil(self.pool.backward(dy, saved), dy)


def message(operator: Any, x: Array = X, **options: Any) -> str:
    with pytest.raises(pooling.GradientError) as caught:
        pooling.gradcheck(operator, x, **options)
    return str(caught.value)


def cell_in(text: str) -> tuple[int, ...]:
    found = CELL.search(text)
    assert found, text
    return tuple(map(int, found.groups()))


def only_channel_1(dx: Array, dy: Array) -> Array:
    dx[:, 1] *= 1.01
    return dx


def without_last_row(dx: Array, dy: Array) -> Array:
    dx[:, :, -1] = 0
    return dx


WRONG: dict[str, Callable[[Array, Array], Array]] = {
    "scaled": lambda dx, dy: 4 * dx,
    "scaled a little": lambda dx, dy: 1.0001 * dx,
    "sign": lambda dx, dy: -dx,
    "shifted by a column": lambda dx, dy: np.roll(dx, 1, axis=3),
    "shifted by a row": lambda dx, dy: np.roll(dx, 1, axis=2),
    "height and width swapped": lambda dx, dy: dx.swapaxes(2, 3).copy(),
    "images swapped": lambda dx, dy: dx[::-1].copy(),
    "channels swapped": lambda dx, dy: dx[:, ::-1].copy(),
    "flipped": lambda dx, dy: dx[:, :, ::-1].copy(),
    "no last row": without_last_row,
    "one channel": only_channel_1,
    "all zero": lambda dx, dy: 0 * dx,
    "mean over the batch": lambda dx, dy: dx / len(dx),
    "noise": lambda dx, dy: dx + 1e-3 * np.random.default_rng(0).standard_normal(dx.shape),
    "fixed noise where paid": lambda dx, dy: dx * (1 + 1e-3 * np.random.default_rng(0).standard_normal(dx.shape)),
    "a constant more": lambda dx, dy: dx + 1e-3,
    "absolute value": lambda dx, dy: np.abs(dx),
    "clipped": lambda dx, dy: np.clip(dx, -1, 1),
    "dy squared": lambda dx, dy: dx * dx,
    "spread over all cells": lambda dx, dy: np.full_like(dx, dx.sum() / dx.size),
    "float32 inside": lambda dx, dy: dx.astype(np.float32).astype(np.float64) + 1e-4 * (dx != 0),
}
