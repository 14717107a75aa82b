"""What a race leaves on disk, and whether it is what was aimed at."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.files import write_atomically
from bench.schema.environment import Machine, Source
from bench.schema.results import ResultsError
from bench.training.duel import Contestant, highest
from bench.training.framework import FORMS
from bench.training.ladder import LADDER
from bench.training.networks import design_of
from bench.training.train import Settings
from pooling import PoolingError

EPOCH_RATIOS = {1: 0.5, 2: 0.7}
"""Epoch time over PyTorch's that is aimed at, by the number of convolutions: of `question` and of `lenet`."""

ACCURACY_POINTS = 0.2
LOSSES = 1e-3

ASKED = ("network", "pool", "batch_size", "learning_rate", "momentum", "seed", "images")
"""Settings for which ``bench race`` has an option."""


@dataclass(frozen=True)
class Target:
    """Something aimed at; `met` is None where the race can't tell."""

    what: str
    found: str
    met: bool | None


@dataclass(frozen=True)
class Race:
    """A race as it is kept.

    Parameters
    ----------
    date
        Of its end, ISO 8601.
    blas
        The kernels that BLAS had chosen.
    epoch_steps
        Steps of a whole epoch.
    agreed
        Steps over which losses are compared, if an epoch has so many.
    gentle
        What of the settings was different where `agreement` was measured.
    agreement, apart
        The largest relative difference of the losses of a pair: in gentle steps, and in those of the race itself.
    schema
        Raised whenever a file of the old kind could be misread.
    """

    date: str
    settings: Settings
    dataset: str
    machine: Machine
    source: Source
    versions: dict[str, str]
    blas: list[str]
    epoch_steps: int
    agreed: int
    gentle: dict[str, float]
    agreement: dict[str, float]
    apart: dict[str, float]
    contestants: list[Contestant]
    schema: Literal[1] = 1

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def ours(self) -> list[Contestant]:
        """In the order of the ladder."""
        order = list(LADDER)
        return sorted((c for c in self.contestants if c.name in LADDER), key=lambda c: order.index(c.name))

    @property
    def theirs(self) -> list[Contestant]:
        """PyTorch as everybody has it: NCHW and channels_last."""
        return [c for c in self.contestants if c.name in FORMS[:2]]

    @property
    def others(self) -> list[Contestant]:
        """All of PyTorch's, its compiler too."""
        return [c for c in self.contestants if c.name in FORMS]

    @property
    def last(self) -> Contestant:
        """Ours that is highest on the ladder."""
        return next(c for c in self.contestants if c.name == highest(one.name for one in self.ours))

    @property
    def rival(self) -> Contestant:
        """The better of PyTorch's two."""
        return min(self.theirs, key=lambda c: c.epoch_s)

    def whole(self, one: Contestant) -> bool:
        """Whether it did an epoch."""
        return len(one.losses) >= self.epoch_steps

    def command(self, rung: str) -> str:
        """What does this again, on one rung."""
        usual = {f.name: f.default for f in fields(Settings)}
        words = ["python", "-m", "bench", "race"]
        for name in ASKED:
            value = getattr(self.settings, name)
            if value != usual[name] or name == "network":
                words += [f"--{name.replace('_', '-')}", str(value)]
        if self.settings.threads != self.machine.usable_threads:
            words += ["--threads", str(self.settings.threads)]
        return shlex.join([*words, "--rung", rung])

    def targets(self) -> Iterator[Target]:
        """The targets, and what came of them."""
        last, rival, theirs = self.last, self.rival, self.theirs
        convolutions = len(design_of(self.settings.network).filters)
        if convolutions:
            limit, ratio = EPOCH_RATIOS[min(convolutions, max(EPOCH_RATIOS))], last.epoch_s / rival.epoch_s
            yield Target(f"an epoch in at most {limit:g} of {rival.name}'s time", f"{ratio:.2f}", ratio <= limit)
        peaks = [c.peak_mb for c in theirs if c.peak_mb is not None]
        known = last.peak_mb is not None and len(peaks) == len(theirs)
        yield Target(
            "a memory peak of at most PyTorch's",
            f"{last.peak_mb:.0f} MB, PyTorch {' and '.join(f'{mb:.0f}' for mb in peaks)} MB"
            if known
            else "not measured",
            last.peak_mb <= min(peaks) if known and last.peak_mb is not None else None,
        )
        points = [
            100 * (last.accuracy - c.accuracy) for c in theirs if last.accuracy is not None and c.accuracy is not None
        ]
        told = " and ".join(f"{p:+.2f} points from {c.name}" for p, c in zip(points, theirs, strict=False))
        yield Target(
            f"test accuracy within {ACCURACY_POINTS:g} points of PyTorch's",
            told or "not measured, for it did no whole epoch",
            max(map(abs, points)) <= ACCURACY_POINTS + 1e-9 if points else None,
        )
        off = [self.agreement[f"{last.name} and {c.name}"] for c in theirs]
        yield Target(
            f"losses within {LOSSES:g} of PyTorch's over {min(self.agreed, self.epoch_steps)} gentle steps",
            f"at most {max(off):.1e} apart",
            max(off) <= LOSSES,
        )


_RACE = TypeAdapter(Race)


def path_of(folder: Path, settings: Settings) -> Path:
    """Where the race of a network is kept within a report's folder."""
    return folder / "results" / f"race-{settings.network.replace('/', '-')}-{settings.pool}.json"


def save(race: Race, path: Path) -> None:
    """Write `race` to `path`, at once or not at all."""
    write_atomically(path, json.dumps(_RACE.dump_python(race, mode="json"), allow_nan=False) + "\n")


def load(path: Path) -> Race:
    """Read a race, and check it.

    Raises
    ------
    ResultsError
        The file is damaged or older, or tells of rungs that there are no more.
    """
    try:
        race = _RACE.validate_json(path.read_bytes())
        design_of(race.settings.network)
    except OSError as error:
        raise ResultsError(f"{path.name}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ResultsError(f"{path.name}: {where}: {first['msg']}; race again: python -m bench race") from None
    except PoolingError as error:
        raise ResultsError(f"{path.name}: {error}") from None
    problem = _problem(race)
    if problem:
        raise ResultsError(f"{path.name}: {problem}; race again: python -m bench race")
    return race


def _problem(race: Race) -> str:
    """Why what is well-formed can't be told, if so."""
    names = [c.name for c in race.contestants]
    strange = [name for name in names if name not in LADDER and name not in FORMS]
    if strange:
        return f"{', '.join(strange)}: no rung of the ladder, and no form of PyTorch's"
    if len(set(names)) < len(names):
        return "a contestant is in it twice"
    if not race.ours or len(race.theirs) < 2:
        return "one of ours and both of PyTorch's layouts have to be in it"
    if any(c.epoch_s <= 0 or min(c.steps_ms) <= 0 or not c.losses for c in race.contestants):
        return "a contestant without times or losses"
    if any(f"{race.last.name} and {c.name}" not in race.agreement for c in race.theirs):
        return "it lacks how far losses are apart"
    return ""
