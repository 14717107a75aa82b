"""The fit of the rule: it finds prices that are there, says how good it is of what it has not seen, and is written as read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pooling
from bench.analysis import fit
from bench.analysis.fit import Observation
from bench.analysis.fit_design import design
from bench.cli.app import app
from bench.figures.style import svg
from bench.files import ROOT
from bench.report import fit_report
from bench.report.fit_report import FitSection, describe_fit
from bench.schema.results import ResultsError, load
from pooling.tuning import rule
from pooling.tuning.candidates import sort_out
from pooling.tuning.layer import facts

MEASURED = ROOT / "reports" / "results"


def priced(name: str, call: float, byte: float, taps: float) -> dict[str, list[float]]:
    """These prices at every problem."""
    about = facts((4, 8, 16, 16), "float32", pooling.MaxPool(2), threads=1)
    return {rule.cases(about, name)[0]: [call, 0.0, 0.0, byte, 0.0, 0.0, taps, 0.0, 0.0, 0.0]}


def observations(prices: dict[str, list[float]]) -> list[Observation]:
    found = []
    for n in (1, 3, 10, 30, 100, 300):
        for kernel in (2, 3, 4):
            for size in (12, 16, 24):
                about = facts((n, 8, size, size), "float32", pooling.MaxPool(kernel), threads=1)
                given = {"prices": prices, "splits": {}, "floors": {}}
                times = {name: rule.seconds(about, name, given) or 0.0 for name in ("simd", "numba_loops")}
                found.append(Observation(about, times, "made up"))
    return found


def test_prices_that_are_there_are_found() -> None:
    prices = priced("simd", 40_000, 0.1, 0.5) | priced("numba_loops", 2000, 0.5, 2.0)
    seen = observations(prices)
    found = fit.fit(seen)
    for one in seen:
        for name, time in one.times.items():
            assert rule.seconds(one.facts, name, found) == pytest.approx(time, rel=0.02)
        # What is usually fastest gives way only where that is sure.
        doubtful = {name: time * (rule.SURE if name == "simd" else 1.0) for name, time in one.times.items()}
        assert rule.fastest(one.facts, list(one.times), found) == min(doubtful, key=doubtful.__getitem__)
    assert len({rule.fastest(one.facts, list(one.times), found) for one in seen}) == 2


def test_work_that_is_split_is_noticed() -> None:
    seen = observations(priced("simd", 10_000, 0.1, 0.5) | priced("numba_loops", 2000, 0.5, 2.0))
    twice = []
    for one in seen:
        faster = {name: time / 2 if one.facts.nbytes > 1 << 18 else time for name, time in one.times.items()}
        twice.append(replace(one, facts=replace(one.facts, threads=2), times=faster))
    splits = fit.fit([*seen, *twice])["splits"]
    assert splits == dict.fromkeys(("simd", "numba_loops"), 1 << 18)


def test_nothing_is_expected_to_take_less_than_it_ever_took() -> None:
    seen = observations(priced("simd", 10_000, 0.1, 0.5) | priced("numba_loops", 2000, 0.5, 2.0))
    found = fit.fit(seen)
    shortest = min(one.times["numba_loops"] for one in seen)
    assert found["floors"]["numba_loops"] == pytest.approx(shortest, rel=1e-3)
    unlike = found | {"prices": {case: [0.0] * len(prices) for case, prices in found["prices"].items()}}
    assert rule.seconds(seen[0].facts, "numba_loops", unlike) == found["floors"]["numba_loops"]


def test_it_is_judged_at_what_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = observations(priced("simd", 10_000, 0.1, 0.5) | priced("numba_loops", 2000, 0.5, 2.0))
    fitted: list[set[str]] = []
    original = fit.fit

    def noting(given: Iterable[Observation]) -> Any:
        rows = list(given)
        fitted.append({one.group for one in rows})
        return original(rows)

    monkeypatch.setattr(fit, "fit", noting)
    judged = fit.cross_validate(seen)
    assert len(judged) == len(seen)
    groups = {one.group for one in seen}
    assert all(groups - seen_then for seen_then in fitted), "each time some groups are left out"
    assert set.union(*(groups - seen_then for seen_then in fitted)) == groups
    assert all(one.over < 1 / rule.SURE for one in judged)
    lines = list(describe_fit(judged))
    assert lines[0].startswith(f"all: {len(seen)} problems")


def test_the_committed_rule_is_what_the_committed_measurements_give(tmp_path: Path) -> None:
    out = tmp_path / "rule.json"
    result = CliRunner().invoke(app, ["fit", "--no-measure", "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == str(out)
    assert {line.split(":")[0] for line in lines[:-1]} >= {"all", "training", "inference", "workloads", "design"}
    again, committed = (json.loads(path.read_text(encoding="utf-8")) for path in (out, Path(rule.PATH)))
    assert again["prices"].keys() == committed["prices"].keys(), "run python -m bench fit --no-measure"
    seen = [*fit.of_file(MEASURED / "rule.json"), *fit.of_results(load(MEASURED / "standard.json"))]
    assert again["fitted on"] == len(seen)
    for one in seen:
        able = list(one.times)
        assert rule.fastest(one.facts, able, again) == rule.fastest(one.facts, able, committed)


def test_the_page_says_how_good_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list(fit.of_results(load(MEASURED / "standard.json")))[:40]
    monkeypatch.setattr(fit_report, "of_results", lambda results: seen)
    monkeypatch.setattr(fit, "FOLDS", 2)
    section = FitSection.of(load(MEASURED / "standard.json"), Path("nowhere"))
    assert [group.name for group in section.groups][:3] == ["all", "training", "inference"]
    assert len(section.groups[0].judged) == len(seen)
    assert section.groups[0].worst.over >= section.groups[0].mean >= 1.0
    assert [one.over for one in section.lost] == sorted(
        (one.over for one in section.judged if one.over > 1), reverse=True
    )[:12]
    assert svg(section.picture()).startswith("<svg")


def test_a_run_gives_an_observation_for_each_direction_and_policy() -> None:
    seen = list(fit.of_results(load(MEASURED / "standard.json")))
    assert {one.facts.direction for one in seen} == {"training", "inference"}
    assert {one.facts.problem.ties for one in seen} >= {"first", "all"}
    for one in seen:
        assert set(one.times) <= set(sort_out(one.facts)[0])
        assert min(one.times.values()) > 0


def test_the_design_is_the_same_for_everybody() -> None:
    first, second = design(30), design(40)
    assert [(one.facts(), threads) for one, threads in first] == [(one.facts(), n) for one, n in second[:30]]
    found = [one.facts() for one, _ in design()]
    assert {one.dtype.name for one in found} == {"float16", "float32", "float64", "int8"}
    assert {one.problem.ties for one in found} == {"first", "last", "split", "all"}
    assert all(sort_out(one)[0] for one in found)


def test_measuring_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [(pooling.Layer((n, 2, 8, 8), "float16", pooling.MaxPool(2)), 1) for n in (1, 2, 3)]
    monkeypatch.setattr(fit, "design", lambda: small)
    monkeypatch.setattr(fit, "LAYER_S", 0.01)
    path = tmp_path / "rule.json"
    fit.measure_design(path, False, lambda done, of: None, count=2)
    first = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert len(first) == 2
    fit.measure_design(path, False, lambda done, of: None)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert (len(rows), rows[:2]) == (3, first)
    seen = list(fit.of_file(path))
    assert [one.facts for one in seen] == [layer.facts(1) for layer, _ in small]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ResultsError, match="--fresh"):
        list(fit.of_file(path))
