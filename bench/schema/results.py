"""What a run found: rows of plain data, in a JSON file that everything shown is drawn from.

A run is a list of tasks. The rows of a task are added, and the file written, when the task is done, so that an interrupted
run has kept whole tasks and knows which. The file is written atomically, one row a line, and checked when it is read.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bench.files import write_atomically
from bench.schema.environment import Machine, Source
from bench.schema.workloads import Direction, Preset, Workload

SCHEMA = 1
"""Raised whenever a file of the old kind could be misread."""

UNSTABLE = 0.10
"""Relative standard deviation above which a timing is marked as unstable."""

NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""

Kind = Literal["backend", "peer"]
Stage = Literal["workloads", "sizes", "threads", "kernels", "prices", "beyond"]
BandwidthKind = Literal["read", "write", "copy"]
Positive = Annotated[float, Field(ge=1e-15, le=1e15)]
Count = Annotated[int, Field(ge=0)]

DIGITS = 18
"""Digits of the longest integer in a results file: so many bytes no machine moves."""


class ResultsError(ValueError):
    """A results file can't be read; the message names the file, what is wrong and the remedy."""


@dataclass(frozen=True)
class Timing:
    """One contender, timed at one direction of one workload.

    Parameters
    ----------
    stage
        Which part of the run measured it.
    workload
        Id of a workload in :attr:`Results.workloads`, which tells op, shape, window, layout and dtype.
    direction
        "forward" (inference), "forward_train", "backward" or "step" (the last two).
    contender, kind
        Who, and whether it is a backend of this library or a peer.
    ties
        The tie policy it was timed with; None for averages.
    threads
        Threads it was allowed.
    median_s, q1_s, q3_s, fastest_s
        Of the samples, seconds a call.
    samples, calls
        How many samples, and calls in each.
    bytes_moved
        Bytes of the arrays read and written, each once.
    reuses_outputs
        Whether results were written to arrays that exist (``out=``); otherwise the time includes new ones.
    proof
        What its results were compared with before it was timed.
    """

    stage: Stage
    workload: str
    direction: Direction
    contender: str
    kind: Kind
    ties: str | None
    threads: Count
    median_s: Positive
    q1_s: Positive
    q3_s: Positive
    fastest_s: Positive
    samples: Count
    calls: Count
    bytes_moved: Count
    reuses_outputs: bool
    proof: str
    row: Literal["timing"] = "timing"

    @property
    def unstable(self) -> bool:
        """Whether the spread says that the median may be off by a tenth."""
        return (self.q3_s - self.q1_s) / NORMAL_IQR > UNSTABLE * self.median_s

    @property
    def gb_per_s(self) -> float:
        return self.bytes_moved / self.median_s / 1e9


@dataclass(frozen=True)
class LeftOut:
    """A contender that was not timed at a workload, and why. `wrong`: because its results were."""

    stage: Stage
    workload: str
    contender: str
    reason: str
    wrong: bool = False
    row: Literal["left_out"] = "left_out"


@dataclass(frozen=True)
class Verdict:
    """What :func:`pooling.gradcheck` said to a gradient.

    `case` is the column of the matrix. Exhibits are the known mistakes, which it has to refuse; `message` is what it said, or
    why a backend does not offer the case.
    """

    subject: str
    case: str
    outcome: Literal["right", "refused", "not offered"]
    message: str = ""
    exhibit: bool = False
    explanation: str = ""
    row: Literal["verdict"] = "verdict"


@dataclass(frozen=True)
class TieExample:
    """A policy's gradient on an input small enough to look at."""

    ties: str
    backend: str
    kernel_size: int
    x: list[list[float]]
    y: list[list[float]]
    dy: list[list[float]]
    dx: list[list[float]]
    row: Literal["ties"] = "ties"


@dataclass(frozen=True)
class Answer:
    """What one system says to one question of the conformance table.

    `outcome` tells whether that is what `reference` says; `text` is the answer, or why there is none.
    """

    question: str
    setting: str
    asked: Literal["y", "indices", "dx"]
    subject: str
    kind: Kind
    outcome: Literal["same", "differs", "refused", "not offered"]
    text: str
    row: Literal["answer"] = "answer"


@dataclass(frozen=True)
class LayerTime:
    """Seconds that one layer took in one direction during a training."""

    layer: str
    direction: str
    seconds: float


@dataclass(frozen=True)
class Training:
    """One training run.

    `stage` is "epoch" (how long does it take with each backend, on `images` of them) or "accuracy" (what comes of it).
    `seconds` is per epoch, evaluation excluded; `layers` adds up over the run. Of the losses, one a step,
    an accuracy run keeps means over `loss_every` steps.
    """

    stage: Literal["epoch", "accuracy"]
    network: str
    pool: str
    backend: str
    ties: str | None
    dataset: str
    images: int
    test_images: int
    batch_size: int
    seed: int
    threads: int
    seconds: list[float]
    losses: list[float]
    loss_every: int
    accuracy: list[float]
    layers: list[LayerTime]
    row: Literal["training"] = "training"


@dataclass(frozen=True)
class Bandwidth:
    """What this machine's memory can do with arrays of one size.

    Parameters
    ----------
    kind, nbytes
        What was done, to how many bytes; a copy reads half of them and writes the other half.
    threads
        On how many at once.
    gb_per_s
        Of the fastest way to do it.
    way
        Which that was.
    workload
        In turns with whose passes it was measured; none, alone.
    """

    stage: Literal["roofline", "beyond"]
    kind: BandwidthKind
    nbytes: Annotated[int, Field(gt=0)]
    threads: Count
    gb_per_s: Positive
    way: str
    workload: str = ""
    row: Literal["bandwidth"] = "bandwidth"


@dataclass(frozen=True)
class Cost:
    """Seconds that something around the kernels takes, an import or a first call: the median of `samples`, with quartiles."""

    stage: Literal["startup"]
    what: str
    median_s: Positive
    q1_s: Positive
    q3_s: Positive
    samples: Count
    row: Literal["cost"] = "cost"


Row = Timing | LeftOut | Verdict | TieExample | Answer | Training | Bandwidth | Cost
AnyRow = TypeVar("AnyRow", Timing, LeftOut, Verdict, TieExample, Answer, Training, Bandwidth, Cost)


@dataclass(frozen=True)
class Entrant:
    """Who took part, in the order of the registry."""

    name: str
    kind: Kind
    note: str
    ties: str
    reference_only: bool = False


@dataclass(kw_only=True)
class Results:
    """All of a run: on what, of what, and the rows of the tasks finished so far, out of those planned.

    `absent` names those who might have taken part and did not, each with the reason.
    """

    schema: int = SCHEMA
    preset: Preset
    threads: int
    started: str
    updated: str = ""
    machine: Machine
    software: dict[str, str]
    source: Source
    dataset: str
    dataset_note: str
    entrants: list[Entrant]
    absent: dict[str, str] = field(default_factory=dict)
    planned: list[str]
    finished: dict[str, float] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    rows: list[Annotated[Row, Field(discriminator="row")]] = field(default_factory=list)

    __pydantic_config__ = ConfigDict(extra="forbid")

    def of(self, kind: type[AnyRow], /, **equal: Any) -> list[AnyRow]:
        """The rows of one kind whose fields have these values."""
        return [row for row in self.rows if isinstance(row, kind) and _matches(row, equal)]

    def add(self, task: str, seconds: float, rows: Iterable[Row], workloads: Iterable[Workload] = ()) -> None:
        """Take in a finished task."""
        self.rows.extend(rows)
        self.workloads.update({workload.id: workload for workload in workloads})
        self.finished[task] = round(seconds, 3)

    @property
    def complete(self) -> bool:
        return all(task in self.finished for task in self.planned)

    def differs_from(self, other: Results) -> list[str]:
        """In what the two runs differ of all that their numbers depend on; one may go on with the other if in nothing."""
        mine, its = self._circumstances(), other._circumstances()
        return [what for what in mine if mine[what] != its[what]]

    def _circumstances(self) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "threads": self.threads,
            "machine": self.machine,
            "versions": self.software,
            "sources": self.source.digest,
            "data": self.dataset,
            "entrants": self.entrants,
            "tasks": self.planned,
        }


_ADAPTER = TypeAdapter(Results)


def _matches(row: Row, equal: dict[str, Any]) -> bool:
    return all(getattr(row, name) == value for name, value in equal.items())


def save(results: Results, path: Path) -> None:
    """Write `results` to `path`, at once or not at all."""
    write_atomically(path, "".join(_lines(_ADAPTER.dump_python(results, mode="json"))))


def _lines(data: dict[str, Any]) -> Iterator[str]:
    """JSON with a line to each row and to each workload: small, and readable in a diff."""
    yield "{\n"
    for name, value in data.items():
        end = "\n" if name == "rows" else ",\n"
        if name in ("rows", "entrants"):
            yield f'"{name}": [\n' + ",\n".join(map(_compact, value)) + f"\n]{end}"
        elif name == "workloads":
            yield (
                f'"{name}": {{\n'
                + ",\n".join(f"{json.dumps(k)}: {_compact(v)}" for k, v in value.items())
                + f"\n}}{end}"
            )
        else:
            yield f'"{name}": {_compact(value)}{end}'
    yield "}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _integer(digits: str) -> int:
    """An integer in a file; ValueError for one that nothing in a run can count, whose float would be infinite perhaps."""
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits is out of range")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def load(path: Path) -> Results:
    """Read and check a results file.

    Raises
    ------
    ResultsError
        The file is missing, no JSON, of another schema, or has a field that is missing, unknown, of another type or out of range.
    """
    again = "measure again: python -m bench report --fresh"
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}; measure first: python -m bench report") from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is not JSON that can hold results ({error}); {again}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema is True or schema != SCHEMA:
        raise ResultsError(f"{path} has schema {reprlib.repr(schema)}, this version reads {SCHEMA}; {again}")
    try:
        results = _ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultsError(f"{path}: {where}: {first['msg']} (and {error.error_count() - 1} more); {again}") from None
    for i, row in enumerate(results.rows):
        workload = row.workload if isinstance(row, Timing | Bandwidth) else ""
        if workload and workload not in results.workloads:
            raise ResultsError(f"{path}: rows.{i}: of a workload {workload!r} that is not among the workloads; {again}")
    return results
