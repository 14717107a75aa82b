"""What the study is made of: runs, each a training with a name of its own, and the row that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.training.networks import PoolKind
from bench.training.nielsen import BATCH, EPOCHS, HELD_OUT, LADDER
from bench.training.train import Settings
from pooling.geometry.problem import Ties

Part = Literal["grid", "rates", "published", "timing"]

NETWORKS = ("question", "lenet")
VARIANTS: tuple[tuple[PoolKind, Ties], ...] = (
    ("max", "first"),
    ("max", "split"),
    ("max", "all"),
    ("avg", "first"),
    ("undivided", "first"),
)
"""How is pooled, and who takes the gradient of a tie; a mean has no ties."""

WINDOWS = ("2,2", "3,2")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Learning rates at which the undivided mean is compared with the right one."""

MEASURED_THREADS = 2


@dataclass(frozen=True)
class Run:
    """One training; of equal runs only one is done.

    Parameters
    ----------
    part
        Of the study: "grid", "rates", "published" (Nielsen's ladder), or "timing", which needs a machine to itself.
    label
        What is varied, for people: the same for all seeds.
    """

    part: Part
    label: str
    settings: Settings

    @property
    def key(self) -> str:
        """Its name: part, label, and whatever of the settings makes a difference to its result."""
        s = self.settings
        varied = f"epochs={s.epochs} images={s.images or 'all'} rate={s.learning_rate:g} seed={s.seed}"
        return f"{self.part} {self.label} {varied}"

    @property
    def cost(self) -> float:
        """About how much work it is, in units of nothing: to foresee when all will be done."""
        s = self.settings
        images = s.images or 60_000
        weight = {0: 1.0, 1: 4.0, 2: 10.0}.get(s.network.split("/")[0].count(",") + 1 if "/" in s.network else 2, 10.0)
        if s.network.startswith("question"):
            weight = 4.0
        return s.epochs * images * weight * (3.0 if s.batch_size <= BATCH else 1.0)


@dataclass(frozen=True)
class Row:
    """What came of a run; `host` names the machine it was done on, `digest` the sources, `classes` is of the data set."""

    key: str
    part: Part
    label: str
    network: str
    pool: str
    ties: str
    seed: int
    epochs: int
    images: int
    rate: float
    threads: int
    dataset: str
    accuracy: list[float]
    held_out: list[float]
    losses: list[float]
    seconds: list[float]
    diverged: bool
    host: str
    worker: str
    digest: str
    finished: str
    classes: int = 10

    @property
    def chosen(self) -> float:
        """Test accuracy at the last epoch; of a run with held-out images, at the last of the epochs best on those."""
        chance = 1 / self.classes
        if not self.accuracy:
            return chance
        if not self.held_out:
            return self.accuracy[-1]
        best = max(self.held_out)
        return max(zip(self.held_out, range(len(self.held_out)), self.accuracy, strict=True))[2] if best else chance


def runs(
    parts: Sequence[Part], seeds: int, epochs: int, images: int | None, published_epochs: int = EPOCHS
) -> Iterator[Run]:
    """All runs of some parts, seed after seed, so that an interrupted study has whole seeds.

    Parameters
    ----------
    images
        Train on the first so many; None is all.
    """
    for seed in range(seeds):
        base = Settings(epochs=epochs, images=images, seed=seed, threads=1)
        if "timing" in parts and seed == 0:
            for network in NETWORKS:
                own = replace(base, network=network, epochs=1, threads=MEASURED_THREADS)
                yield Run("timing", f"{network} max", own)
        if "grid" in parts:
            for network in NETWORKS:
                for window in WINDOWS:
                    for pool, ties in VARIANTS:
                        name = f"{network} {window} {pool}" + (f" {ties}" if pool == "max" else "")
                        own = replace(base, network=f"{network} pool={window}", pool=pool, ties=ties)
                        yield Run("grid", name, own)
        if "rates" in parts:
            for rate in RATES:
                for pool in ("avg", "undivided"):
                    own = replace(base, network="question", pool=pool, learning_rate=rate)
                    yield Run("rates", f"question {pool} {rate:g}", own)
        if "published" in parts:
            for published in LADDER:
                kinds: tuple[PoolKind, ...] = ("max",) if published.network.startswith("/") else ("max", "avg")
                for kind in kinds:
                    own = replace(
                        base,
                        network=published.network,
                        pool=kind,
                        epochs=published_epochs,
                        batch_size=BATCH,
                        learning_rate=published.rate,
                        momentum=0.0,
                        regime=published.regime,
                        penalty=published.penalty,
                        held_out=HELD_OUT,
                    )
                    yield Run("published", f"{published.name}, {kind}", own)
