"""``python -m bench study``: does the runs that have no row yet, shows how far it is, and says what came of it."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.accuracy_study.answer import sentences
from bench.accuracy_study.engine import Outcome, cluster, local, perform
from bench.accuracy_study.page import write
from bench.accuracy_study.runs import Part, Row, Run, runs
from bench.accuracy_study.store import Store, read
from bench.accuracy_study.work import dataset
from bench.schema.results import ResultsError
from bench.time_left import TimeLeft
from bench.training.data import named

PARTS: tuple[Part, ...] = ("timing", "grid", "rates", "published")


def rows_path(out: Path) -> Path:
    """Where a study's rows are kept."""
    return out / "results" / "study.jsonl"


def planned(parts: tuple[str, ...], seeds: int, epochs: int, images: int | None, published_epochs: int) -> list[Run]:
    """The runs of some parts.

    Raises
    ------
    ResultsError
        There is no such part.
    """
    for part in parts:
        if part not in PARTS:
            raise ResultsError(f"--part {part}: choose of {', '.join(PARTS)}")
    chosen: tuple[Part, ...] = tuple(part for part in PARTS if not parts or part in parts)
    return list(runs(chosen, seeds, epochs, images, published_epochs))


def study(
    console: Console,
    out: Path,
    wanted: list[Run],
    *,
    data_dir: Path | None,
    scheduler: str | None,
    workers: int | None,
    budget_minutes: float | None,
) -> Outcome:
    """Do what is left of `wanted`, and write the page.

    Raises
    ------
    ResultsError
        The rows are another study's, or of another data set.
    PoolingError
        The data do not do for one of the runs.
    """
    chosen = named(data_dir) if data_dir else None
    folder = str(chosen) if chosen else None
    data = dataset(folder)
    name = data.name
    for run in wanted:  # before the first of many trainings, not in it
        run.settings.check(data)
    with Store(rows_path(out)) as store:
        others = {row.dataset for row in store.rows.values()} - {name}
        if others:
            raise ResultsError(f"{store.path} has rows of {', '.join(others)}, not of {name}: choose another --out")
        left = [run for run in wanted if run.key not in store.rows]
        costs = {run.key: run.cost for run in left}
        console.print(
            f"{name}: {len(wanted) - len(left)} of {len(wanted)} runs have their rows in {store.path}; {len(left)} to do",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        columns = (TextColumn("{task.description:<40.40}"), BarColumn(24), MofNCompleteColumn(), TimeLeft())
        pool_of = cluster(scheduler, folder) if scheduler else local(workers or _cores(), folder)
        with Progress(*columns, console=console, transient=True) as bar, pool_of as pool:
            task = bar.add_task("", total=len(left), cost=sum(costs.values()), cost_done=0.0)
            spent = 0.0

            def on_row(row: Row) -> None:
                nonlocal spent
                spent += costs[row.key]
                bar.update(task, advance=1, cost_done=spent, description=row.label)
                end = "diverged" if row.diverged else f"{row.chosen:.2%}"
                text = f"{row.key:<64} {end} in {sum(row.seconds):.0f} s on {row.host}"
                console.print(text, highlight=False, markup=False, soft_wrap=True)

            budget = None if budget_minutes is None else 60 * budget_minutes
            outcome = perform(left, store, pool, budget_s=budget, on_row=on_row)
    show(console, out)
    return outcome


def show(console: Console, out: Path) -> Path:
    """Print the answers that the rows give, and write the page; its path."""
    rows = read(rows_path(out))
    for sentence in sentences(rows):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return write(rows, out)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
