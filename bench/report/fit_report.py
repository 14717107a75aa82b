"""How good the rule is, said of problems that it was not fitted on: for the terminal, and for the page with a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.fit import FOLDS, Judged, Observation, cross_validate, of_file, of_results
from bench.analysis.versus import geometric_mean
from bench.figures.drawing import Figure
from bench.figures.style import COLOURS, MARKERS
from bench.schema.results import Results
from pooling.backends.registry import REGISTRY

SHOWN = 12
"""How many of the worst choices the page lists."""


@dataclass(frozen=True)
class Group:
    """How good the rule is at one kind of problem."""

    name: str
    judged: list[Judged]

    @property
    def hits(self) -> int:
        """Problems at which it names the fastest."""
        return sum(one.over <= 1.0 for one in self.judged)

    @property
    def mean(self) -> float:
        """Geometric mean of the time of its choice over the fastest's."""
        return geometric_mean([one.over for one in self.judged])

    @property
    def worst(self) -> Judged:
        return max(self.judged, key=lambda one: one.over)


def groups(judged: Sequence[Judged]) -> list[Group]:
    """All, and by direction and by what they were measured for."""
    kinds = {"all": list(judged)}
    for direction in ("training", "inference"):
        kinds[direction] = [one for one in judged if one.observation.facts.direction == direction]
    for source in dict.fromkeys(one.observation.source for one in judged):
        kinds[source] = [one for one in judged if one.observation.source == source]
    return [Group(name, of) for name, of in kinds.items() if of]


def describe_fit(judged: Sequence[Judged]) -> Iterator[str]:
    """A line for each kind of problem."""
    for group in groups(judged):
        worst = group.worst
        yield (
            f"{group.name}: {len(group.judged)} problems, the fastest at {group.hits}; time over the fastest's: geometric mean "
            f"{group.mean:.3f}, worst {worst.over:.2f} ({worst.pick} at {worst.observation.facts.key})"
        )


@dataclass(frozen=True)
class FitSection:
    """What the page says of the rule."""

    judged: list[Judged]

    @classmethod
    def of(cls, results: Results, measured: Path) -> FitSection:
        """From a run's timings, and those of the design where they were measured."""
        observations: list[Observation] = list(of_file(measured)) if measured.exists() else []
        observations += of_results(results)
        enough = len({one.group for one in observations}) >= FOLDS
        return cls(cross_validate(observations) if enough else [])

    @property
    def groups(self) -> list[Group]:
        return groups(self.judged)

    @property
    def lost(self) -> list[Judged]:
        """The worst choices first."""
        return sorted((one for one in self.judged if one.over > 1.0), key=lambda one: -one.over)[:SHOWN]

    def picture(self) -> Figure:
        """Left, expected against measured times; right, how much longer the choices take than the fastest, sorted."""
        figure = Figure(figsize=(9.5, 4.2))
        left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
        for i, name in enumerate(REGISTRY):
            pairs = [(one.observation.times[name], one.expected[name]) for one in self.judged if name in one.expected]
            if pairs:
                times, expected = zip(*pairs, strict=True)
                look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
                left.plot(
                    [1e3 * t for t in times],
                    [1e3 * t for t in expected],
                    linestyle="none",
                    markersize=3,
                    label=name,
                    **look,
                )
        left.set_xscale("log")
        left.set_yscale("log")
        left.axline((1, 1), (2, 2), color="#000000", linewidth=0.8, linestyle=":")
        left.set_xlabel("measured, ms")
        left.set_ylabel("expected of what was left out, ms")
        over = sorted(one.over for one in self.judged)
        right.plot([100 * (i + 1) / len(over) for i in range(len(over))], over, color=COLOURS[5])
        right.set_xlabel("problems, %")
        right.set_ylabel("time of the choice over the fastest's: 1 is best")
        right.set_ylim(0.95, max(1.5, over[-1] * 1.05))
        figure.legend(loc="outside upper center", ncols=8, fontsize=8)
        figure.set_layout_engine("constrained")
        return figure
