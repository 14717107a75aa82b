"""The networks: the one that was asked about, LeNet, and whatever else a :class:`Design` describes.

Pooling comes before ReLU: the maximum of what is cut at zero is the maximum, cut at zero, and ReLU then has a quarter of the
work. With mean pooling the two do not commute, and the order is ReLU, then mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import pooling
from bench.training.convolution import Convolution, DirectConvolution
from bench.training.ladder import FASTEST, LADDER
from bench.training.layers import FullyConnected, Layer, Pool, ReLU, Softmax, UndividedMeanPool
from bench.training.stopwatch import Stopwatch
from pooling import PoolingError
from pooling.geometry.problem import Ties

Array = NDArray[Any]
PoolKind = Literal["max", "avg", "undivided"]
POOLS: tuple[PoolKind, ...] = ("max", "avg", "undivided")
"""Maximum, mean, and a mean whose gradient is not divided: the original question's mistake, to see what it does."""

FEWEST_FILTERS = 8
"""With fewer filters than fit a vector the compiled convolution has nothing to do."""

ALIGNED = 16
"""Every array of weights begins at a multiple of so many elements."""


@dataclass(frozen=True)
class Design:
    """A network's sizes: filters of each convolution, each followed by pooling, then fully connected layers.

    Parameters
    ----------
    filters, hidden
        Of each convolution and each fully connected layer but the last.
    classes
        Outputs of the last layer; None is as many as the data have.
    size
        Height and width of the convolutions' kernels.
    kernel, stride
        Of the pooling.
    """

    filters: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int | None = None
    size: int = 5
    kernel: int = 2
    stride: int = 2

    def pooled(self, n: int) -> int:
        """Height, or width, of what a convolution and its pooling make of `n` pixels."""
        return (n - self.size + 1 - self.kernel) // self.stride + 1

    def check(self, shape: tuple[int, ...], classes: int) -> None:
        """PoolingError where images of this size leave a layer nothing, or the data have more classes than it has outputs."""
        height, width = shape[:2]
        for _ in self.filters:
            height, width = self.pooled(height), self.pooled(width)
            if min(height, width) < 1:
                raise PoolingError(
                    f"network: images of {shape[0]}×{shape[1]} are too small for {len(self.filters)} convolutions of "
                    f"{self.size}×{self.size}, each with {self.kernel}×{self.kernel} pooling; choose one with fewer or smaller "
                    "ones, such as '20/100 conv=3', or '/100' without any"
                )
        if self.classes is not None and self.classes < classes:
            raise PoolingError(
                f"network: classes={self.classes}, and the data have {classes}; leave classes= out, and it follows the data"
            )


DESIGNS = {
    "question": Design((20,), (100,)),
    "lenet": Design((20, 50), (500,)),
}


def design_of(text: str) -> Design:
    """A key of :data:`DESIGNS`, or sizes spelled out: filters, a slash, hidden layers, and what else differs.

    Examples
    --------
    >>> design_of("16,32/200")
    Design(filters=(16, 32), hidden=(200,), classes=None, size=5, kernel=2, stride=2)
    >>> design_of("lenet conv=3 pool=3,2").kernel
    3
    """
    words = text.split()
    spelled = re.fullmatch(r"(\d+(?:,\d+)*)?/(\d+(?:,\d+)*)?", words[0]) if words else None
    options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    numbers = {name: value.split(",") for name, value in options.items()}
    if (
        not words
        or (spelled is None and words[0] not in DESIGNS)
        or len(options) != len(words) - 1
        or not set(options) <= {"conv", "pool", "classes"}
        or not all(n.isdigit() and int(n) > 0 for value in numbers.values() for n in value)
        or any(len(value) > (2 if name == "pool" else 1) for name, value in numbers.items())
    ):
        raise PoolingError(
            f"network={text!r}: it must be one of {', '.join(DESIGNS)}, or sizes such as '20,50/500' (filters/hidden), with "
            "conv=SIZE, pool=KERNEL,STRIDE or classes=N behind it where they differ"
        )
    if spelled:
        filters, hidden = (tuple(int(n) for n in part.split(",")) if part else () for part in spelled.groups())
        base = Design(filters, hidden)
        if 0 in filters + hidden:
            raise PoolingError(f"network={text!r}: a layer of 0 has no outputs")
    else:
        base = DESIGNS[words[0]]
    kernel, stride = (int(n) for n in (2 * numbers.get("pool", ["2"]))[:2])
    return Design(
        base.filters,
        base.hidden,
        int(numbers["classes"][0]) if "classes" in numbers else base.classes,
        int(numbers.get("conv", [str(base.size)])[0]),
        kernel,
        stride,
    )


class Network:
    """Layers in a row.

    Parameters
    ----------
    design
        A key of :data:`DESIGNS`, or a design of one's own.
    pool
        One of :data:`POOLS`.
    backend, ties
        As for :class:`pooling.MaxPool`; a `backend` other than "auto" takes the place of the rung's.
    rung
        How it is computed: a key of :data:`bench.training.ladder.LADDER`.
    seed
        Of the initial weights (He et al. 2015).
    shape, classes
        Height, width and channels of an image, and how many classes of them the data have.
    """

    def __init__(
        self,
        design: str | Design,
        pool: PoolKind = "max",
        *,
        backend: str = "auto",
        ties: Ties = "first",
        rung: str = FASTEST,
        seed: int = 0,
        shape: tuple[int, int, int] = (28, 28, 1),
        classes: int = 10,
        dtype: Any = np.float32,
    ) -> None:
        self.random, self.dtype = np.random.default_rng(seed), dtype
        self.rung = LADDER[rung]
        self.pool, self.ties = pool, ties
        self.backend = self.rung.backend if backend == "auto" else backend
        self.layers: list[Layer] = []
        self.softmax = Softmax()
        self.design = design if isinstance(design, Design) else design_of(design)
        self.design.check(shape, classes)
        self._build(shape, self.design.classes or classes)

    def _build(self, shape: tuple[int, int, int], classes: int) -> None:
        design = self.design
        height, width, channels = shape
        for i, filters in enumerate(design.filters, start=1):
            w = self._initial(design.size**2 * channels, filters)
            self.layers.append(self._convolution(f"conv{i}", w))
            self.layers += self._pair(i)
            height, width, channels = design.pooled(height), design.pooled(width), filters
        inputs = height * width * channels
        for i, outputs in enumerate(design.hidden, start=1):
            self.layers += [self._fully_connected(f"full{i}", inputs, outputs), self._activation(f"relu_full{i}")]
            inputs = outputs
        self.layers.append(self._fully_connected("scores", inputs, classes))

    def _pair(self, i: int) -> list[Layer]:
        """Pooling number `i` and what goes with it, in their order."""
        pair = [self._pooling(f"pool{i}"), self._activation(f"relu{i}")]
        return pair if self.pool == "max" and self.rung.pool_first else pair[::-1]

    def _initial(self, inputs: int, outputs: int) -> Array:
        random = self.random.standard_normal((inputs, outputs))
        return np.asarray((random * np.sqrt(2 / inputs)).astype(self.dtype))

    def _fully_connected(self, name: str, inputs: int, outputs: int) -> Layer:
        w = np.ascontiguousarray(self._initial(inputs, outputs).T)
        return FullyConnected(name, w, np.zeros(outputs, self.dtype), not self.layers, self.rung.reuse)

    def _convolution(self, name: str, w: Array) -> Layer:
        size, rung, b = self.design.size, self.rung, np.zeros(w.shape[1], self.dtype)
        if rung.direct and w.shape[1] >= FEWEST_FILTERS:
            return DirectConvolution(name, size, w, b, not self.layers, rung.sparse)
        return Convolution(name, size, w, b, not self.layers, rung.reuse)

    def _activation(self, name: str) -> Layer:
        return ReLU(name, self.rung.reuse, self.rung.direct)

    def _pooling(self, name: str) -> Layer:
        kernel, stride = self.design.kernel, self.design.stride
        if self.pool == "max":
            operator = pooling.MaxPool(
                kernel, stride, ties=self.ties, data_format="channels_last", backend=self.backend_for("max")
            )
            return Pool(name, operator, self.rung.reuse)
        mean = pooling.AvgPool(kernel, stride, data_format="channels_last", backend=self.backend_for("avg"))
        return (Pool if self.pool == "avg" else UndividedMeanPool)(name, mean, self.rung.reuse)

    def backend_for(self, op: Literal["max", "avg"]) -> str:
        """The asked-for backend, where it has `op` and the ties at all; else the automatic choice."""
        if self.backend == "auto":
            return "auto"
        chosen = pooling.get_backend(self.backend)
        asked = self.backend != self.rung.backend
        able = op in chosen.ops and (op == "avg" or self.ties in chosen.ties)
        return self.backend if able or asked else "auto"

    @property
    def weights(self) -> list[Array]:
        return [w for layer in self.layers for w in layer.weights]

    @property
    def gradients(self) -> list[Array]:
        return [g for layer in self.layers for g in layer.gradients]

    def scores(self, x: Array, training: bool = False, stopwatch: Stopwatch | None = None) -> Array:
        """A score for each class, shape (N, classes)."""
        watch = stopwatch or Stopwatch()
        watch.start()
        for layer in self.layers:
            x = layer.forward(x, training)
            watch.lap(layer.name, "forward")
        return x

    def step(self, x: Array, labels: Array, stopwatch: Stopwatch | None = None, batch: int | None = None) -> float:
        """Forward and backward: the loss; gradients are then in :attr:`gradients`. These are a part of `batch` images."""
        watch = stopwatch or Stopwatch()
        scores = self.scores(x, True, watch)
        loss = self.softmax.loss(scores, labels, batch)
        watch.lap("softmax", "forward")
        d: Array | None = self.softmax.backward()
        watch.lap("softmax", "backward")
        for layer in reversed(self.layers):
            assert d is not None, f"{layer.name} comes after a layer that passes nothing back"
            d = layer.backward(d)
            watch.lap(layer.name, "backward")
        return loss
