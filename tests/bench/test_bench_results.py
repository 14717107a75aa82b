"""Results: written whole, read with suspicion."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.schema.environment import Machine, Source
from bench.schema.results import Entrant, LeftOut, Results, ResultsError, TieExample, Timing, Verdict, load, save
from bench.schema.workloads import WORKLOADS

MACHINE = Machine("a CPU", "x86_64", {"L1": 32768}, 2, 4, 4, 1 << 34, "Linux 6")
TIMING = Timing(
    stage="workloads",
    workload=WORKLOADS[0].id,
    direction="step",
    contender="simd",
    kind="backend",
    ties="first",
    threads=2,
    median_s=1e-3,
    q1_s=0.9e-3,
    q3_s=1.1e-3,
    fastest_s=0.8e-3,
    samples=9,
    calls=3,
    bytes_moved=4_000_000,
    reuses_outputs=True,
    proof="reference",
)


def results() -> Results:
    found = Results(
        preset="quick",
        threads=2,
        started="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        software={"numpy": "2.4"},
        source=Source("abc", False, "123"),
        dataset="MNIST",
        dataset_note="all of it",
        entrants=[Entrant("simd", "backend", "vectors", "first")],
        planned=["one", "two"],
    )
    found.add("one", 1.23456, [TIMING, LeftOut("sizes", "w", "reference", "so slow")], [WORKLOADS[0]])
    return found


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.json"
    saved = results()
    saved.rows += [Verdict("simd", "2×2", "right"), TieExample("first", "reference", 2, [[1]], [[1]], [[1]], [[1]])]
    save(saved, path)
    assert load(path) == saved
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    assert path.read_text(encoding="utf-8").count("\n") > len(saved.rows)


def test_tasks_are_added_whole() -> None:
    found = results()
    assert (found.finished, found.complete) == ({"one": 1.235}, False)
    assert found.of(Timing, stage="workloads", contender="simd") == [TIMING]
    assert found.of(Timing, contender="nobody") == []
    found.add("two", 1, [])
    assert found.complete


def damaged(name: str) -> str:
    if name == "no JSON":
        return "{"
    if name == "nested without end":
        return "[" * 100_000
    data = json.loads(json.dumps(asdict(results())))
    timing = data["rows"][0]
    if name == "older":
        data["schema"] = 0
    elif name == "schema of another kind":
        data["schema"] = True
    elif name == "no object":
        return "[]"
    elif name == "unknown field":
        data["colour"] = "red"
    elif name == "missing field":
        del data["machine"]
    elif name == "wrong type":
        timing["median_s"] = "soon"
    elif name == "a number in quotes":
        timing["median_s"] = "0.001"
    elif name == "before it began":
        timing["median_s"] = -0.001
    elif name == "unknown workload":
        timing["workload"] = "another"
    return json.dumps(data)


DAMAGES = (
    "no JSON",
    "nested without end",
    "older",
    "schema of another kind",
    "no object",
    "unknown field",
    "missing field",
    "wrong type",
    "a number in quotes",
    "before it began",
    "unknown workload",
)


@pytest.mark.parametrize("name", DAMAGES)
def test_what_can_not_be_trusted_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(damaged(name), encoding="utf-8")
    with pytest.raises(ResultsError, match=r"results\.json.*python -m bench report --fresh"):
        load(path)


def test_no_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"measure first: python -m bench report"):
        load(tmp_path / "results.json")


def test_runs_differ_in_what_numbers_depend_on() -> None:
    one, other = results(), results()
    other.started, other.rows, other.finished = "later", [], {}
    other.source = replace(one.source, commit="def")  # a commit that changes no file that matters
    assert one.differs_from(other) == []
    other.threads, other.machine, other.source = 1, replace(MACHINE, cpu="another"), Source("abc", True, "456")
    assert one.differs_from(other) == ["threads", "machine", "sources"]


def test_spread_marks_a_timing_as_unstable() -> None:
    assert not replace(TIMING, q1_s=0.95e-3, q3_s=1.05e-3).unstable
    assert replace(TIMING, q1_s=0.9e-3, q3_s=1.2e-3).unstable
    assert TIMING.gb_per_s == pytest.approx(4.0)
