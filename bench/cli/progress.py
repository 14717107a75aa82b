"""What a person sees of a run: a bar with the time left, and a line for each task that is done."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from bench.experiments.suite import Watch
from bench.schema.results import Bandwidth, LeftOut, Row, Timing, Training, Verdict
from bench.schema.task import Task
from bench.time_left import TimeLeft


class ProgressWatch(Watch):
    """A context in which a run's progress is shown on `console`; where that is no terminal, the lines alone."""

    def __init__(self, console: Console, tasks: list[Task]) -> None:
        self.console = console
        self.done = self.running = 0.0
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<52.52}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeLeft(),
        )
        self.progress = Progress(*columns, console=console, refresh_per_second=4, transient=True)
        self.bar = self.progress.add_task("", total=sum(task.seconds for task in tasks))

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def begins(self, task: Task) -> None:
        self.running = task.seconds
        self.progress.update(self.bar, description=task.name)

    def progresses(self, part: float) -> None:
        self.progress.update(self.bar, completed=self.done + part * self.running)

    def ended(self, task: Task, rows: list[Row]) -> None:
        self.done += self.running
        self.progress.update(self.bar, completed=self.done)
        self.console.print(f"  {task.name:<56} {in_short(rows)}", highlight=False, markup=False, soft_wrap=True)


def in_short(rows: list[Row]) -> str:
    """What a task has found, in a few words.

    Examples
    --------
    >>> in_short([Verdict("one", "2×2", "right"), Verdict("two", "2×2", "refused", exhibit=True)])
    '2 gradients checked, 1 refused'
    """
    timings = [row for row in rows if isinstance(row, Timing)]
    verdicts = [row for row in rows if isinstance(row, Verdict)]
    trainings = [row for row in rows if isinstance(row, Training)]
    if verdicts:
        refused = sum(row.outcome == "refused" for row in verdicts)
        return f"{len(verdicts)} gradients checked, {refused} refused"
    if trainings:
        best = min(trainings, key=lambda row: sum(row.seconds))
        ends = f", accuracy {best.accuracy[-1]:.2%}" if best.accuracy else f", with {best.backend}"
        return f"{sum(best.seconds):.1f} s for {len(best.seconds)} × {best.images} images{ends}"
    bandwidths = [row for row in rows if isinstance(row, Bandwidth)]
    if bandwidths and not timings:
        last = bandwidths[-1]
        return f"{last.kind} of {last.nbytes / 1e6:.3g} MB at {last.gb_per_s:.3g} GB/s"
    if timings:
        direction = timings[-1].direction  # a training step where that was timed
        found = sorted((row.median_s, row.contender) for row in timings if row.direction == direction)
        extremes = [found[0], found[-1]] if len(found) > 1 else found
        return ", ".join(f"{name} {median_s * 1e3:.3g} ms" for median_s, name in extremes)
    reasons = [row.reason for row in rows if isinstance(row, LeftOut)]
    return f"nobody was timed: {reasons[0]}" if reasons else "done"
