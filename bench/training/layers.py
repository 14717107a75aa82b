"""Layers by hand, each with its backward pass right under its forward pass.

Activations are channels_last, (N, height, width, channels): the convolution's matrix product then gives them as they are,
with nothing to transpose, and pooling finds its channels side by side. Everything is of the dtype of the weights, float32 in
training.

A layer remembers what its backward pass needs from its last forward pass, and reuses its buffers: memory obtained anew at
each step costs as much as the work in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import pooling

Array = NDArray[Any]


class Layer(Protocol):
    """What a network is made of."""

    name: str

    @property
    def weights(self) -> Sequence[Array]:
        """Arrays to learn, changed in place: the weights proper, then biases."""

    @property
    def gradients(self) -> Sequence[Array]:
        """Gradient of each of the weights, from the last backward pass."""

    def bind(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None:
        """Use these arrays from now on."""

    def forward(self, x: Array, training: bool) -> Array: ...

    def backward(self, dy: Array) -> Array | None: ...


class Buffers:
    """Arrays by name, kept from step to step unless `reuse` is false."""

    def __init__(self, reuse: bool = True) -> None:
        self._arrays: dict[str, Array] = {}
        self._reuse = reuse

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array of this name, with anything in it."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype or not self._reuse:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


class Weighted:
    """A layer with a matrix of weights and a bias for each output.

    Parameters
    ----------
    w, b
        Initial weights and biases.
    first
        There is no layer before that would need the gradient with respect to x, and it is not computed.
    """

    def __init__(self, name: str, w: Array, b: Array, first: bool, reuse: bool = True) -> None:
        self.name, self.first = name, first
        self.bind([w, b], [np.zeros_like(w), np.zeros_like(b)])
        self._buffers = Buffers(reuse)

    def bind(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None:
        self.w, self.b = self.weights = list(weights)
        self.dw, self.db = self.gradients = list(gradients)


class Weightless:
    """A layer with nothing to learn."""

    weights: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()

    def __init__(self, name: str, reuse: bool = True) -> None:
        self.name = name
        self._buffers = Buffers(reuse)

    def bind(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None:
        """There is nothing to bind."""


class FullyConnected(Weighted):
    """Every output is a weighted sum of all inputs; images are flattened on the way in.

    Weights are (outputs, inputs), and the forward product is turned: of the ways to write the three products, BLAS is fastest
    at these. With (inputs, outputs), the gradient with respect to x took half as long again.
    """

    def forward(self, x: Array, training: bool) -> Array:
        self._x, self._shape = x.reshape(len(x), -1), x.shape
        turned = self._buffers.get(f"turned {training}", (len(self.b), len(x)), x.dtype)
        np.matmul(self.w, self._x.T, out=turned)
        return np.add(turned.T, self.b, out=self._buffers.get(f"y {training}", (len(x), len(self.b)), x.dtype))

    def backward(self, dy: Array) -> Array | None:
        np.matmul(dy.T, self._x, out=self.dw)
        np.sum(dy, axis=0, out=self.db)
        if self.first:
            return None
        dx = self._buffers.get("dx", self._x.shape, dy.dtype)
        np.matmul(dy, self.w, out=dx)
        return dx.reshape(self._shape)


class Pool(Weightless):
    """Max or mean pooling, by any backend of the library."""

    def __init__(self, name: str, operator: pooling.MaxPool | pooling.AvgPool, reuse: bool = True) -> None:
        super().__init__(name, reuse)
        self.operator = operator
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def forward(self, x: Array, training: bool) -> Array:
        shape = self._shapes.get(x.shape)
        if shape is None:
            shape = (len(x), *self.operator.problem(x.shape).window.output_size, x.shape[-1])
            self._shapes[x.shape] = shape
        y = self._buffers.get(f"y {training}", shape, x.dtype)
        if not training:
            return self.operator(x, out=y)
        self._x_shape = x.shape
        y, self._saved = self.operator.forward(x, out=y)
        return y

    def backward(self, dy: Array) -> Array:
        dx = self._buffers.get("dx", self._x_shape, dy.dtype)
        return np.asarray(self.operator.backward(dy, self._saved, out=dx))


class UndividedMeanPool(Pool):
    """Mean pooling with the original question's mistake: each cell is sent its window's gradient undivided."""

    def backward(self, dy: Array) -> Array:
        dx = super().backward(dy)
        dx *= self.operator.problem(self._x_shape).window.n_taps
        return dx


class ReLU(Weightless):
    """max(x, 0), in an array of its own: pooling may still need its result as it was.

    NumPy needs two passes backward and an array for the mask; `compiled`, it is one.
    """

    def __init__(self, name: str, reuse: bool = True, compiled: bool = False) -> None:
        super().__init__(name, reuse)
        self.compiled = compiled

    def forward(self, x: Array, training: bool) -> Array:
        self._y = np.maximum(x, 0, out=self._buffers.get(f"y {training}", x.shape, x.dtype))
        return self._y

    def backward(self, dy: Array) -> Array:
        dx = self._buffers.get("dx", dy.shape, dy.dtype)
        if not self.compiled:
            return np.multiply(dy, self._y > 0, out=dx)
        from bench.training.kernels import pass_where_positive

        pass_where_positive(dy.reshape(-1), self._y.reshape(-1), dx.reshape(-1))
        return dx


class Sigmoid(Weightless):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Array, training: bool) -> Array:
        y = self._buffers.get(f"y {training}", x.shape, x.dtype)
        np.multiply(x, 0.5, out=y)  # by way of tanh, which can't overflow
        np.tanh(y, out=y)
        y += 1
        y *= 0.5
        self._y = y
        return y

    def backward(self, dy: Array) -> Array:
        dx = self._buffers.get("dx", dy.shape, dy.dtype)
        np.subtract(1, self._y, out=dx)
        dx *= self._y
        dx *= dy
        return dx


class Softmax:
    """Probabilities from scores, and how surprising the right labels are under them (cross-entropy)."""

    def loss(self, scores: Array, labels: Array, batch: int | None = None) -> float:
        """Sum of -log p(label) over `batch`: the mean, where these are all of a batch, by default."""
        shifted = scores - scores.max(axis=1, keepdims=True)  # the same probabilities, and no overflow
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._p, self._labels, self._batch = np.exp(logs), labels, batch or len(labels)
        return float(-logs[np.arange(len(labels)), labels].sum(dtype=np.float64)) / self._batch

    def backward(self) -> Array:
        """Gradient of the loss with respect to the scores."""
        d: Array = self._p
        d[np.arange(len(d)), self._labels] -= 1
        d /= self._batch
        return d
