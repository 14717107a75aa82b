"""Against the frameworks: ratios of times, by workload and by peer, from the results alone.

A ratio is the peer's time over ours: above 1 we are faster, below 1 the peer is, and that is shown as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.experiments import roofline
from bench.experiments.studies import LAYOUTS, SUBJECT
from bench.schema.results import Bandwidth, Results, Timing
from bench.schema.workloads import Direction, Workload

COMPARED: tuple[Direction, ...] = ("step", "forward")
"""Training, and inference; those that only infer are in the second alone."""


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


@dataclass(frozen=True)
class Race:
    """Our time at a workload against a peer's, in one direction."""

    workload: Workload
    direction: Direction
    ours: Timing
    peer: Timing

    @property
    def ratio(self) -> float:
        return self.peer.median_s / self.ours.median_s

    @property
    def lost(self) -> bool:
        return self.ratio < 1

    @property
    def unstable(self) -> bool:
        return self.ours.unstable or self.peer.unstable


def races(results: Results, direction: Direction) -> list[Race]:
    """Every pair of ours and a peer that did the same workload."""
    rows = results.of(Timing, stage="workloads", direction=direction)
    ours = {row.workload: row for row in rows if row.contender == SUBJECT}
    return [
        Race(results.workloads[row.workload], direction, ours[row.workload], row)
        for row in rows
        if row.kind == "peer" and row.workload in ours
    ]


@dataclass(frozen=True)
class Duel:
    """A workload of the table: against the fastest peer in training, and in inference; None where no peer did it."""

    workload: Workload
    step: Race | None
    forward: Race | None

    @classmethod
    def all_of(cls, results: Results) -> list[Duel]:
        fastest: dict[tuple[str, Direction], Race] = {}
        for direction in COMPARED:
            for race in sorted(races(results, direction), key=lambda race: race.ratio):
                fastest.setdefault((race.workload.id, direction), race)
        met = dict.fromkeys(workload for workload, _ in fastest)
        order = [workload for name, workload in results.workloads.items() if name in met]
        return [cls(w, fastest.get((w.id, "step")), fastest.get((w.id, "forward"))) for w in order]


@dataclass(frozen=True)
class Summary:
    """A peer over all workloads that it did in one layout (None: in both) and direction."""

    peer: str
    data_format: str | None
    direction: Direction
    mean: float
    worst: Race
    lost: int
    count: int

    @classmethod
    def of(cls, found: Sequence[Race], data_format: str | None) -> Summary:
        worst = min(found, key=lambda race: race.ratio)
        mean = geometric_mean([race.ratio for race in found])
        lost = sum(race.lost for race in found)
        return cls(worst.peer.contender, data_format, worst.direction, mean, worst, lost, len(found))


def summaries(results: Results, layouts: Sequence[str | None] = LAYOUTS) -> list[Summary]:
    """By direction, peer and layout, in the order of the entrants; what nobody did has none."""
    made = []
    for direction in COMPARED:
        found = races(results, direction)
        for entrant in results.entrants:
            for layout in layouts:
                own = [
                    race
                    for race in found
                    if race.peer.contender == entrant.name and layout in (None, race.workload.data_format)
                ]
                if own:
                    made.append(Summary.of(own, layout))
    return made


@dataclass(frozen=True)
class Price:
    """What something costs: our time with it over our time without."""

    what: str
    workload: Workload
    timed: str
    ratio: float
    unstable: bool


def prices(results: Results) -> list[Price]:
    """Of NaN in the input, of switches and of padding."""
    rows = results.of(Timing, stage="prices", contender=SUBJECT)
    by = {(row.workload, row.direction): row for row in rows}
    workloads = [results.workloads[name] for name in dict.fromkeys(row.workload for row in rows)]
    found = []

    def price(what: str, workload: Workload, timed: str, with_it: Timing | None, without: Timing | None) -> None:
        if with_it is not None and without is not None:
            unstable = with_it.unstable or without.unstable
            found.append(Price(what, workload, timed, with_it.median_s / without.median_s, unstable))

    for workload in workloads:
        plain = [other for other in workloads if other.data_format == workload.data_format and other.values == "relu"]
        step = by.get((workload.id, "step"))
        if workload.values == "nan":
            for other in plain:
                if (other.shape, other.window) == (workload.shape, workload.window):
                    price("NaN in the input", workload, "training step", step, by.get((other.id, "step")))
            continue
        keeping, inferring = by.get((workload.id, "forward_train")), by.get((workload.id, "forward"))
        price("keeping switches", workload, "forward", keeping, inferring)
        for other in plain:
            if workload.padding and not other.padding and other.kernel_size == workload.kernel_size:
                price("padding", workload, "training step", step, by.get((other.id, "step")))
    return sorted(found, key=lambda price: price.what)


@dataclass(frozen=True)
class Reached:
    """A timing, with the part it reaches of what memory allows; None where bandwidth was not measured on as many threads."""

    timing: Timing
    workload: Workload
    fraction: float | None


def reached(results: Results) -> list[Reached]:
    """Every timing."""
    roof = results.of(Bandwidth)
    measured = {row.threads for row in roof}
    found = []
    for row in results.of(Timing):
        workload = results.workloads[row.workload]
        fraction = roofline.fraction(row, workload, roof) if row.threads in measured else None
        found.append(Reached(row, workload, fraction))
    return found
