"""A task: the unit in which a run goes on, is saved and is taken up again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.schema.results import Row
from bench.schema.workloads import Workload

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Task:
    """Something to do: what it is called, about how many seconds it takes, the work, and the workloads its rows name."""

    name: str
    seconds: float
    work: Callable[[Progress], list[Row]]
    workloads: tuple[Workload, ...] = ()
