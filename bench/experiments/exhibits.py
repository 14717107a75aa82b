"""What the original answer got wrong, kept to be caught: operators that are not in the registry, for good reason.

Each is written the way it was, in two lines of NumPy or scikit-image, and comes with an input on which its mistake shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.measure import block_reduce

Array = NDArray[Any]


def _upscale(y: Array, n: int) -> Array:
    return y.repeat(n, axis=2).repeat(n, axis=3)


class UndividedMean:
    """Mean pooling whose backward hands each cell the whole gradient of its window."""

    op: Literal["avg"] = "avg"

    def forward(self, x: Array) -> tuple[Array, None]:
        return block_reduce(x, (1, 1, 2, 2), np.mean), None

    def backward(self, dy: Array, saved: None) -> Array:
        return _upscale(dy, 2)


class PaysEveryTie:
    """Max pooling whose backward compares the upscaled maximum with the input, and pays every cell that is equal."""

    op: Literal["max"] = "max"

    def forward(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        y = block_reduce(x, (1, 1, 2, 2), np.max)
        return y, (x, y)

    def backward(self, dy: Array, saved: tuple[Array, Array]) -> Array:
        x, y = saved
        return np.equal(_upscale(y, 2), x) * _upscale(dy, 2)


class ZeroPadding:
    """Max pooling of odd sizes with block_reduce, which fills the last windows up with zeros; they win over negative cells."""

    op: Literal["max"] = "max"

    def forward(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        y = block_reduce(x, (1, 1, 2, 2), np.max)
        return y, (x, y)

    def backward(self, dy: Array, saved: tuple[Array, Array]) -> Array:
        x, y = saved
        rows, columns = x.shape[2:]
        return np.equal(_upscale(y, 2)[:, :, :rows, :columns], x) * _upscale(dy, 2)[:, :, :rows, :columns]


@dataclass(frozen=True)
class Exhibit:
    """A mistake: what it is called, what goes wrong in words, the operator, and an input on which it shows."""

    name: str
    mistake: str
    operator: Callable[[], Any]
    example: Callable[[], Array]


def _normal() -> Array:
    return np.random.default_rng(0).standard_normal((1, 2, 6, 6))


def _after_relu() -> Array:
    return np.maximum(_normal() - 0.7, 0)


def _negative_and_odd() -> Array:
    return -np.abs(np.random.default_rng(0).standard_normal((1, 2, 5, 5)))


EXHIBITS = (
    Exhibit(
        "undivided mean",
        "The mean's backward was two calls of repeat, which hand every cell its window's gradient whole and forget to divide "
        "it by the window's area. All gradients before the pooling are four times too large, like a learning rate that "
        "nobody chose.",
        UndividedMean,
        _normal,
    ),
    Exhibit(
        "mask pays every tie",
        "The mask, upscaled maximum == x, is true for every cell that ties, and each is paid the whole gradient. Ties look "
        "rare, but after ReLU whole windows are 0: four cells are paid where one is owed, and the error grows with every layer. "
        "Where nothing ties the mask is right, so tests on random numbers do not see it.",
        PaysEveryTie,
        _after_relu,
    ),
    Exhibit(
        "zero padding",
        "block_reduce fills odd sizes up with zeros. Where the last window holds negative numbers the padding wins: the "
        "maximum is 0, a value that is not in the input, no cell equals it, and the gradient is lost. It is the right "
        "gradient of the wrong function: no difference of its forward pass shows that, but x + 8 does not pool to y + 8.",
        ZeroPadding,
        _negative_and_odd,
    ),
)
