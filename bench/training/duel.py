"""This project against PyTorch at training: the same steps taken in turns, so that a busy moment of the machine hits all.

A turn begins with steps that aren't timed, until the threads of the one before have stopped spinning (see `bench/peers`).
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench.files import ROOT
from bench.training.data import Dataset, load
from bench.training.framework import FORMS, Form, TorchTrainer, profile
from bench.training.ladder import LADDER
from bench.training.train import Settings, Trainer, accuracy, threads_of

TURN = 40
"""Steps of a turn."""

SETTLE_S = 0.03
"""How long a turn goes on before its steps count."""

AGREED = 200
"""Steps over which losses are compared."""

GENTLE = {"learning_rate": 0.003, "momentum": 0.0}
"""Steps small enough that trainings which differ by rounding stay together. With larger ones a single ReLU whose input is within
rounding of 0 soon changes everything: PyTorch in NCHW and in channels_last are then 38% apart after 200 steps of `lenet`."""


@dataclass
class Contestant:
    """What came of one of them.

    Parameters
    ----------
    name
        A rung of ours, or a form of PyTorch's.
    steps_ms
        Median and quartiles of a step.
    epoch_s
        The mean of a step, times the steps of an epoch.
    losses
        Of every step.
    accuracy
        On the test images after an epoch; None if it did not do a whole one.
    layers
        (layer, direction, seconds a step), where it was profiled.
    peak_mb
        The most memory a process of its own had, that loads the data and does some steps.
    """

    name: str
    steps_ms: tuple[float, float, float]
    epoch_s: float
    losses: list[float]
    accuracy: float | None = None
    layers: list[tuple[str, str, float]] = field(default_factory=list)
    peak_mb: float | None = None


def duel(
    settings: Settings,
    dataset: Dataset,
    rungs: Sequence[str],
    forms: Sequence[Form],
    *,
    steps: int | None = None,
    rung_steps: int | None = None,
    progress: Callable[[float], None] = lambda part: None,
) -> list[Contestant]:
    """Train on `rungs` of ours and in `forms` of PyTorch's, for an epoch or for so many `steps`.

    Parameters
    ----------
    rung_steps
        At most so many steps of all rungs but the last on the ladder. Their turns lie scattered over the whole race.
    """
    ours = {name: Trainer(replace(settings, rung=name), dataset) for name in rungs}
    trainers: dict[str, Trainer | TorchTrainer] = dict(ours)
    for form in forms:
        trainers[form] = TorchTrainer(settings, dataset, form)
    epoch = next(iter(ours.values())).batches()
    last = highest(rungs)
    batches = {name: epoch[:steps][: rung_steps if name in ours and name != last else None] for name in trainers}
    losses: dict[str, list[float]] = {name: [] for name in trainers}
    timed: dict[str, list[tuple[float, bool]]] = {name: [] for name in trainers}
    rounds = -(-len(batches[last]) // TURN)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for at in range(rounds):
            for i, (name, trainer) in enumerate(trainers.items()):
                turns = -(-len(batches[name]) // TURN)
                with threads_of(trainer.settings):
                    begin = perf_counter()
                    for indices in batches[name][TURN * (at * turns // rounds) : TURN * ((at + 1) * turns // rounds)]:
                        start = perf_counter()
                        losses[name].append(trainer.step(indices))
                        counts = start - begin > SETTLE_S and len(indices) == settings.batch_size
                        timed[name].append((perf_counter() - start, counts))
                progress((at + (i + 1) / len(trainers)) / rounds)
    finally:
        if enabled:
            gc.enable()
    found = []
    for name, trainer in trainers.items():
        whole, result = len(losses[name]) == len(epoch), None
        with threads_of(trainer.settings):
            if isinstance(trainer, TorchTrainer):
                result = trainer.accuracy() if whole else None
                profiled = [] if name == "pytorch_compiled" else epoch[:TURN]
                layers = [(*key, s / len(profiled)) for key, s in profile(trainer, profiled).seconds.items()]
            else:
                result = accuracy(trainer.network, dataset) if whole else None
                layers = [(*key, s / len(losses[name])) for key, s in trainer.history.stopwatch.seconds.items()]
        # In a very small race nobody settles; then every step counts.
        times = sorted(s for s, counts in timed[name] if counts) or sorted(s for s, _ in timed[name])
        quartiles = (median(times), times[len(times) // 4], times[3 * len(times) // 4])
        found.append(
            Contestant(
                name,
                (1e3 * quartiles[0], 1e3 * quartiles[1], 1e3 * quartiles[2]),
                len(epoch) * sum(times) / len(times),
                losses[name],
                result,
                layers,
            )
        )
    return found


def highest(rungs: Iterable[str]) -> str:
    """The one of `rungs` that is last on the ladder."""
    return max(rungs, key=list(LADDER).index)


def disagreement(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest relative difference of two trainings' losses over the first AGREED steps that both did.

    Losses of 0 agree: those of data of a single class, which there is nothing to learn of.
    """
    return max(abs(x - y) / (abs(y) or abs(x) or 1.0) for x, y in zip(a[:AGREED], b[:AGREED], strict=False))


def apart(found: Sequence[Contestant]) -> dict[str, float]:
    """How far apart losses come in AGREED steps: each of ours from each of PyTorch's, and these from each other."""
    ours = [c for c in found if c.name not in FORMS]
    theirs = [c for c in found if c.name in FORMS]
    pairs = [(a, b) for a in ours for b in theirs] + [(a, b) for i, a in enumerate(theirs) for b in theirs[i + 1 :]]
    return {f"{a.name} and {b.name}": disagreement(a.losses, b.losses) for a, b in pairs}


def agreement(settings: Settings, dataset: Dataset, rungs: Sequence[str], forms: Sequence[Form]) -> dict[str, float]:
    """As :func:`apart`, in gentle steps."""
    gentle = replace(settings, **GENTLE)  # type: ignore[arg-type]
    return apart(duel(gentle, dataset, rungs, forms, steps=AGREED))


PEAK = """
import sys, json
from bench.training.duel import alone, highest_kb
alone(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] or None)
print(highest_kb())
"""


def highest_kb() -> int:
    """The most memory this process has had. On Linux the usual call tells the parent's too, if that had more."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def alone(name: str, settings: dict[str, Any], folder: str | None) -> None:
    """Some steps of one contestant, with nobody else in the process."""
    chosen, dataset = Settings(**settings), load(folder)
    trainer = Trainer(replace(chosen, rung=name), dataset) if name not in FORMS else TorchTrainer(chosen, dataset, name)
    order = np.random.default_rng(0).permutation(len(dataset.images[: chosen.images]))
    with threads_of(chosen):
        for i in range(min(10, -(-len(order) // chosen.batch_size))):  # few images make fewer batches
            trainer.step(order[i * chosen.batch_size :][: chosen.batch_size])


def peak_mb(name: str, settings: Settings, folder: str | None = None) -> float:
    """The most memory, in MB, that a process of its own had."""
    command = (sys.executable, "-c", PEAK, name, json.dumps(asdict(settings)), folder or "")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e6
