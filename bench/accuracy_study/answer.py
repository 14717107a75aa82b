"""What the rows say: numbers with intervals, and sentences made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.accuracy_study.runs import NETWORKS, RATES, WINDOWS, Row
from bench.accuracy_study.statistics import Estimate, by_seed, epochs_to, paired
from bench.training.nielsen import LADDER, Published

GOAL = 0.98
"""Test accuracy to which epochs are counted."""

FAILED = 0.5
"""Test accuracy below which a training has learned nothing, diverged or not."""


@dataclass(frozen=True)
class Summary:
    """All seeds of one label; `unreached` of them never came to GOAL."""

    label: str
    accuracy: Estimate
    epochs: Estimate | None
    unreached: int
    diverged: int


@dataclass(frozen=True)
class Difference:
    """Test accuracy of one label minus another's, paired by seed, in percentage points; and epochs to GOAL alike."""

    one: str
    other: str
    points: Estimate
    epochs: Estimate | None


@dataclass(frozen=True)
class Rung:
    """A published result beside ours; `mean_pooling` is the same network with mean pooling."""

    published: Published
    ours: Estimate | None
    mean_pooling: Estimate | None

    @property
    def off(self) -> float | None:
        """By how many points ours differs."""
        return None if self.ours is None else 100 * (self.ours.mean - self.published.accuracy)


def labels(rows: Sequence[Row], part: str) -> list[str]:
    return list(dict.fromkeys(row.label for row in rows if row.part == part))


def summary(rows: Sequence[Row], label: str) -> Summary:
    own = [row for row in rows if row.label == label]
    reached = [n for row in own if math.isfinite(n := epochs_to(row, GOAL))]
    return Summary(
        label,
        Estimate.of([row.chosen for row in own]),
        Estimate.of(reached) if reached else None,
        len(own) - len(reached),
        sum(row.diverged for row in own),
    )


def difference(rows: Sequence[Row], one: str, other: str) -> Difference | None:
    a, b = by_seed(rows, one), by_seed(rows, other)
    points = paired({s: 100 * r.chosen for s, r in a.items()}, {s: 100 * r.chosen for s, r in b.items()})
    if points is None:
        return None
    counted = [{s: n for s, r in rs.items() if math.isfinite(n := epochs_to(r, GOAL))} for rs in (a, b)]
    return Difference(one, other, points, paired(*counted))


def comparisons(rows: Sequence[Row]) -> list[Difference]:
    """Max against mean, each tie policy against "first", and the undivided mean against the right one."""
    found = []
    for network in NETWORKS:
        for window in WINDOWS:
            name = f"{network} {window}"
            for one, other in (
                ("max first", "avg"),
                ("max split", "max first"),
                ("max all", "max first"),
                ("undivided", "avg"),
            ):
                found.append(difference(rows, f"{name} {one}", f"{name} {other}"))
    return [one for one in found if one is not None]


def ladder(rows: Sequence[Row]) -> list[Rung]:
    """Nielsen's, as far as there are rows."""

    def of(label: str) -> Estimate | None:
        own = [row.chosen for row in rows if row.part == "published" and row.label == label]
        return Estimate.of(own) if own else None

    return [Rung(one, of(f"{one.name}, max"), of(f"{one.name}, avg")) for one in LADDER]


def points(estimate: Estimate, signed: bool = False) -> str:
    """An estimate in words.

    Examples
    --------
    >>> points(Estimate(0.123, 0.05, 5), signed=True), points(Estimate(98.5, float("nan"), 1))
    ('+0.12 ± 0.05', '98.50 (one run)')
    """
    mean = f"{estimate.mean:{'+' if signed else ''}.2f}"
    return f"{mean} (one run)" if estimate.n < 2 else f"{mean} ± {estimate.half:.2f}"


QUESTIONS = {
    ("max first", "avg"): (
        "Max pooling beats mean pooling",
        "Mean pooling beats max pooling",
        "max and mean pooling differ",
    ),
    ("max all", "max first"): (
        "The mask's tie bug helps",
        "The mask's tie bug costs accuracy",
        "paying every tie and paying the first differ",
    ),
    ("max split", "max first"): (
        "Splitting ties is better than paying the first",
        "Splitting ties is worse than paying the first",
        "splitting ties and paying the first differ",
    ),
    ("undivided", "avg"): (
        "The undivided mean gradient does better",
        "The undivided mean gradient does worse",
        "the undivided mean gradient and the right one differ",
    ),
}


def sentences(rows: Sequence[Row]) -> Iterator[str]:
    """The answers, with numbers."""
    failed: dict[str, int] = {}
    for row in rows:
        failed[row.label] = failed.get(row.label, 0) + (row.chosen < FAILED)
    for found in comparisons(rows):
        network, window, *_ = found.one.split(" ")
        kind = (found.one.split(" ", 2)[2], found.other.split(" ", 2)[2])
        better, worse, differ = QUESTIONS[kind]
        where = f"{network}, {window.replace(',', '×')[0]}×{window[0]} windows, stride {window[-1]}"
        numbers = f"{points(found.points, signed=True)} points (95% interval, {found.points.n} seeds, paired)"
        if found.points.n < 2:
            yield f"{where}: one seed says nothing sure about whether {differ}: {found.points.mean:+.2f} points."
        elif found.points.clear:
            yield f"{where}: {better if found.points.mean > 0 else worse}: {numbers}."
        else:
            yield f"{where}: it is not clear that {differ}: {numbers}."
        for label, name in ((found.one, kind[0]), (found.other, kind[1])):
            if failed[label]:
                yield f"{where}: {name} learned nothing with {failed[label]} of {found.points.n} seeds, which the interval holds."
        if found.epochs is not None and found.epochs.clear:
            sooner = "fewer" if found.epochs.mean < 0 else "more"
            yield (
                f"{where}: {kind[0]} needs {abs(found.epochs.mean):.2f} ± {found.epochs.half:.2f} epochs {sooner} than "
                f"{kind[1]} to {GOAL:.0%}."
            )
    for rate in RATES:
        both = [
            by_seed([row for row in rows if row.part == "rates"], f"question {p} {rate:g}")
            for p in ("undivided", "avg")
        ]
        if all(both):
            wrong, right = (
                f"{100 * Estimate.of([r.chosen for r in runs.values()]).mean:.2f}%"
                + (f", {lost} of {len(runs)} diverged" if (lost := sum(r.diverged for r in runs.values())) else "")
                for runs in both
            )
            yield f"question, learning rate {rate:g}: the undivided mean gradient ends at {wrong}; the right one at {right}."
    for rung in ladder(rows):
        if rung.ours is not None and rung.off is not None:
            line = (
                f"Nielsen, {rung.published.name}: he reports {rung.published.accuracy:.2%}, here {_percent(rung.ours)}"
            )
            line += f", {abs(rung.off):.2f} points {'over' if rung.off > 0 else 'under'} his"
            yield line + (f"; with mean pooling {_percent(rung.mean_pooling)}." if rung.mean_pooling else ".")


def _percent(estimate: Estimate) -> str:
    return points(Estimate(100 * estimate.mean, 100 * estimate.half, estimate.n)) + "%"
