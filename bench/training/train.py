"""Training: stochastic gradient descent with momentum, timed by layer, the same from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.protocol.measure import pinned
from bench.training.data import Dataset
from bench.training.ladder import FASTEST, LADDER
from bench.training.networks import Network, PoolKind, design_of
from bench.training.nielsen import NielsenNetwork
from bench.training.optimizer import SGD
from bench.training.stopwatch import Stopwatch
from pooling.errors import PoolingError
from pooling.geometry.problem import Ties
from pooling.parallel.pool import split
from pooling.runtime.availability import why_not_compiled

Array = NDArray[Any]

EVALUATED = 500
"""Test images in a batch."""


@dataclass(frozen=True)
class Settings:
    """What is trained, and how. The defaults bring `lenet` over 98.5% in its first epochs.

    Parameters
    ----------
    network
        As :func:`bench.training.networks.design_of` reads it.
    images
        Train on the first so many; None is all, but for those `held_out`, which are the last ones.
    rung
        How it is computed: a key of :data:`bench.training.ladder.LADDER`.
    regime
        "usual", or the activation of a network of Nielsen's, begun as his: "sigmoid" or "relu".
    penalty
        Nielsen's lambda: each step takes ``rate * penalty / batches`` of every weight away.
    """

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
    rung: str = FASTEST
    regime: str = "usual"
    penalty: float = 0.0
    held_out: int = 0

    @property
    def shards(self) -> int:
        """In how many parts a batch is trained on: one for each thread, where the rung has shards."""
        return min(self.threads, self.batch_size) if LADDER[self.rung].shards else 1

    def check(self, dataset: Dataset) -> None:
        """PoolingError where the network does not do for the data: too small images, or too many classes; or nothing compiles."""
        reason = why_not_compiled() if LADDER[self.rung].update else None  # as of this rung, with all above it
        if reason is not None:
            raise PoolingError(
                f"rung {self.rung} is made of compiled kernels: {reason}; mend that, or take --rung buffers"
            )
        design_of(self.network).check(dataset.images.shape[1:], dataset.classes)

    def parts(self, images: int) -> tuple[int, int]:
        """Of so many images, how many are trained on, and how many held out: a sixth at most, as of MNIST's 60,000."""
        held_out = min(self.held_out, images // 6)
        return min(images - held_out, self.images or images), held_out


@dataclass
class History:
    """What came of it: the loss of every step; accuracy on test and held-out images, and seconds (evaluation excluded), of
    every epoch."""

    losses: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def pooling_share(self) -> float:
        """Part of the layers' time that pooling took."""
        total = sum(self.stopwatch.seconds.values())
        own = sum(s for (layer, _), s in self.stopwatch.seconds.items() if layer.startswith("pool"))
        return own / total if total else 0.0


OnStep = Callable[[int, float], None]
OnEpoch = Callable[[int, History], None]


@contextmanager
def threads_of(settings: Settings) -> Iterator[None]:
    """The threads a training may use; where shards have them, a matrix product stays on its own."""
    with pinned(settings.threads), threadpool_limits(1 if settings.shards > 1 else settings.threads, "blas"):
        yield


class Trainer:
    """A new network, its optimizer, and what has come of it.

    With several shards there is a network for each, with the same weights: each has its part of a batch, and a thread takes it
    through all layers. They meet where their gradients are added up, always in the same order.
    """

    def __init__(self, settings: Settings, dataset: Dataset) -> None:
        self.settings, self.history = settings, History()
        settings.check(dataset)
        stop, self.held_out = settings.parts(len(dataset.images))
        self.images, self.labels = dataset.images[:stop], dataset.labels[:stop]
        self.networks = [self.new_network(settings, dataset) for _ in range(settings.shards)]
        self.network = self.networks[0]
        self.optimizer = self.new_optimizer()
        self.order = np.random.default_rng((settings.seed, 1))
        self._watches = [self.history.stopwatch, *(Stopwatch() for _ in self.networks[1:])]
        shape, dtype = (settings.batch_size, *self.images.shape[1:]), self.images.dtype
        self._batch = np.empty(shape, dtype) if LADDER[settings.rung].reuse else None
        self._gradients(np.arange(min(settings.batch_size, len(self.images))))  # compiles, fills buffers
        for watch in self._watches:
            watch.seconds.clear()

    @staticmethod
    def new_network(settings: Settings, dataset: Dataset) -> Network:
        """With its initial weights: the same from the same settings."""
        options: dict[str, Any] = {
            "backend": settings.backend,
            "ties": settings.ties,
            "rung": settings.rung,
            "seed": settings.seed,
            "shape": dataset.images.shape[1:],
            "classes": dataset.classes,
        }
        if settings.regime == "usual":
            return Network(settings.network, settings.pool, **options)
        return NielsenNetwork(settings.network, settings.pool, activation=settings.regime, **options)

    def new_optimizer(self) -> SGD:
        settings = self.settings
        batches = max(1, len(self.images) // settings.batch_size)
        decay, fused = settings.penalty / batches, LADDER[settings.rung].update
        return SGD(self.networks, settings.learning_rate, settings.momentum, decay, fused)

    def batches(self) -> list[Array]:
        """An epoch's indices, drawn anew."""
        shuffled = self.order.permutation(len(self.images))
        return [shuffled[i : i + self.settings.batch_size] for i in range(0, len(shuffled), self.settings.batch_size)]

    def _gradients(self, indices: Array) -> float:
        """The loss of these images, with its gradients in the networks."""
        n, shards = len(indices), len(self.networks)
        losses = [0.0] * shards

        def work(first: int, stop: int) -> None:
            for i in range(first, stop):
                watch = self._watches[i]
                watch.start()
                own = indices[n * i // shards : n * (i + 1) // shards]
                out = None if self._batch is None else self._batch[n * i // shards : n * (i + 1) // shards]
                # Indices are right: "clip" spares a copy that the checking of them would take.
                x = np.take(self.images, own, axis=0, out=out, mode="clip")
                labels = self.labels[own]
                watch.lap("batch", "forward")
                if len(own):
                    with np.errstate(
                        over="ignore", invalid="ignore"
                    ):  # a loss that is no number is an error of its own
                        losses[i] = self.networks[i].step(x, labels, watch, n)
                else:
                    for gradient in self.networks[i].gradients:
                        gradient.fill(0)

        split(work, shards, shards * SHARD_BYTES)
        return sum(losses)

    def step(self, indices: Array) -> float:
        """One step of gradient descent; the loss before it."""
        loss = self._gradients(indices)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {len(self.history.losses)}: "
                f"train with a learning_rate below {self.settings.learning_rate}"
            )
        watch = self._watches[0]
        watch.start()
        self.optimizer.step()
        watch.lap("sgd", "backward")
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
    with threads_of(settings):
        trainer = Trainer(settings, dataset)
        history = trainer.history
        for epoch in range(settings.epochs):
            start = perf_counter()
            for indices in trainer.batches():
                loss = trainer.step(indices)
                on_step(len(history.losses) - 1, loss)
            history.seconds.append(perf_counter() - start)
            history.accuracy.append(accuracy(trainer.network, dataset))
            if trainer.held_out:
                last = slice(len(dataset.images) - trainer.held_out, None)
                history.held_out.append(right(trainer.network, dataset.images[last], dataset.labels[last]))
            on_epoch(epoch, history)
    return history


SHARD_BYTES = 1 << 20
"""More than what keeps work on one thread: a shard is always worth a thread."""

TURN = 20
"""Steps that a training in a race takes at a time: enough to have its weights in the cache, few beside the machine's moods."""


def race(settings: Sequence[Settings], dataset: Dataset, on_step: OnStep = lambda step, loss: None) -> list[History]:
    """One epoch of several trainings that take turns, so that a busy moment of the machine hits all of them."""
    with threads_of(settings[0]):
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
    return right(network, dataset.test_images, dataset.test_labels)


def right(network: Network, images: Array, labels: Array) -> float:
    """Part of the images whose label has the highest score."""
    found = 0
    for i in range(0, len(images), EVALUATED):
        with np.errstate(over="ignore", invalid="ignore"):  # of weights whose next step has a loss that is no number
            scores = network.scores(images[i : i + EVALUATED])
        found += int((scores.argmax(axis=1) == labels[i : i + EVALUATED]).sum())
    return found / len(images)
