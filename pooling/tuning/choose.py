"""The choice: what was measured here if there is a record, else what the rule says. Nothing is ever measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike

from pooling.backends.base import Describes
from pooling.backends.registry import REGISTRY
from pooling.dtypes import DTYPES
from pooling.errors import PoolingError, UnsupportedError, shown
from pooling.geometry.problem import Problem
from pooling.parallel.pool import chosen_threads, get_num_threads
from pooling.runtime.availability import disabled
from pooling.tuning import rule
from pooling.tuning.candidates import sort_out, source_of
from pooling.tuning.layer import Direction, Facts, facts
from pooling.tuning.machine import machine
from pooling.tuning.store import store, warn
from pooling.tuning.wisdom import Measured, Record, Records

NOT_MEASURED = "it has not been measured for this on this machine: tune again"
CHANGED = "its source has changed since it was measured: tune again"

BAR = 24
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Ranked:
    """One backend's place: seconds a call, measured when ("" where the rule expects them; None where nothing is known)."""

    backend: str
    seconds: float | None
    measured: str = ""
    note: str = ""


@dataclass(frozen=True)
class Choice:
    """A choice with its reasons.

    Parameters
    ----------
    backend
        The name.
    origin
        "record" (measured on this machine) or "rule".
    ranking
        What was considered, fastest first.
    not_considered
        All others, by name, with the reason.
    measured_on
        The layer that the record comes from, and the machine with its versions; with the rule both are empty.
    key
        Under which the choice is found; neighbours share it.
    """

    backend: str
    origin: Literal["record", "rule"]
    ranking: tuple[Ranked, ...]
    not_considered: Mapping[str, str]
    layer: str
    machine: Mapping[str, str]
    key: str

    @property
    def provenance(self) -> str:
        """One line on where the times come from."""
        if self.origin == "rule":
            return "expected by the rule; `pooling tune` measures"
        when = max((one.measured for one in self.ranking), default="")
        return f"measured {when} on {self.machine.get('cpu', 'this machine')}, with {self.layer}"

    def __str__(self) -> str:
        """The ranking as a table with bars, longest for the slowest."""
        known = [one.seconds for one in self.ranking if one.seconds is not None]
        most = max(known, default=1.0)
        width = max(len(one.backend) for one in self.ranking)
        lines = []
        for one in self.ranking:
            time = "      ?   " if one.seconds is None else f"{1e6 * one.seconds:10,.1f}"
            bar = "" if one.seconds is None else "█" * max(1, round(BAR * one.seconds / most))
            star = "*" if one.backend == self.backend else " "
            lines.append(f"{star} {one.backend.ljust(width)} {time} us  {bar}  {one.note}".rstrip())
        return "\n".join([*lines, f"  {self.provenance}"])


def choose(about: Facts) -> str:
    """The name of the backend to take.

    Raises
    ------
    UnsupportedError
        No backend can do it; the message has the reason of each.
    """
    able = _able(about)
    if len(able) == 1:
        return able[0]
    record = recorded(about)
    return rule.fastest(about, able) if record is None else _by(record, about, able)


def auto(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], training: bool) -> str:
    """What ``backend="auto"`` takes for arrays as backends see them."""
    direction: Direction = "training" if training else "inference"
    return choose(Facts(problem, outer, inner, dtype, direction, get_num_threads()))


def state() -> tuple[object, ...]:
    """Changes whenever a choice may: when the number of threads is set, after tuning, and when Numba is turned off or on."""
    return chosen_threads(), store.version, disabled()


def recorded(about: Facts) -> Record | None:
    """The record for this, if there is one that can be read."""
    try:
        return store.find(about)
    except Exception as error:  # pooling never fails because of the store
        store.records = Records()
        warn(f"measured choices can't be used: {error!r}")
        return None


def _able(about: Facts) -> list[str]:
    able, reasons = sort_out(about)
    if not able:
        # The likeliest first.
        order = [
            *(name for name in rule.PREFERENCE if name in reasons),
            *(n for n in reasons if n not in rule.PREFERENCE),
        ]
        message = "; ".join(f"{name}: {reasons[name]}" for name in order)
        if about.dtype.kind != "f" or about.dtype.char not in DTYPES:
            message += f"; with dtype={about.dtype} none can: pool x.astype(np.float32)"
        else:
            message += "; change the arguments that they name"
        raise UnsupportedError(f"no backend can do this: {message}")
    return able


def current(record: Record, able: Sequence[str]) -> dict[str, Measured]:
    """Of a record, what can be relied on: candidates that may be chosen and are as they were when measured."""
    return {
        name: one for name, one in record.candidates.items() if name in able and one.source == source_of(REGISTRY[name])
    }


def _by(record: Record, about: Facts, able: Sequence[str]) -> str:
    """What a record chooses, or what is left of it; else what the rule says of those that were not refused."""
    known = current(record, able)
    if record.choice in known:
        return record.choice
    timed = {name: one.seconds for name, one in known.items() if one.median_us is not None}
    if timed:
        return min(timed, key=timed.__getitem__)
    return rule.fastest(about, [name for name in able if name not in known] or able)


@overload
def pick(
    shape: Sequence[int],
    dtype: DTypeLike,
    operator: Describes | Problem,
    direction: Direction = "training",
    *,
    threads: int | None = None,
    explain: Literal[False] = False,
) -> str: ...


@overload
def pick(
    shape: Sequence[int],
    dtype: DTypeLike,
    operator: Describes | Problem,
    direction: Direction = "training",
    *,
    threads: int | None = None,
    explain: Literal[True],
) -> Choice: ...


def pick(
    shape: Sequence[int],
    dtype: DTypeLike,
    operator: Describes | Problem,
    direction: Direction = "training",
    *,
    threads: int | None = None,
    explain: bool = False,
) -> str | Choice:
    """Name of the fastest backend for `operator` on arrays of `shape` and `dtype`: what ``backend="auto"`` takes.

    Nothing is measured: what :func:`pooling.tune` has recorded decides, else a rule.

    Parameters
    ----------
    shape, dtype
        Of the input.
    operator
        A :class:`pooling.MaxPool` or another operator. Its tie policy is kept, whatever it costs.
    direction
        "training", for ``forward`` with its ``backward``, or "inference", for calling the operator.
    threads
        On how many; by default as many as a call would use now.
    explain
        Return a :class:`Choice`: the ranking with times and where they come from, and why others are not considered.

    Raises
    ------
    UnsupportedError
        No backend can do it.

    Examples
    --------
    >>> import pooling
    >>> pick((64, 20, 24, 24), "float32", pooling.MaxPool(2)) in pooling.list_backends()
    True
    >>> choice = pick((64, 20, 24, 24), "float32", pooling.MaxPool(2), explain=True)
    >>> choice.not_considered["repeat_mask"]
    "its backward has no ties='first', only split, all"
    """
    if not isinstance(explain, bool | np.bool_):
        raise PoolingError(f"explain={shown(explain)}: it must be True or False")
    about = facts(shape, dtype, operator, direction, threads)
    return explained(about) if explain else choose(about)


def explained(about: Facts) -> Choice:
    """The choice with its reasons."""
    name = choose(about)
    able, left_out = sort_out(about)
    record = recorded(about)
    known = current(record, able) if record else {}
    if record is None or not any(one.median_us for one in known.values()):
        expected = [Ranked(n, rule.seconds(about, n)) for n in rule.ranked(about, able)]
        return Choice(name, "rule", tuple(expected), left_out, "", {}, about.key)
    ranking = []
    for candidate in able:
        one = known.get(candidate)
        if one is None:
            left_out[candidate] = CHANGED if candidate in record.candidates else NOT_MEASURED
        elif one.median_us is None:
            left_out[candidate] = one.note
        else:
            ranking.append(Ranked(candidate, one.seconds, one.measured, one.note))
    # Within the margin the rule's choice comes before one that is a little faster.
    ranking.sort(key=lambda place: (place.backend != name, place.seconds))
    left_out = {n: left_out[n] for n in REGISTRY if n in left_out}
    return Choice(name, "record", tuple(ranking), left_out, record.layer, machine(), about.key)
