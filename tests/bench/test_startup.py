"""Imports and first calls: what they load, what a process of its own reports, and the arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.experiments import startup
from bench.schema.results import Cost
from tests.bench.test_versus import found


def cost(what: str, seconds: float) -> Cost:
    return Cost("startup", what, seconds, seconds, seconds, 3)


def test_a_statement_is_timed_in_its_own_process(tmp_path: Path) -> None:
    seconds = startup.seconds_of("import time; time.sleep(0.25)", str(tmp_path))
    assert seconds >= 0.25


def test_scipy_can_be_kept_away(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)failed at 'import scipy'.*scipy halted"):
        startup.seconds_of("import scipy", str(tmp_path), scipy=False)
    assert startup.seconds_of("import scipy", str(tmp_path)) > 0


def test_every_cost_that_an_aim_names_is_measured() -> None:
    rows = startup.measure(threads=1, rounds=1, cold_rounds=1)
    assert [outcome.aim for outcome in startup.outcomes(found(rows))] == [*startup.AIMS]
    assert all(row.median_s > 0 for row in rows)


def test_a_first_call_compiles_unless_it_was_compiled_before(tmp_path: Path) -> None:
    startup.seconds_of("import pooling; pooling.MaxPool", str(tmp_path))
    assert not [*tmp_path.rglob("*.nbc")]
    kept: list[list[Path]] = []
    for _ in range(2):
        startup.seconds_of(startup.FIRST_CALL, str(tmp_path))
        kept.append(sorted(tmp_path.rglob("*.nbc")))
    assert kept[0]
    assert kept[0] == kept[1]


def test_what_aims_at_nothing_is_neither_met_nor_missed() -> None:
    (outcome,) = startup.outcomes(found([cost("import numpy", 0.1), cost("pooling.MaxPool", 0.25)]))
    assert outcome.met is None
    assert outcome.text(outcome.reached) == "2.50×"


@pytest.mark.parametrize(("first", "met"), [(0.85, True), (1.0, False)])
def test_what_is_more_is_a_difference(first: float, met: bool) -> None:
    rows = [cost("import numba", 0.4), cost("first call, compiled before", first)]
    (outcome,) = startup.outcomes(found(rows))
    assert outcome.reached == pytest.approx(first - 0.4)
    assert outcome.met == met


def test_calls_are_told_in_microseconds() -> None:
    rows = [cost("call of simd", 1e-5), cost("call of auto", 1.6e-5)]
    simd, auto = startup.outcomes(found(rows))
    assert (simd.met, auto.met) == (True, False)
    assert simd.text(simd.reached) == "10.0 µs"
    assert auto.text(auto.reached) == "6.0 µs"
