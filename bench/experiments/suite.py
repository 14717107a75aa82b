"""A run: a list of tasks, each of which adds rows; the file is written after each, and an interrupted run goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Literal

import bench.training.data as mnist
import pooling
from bench import peers
from bench.experiments import roofline, startup
from bench.experiments.conformance import answers
from bench.experiments.exhibits import EXHIBITS
from bench.experiments.gradients import CASES, tie_examples, verdicts
from bench.experiments.studies import (
    KERNELS,
    PASSES,
    beyond_tasks,
    kernel_tasks,
    price_tasks,
    roofline_task,
    thread_tasks,
)
from bench.protocol.contenders import Contender, backends
from bench.protocol.measure import Patience, measure
from bench.schema.environment import machine, source, versions
from bench.schema.results import LayerTime, Results, ResultsError, Row, Stage, Training, load, save
from bench.schema.task import Progress, Task
from bench.schema.workloads import DIRECTIONS, Preset, Workload, ladder, of_preset
from bench.training.networks import PoolKind
from bench.training.train import History, Settings, race, train

STEP_S = 0.02
"""About how long a training step takes: for the time left alone."""

KEPT_LOSSES = 200
"""Losses that an accuracy run keeps: means over as many steps as make about this number."""


@dataclass(frozen=True)
class Effort:
    """What a preset spends.

    Parameters
    ----------
    patience, size_patience
        At each workload, and at each rung of the ladder.
    cases
        Columns of the gradient-check matrix.
    epoch_images
        Images on which each backend's epoch is timed.
    networks, epochs, images, test_images
        Of the accuracy runs; None is all images.
    roof
        Sizes at which bandwidth is measured.
    beyond
        Whether arrays that no cache holds are pooled, too.
    kernels
        Kernel sizes whose time is compared.
    setup_s
        A peer that needs longer to be set up, at each workload, does not take part; None is no limit.
    starts
        New processes for each import and first call, and how many of them compile.
    """

    patience: Patience
    size_patience: Patience
    cases: int | None
    epoch_images: int
    networks: tuple[str, ...]
    epochs: int
    images: int | None = None
    test_images: int | None = None
    roof: tuple[int, ...] = roofline.SIZES
    beyond: bool = True
    kernels: tuple[int, ...] = KERNELS
    setup_s: float | None = None
    starts: tuple[int, int] = (9, 3)


EFFORTS: dict[Preset, Effort] = {
    "quick": Effort(
        Patience(0.8, 0.2, (3, 15)),
        Patience(0.4, 0.2, (3, 9)),
        3,
        1280,
        ("lenet",),
        3,
        3200,
        2000,
        roof=roofline.SIZES[::3],
        beyond=False,
        kernels=(3, 7, 13, 31),
        setup_s=5.0,
        starts=(2, 1),
    ),
    "standard": Effort(Patience(4.0, 1.0), Patience(2.0, 0.5), None, 6400, ("lenet", "question"), 3),
    "full": Effort(Patience(20.0, 5.0), Patience(8.0, 2.0), None, 12_800, ("lenet", "question"), 10),
}

SIZED = ("block_reduce", "argmax_switches", "strided_reshape", "strided_slices", "numba_loops", "simd")
"""Backends whose time is shown against the size of the arrays."""


class Watch:
    """Who wants to know how a run goes on; this one doesn't."""

    def begins(self, task: Task) -> None:
        """A task begins."""

    def progresses(self, part: float) -> None:
        """So much of it is done, from 0 to 1."""

    def ended(self, task: Task, rows: list[Row]) -> None:
        """A task is done, and its rows are in the file."""


@dataclass
class Suite:
    """A planned run with what it has found so far; `note` tells what became of the file that was there before."""

    results: Results
    tasks: list[Task]
    path: Path
    note: str = ""

    @property
    def left(self) -> list[Task]:
        return [task for task in self.tasks if task.name not in self.results.finished]

    def run(self, watch: Watch) -> None:
        """Do what is left, saving after each task."""
        for task in self.left:
            watch.begins(task)
            start = perf_counter()
            rows = task.work(watch.progresses)
            self.results.add(task.name, perf_counter() - start, rows, task.workloads)
            self.results.updated = now()
            save(self.results, self.path)
            watch.ended(task, rows)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def lineup(preset: Preset) -> tuple[tuple[Contender, ...], dict[str, str]]:
    """Everybody who takes part, the backends first; and who might have, with the reason why not."""
    absent = dict(peers.missing())
    limit = EFFORTS[preset].setup_s
    taking_part = list(backends())
    for peer in peers.contenders():
        if limit is None or peer.setup_s <= limit:
            taking_part.append(peer)
        else:
            absent[peer.name] = f"compiling takes it about {peer.setup_s:g} s a workload, too long for preset {preset}"
    return tuple(taking_part), absent


def plan(
    preset: Preset,
    path: Path,
    threads: int,
    *,
    fresh: bool = False,
    contenders: Sequence[Contender] | None = None,
    absent: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    data_dir: Path | None = None,
) -> Suite:
    """The suite of a preset, going on with the run in `path` if that was interrupted and would measure the same.

    Parameters
    ----------
    fresh
        Begin anew whatever `path` holds.
    contenders
        Who takes part; by default every backend.
    absent
        Who else might have, and why not.
    only
        Parts of names: tasks whose name has none of them are left out. By default all tasks.

    Raises
    ------
    ResultsError
        No task has a name like those in `only`.
    PoolingError
        The images are too small for a network that is trained.
    """
    taking_part = tuple(backends() if contenders is None else contenders)
    dataset = mnist.load(data_dir)
    tasks = list(tasks_of(preset, threads, taking_part, dataset))
    if only:
        names = [task.name for task in tasks]
        tasks = [task for task in tasks if any(part in task.name for part in only)]
        if not tasks:
            raise ResultsError(f"only={', '.join(only)}: no task of preset {preset} is called so: {'; '.join(names)}")
    results = Results(
        preset=preset,
        threads=threads,
        started=now(),
        machine=machine(),
        software=versions() | (peers.versions() if any(c.kind == "peer" for c in taking_part) else {}),
        source=source(),
        dataset=dataset.name,
        dataset_note=dataset.note,
        entrants=[contender.entrant() for contender in taking_part],
        absent=dict(absent or {}),
        planned=[task.name for task in tasks],
    )
    if fresh or not path.exists():
        return Suite(results, tasks, path)
    try:
        before = load(path)
    except ResultsError as error:
        aside = path.with_suffix(".unreadable.json")
        path.replace(aside)
        return Suite(results, tasks, path, f"{error}\nIt is now {aside.name}; all is measured anew.")
    changed = results.differs_from(before)
    if changed:
        return Suite(results, tasks, path, f"The run in {path} had other {', '.join(changed)}: all is measured anew.")
    if before.complete:
        return Suite(results, tasks, path, f"The run in {path} is complete: all is measured anew.")
    suite = Suite(before, tasks, path)
    done = len(tasks) - len(suite.left)
    return replace(suite, note=f"Going on with the run of {before.started}: {done} of {len(tasks)} tasks are done.")


def tasks_of(preset: Preset, threads: int, contenders: tuple[Contender, ...], dataset: mnist.Dataset) -> Iterator[Task]:
    """All tasks of a preset, the quick and telling ones first."""
    effort = EFFORTS[preset]
    yield Task("gradients", 20, lambda progress: gradient_rows(effort.cases, progress))
    frameworks = any(contender.kind == "peer" for contender in contenders)
    yield Task("conformance", 25 if frameworks else 18, lambda progress: [*answers(frameworks)])
    workloads = of_preset(preset)
    for workload in workloads:
        yield timing_task("workloads", workload, contenders, effort.patience, threads)
    yield roofline_task(effort.roof, threads)
    yield startup_task(*effort.starts, threads)
    if effort.beyond:
        yield from beyond_tasks(contenders, machine(), effort.patience, threads)
    limit = effort.test_images
    tested = replace(dataset, test_images=dataset.test_images[:limit], test_labels=dataset.test_labels[:limit])
    kinds: tuple[PoolKind, ...] = ("max", "avg")
    for network in effort.networks:
        for pool in kinds:
            settings = Settings(network, pool, epochs=effort.epochs, images=effort.images, threads=threads)
            settings.check(dataset)  # now, and not when most is measured
            yield accuracy_task(settings, tested)
    racing = [
        Settings(backend=c.name, ties=c.ties, epochs=1, images=effort.epoch_images, threads=threads)
        for c in contenders
        if c.kind == "backend" and not c.reference_only
    ]
    if racing:
        racing[0].check(dataset)
        yield epoch_task(racing, dataset)
    sized = tuple(c for c in contenders if c.name in SIZED)
    for workload in ladder(preset):
        yield timing_task("sizes", workload, sized, effort.size_patience, threads)
    yield from thread_tasks(workloads, contenders, effort.size_patience, threads)
    yield from kernel_tasks(effort.kernels, contenders, effort.size_patience, threads)
    yield from price_tasks(contenders, effort.patience, threads)


def startup_task(rounds: int, cold_rounds: int, threads: int) -> Task:
    """Imports, first calls and the least call."""

    def work(progress: Progress) -> list[Row]:
        return [*startup.measure(threads=threads, rounds=rounds, cold_rounds=cold_rounds, progress=progress)]

    return Task("startup", 4 + 2.5 * rounds + 6 * cold_rounds, work)


def gradient_rows(cases: int | None, progress: Progress) -> list[Row]:
    rows: list[Row] = [*tie_examples()]
    expected = sum(len(b.ties) + ("avg" in b.ops) for b in pooling.REGISTRY.values()) * len(CASES[:cases]) + len(
        EXHIBITS
    )
    for i, row in enumerate(verdicts(cases), start=1):
        rows.append(row)
        progress(i / expected)
    return rows


def timing_task(
    stage: Stage, workload: Workload, contenders: tuple[Contender, ...], patience: Patience, threads: int
) -> Task:
    directions = DIRECTIONS if stage == "workloads" else PASSES

    def work(progress: Progress) -> list[Row]:
        return [
            *measure(
                workload, contenders, patience, threads=threads, stage=stage, directions=directions, progress=progress
            )
        ]

    setup_s = sum(contender.setup_s for contender in contenders if contender.kind == "peer")
    return Task(f"{stage} {workload.id}", patience.budget_s * 1.6 + 1 + setup_s, work, (workload,))


def accuracy_task(settings: Settings, dataset: mnist.Dataset) -> Task:
    """One network, trained and tested."""
    images = min(settings.images or len(dataset.images), len(dataset.images))
    steps = settings.epochs * -(-images // settings.batch_size)
    seconds = STEP_S * (steps + settings.epochs * len(dataset.test_images) / settings.batch_size / 2)

    def work(progress: Progress) -> list[Row]:
        history = train(settings, dataset, on_step=lambda step, loss: progress((step + 1) / steps))
        return [training_row("accuracy", settings, dataset, images, history)]

    return Task(f"accuracy {settings.network} {settings.pool}", seconds, work)


def epoch_task(settings: Sequence[Settings], dataset: mnist.Dataset) -> Task:
    """All backends side by side in the same network."""
    images = min(settings[0].images or len(dataset.images), len(dataset.images))
    steps = -(-images // settings[0].batch_size)

    def work(progress: Progress) -> list[Row]:
        histories = race(settings, dataset, on_step=lambda step, loss: progress((step + 1) / steps / len(settings)))
        pairs = zip(settings, histories, strict=True)
        return [training_row("epoch", one, dataset, images, history) for one, history in pairs]

    return Task("epoch of every backend", 1.5 * STEP_S * steps * len(settings) + 1, work)


def training_row(
    stage: Literal["epoch", "accuracy"], settings: Settings, dataset: mnist.Dataset, images: int, history: History
) -> Training:
    """A run as a row: every loss of a short run, means of those of a long one."""
    every = max(1, len(history.losses) // KEPT_LOSSES) if stage == "accuracy" else 1
    losses = [history.losses[i : i + every] for i in range(0, len(history.losses), every)]
    return Training(
        stage=stage,
        network=settings.network,
        pool=settings.pool,
        backend=settings.backend,
        ties=settings.ties if settings.pool == "max" else None,
        dataset=dataset.name,
        images=images,
        test_images=len(dataset.test_images),
        batch_size=settings.batch_size,
        seed=settings.seed,
        threads=settings.threads,
        seconds=[round(s, 4) for s in history.seconds],
        losses=[sum(part) / len(part) for part in losses],
        loss_every=every,
        accuracy=history.accuracy,
        layers=[LayerTime(*key, round(s, 5)) for key, s in history.stopwatch.seconds.items()],
    )
