"""What has been measured, as data: records, and the file that holds them.

A file holds the records of any number of machines (each with its versions), so that one home folder may serve them all.
It is JSON to be read by people too: every candidate with its times, its state, and when it was measured.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pooling.errors import PoolingError, shown

PROGRAM = "pooling wisdom"
SCHEMA = 1
"""Raised whenever records of the old kind could be misread."""

LEAST_US, MOST_US = 1e-6, 1e15
"""Microseconds that a call may have taken: a thousandth of the least that is measured, and thirty years."""

MOST_SAMPLES = 1 << 53

DIGITS = 18
"""Digits of an integer that is read as one: whatever is longer is refused in any case, and Python spells out 4,300 at most."""

MARGIN = 1.05
"""How many times as fast as the rule's choice another backend has to be: less may be chance, and chance changes its mind."""


class WisdomError(PoolingError):
    """A file does not hold what it should; the message says what is wrong."""


@dataclass(frozen=True)
class Measured:
    """What came of one candidate.

    Parameters
    ----------
    source
        Digest of the source that was measured.
    measured
        When, in ISO format.
    median_us, low_us, high_us
        Microseconds a call: the median and the quartiles.
    samples
        How many there were.
    note
        Why it was stopped early, or refused: then it has no times.
    """

    source: str
    measured: str
    median_us: float | None = None
    low_us: float | None = None
    high_us: float | None = None
    samples: int = 0
    note: str = ""

    @property
    def seconds(self) -> float:
        """The median; infinite for a candidate that was refused."""
        return math.inf if self.median_us is None else 1e-6 * self.median_us


@dataclass(frozen=True)
class Record:
    """All candidates of one key, which of them is the choice, and the layer that they were measured on."""

    choice: str
    layer: str
    candidates: Mapping[str, Measured]


def chosen(candidates: Mapping[str, Measured], rule: str | None) -> str | None:
    """The fastest of the candidates, but the rule's choice where that is as fast within the margin; None if all are refused."""
    timed = {name: one for name, one in candidates.items() if one.median_us is not None}
    if not timed:
        return None
    best = min(timed, key=lambda name: timed[name].seconds)
    usual = timed.get(rule or "")
    if usual is None or rule is None:
        return best
    winner = timed[best]
    faster = winner.seconds * MARGIN < usual.seconds and (winner.high_us or 0) < (usual.median_us or 0)
    return best if faster else rule


@dataclass
class Wisdom:
    """Everything a file holds: machines by their name, and by machine the records by their key."""

    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    records: dict[str, dict[str, Record]] = field(default_factory=dict)

    def add(self, other: Wisdom) -> None:
        """Take in what `other` holds. Of a candidate that both have measured, the later measurement stays."""
        self.machines |= other.machines
        for name, records in other.records.items():
            mine = self.records.setdefault(name, {})
            for key, record in records.items():
                mine[key] = joined(mine[key], record) if key in mine else record

    @property
    def count(self) -> int:
        return sum(map(len, self.records.values()))


def joined(old: Record, new: Record) -> Record:
    """One record of two. The newer choice stays, unless what it was chosen from has become more."""
    candidates = dict(old.candidates)
    for name, one in new.candidates.items():
        if name not in candidates or candidates[name].measured <= one.measured:
            candidates[name] = one
    if candidates == dict(new.candidates):
        return new
    if candidates == dict(old.candidates):  # every measurement is known already, or newer
        return old
    choice = chosen(candidates, new.choice) or new.choice
    return replace(new, choice=choice, candidates=candidates)


def to_text(wisdom: Wisdom) -> str:
    """A file's text."""
    import json

    data = {
        "program": PROGRAM,
        "schema": SCHEMA,
        "machines": wisdom.machines,
        "records": {
            name: {key: _record_data(records[key]) for key in sorted(records)}
            for name, records in wisdom.records.items()
        },
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _record_data(record: Record) -> dict[str, Any]:
    candidates = {
        name: {key: value for key, value in asdict(one).items() if value not in (None, "", 0)}
        for name, one in record.candidates.items()
    }
    return {"choice": record.choice, "layer": record.layer, "candidates": candidates}


class Records(Mapping[str, Record]):
    """Records that are looked at when they are asked for: to look at all of them takes longer than to read a file."""

    def __init__(self, raw: Mapping[str, Any] | None = None) -> None:
        self._raw = dict(raw or {})

    def __getitem__(self, key: str) -> Record:
        value = self._raw[key]
        if not isinstance(value, Record):
            value = self._raw[key] = _record(value, key)  # WisdomError if it is not sound
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def sound(self) -> dict[str, Record]:
        """Those that are."""
        found = {}
        for key in self:
            with contextlib.suppress(WisdomError):
                found[key] = self[key]
        return found


def from_text(text: str) -> Wisdom:
    """What a file's text means.

    Raises
    ------
    WisdomError
        It is no JSON, no wisdom, of another schema, or something in it is not what it has to be.
    """
    wisdom, refused = sift(text)
    for where, reason in refused.items():
        raise WisdomError(f"{where}: {reason}")
    return wisdom


def sift(text: str) -> tuple[Wisdom, dict[str, str]]:
    """The records in a file's text that are sound, and by key the reasons why others are not.

    Raises
    ------
    WisdomError
        It is no wisdom at all.
    """
    machines, records = raw(text)
    wisdom, refused = Wisdom(), {}
    for name, facts in machines.items():
        if (
            _readable(name)
            and isinstance(facts, dict)
            and all(_readable(one) for fact in facts.items() for one in fact)
        ):
            wisdom.machines[name] = facts
    for name, of_machine in records.items():
        for key, value in of_machine.items():
            try:
                if name not in wisdom.machines:
                    raise WisdomError(f"nothing is said of its machine {shown(name)}")
                record = _record(value, key)
                wisdom.records.setdefault(name, {})[key] = record
            except WisdomError as error:
                refused[key if _readable(key) else shown(key)] = str(error)
    return wisdom, refused


def raw(text: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Machines and records in a file's text, looked at no closer; WisdomError when it is no wisdom at all."""
    import json

    try:
        data = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise WisdomError(f"it is not JSON ({error})") from None
    if not isinstance(data, dict) or data.get("program") != PROGRAM:
        raise WisdomError("it is not the wisdom of this library")
    if data.get("schema") != SCHEMA or isinstance(data.get("schema"), bool):
        raise WisdomError(f"its schema is {shown(data.get('schema'))}, this version of the library reads {SCHEMA}")
    machines, records = data.get("machines", {}), data.get("records", {})
    if not _table(machines, dict) or not _table(records, dict):
        raise WisdomError("machines or records are not tables")
    return machines, records


def _integer(digits: str) -> float:
    """An integer in a file; one that is too long for anything here as a float, infinite perhaps."""
    return int(digits) if len(digits) <= DIGITS else float(digits)


def _table(value: Any, entry: type) -> bool:
    return isinstance(value, dict) and all(isinstance(one, entry) for one in value.values())


def _readable(value: Any) -> bool:
    """Whether it is text that can be shown: no control characters, which would reach the terminal, and no half characters."""
    return isinstance(value, str) and value.isprintable()


def _record(value: Any, key: str) -> Record:
    if not _readable(key):
        raise WisdomError("its key is no readable text")
    if not isinstance(value, dict) or set(value) != {"choice", "layer", "candidates"}:
        raise WisdomError("a record has the entries choice, layer and candidates")
    for what in ("choice", "layer"):
        if not _readable(value[what]):
            raise WisdomError(f"{what} is {shown(value[what])}, no readable text")
    if not _table(value["candidates"], dict):
        raise WisdomError("candidates is a table of tables")
    candidates = {name: _measured(name, one) for name, one in value["candidates"].items()}
    if value["choice"] not in candidates or candidates[value["choice"]].median_us is None:
        raise WisdomError(f"its choice {shown(value['choice'])} has no time")
    return Record(value["choice"], value["layer"], candidates)


def _measured(name: str, value: dict[str, Any]) -> Measured:
    known = {f.name for f in fields(Measured)}
    if not _readable(name):
        raise WisdomError(f"{shown(name)} is no candidate's name")
    if not {"source", "measured"} <= set(value) <= known:
        raise WisdomError(f"{shown(name)} has the entries {shown(list(value))}")
    for what, entry in value.items():
        if not _sound(what, entry):
            raise WisdomError(f"{shown(name)}: {what} is {shown(entry)}")
    if ("median_us" in value) != ("low_us" in value) or ("median_us" in value) != ("high_us" in value):
        raise WisdomError(f"{shown(name)} has some of its times, but not all")
    return Measured(**value)


def _sound(what: str, entry: Any) -> bool:
    """Whether an entry of a candidate can be what its name says."""
    if what in ("source", "measured", "note"):
        return _readable(entry)
    if what == "samples":
        return type(entry) is int and 1 <= entry <= MOST_SAMPLES
    return type(entry) in (int, float) and LEAST_US <= entry <= MOST_US  # NaN is not
