"""The study: rows that survive, runs that are done once, whoever does them."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.accuracy_study.answer import ladder, sentences, summary
from bench.accuracy_study.engine import Pool, local, perform
from bench.accuracy_study.page import write
from bench.accuracy_study.runs import Row, Run, runs
from bench.accuracy_study.statistics import Estimate, epochs_to, paired
from bench.accuracy_study.store import Store, read
from bench.cli.app import app
from bench.schema.results import ResultsError
from bench.training.train import Settings
from tests.digits_folder import folder

__all__ = ["folder"]  # a fixture


def run(seed: int, part: Any = "grid") -> Run:
    return Run(part, "question 2,2 avg", Settings("question", "avg", seed=seed, epochs=1, images=64, threads=1))


def row(label: str, seed: int, accuracy: list[float], part: Any = "grid", **changed: Any) -> Row:
    base = Row(
        f"{part} {label} {seed}", part, label, "question", "max", "first", seed, len(accuracy), 64, 0.03, 1, "MNIST",
        accuracy, [], [1.0], [1.0], False, "here", "process 1", "digest", "now",
    )  # fmt: skip
    return replace(base, **changed)


def at_once(do: Callable[[Run], Row]) -> Callable[[Run], Future[Row]]:
    """An executor that does everything when asked."""

    def submit(run: Run) -> Future[Row]:
        future: Future[Row] = Future()
        try:
            future.set_result(do(run))
        except Exception as error:
            future.set_exception(error)
        return future

    return submit


def row_of(run: Run) -> Row:
    return row(run.label, run.settings.seed, [0.9], key=run.key)


def test_every_run_has_a_name_of_its_own() -> None:
    everything = list(runs(("timing", "grid", "rates", "published"), 5, 10, None))
    assert len({one.key for one in everything}) == len(everything) == 2 + 5 * (20 + 10 + 7)
    assert all(one.cost > 0 for one in everything)


def test_a_study_goes_on_where_it_was_and_counts_nothing_twice(tmp_path: Path) -> None:
    path, wanted = tmp_path / "rows.jsonl", [run(seed) for seed in range(4)]
    done: list[str] = []

    def do(one: Run) -> Row:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(one.key)
        return row_of(one)

    with pytest.raises(KeyboardInterrupt), Store(path) as store:
        perform(wanted, store, Pool(at_once(do), 1))
    assert len(read(path)) == 2
    with path.open("a") as file:
        file.write('{"key": "half a li')  # the power fails in the middle of a row
    done.clear()
    with Store(path) as store:
        outcome = perform(wanted, store, Pool(at_once(do), 1))
        assert not store.add(row_of(wanted[0]))
    assert [one.seed for one in outcome.done] == [2, 3]
    assert [one.seed for one in read(path)] == [0, 1, 2, 3]


def test_a_crashed_run_is_repeated_and_in_the_end_given_up(tmp_path: Path) -> None:
    begun: list[int] = []

    def do(one: Run) -> Row:
        begun.append(one.settings.seed)
        if one.settings.seed == 1 or begun.count(0) == 1:
            raise RuntimeError("crashed")
        return row_of(one)

    with Store(tmp_path / "rows.jsonl") as store:
        outcome = perform([run(0), run(1)], store, Pool(at_once(do), 2))
    assert [one.seed for one in outcome.done] == [0]
    assert begun.count(1) == 3
    assert outcome.failed == {run(1).key: "RuntimeError: crashed"}


def test_after_the_budget_nothing_is_begun(tmp_path: Path) -> None:
    with Store(tmp_path / "rows.jsonl") as store:
        outcome = perform([run(0), run(1)], store, Pool(at_once(row_of), 1), budget_s=-1.0)
    assert (outcome.done, len(outcome.left)) == ([], 2)


def test_a_timing_run_is_alone(tmp_path: Path) -> None:
    wanted = [run(0), run(1, "timing"), run(2)]
    under_way: list[Run] = []
    seen: list[int] = []

    def submit(one: Run) -> Future[Row]:
        under_way.append(one)
        seen.append(len(under_way))
        assert one.part != "timing" or len(under_way) == 1
        assert one.part == "timing" or not [other for other in under_way if other.part == "timing"]
        future: Future[Row] = Future()

        def finish() -> None:
            under_way.remove(one)
            future.set_result(row_of(one))

        threading.Timer(0.02, finish).start()
        return future

    with Store(tmp_path / "rows.jsonl") as store:
        outcome = perform(wanted, store, Pool(submit, 3))
    assert len(outcome.done) == 3


def test_a_process_killed_in_the_middle_loses_nothing(tmp_path: Path, folder: Path) -> None:
    long = replace(run(0).settings, epochs=100_000)
    first = replace(run(0), settings=long)
    with Store(tmp_path / "rows.jsonl") as store, local(1, str(folder)) as pool:
        killed: list[int] = []

        def submit(one: Run) -> Future[Row]:
            if killed:
                return pool.submit(replace(one, settings=replace(one.settings, epochs=1)))
            future = pool.submit(one)

            def kill() -> None:
                import multiprocessing

                while not (children := multiprocessing.active_children()):
                    time.sleep(0.05)
                time.sleep(1.0)  # on an idle machine it trains by then; on a busy one it is killed before it does
                killed.extend(child.pid or 0 for child in children)
                for child in children:
                    child.kill()

            threading.Thread(target=kill, daemon=True).start()
            return future

        outcome = perform([first], store, Pool(submit, 1, pool.renew))
    assert killed
    assert len(outcome.done) == 1
    assert not outcome.failed


def test_a_second_study_may_not_write_to_the_same_rows(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "rows.jsonl"),
        pytest.raises(ResultsError, match="another study"),
        Store(tmp_path / "rows.jsonl"),
    ):
        pass


def test_a_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(asdict(row("a", 0, [0.9]))) + "\n" + '{"key": "b"}\n')
    with pytest.raises(ResultsError, match=r"line 2: part: .*done again"):
        read(path)


def test_intervals_and_pairs() -> None:
    estimate = Estimate.of([0.1, 0.2, 0.3, 0.4, 0.5])
    assert estimate.mean == pytest.approx(0.3)
    assert estimate.half == pytest.approx(2.776445 * math.sqrt(0.025 / 5), rel=1e-5)
    assert math.isnan(Estimate.of([1.0]).half)
    found = paired({0: 1.0, 1: 2.0, 7: 9.0}, {0: 0.5, 1: 1.5})
    assert found == Estimate(0.5, 0.0, 2)
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert epochs_to(row("a", 0, [0.96, 0.99]), 0.98) == pytest.approx(1 + 2 / 3)
    assert epochs_to(row("a", 0, [0.96]), 0.98) == math.inf


def test_it_answers_in_words(tmp_path: Path) -> None:
    rows = [
        row(f"lenet 2,2 {kind}", seed, [0.97, base + seed * 1e-4])
        for kind, base in (
            ("max first", 0.99),
            ("max split", 0.99),
            ("max all", 0.985),
            ("avg", 0.98),
            ("undivided", 0.97),
        )
        for seed in range(5)
    ]
    rows += [row("one convolution, max", s, [0.9, 0.9878], "published", held_out=[0.8, 0.9]) for s in range(2)]
    text = "\n".join(sentences(rows))
    assert "lenet, 2×2 windows, stride 2: Max pooling beats mean pooling: +1.00 ± 0.00 points" in text
    assert "The mask's tie bug costs accuracy: -0.50" in text
    assert "it is not clear that splitting ties" in text
    assert "The undivided mean gradient does worse: -1.00" in text
    assert "Nielsen, one convolution: he reports 98.78%, here 98.78" in text
    assert summary(rows, "lenet 2,2 avg").accuracy.n == 5
    assert [rung.off for rung in ladder(rows)][1] == pytest.approx(0, abs=1e-9)
    page = write(rows, tmp_path).read_text(encoding="utf-8")
    assert "<svg" in page
    assert "98.78" in page


def test_the_command(tmp_path: Path, folder: Path) -> None:
    command = [
        "study",
        "--out",
        str(tmp_path / "out"),
        "--part",
        "published",
        "--seeds",
        "1",
        "--published-epochs",
        "1",
    ]
    command += ["--images", "20", "--workers", "1", "--data-dir", str(folder)]
    done = CliRunner().invoke(app, [*command, "--budget-minutes", "0"])
    assert done.exit_code == 0, done.output
    assert "7 runs are left" in done.output
    wrong = CliRunner().invoke(app, ["study", "--part", "nothing", "--data-dir", str(folder)])
    assert wrong.exit_code == 2
    assert "choose of timing, grid" in wrong.output
