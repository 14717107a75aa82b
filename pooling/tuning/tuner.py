"""Tuning: measure what is not known yet, the weightiest first, within a budget, and keep each result at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from numbers import Real
from typing import Any

from pooling.backends.registry import REGISTRY
from pooling.errors import PoolingError, printable, shown
from pooling.geometry.window import as_int
from pooling.parallel.pool import get_num_threads, using_threads
from pooling.runtime.availability import imports
from pooling.tuning import rule
from pooling.tuning.candidates import sort_out, source_of
from pooling.tuning.choose import current
from pooling.tuning.layer import Facts, Layer
from pooling.tuning.store import frozen, store
from pooling.tuning.timing import Clock, Outcome, measure
from pooling.tuning.wisdom import Measured, Record, chosen

CALLS = 10
"""Calls of the likeliest candidate that there has to be time for, or a layer is not begun."""

LONGEST_S = 1e9
"""Seconds that a budget may be: thirty years, so that any number can be given that means for ever."""


@dataclass
class Tuned:
    """What tuning did.

    Parameters
    ----------
    measured
        By key, the record that was made or completed.
    known
        Keys that were known already, with nothing to add.
    left
        Keys for which there was no time or nothing to measure, with the reason.
    refused
        By key, candidates whose results were wrong.
    kept
        Whether the records are on disk, and not in memory alone.
    """

    measured: dict[str, Record] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    kept: bool = True

    def __str__(self) -> str:
        lines = [
            f"{record.choice:16} {1e6 * record.candidates[record.choice].seconds:12,.1f} us  {key}"
            for key, record in self.measured.items()
        ]
        lines += [f"left out: {key}: {reason}" for key, reason in self.left.items()]
        lines += [
            f"refused: {name}: {reason} ({key})"
            for key, found in self.refused.items()
            for name, reason in found.items()
        ]
        lines.append(f"{len(self.measured)} measured, {len(self.known)} known already, {len(self.left)} left out")
        return "\n".join(lines)


Progress = Callable[[int, int, str], None]
"""Called with how many layers are done, of how many, and the key of the next."""


def tune(
    workloads: Iterable[Any],
    budget_s: float = 60.0,
    *,
    again: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Measure which backend is the fastest for each of `workloads`, and remember it for ``backend="auto"`` and :func:`pick`.

    Only what is not known yet is measured: of a layer that was measured before, candidates that are new or have changed. The
    layers that take the most time come first. Each result is kept at once, so that an interrupt loses nothing but the
    layer it hits.

    Parameters
    ----------
    workloads
        What :func:`pooling.record` has seen, or any of: :class:`pooling.Layer`, a tuple ``(shape, dtype, operator)`` or
        ``(shape, dtype, operator, direction)``, something with a method ``layers()``, such as a row of the suite's table.
    budget_s
        Seconds that it may take, compilation included.
    again
        Measure anew what is known.
    threads
        On how many; by default as many as a call would use now.
    progress
        Called with the progress.

    Raises
    ------
    PoolingError
        An argument is wrong, or POOLING_FROZEN is set.

    Examples
    --------
    >>> import pooling
    >>> print(pooling.tune([], budget_s=1))
    0 measured, 0 known already, 0 left out
    """
    if frozen():
        raise PoolingError("POOLING_FROZEN is set, so nothing may be measured or written: unset it to tune")
    if isinstance(budget_s, bool) or not isinstance(budget_s, Real) or not budget_s > 0:
        raise PoolingError(f"budget_s={shown(budget_s)}: it must be a positive number of seconds")
    if threads is not None:
        threads = as_int("threads", threads, threads, least=1)
    if isinstance(workloads, Layer) or not isinstance(workloads, Iterable) or not getattr(workloads, "ndim", 1):
        raise PoolingError(
            f"workloads={shown(workloads)}: give a list of layers, such as [pooling.Layer(shape, dtype, operator)]"
        )
    imports()  # what can't be imported is no candidate
    clock = Clock(float(min(budget_s, LONGEST_S)))
    todo = _by_weight([layer for one in workloads for layer in as_layers(one)], threads)
    tuned = Tuned()
    with using_threads(None if threads == get_num_threads() else threads):
        for done, (about, layer) in enumerate(todo):
            if progress is not None:
                progress(done, len(todo), about.key)
            _tune_one(about, layer, clock, Clock(clock.left / (len(todo) - done)), again, tuned)
        if progress is not None:
            progress(len(todo), len(todo), "")
    return tuned


def as_layers(value: Any) -> Sequence[Layer]:
    """A workload, in whatever form, as layers."""
    if isinstance(value, Layer):
        return [value]
    if isinstance(value, tuple | list) and len(value) in (3, 4):
        return [Layer(*value)]
    try:
        return list(value.layers())
    except AttributeError:
        raise PoolingError(
            f"workloads holds {shown(value)}: give pooling.Layer(shape, dtype, operator), or such a tuple"
        ) from None


def _by_weight(layers: Sequence[Layer], threads: int | None) -> list[tuple[Facts, str]]:
    """What to measure, one for each key, that which takes the most of a run's time first."""
    weights: dict[str, float] = {}
    found: dict[str, tuple[float, Facts, str]] = {}
    for layer in layers:
        about = layer.facts(threads)
        able, _ = sort_out(about)
        expected = (rule.seconds(about, rule.fastest(about, able)) if able else None) or 1e-9 * about.nbytes
        weight = expected * max(as_int("count", layer.count, layer.count, least=0), 1)
        weights[about.key] = weights.get(about.key, 0.0) + weight
        if about.key not in found or found[about.key][0] < weight:
            found[about.key] = (weight, about, printable(f"{tuple(layer.shape)} {about.dtype}"))
    return [found[key][1:] for key in sorted(weights, key=lambda key: (-weights[key], key))]


def _tune_one(about: Facts, layer: str, clock: Clock, share: Clock, again: bool, tuned: Tuned) -> None:
    key = about.key
    able, reasons = sort_out(about)
    if not able or not about.outputs:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        tuned.left[key] = "its input is empty" if able else why
        return
    record = store.get(key)
    known = {} if again or record is None else current(record, able)
    names = [name for name in rule.ranked(about, able) if name not in known]
    if not names:
        tuned.known.append(key)
        return
    expected = rule.seconds(about, names[0]) or 0.0
    if clock.left <= CALLS * expected:
        tuned.left[key] = "no time was left"
        return
    best = min((one.seconds for one in known.values()), default=float("inf"))
    try:
        outcome = measure(about, names, clock, share, best)
    except MemoryError:
        tuned.left[key] = f"its arrays do not fit into memory: x alone has {about.nbytes:,} bytes"
        return
    if outcome.refused:
        tuned.refused[key] = outcome.refused
    if not outcome.in_time:
        late = [name for name in names if name not in outcome.times and name not in outcome.refused]
        tuned.left[key] = f"no time was left for {', '.join(late)}"
    elif not known and not outcome.times:
        tuned.left[key] = "no candidate gave the right result"
    if not known and not outcome.times:
        return
    usual = _usual(about, able, outcome)
    if usual not in known and usual not in outcome.times:
        return  # by chance of the budget alone another one would be chosen
    candidates = dict(record.candidates) if record else {}
    candidates |= as_measured(outcome)
    choice = chosen(
        {n: c for n, c in candidates.items() if n in able and n in {*known, *outcome.times}},
        usual,
    )
    if choice is not None:
        made = Record(choice, layer, candidates)
        tuned.kept = store.add(key, made) and tuned.kept
        tuned.measured[key] = made


def _usual(about: Facts, able: Sequence[str], outcome: Outcome) -> str:
    return rule.fastest(about, [name for name in able if name not in outcome.refused] or able)


def as_measured(outcome: Outcome) -> Mapping[str, Measured]:
    """An outcome as a record keeps it."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    found = {}
    for name, times in outcome.times.items():
        low, median, high = (round(1e6 * s, 3) or 0.001 for s in times.quartiles)
        source = source_of(REGISTRY[name])
        found[name] = Measured(source, when, median, low, high, len(times.samples), times.note)
    for name, reason in outcome.refused.items():
        if name not in outcome.raised:  # an error may be one of the moment, such as memory that ran out
            found[name] = Measured(source_of(REGISTRY[name]), when, note=printable(f"wrong: {reason}"))
    return found
