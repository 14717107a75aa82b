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
        """Arrays to learn, changed in place."""

    @property
    def gradients(self) -> Sequence[Array]:
        """Gradient of each of the weights, from the last backward pass."""

    def forward(self, x: Array, training: bool) -> Array: ...

    def backward(self, dy: Array) -> Array | None: ...


class Buffers:
    """Arrays by name, kept from step to step."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array of this name, with anything in it."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


class Convolution:
    """Each output pixel is a matrix product of the patch under the kernel: im2col and one GEMM.

    Weights have the shape (height * width * channels, filters). With ``first`` there is no layer before that would need the
    gradient with respect to x, and it is not computed.
    """

    def __init__(
        self, name: str, size: int, channels: int, filters: int, random: np.random.Generator, first: bool, dtype: Any
    ) -> None:
        self.name, self.size, self.first = name, size, first
        n = size * size * channels
        self.w = (random.standard_normal((n, filters)) * np.sqrt(2 / n)).astype(dtype)
        self.b = np.zeros(filters, dtype)
        self.dw, self.db = np.zeros_like(self.w), np.zeros_like(self.b)
        self.weights, self.gradients = [self.w, self.b], [self.dw, self.db]
        self._buffers = Buffers()

    def forward(self, x: Array, training: bool) -> Array:
        n, height, width, channels = x.shape
        k = self.size
        rows, columns = height - k + 1, width - k + 1
        patches = self._buffers.get(f"patches {training}", (n, rows, columns, k, k, channels), x.dtype)
        views = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
        np.copyto(patches, views.transpose(0, 1, 2, 4, 5, 3))
        self._patches, self._shape = patches.reshape(n * rows * columns, -1), x.shape
        y = self._buffers.get(f"y {training}", (n, rows, columns, len(self.b)), x.dtype)
        np.matmul(self._patches, self.w, out=y.reshape(len(self._patches), -1))
        y += self.b
        return y

    def backward(self, dy: Array) -> Array | None:
        flat = dy.reshape(len(self._patches), -1)
        np.matmul(self._patches.T, flat, out=self.dw)
        np.sum(flat, axis=0, out=self.db)
        if self.first:
            return None
        n, rows, columns, _ = dy.shape
        k = self.size
        # What each patch passes back may overwrite the patches: they have been used.
        back = np.matmul(flat, self.w.T, out=self._patches).reshape(n, rows, columns, k, k, -1)
        dx = self._buffers.get("dx", self._shape, dy.dtype)
        dx.fill(0)
        for i in range(k):
            for j in range(k):
                dx[:, i : i + rows, j : j + columns] += back[:, :, :, i, j]
        return dx


class Pool:
    """Max or mean pooling, by any backend of the library."""

    weights: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()

    def __init__(self, name: str, operator: pooling.MaxPool | pooling.AvgPool) -> None:
        self.name, self.operator = name, operator
        self._buffers = Buffers()

    def forward(self, x: Array, training: bool) -> Array:
        shape = (len(x), *self.operator.problem(x.shape).window.output_size, x.shape[-1])
        y = self._buffers.get(f"y {training}", shape, x.dtype)
        if not training:
            return self.operator(x, out=y)
        self._x_shape = x.shape
        y, self._saved = self.operator.forward(x, out=y)
        return y

    def backward(self, dy: Array) -> Array:
        dx = self._buffers.get("dx", self._x_shape, dy.dtype)
        return np.asarray(self.operator.backward(dy, self._saved, out=dx))


class ReLU:
    """max(x, 0), in an array of its own: pooling may still need its result as it was."""

    weights: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self._buffers = Buffers()

    def forward(self, x: Array, training: bool) -> Array:
        self._y = np.maximum(x, 0, out=self._buffers.get(f"y {training}", x.shape, x.dtype))
        return self._y

    def backward(self, dy: Array) -> Array:
        return np.multiply(dy, self._y > 0, out=self._buffers.get("dx", dy.shape, dy.dtype))


class FullyConnected:
    """Every output is a weighted sum of all inputs; images are flattened on the way in."""

    def __init__(self, name: str, inputs: int, outputs: int, random: np.random.Generator, dtype: Any) -> None:
        self.name = name
        self.w = (random.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(dtype)
        self.b = np.zeros(outputs, dtype)
        self.dw, self.db = np.zeros_like(self.w), np.zeros_like(self.b)
        self.weights, self.gradients = [self.w, self.b], [self.dw, self.db]
        self._buffers = Buffers()

    def forward(self, x: Array, training: bool) -> Array:
        self._x, self._shape = x.reshape(len(x), -1), x.shape
        y = self._buffers.get(f"y {training}", (len(x), len(self.b)), x.dtype)
        np.matmul(self._x, self.w, out=y)
        y += self.b
        return y

    def backward(self, dy: Array) -> Array:
        np.matmul(self._x.T, dy, out=self.dw)
        np.sum(dy, axis=0, out=self.db)
        dx = self._buffers.get("dx", self._x.shape, dy.dtype)
        np.matmul(dy, self.w.T, out=dx)
        return dx.reshape(self._shape)


class Softmax:
    """Probabilities from scores, and how surprising the right labels are under them (cross-entropy)."""

    def loss(self, scores: Array, labels: Array) -> float:
        """Mean of -log p(label)."""
        shifted = scores - scores.max(axis=1, keepdims=True)  # the same probabilities, and no overflow
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._p, self._labels = np.exp(logs), labels
        return float(-logs[np.arange(len(labels)), labels].mean())

    def backward(self) -> Array:
        """Gradient of the loss with respect to the scores."""
        d: Array = self._p
        d[np.arange(len(d)), self._labels] -= 1
        d /= len(d)
        return d
