"""The networks: the one that was asked about, and LeNet.

Pooling comes before ReLU: the maximum of what is cut at zero is the maximum, cut at zero, and ReLU then has a quarter of the
work. With mean pooling the two do not commute, and the order is ReLU, then mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import pooling
from bench.mnist.layers import Convolution, FullyConnected, Layer, Pool, ReLU, Softmax
from bench.mnist.stopwatch import Stopwatch
from pooling.backend import Ties

Array = NDArray[Any]
PoolKind = Literal["max", "avg"]


@dataclass(frozen=True)
class Design:
    """A network's sizes: filters of each 5 x 5 convolution, each followed by 2 x 2 pooling, then fully connected layers."""

    filters: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int = 10


DESIGNS = {
    "question": Design((20,), (100,)),
    "lenet": Design((20, 50), (500,)),
}


class Network:
    """Layers in a row.

    Parameters
    ----------
    design
        A key of :data:`DESIGNS`.
    pool
        "max" or "avg".
    backend, ties
        As for :class:`pooling.MaxPool`.
    seed
        Of the initial weights (He et al. 2015).
    shape
        Height, width and channels of an image.
    """

    def __init__(
        self,
        design: str,
        pool: PoolKind = "max",
        *,
        backend: str = "auto",
        ties: Ties = "first",
        seed: int = 0,
        shape: tuple[int, int, int] = (28, 28, 1),
        dtype: Any = np.float32,
    ) -> None:
        random = np.random.default_rng(seed)
        sizes = DESIGNS[design]
        height, width, channels = shape
        self.layers: list[Layer] = []
        for i, filters in enumerate(sizes.filters, start=1):
            self.layers.append(Convolution(f"conv{i}", 5, channels, filters, random, i == 1, dtype))
            if pool == "max":
                operator = pooling.MaxPool(2, ties=ties, data_format="channels_last", backend=backend)
                self.layers += [Pool(f"pool{i}", operator), ReLU(f"relu{i}")]
            else:
                mean = pooling.AvgPool(2, data_format="channels_last", backend=backend)
                self.layers += [ReLU(f"relu{i}"), Pool(f"pool{i}", mean)]
            height, width, channels = (height - 4) // 2, (width - 4) // 2, filters
        inputs = height * width * channels
        for i, outputs in enumerate(sizes.hidden, start=1):
            self.layers += [FullyConnected(f"full{i}", inputs, outputs, random, dtype), ReLU(f"relu_full{i}")]
            inputs = outputs
        self.layers.append(FullyConnected("scores", inputs, sizes.classes, random, dtype))
        self.softmax = Softmax()

    @property
    def weights(self) -> list[Array]:
        return [w for layer in self.layers for w in layer.weights]

    @property
    def gradients(self) -> list[Array]:
        return [g for layer in self.layers for g in layer.gradients]

    def scores(self, x: Array, training: bool = False, stopwatch: Stopwatch | None = None) -> Array:
        """A score for each class, shape (N, classes)."""
        watch = stopwatch or Stopwatch()
        for layer in self.layers:
            with watch.time(layer.name, "forward"):
                x = layer.forward(x, training)
        return x

    def step(self, x: Array, labels: Array, stopwatch: Stopwatch | None = None) -> float:
        """Forward and backward: the loss; gradients are then in :attr:`gradients`."""
        watch = stopwatch or Stopwatch()
        scores = self.scores(x, True, watch)
        with watch.time("softmax", "forward"):
            loss = self.softmax.loss(scores, labels)
        with watch.time("softmax", "backward"):
            d: Array | None = self.softmax.backward()
        for layer in reversed(self.layers):
            with watch.time(layer.name, "backward"):
                assert d is not None, f"{layer.name} comes after a layer that passes nothing back"
                d = layer.backward(d)
        return loss
