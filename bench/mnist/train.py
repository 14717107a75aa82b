"""Training: stochastic gradient descent with momentum, timed by layer, the same from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measure import pinned
from bench.mnist.data import Dataset
from bench.mnist.networks import Network, PoolKind
from bench.mnist.stopwatch import Stopwatch
from pooling.backend import Ties

Array = NDArray[Any]

EVALUATED = 500
"""Test images in a batch."""


@dataclass(frozen=True)
class Settings:
    """What is trained, and how. The defaults bring `lenet` over 98.5% in its first epochs."""

    network: str = "lenet"
    pool: PoolKind = "max"
    backend: str = "auto"
    ties: Ties = "first"
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 0.03
    momentum: float = 0.9
    seed: int = 0
    images: int | None = None
    threads: int = 2


@dataclass
class History:
    """What came of it: the loss of every step; test accuracy and seconds (evaluation excluded) of every epoch."""

    losses: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def pooling_share(self) -> float:
        """Part of the layers' time that pooling took."""
        total = sum(self.stopwatch.seconds.values())
        own = sum(s for (layer, _), s in self.stopwatch.seconds.items() if layer.startswith("pool"))
        return own / total if total else 0.0


class SGD:
    """v = momentum * v - rate * gradient; w += v."""

    def __init__(self, network: Network, rate: float, momentum: float) -> None:
        self.network, self.rate, self.momentum = network, rate, momentum
        self.velocities = [np.zeros_like(w) for w in network.weights]

    def step(self) -> None:
        for w, v, g in zip(self.network.weights, self.velocities, self.network.gradients, strict=True):
            np.multiply(v, self.momentum, out=v)
            np.multiply(g, self.rate, out=g)
            np.subtract(v, g, out=v)
            np.add(w, v, out=w)


OnStep = Callable[[int, float], None]
OnEpoch = Callable[[int, History], None]


class Trainer:
    """A new network, its optimizer, and what has come of it."""

    def __init__(self, settings: Settings, dataset: Dataset) -> None:
        self.settings, self.history = settings, History()
        self.images, self.labels = dataset.images[: settings.images], dataset.labels[: settings.images]
        height, width, channels = self.images.shape[1:]
        self.network = Network(
            settings.network,
            settings.pool,
            backend=settings.backend,
            ties=settings.ties,
            seed=settings.seed,
            shape=(height, width, channels),
        )
        self.optimizer = SGD(self.network, settings.learning_rate, settings.momentum)
        self.order = np.random.default_rng((settings.seed, 1))
        self.network.step(*self.batch(np.arange(min(settings.batch_size, len(self.images)))))  # compiles, fills buffers

    def batches(self) -> list[Array]:
        """An epoch's indices, drawn anew."""
        shuffled = self.order.permutation(len(self.images))
        return [shuffled[i : i + self.settings.batch_size] for i in range(0, len(shuffled), self.settings.batch_size)]

    def batch(self, indices: Array) -> tuple[Array, Array]:
        return self.images[indices], self.labels[indices]

    def step(self, indices: Array) -> float:
        """One step of gradient descent; the loss before it."""
        watch = self.history.stopwatch
        with watch.time("batch", "forward"):
            x, labels = self.batch(indices)
        loss = self.network.step(x, labels, watch)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {len(self.history.losses)}: "
                f"train with a learning_rate below {self.settings.learning_rate}"
            )
        with watch.time("sgd", "backward"):
            self.optimizer.step()
        self.history.losses.append(loss)
        return loss


def train(
    settings: Settings,
    dataset: Dataset,
    on_step: OnStep = lambda step, loss: None,
    on_epoch: OnEpoch = lambda epoch, history: None,
) -> History:
    """Train a new network on `dataset`.

    Parameters
    ----------
    on_step, on_epoch
        Called after each with its number from 0, and the loss or all of the history.

    Raises
    ------
    FloatingPointError
        The loss is no longer a number: the learning rate is too high.
    """
    with pinned(settings.threads):
        trainer = Trainer(settings, dataset)
        history = trainer.history
        for epoch in range(settings.epochs):
            start = perf_counter()
            for indices in trainer.batches():
                loss = trainer.step(indices)
                on_step(len(history.losses) - 1, loss)
            history.seconds.append(perf_counter() - start)
            history.accuracy.append(accuracy(trainer.network, dataset))
            on_epoch(epoch, history)
    return history


TURN = 20
"""Steps that a training in a race takes at a time: enough to have its weights in the cache, few beside the machine's moods."""


def race(settings: Sequence[Settings], dataset: Dataset, on_step: OnStep = lambda step, loss: None) -> list[History]:
    """One epoch of several trainings that take turns, so that a busy moment of the machine hits all of them."""
    with pinned(settings[0].threads):
        trainers = [Trainer(one, dataset) for one in settings]
        batches = [trainer.batches() for trainer in trainers]
        seconds = [0.0] * len(trainers)
        done = 0
        for turn in range(0, len(batches[0]), TURN):
            for i, trainer in enumerate(trainers):
                start = perf_counter()
                for indices in batches[i][turn : turn + TURN]:
                    loss = trainer.step(indices)
                    on_step(done, loss)
                    done += 1
                seconds[i] += perf_counter() - start
    for trainer, total in zip(trainers, seconds, strict=True):
        trainer.history.seconds.append(total)
    return [trainer.history for trainer in trainers]


def accuracy(network: Network, dataset: Dataset) -> float:
    """Part of the test images whose label has the highest score."""
    right = 0
    for i in range(0, len(dataset.test_images), EVALUATED):
        scores = network.scores(dataset.test_images[i : i + EVALUATED])
        right += int((scores.argmax(axis=1) == dataset.test_labels[i : i + EVALUATED]).sum())
    return right / len(dataset.test_images)
