"""Gradient descent with momentum, over all weights of a network at once, and over all shards that share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training.networks import ALIGNED, Network
from pooling.parallel.pool import split

Array = NDArray[Any]


class SGD:
    """``v = momentum * v - rate * (gradient + decay * w); w += v``, with decay for weights, not for biases.

    All weights lie in one array, each beginning at a multiple of ALIGNED elements, and so do the gradients of each of the
    networks, which share the weights and each add their part of the gradient, in their order.
    """

    def __init__(
        self, networks: Sequence[Network], rate: float, momentum: float, decay: float = 0.0, fused: bool = True
    ) -> None:
        self.rate, self.momentum, self.decay, self.fused = rate, momentum, decay, fused
        shapes = [w.shape for w in networks[0].weights]
        sizes = [-(-w.size // ALIGNED) * ALIGNED for w in networks[0].weights]
        self.starts = np.cumsum([0, *sizes]).tolist()
        self.w = np.zeros(self.starts[-1], networks[0].weights[0].dtype)
        self.gradients = np.zeros((len(networks), self.starts[-1]), self.w.dtype)
        self.v = np.zeros_like(self.w)

        def views(flat: Array) -> list[Array]:
            return [
                flat[start : start + int(np.prod(shape))].reshape(shape)
                for start, shape in zip(self.starts[:-1], shapes, strict=True)
            ]

        for view, w in zip(views(self.w), networks[0].weights, strict=True):
            view[...] = w
        for network, row in zip(networks, self.gradients, strict=True):
            weights, gradients = iter(views(self.w)), iter(views(row))
            for layer in network.layers:
                count = len(layer.weights)
                layer.bind([next(weights) for _ in range(count)], [next(gradients) for _ in range(count)])
        self._weights, self._velocities = views(self.w), views(self.v)
        self._rows = [views(row) for row in self.gradients]

    def step(self) -> None:
        """Use the gradients, which are overwritten where this is not fused."""
        if self.fused:
            self._fused()
            return
        for i, (w, v) in enumerate(zip(self._weights, self._velocities, strict=True)):
            g = self._rows[0][i]
            for row in self._rows[1:]:
                g += row[i]
            if self.decay and w.ndim > 1:
                g += self.decay * w
            np.multiply(v, self.momentum, out=v)
            np.multiply(g, self.rate, out=g)
            np.subtract(v, g, out=v)
            np.add(w, v, out=w)

    def _fused(self) -> None:
        from bench.training.kernels import descend

        rows, flat = len(self.gradients), self.gradients.reshape(-1)

        def range_of(start: int, stop: int, decay: float) -> None:
            descend(self.w, self.v, flat, rows, start, stop, self.rate, self.momentum, decay)

        # Alone on this thread it takes no longer, but helpers that slept through it woke late: a step of `question` took 2.2 or
        # 4.6 ms, and 2.1 with this.
        if not self.decay:
            blocks = len(self.w) // ALIGNED
            split(lambda i, j: range_of(i * ALIGNED, j * ALIGNED, 0.0), blocks, (4 + rows) * self.w.nbytes)
            return
        for i, w in enumerate(self._weights):
            range_of(self.starts[i], self.starts[i + 1], self.decay if w.ndim > 1 else 0.0)
