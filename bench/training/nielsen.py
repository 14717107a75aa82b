"""The networks of Nielsen's "Neural networks and deep learning", chapter 6, with his beginnings and his regularization.

What differs from :class:`bench.training.networks.Network`: sigmoid or ReLU comes after pooling, mean pooling included; weights
begin with a variance of one over the outputs, biases with one, the last layer with zeros. Plain gradient descent on batches of
10, with a penalty on weights; 50,000 images to train on, 10,000 to choose the epoch by, 10,000 to report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training.layers import FullyConnected, Layer, Sigmoid
from bench.training.networks import Network

Array = NDArray[Any]

HELD_OUT, BATCH, EPOCHS = 10_000, 10, 60


@dataclass(frozen=True)
class Published:
    """One of his results.

    Parameters
    ----------
    network
        As :func:`bench.training.networks.design_of` reads it.
    regime
        "sigmoid" or "relu".
    rate, penalty
        His eta and lambda.
    accuracy
        That he reports, on the test images at the epoch that was best on the held-out ones.
    """

    name: str
    network: str
    regime: str
    rate: float
    penalty: float
    accuracy: float


LADDER = (
    Published("fully connected", "/100", "sigmoid", 0.1, 0.0, 0.9780),
    Published("one convolution", "20/100", "sigmoid", 0.1, 0.0, 0.9878),
    Published("two convolutions", "20,40/100", "sigmoid", 0.1, 0.0, 0.9906),
    Published("with ReLU", "20,40/100", "relu", 0.03, 0.1, 0.9923),
)


class NielsenNetwork(Network):
    """A network begun as his; `activation` is "sigmoid" or "relu"."""

    def __init__(self, *arguments: Any, activation: str, **options: Any) -> None:
        self.activation = activation
        super().__init__(*arguments, **options)

    def _pair(self, i: int) -> list[Layer]:
        return [self._pooling(f"pool{i}"), self._activation(f"{self.activation}{i}")]

    def _activation(self, name: str) -> Layer:
        return super()._activation(name) if self.activation == "relu" else Sigmoid(name, self.rung.reuse)

    def _convolution(self, name: str, w: Array) -> Layer:
        filters, design = w.shape[1], self.design
        outputs = filters * design.size**2 / design.kernel**2
        layer = super()._convolution(name, self._normal(w.shape, outputs))
        layer.weights[1][...] = self._normal(filters)
        return layer

    def _fully_connected(self, name: str, inputs: int, outputs: int) -> Layer:
        w, b = np.zeros((outputs, inputs), self.dtype), np.zeros(outputs, self.dtype)
        if name != "scores":
            w, b = self._normal(w.shape, outputs), self._normal(outputs)
        return FullyConnected(name, w, b, not self.layers, self.rung.reuse)

    def _normal(self, shape: Any, outputs: float = 1.0) -> Array:
        """Numbers with a variance of one over `outputs`."""
        return np.asarray((self.random.standard_normal(shape) / np.sqrt(outputs)).astype(self.dtype))
