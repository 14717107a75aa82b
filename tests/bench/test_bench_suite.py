"""A run keeps what it has, goes on where it was, and never counts anything twice."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import bench.experiments.suite
from bench.experiments.suite import EFFORTS, Effort, Suite, Watch, lineup, plan
from bench.protocol.contenders import backends
from bench.protocol.measure import Patience
from bench.schema.environment import Source
from bench.schema.results import Bandwidth, Cost, LeftOut, ResultsError, Row, Timing, Training, Verdict, load
from bench.schema.task import Task
from bench.schema.workloads import PRESETS, Workload
from bench.training.data import Dataset, digits

TINY = Effort(
    Patience(0.01, math.inf, (2, 2)),
    Patience(0.01, math.inf, (2, 2)),
    1,
    64,
    ("question",),
    2,
    128,
    50,
    roof=(1 << 16,),
    beyond=False,
    kernels=(2, 3),
    starts=(1, 1),
)
ROWS = len(backends())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick preset on hardly any data."""
    whole = digits()
    data = Dataset("digits", "a few", whole.images[:128], whole.labels[:128], whole.test_images, whole.test_labels)
    monkeypatch.setattr("bench.training.data.load", lambda folder=None: data)
    monkeypatch.setitem(EFFORTS, "quick", TINY)
    monkeypatch.setattr(
        bench.experiments.suite, "of_preset", lambda preset: (Workload("a", "a test", (2, 3, 8, 8), 2),)
    )
    monkeypatch.setattr(bench.experiments.suite, "ladder", lambda preset: (Workload("b", "a test", (1, 2, 8, 8), 2),))
    monkeypatch.setattr(bench.experiments.suite, "source", lambda: Source("abc", False, "123"))


class Impatient(Watch):
    """Presses Ctrl-C when the task of this name begins, and keeps the names of all before."""

    def __init__(self, name: str = "") -> None:
        self.name, self.begun, self.parts = name, list[str](), list[float]()

    def begins(self, task: Task) -> None:
        if task.name == self.name:
            raise KeyboardInterrupt
        self.begun.append(task.name)

    def progresses(self, part: float) -> None:
        self.parts.append(part)


@pytest.mark.usefixtures("tiny")
def test_interrupted_run_goes_on_and_ends_complete(tmp_path: Path) -> None:
    path = tmp_path / "results" / "quick.json"
    first = plan("quick", path, 1)
    names = [task.name for task in first.tasks]
    assert [name.split()[0] for name in names] == (
        ["gradients", "conformance", "workloads", "roofline", "startup", "accuracy", "accuracy", "epoch"]
        + ["sizes", "kernels", "kernels", "prices", "prices"]
    )
    watch = Impatient(names[4])
    with pytest.raises(KeyboardInterrupt):
        first.run(watch)
    assert watch.begun == names[:4]
    assert list(load(path).finished) == names[:4]
    kept = load(path).rows

    second = plan("quick", path, 1)
    assert "Going on" in second.note
    assert f"4 of {len(names)} tasks are done" in second.note
    watch = Impatient()
    second.run(watch)
    assert watch.begun == names[4:]
    assert all(0 <= part <= 1 for part in watch.parts)
    done = load(path)
    assert done.complete
    assert done.rows[: len(kept)] == kept
    assert len(done.of(Timing, stage="workloads")) == 4 * ROWS
    assert len(done.of(Timing, stage="sizes")) == 2 * len(bench.experiments.suite.SIZED)
    assert not done.of(LeftOut)
    assert {cost.samples for cost in done.of(Cost)} == {1, 3}
    assert [row.kind for row in done.of(Bandwidth)] == ["read", "write", "copy"]
    assert len(done.of(Timing, stage="kernels")) == 8  # two sizes in two layouts, forward and whole steps
    assert {row.workload for row in done.of(Timing)} == set(done.workloads)
    assert {verdict.outcome for verdict in done.of(Verdict, exhibit=True)} == {"refused"}
    assert [(row.pool, len(row.accuracy), row.test_images) for row in done.of(Training, stage="accuracy")] == [
        ("max", 2, 50),
        ("avg", 2, 50),
    ]
    races = done.of(Training, stage="epoch")
    assert len(races) == ROWS - 1  # all but the reference
    assert len({tuple(row.losses) for row in races if row.ties == "first"}) == 1

    assert "complete" in plan("quick", path, 1).note


@pytest.mark.usefixtures("tiny")
def test_run_of_other_sources_or_threads_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "quick.json"
    with pytest.raises(KeyboardInterrupt):
        (suite := plan("quick", path, 1, only=["sizes", "workloads"])).run(Impatient(suite.tasks[1].name))
    assert len(plan("quick", path, 1, only=["sizes", "workloads"]).left) == 1
    assert len(plan("quick", path, 1, only=["sizes", "workloads"], fresh=True).left) == 2
    other = plan("quick", path, 2)
    assert other.left == other.tasks
    assert "had other threads, tasks: all is measured anew" in other.note
    monkeypatch.setattr(bench.experiments.suite, "source", lambda: Source("abc", False, "456"))
    assert "had other sources" in plan("quick", path, 1, only=["sizes", "workloads"]).note


@pytest.mark.usefixtures("tiny")
def test_unreadable_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "quick.json"
    path.write_text("{", encoding="utf-8")
    suite = plan("quick", path, 1)
    assert "is not JSON" in suite.note
    assert "quick.unreadable.json" in suite.note
    assert (tmp_path / "quick.unreadable.json").read_text(encoding="utf-8") == "{"
    assert suite.left == suite.tasks


@pytest.mark.usefixtures("tiny")
def test_only_takes_parts_of_names(tmp_path: Path) -> None:
    names = [task.name for task in plan("quick", tmp_path / "a.json", 1, only=["question max", "gradients"]).tasks]
    assert names == ["gradients", "accuracy question max"]
    with pytest.raises(
        ResultsError, match=r"only=nonsense: no task of preset quick.*gradients; conformance; workloads a-"
    ):
        plan("quick", tmp_path / "a.json", 1, only=["nonsense"])


@pytest.mark.usefixtures("tiny")
def test_reference_alone_has_no_epoch(tmp_path: Path) -> None:
    reference = [contender for contender in backends() if contender.name == "reference"]
    assert not any(
        t.name.startswith("epoch") for t in plan("quick", tmp_path / "a.json", 1, contenders=reference).tasks
    )


def test_task_that_fails_keeps_those_before(tmp_path: Path, tiny: None) -> None:
    def fail(progress: object) -> list[Row]:
        raise RuntimeError("out of luck")

    path = tmp_path / "quick.json"
    planned = plan("quick", path, 1, only=["workloads"])
    suite = Suite(planned.results, [*planned.tasks, Task("unlucky", 1.0, fail)], path)
    with pytest.raises(RuntimeError, match="out of luck"):
        suite.run(Watch())
    assert list(load(path).finished) == [planned.tasks[0].name]


@pytest.mark.parametrize("preset", PRESETS)
def test_names_of_tasks_are_unique_and_times_are_estimated(preset: str) -> None:
    zeros = np.zeros((60_000, 28, 28, 1), np.float32)
    data = Dataset("MNIST", "", zeros, np.zeros(60_000, np.int64), zeros[:10_000], np.zeros(10_000, np.int64))
    for taking_part, limits in (
        (backends(), {"quick": 120, "standard": 1000, "full": 5400}),
        (lineup(preset)[0], {"quick": 180, "standard": 1700, "full": 5400}),  # type: ignore[arg-type]
    ):
        tasks = list(bench.experiments.suite.tasks_of(preset, 2, taking_part, data))  # type: ignore[arg-type]
        assert len({task.name for task in tasks}) == len(tasks)
        assert all(task.seconds > 0 for task in tasks)
        assert sum(task.seconds for task in tasks) < limits[preset]


def test_lineup_leaves_out_who_compiles_too_long_with_a_reason() -> None:
    quick, absent = lineup("quick")
    full, missing = lineup("full")
    assert [contender.name for contender in quick[: len(backends())]] == [contender.name for contender in backends()]
    assert all(c.setup_s <= (EFFORTS["quick"].setup_s or 0) for c in quick if c.kind == "peer")
    late = {c.name for c in full} - {c.name for c in quick}
    assert late == absent.keys() - missing.keys()
    assert all("too long for preset quick" in absent[name] for name in late)
