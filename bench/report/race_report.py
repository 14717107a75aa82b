"""What the page says of training beside a framework: races that lie with the results, and the study's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.accuracy_study.answer import sentences
from bench.accuracy_study.page import NAME as STUDY
from bench.accuracy_study.store import read
from bench.figures.drawing import Figure
from bench.figures.style import COLOURS
from bench.schema.results import ResultsError
from bench.training.duel import Contestant
from bench.training.ladder import LADDER
from bench.training.outcome import Race, load

ANSWERS = 4
"""How many of the study's sentences the page repeats."""


@dataclass(frozen=True)
class Step:
    """A rung of ours: what is new on it, how long a step takes, and how much of the rung before's that is."""

    one: Contestant
    note: str
    over_before: float | None
    command: str


@dataclass(frozen=True)
class Profile:
    """Where a contestant's step goes: (layer, forward and backward in seconds), and the part of it that is pooling."""

    name: str
    layers: list[tuple[str, float | None, float | None]]
    pooling: float


@dataclass(frozen=True)
class RaceSection:
    """All races beside a report's results, and what was left out with its reason."""

    races: list[Race]
    unreadable: list[str]
    study: str | None
    answers: list[str]

    @classmethod
    def of(cls, folder: Path) -> RaceSection:
        races, unreadable = [], []
        for path in sorted((folder / "results").glob("race-*.json")):
            try:
                races.append(load(path))
            except ResultsError as error:
                unreadable.append(str(error))
        rows = folder / "results" / "study.jsonl"
        answers: list[str] = []
        if (folder / STUDY).exists() and rows.exists():
            answers = list(sentences(read(rows)))[:ANSWERS]
        return cls(races, unreadable, STUDY if (folder / STUDY).exists() else None, answers)

    def picture(self) -> Figure:
        """A step of each contestant, a panel for each network."""
        figure = Figure(figsize=(9.5, 0.9 + 0.27 * max(len(race.contestants) for race in self.races)))
        panels = figure.subplots(1, len(self.races), squeeze=False)[0]
        for panel, race in zip(panels, self.races, strict=True):
            shown = [*race.ours, *race.others]
            for i, one in enumerate(shown):
                middle, low, high = one.steps_ms
                panel.barh(i, middle, color=COLOURS[0 if one.name in LADDER else 1])
                panel.plot([low, high], [i, i], color="#000000", linewidth=1)
                panel.text(high, i, f" {middle:.2f}", va="center", fontsize=8)
            panel.set_yticks(range(len(shown)), [one.name for one in shown])
            panel.invert_yaxis()
            panel.set_xlim(0, 1.18 * max(one.steps_ms[2] for one in shown))
            panel.set_xlabel("training step, ms")
            panel.set_title(race.settings.network)
        figure.set_layout_engine("constrained")
        return figure


def ladder(race: Race) -> Iterator[Step]:
    """Ours, from the first honest NumPy version on."""
    before = None
    for one in race.ours:
        ratio = one.steps_ms[0] / before.steps_ms[0] if before else None
        yield Step(one, LADDER[one.name].note, ratio, race.command(one.name))
        before = one


def profiles(race: Race) -> Iterator[Profile]:
    """Of ours that is highest on the ladder, and of PyTorch's two layouts."""
    for one in (race.last, *race.theirs):
        times = {(layer, direction): seconds for layer, direction, seconds in one.layers}
        layers = [
            (n, times.get((n, "forward")), times.get((n, "backward"))) for n in dict.fromkeys(n for n, _ in times)
        ]
        total = sum(times.values())
        pools = sum(seconds for (layer, _), seconds in times.items() if "pool" in layer.lower())
        yield Profile(one.name, layers, pools / total if total else 0.0)
