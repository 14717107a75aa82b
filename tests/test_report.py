"""The page, its pictures and the README's numbers, from results small enough to measure here."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.contenders import backends
from bench.environment import machine, source, versions
from bench.gradients import tie_examples, verdicts
from bench.measure import Patience, measure
from bench.mnist.data import digits
from bench.mnist.train import Settings, race, train
from bench.report import milliseconds, update_readme, write
from bench.results import Results, Row, load, save
from bench.suite import training_row
from bench.workloads import Workload
from pooling.backend import Ties

WORKLOADS = (
    Workload("small", "a network", (2, 3, 8, 8), 2),
    Workload("overlapping", "a network", (2, 3, 9, 9), 3, 2, op="avg"),
)


def empty() -> Results:
    return Results(
        preset="quick",
        threads=1,
        started="2026-01-01T00:00:00+00:00",
        machine=machine(),
        software=versions(),
        source=source(),
        dataset="digits",
        dataset_note="not MNIST: digits",
        entrants=[contender.entrant() for contender in backends()],
        planned=["all"],
    )


@pytest.fixture(scope="module")
def results() -> Results:
    found = empty()
    rows: list[Row] = [*verdicts(1), *tie_examples()]
    for stage in ("workloads", "sizes"):
        for workload in WORKLOADS[: 2 if stage == "workloads" else 1]:
            rows += measure(workload, backends(), Patience(0.01, 10, (1, 1)), threads=1, stage=stage)
    data = digits()
    competing: tuple[tuple[str, Ties], ...] = (("simd", "first"), ("repeat_mask", "all"))
    settings = [Settings(backend=b, ties=t, images=64, epochs=1) for b, t in competing]
    rows += [training_row("epoch", s, data, 64, h) for s, h in zip(settings, race(settings, data), strict=True)]
    for pool in ("max", "avg"):
        one = Settings(pool=pool, images=64, epochs=1)
        rows.append(training_row("accuracy", one, data, 64, train(one, data)))
    found.add("all", 1.0, rows, WORKLOADS)
    return found


def test_the_page_holds_everything(results: Results, tmp_path: Path) -> None:
    page = write(results, tmp_path)
    text = page.read_text(encoding="utf-8")
    for picture in ("steps", "workloads", "sizes", "epochs", "accuracy"):
        ElementTree.parse(tmp_path / f"{picture}.svg")
    assert text.count("<svg") == 5
    assert "not MNIST: digits" in text
    assert "not complete" not in text
    for exhibit in ("Undivided mean", "Mask pays every tie", "Zero padding"):
        assert exhibit in text
    for name in ("strided_slices", "numba_loops", "simd"):
        assert name in text
    # Nothing is fetched: the only addresses are the names of XML's and SVG's vocabularies.
    assert all(word not in text for word in ("src=", "<link", "@import", "<script"))


def test_the_same_results_give_the_same_bytes(results: Results, tmp_path: Path) -> None:
    save(results, tmp_path / "results.json")
    first = write(results, tmp_path / "a")
    second = write(load(tmp_path / "results.json"), tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_an_interrupted_run_has_a_page_that_says_so(tmp_path: Path) -> None:
    text = write(empty(), tmp_path).read_text(encoding="utf-8")
    assert "This run is not complete" in text
    assert "Not measured yet" in text
    assert not list(tmp_path.glob("*.svg"))


def test_readme_numbers_stand_between_markers(results: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- answer -->\nold\n<!-- /answer -->\n<!-- table -->\n<!-- /table -->\nafter\n")
    update_readme(results, readme)
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("before\n<!-- answer -->\n")
    assert text.endswith("<!-- /table -->\nafter\n")
    assert text.count("| a network") == 2
    update_readme(results, readme)
    assert readme.read_text(encoding="utf-8") == text
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="answer"):
        update_readme(results, readme)


def test_numbers_for_people() -> None:
    assert [milliseconds(s) for s in (1.5, 0.1234, 0.00123456, 4.56e-6)] == ["1500", "123", "1.23", "0.00456"]
