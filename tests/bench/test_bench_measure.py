"""Timing: what is wrong gets no time, what is slow is left out with a reason, and all others take turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import pooling
from bench.protocol.contenders import Arrays, Calls, Contender, backends, of_backend
from bench.protocol.measure import (
    PARTS,
    Patience,
    WrongResult,
    compare,
    estimate_s,
    measure,
    measure_together,
    pinned,
    take_turns,
)
from bench.schema.results import LeftOut, Timing
from bench.schema.workloads import DIRECTIONS, Workload
from pooling.parallel.pool import chosen_threads

WORKLOAD = Workload("tiny", "a test", (4, 8, 8, 8), 2)
BRIEF = Patience(budget_s=0.02, limit_s=math.inf, rounds=(2, 3))
GOOD = of_backend(pooling.get_backend("strided_slices"))


def spoiled(spoil: Callable[[Arrays], None]) -> Contender:
    """A contender whose every call ends with a mistake."""

    def bind(workload: Workload, arrays: Arrays) -> Calls:
        def then_spoil(call: Callable[[], object]) -> Callable[[], object]:
            def both() -> None:
                call()
                spoil(arrays)

            return both

        return {direction: then_spoil(call) for direction, call in GOOD.bind(workload, arrays).items()}

    return replace(GOOD, name="spoiled", bind=bind)


def spoil_y(arrays: Arrays) -> None:
    arrays.y[0, 1, 2, 3] += 1


def spoil_dx(arrays: Arrays) -> None:
    arrays.dx[1, 0, 2, 2] += 0.5


def clear_signs(arrays: Arrays) -> None:
    arrays.dx[...] = np.where(arrays.dx == 0, -0.0, arrays.dx)


def test_every_backend_is_proven_and_timed() -> None:
    rows = measure(WORKLOAD, backends(), BRIEF, threads=2)
    timed = {(row.contender, row.direction) for row in rows if isinstance(row, Timing)}
    assert timed == {(name, direction) for name in pooling.list_backends() for direction in DIRECTIONS}
    for row in rows:
        assert isinstance(row, Timing)
        assert row.proof in ("reference, strided_slices", "reference, numba_loops")
        assert 0 < row.fastest_s <= row.q1_s <= row.median_s <= row.q3_s
        assert row.bytes_moved == WORKLOAD.bytes_moved(row.direction)
        assert 2 <= row.samples <= 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_y, r"spoiled, forward of .*: y differs from reference's, most at \(0, 1, 2, 3\)"),
        (spoil_dx, r"spoiled, backward of .*: dx differs from reference's, most at \(1, 0, 2, 2\)"),
        (clear_signs, r"dx differs from reference's"),
    ],
)
def test_wrong_results_never_get_a_time(spoil: Callable[[Arrays], None], message: str) -> None:
    rows = measure(WORKLOAD, [spoiled(spoil), GOOD], BRIEF, threads=1)
    assert {row.contender for row in rows if isinstance(row, Timing)} == {GOOD.name}
    (left_out,) = (row for row in rows if isinstance(row, LeftOut))
    assert left_out.wrong
    with pytest.raises(WrongResult, match=message):
        raise WrongResult(left_out.reason)


def test_who_does_nothing_does_not_live_on_the_results_of_others() -> None:
    idle = replace(GOOD, name="idle", bind=lambda workload, arrays: dict.fromkeys(DIRECTIONS, lambda: None))
    rows = measure(WORKLOAD, [GOOD, idle], BRIEF, threads=1)
    assert [(row.contender, row.wrong) for row in rows if isinstance(row, LeftOut)] == [("idle", True)]


def test_who_is_too_slow_or_unable_is_left_out_with_the_reason() -> None:
    unable = replace(GOOD, name="unable", why_not=lambda workload: "it has only one leg")
    rows = measure(WORKLOAD, [GOOD, unable], replace(BRIEF, limit_s=0.0), threads=1)
    reasons = {row.contender: row.reason for row in rows if isinstance(row, LeftOut)}
    assert len(rows) == 2
    assert reasons["unable"] == "it has only one leg"
    assert "s a training step: over the limit of 0 s" in reasons[GOOD.name]


def test_exact_means_to_the_bit() -> None:
    nan = np.array([np.nan, 1], np.float32)
    compare(nan, nan.copy(), True, "y", "reference")
    with pytest.raises(WrongResult):
        compare(np.array([-0.0], np.float32), np.array([0.0], np.float32), True, "y", "reference")


def test_averages_may_differ_by_a_few_units_in_the_last_place() -> None:
    want = np.array([1, 4], np.float32)
    compare(np.nextafter(want, np.float32(9)), want, False, "y", "reference")
    with pytest.raises(WrongResult, match=r"most at \(1,\)"):
        compare(want + np.array([0, 1e-3], np.float32), want, False, "y", "reference")
    with pytest.raises(WrongResult):
        compare(np.array([1, np.nan], np.float32), want, False, "y", "reference")


def test_contenders_take_turns_in_changing_order() -> None:
    turns: list[int] = []
    calls = [lambda i=i: turns.append(i) for i in range(4)]
    parts: list[float] = []
    taken = take_turns(calls, Patience(0.01, 1.0, (3, 3)), 0, parts.append)
    assert [len(samples) for samples, _ in taken] == [3] * 4
    assert parts == [1 / 3, 2 / 3, 1.0]
    at = len(turns) - sum(len(samples) * n for samples, n in taken)  # before that, calls were calibrated
    order = []
    while at < len(turns):
        n = taken[turns[at]][1]
        assert turns[at : at + n] == [turns[at]] * n
        order.append(turns[at])
        at += n
    rounds = [order[i : i + 4] for i in range(0, 12, 4)]
    assert [sorted(turn) for turn in rounds] == [[0, 1, 2, 3]] * 3
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]


def test_pinned_puts_threads_back() -> None:
    def fail() -> None:
        assert pooling.get_num_threads() == before + 3
        raise ZeroDivisionError

    before = pooling.get_num_threads()
    with pytest.raises(ZeroDivisionError), pinned(before + 3):
        fail()
    assert pooling.get_num_threads() == before


def test_workloads_measured_together_are_proven_each_on_its_own_arrays() -> None:
    holed = replace(WORKLOAD, values="nan")
    larger = replace(WORKLOAD, shape=(4, 8, 10, 10))
    wrong_if_nan = spoiled(lambda arrays: spoil_y(arrays) if np.isnan(arrays.x).any() else None)
    rows = measure_together(
        [WORKLOAD, holed, larger], [GOOD, wrong_if_nan], BRIEF, threads=1, stage="prices", directions=("forward",)
    )
    timed = [(row.workload, row.contender) for row in rows if isinstance(row, Timing)]
    assert sorted(timed) == sorted(
        [(w.id, GOOD.name) for w in (WORKLOAD, holed, larger)] + [(w.id, "spoiled") for w in (WORKLOAD, larger)]
    )
    assert [(row.workload, row.wrong) for row in rows if isinstance(row, LeftOut)] == [(holed.id, True)]
    assert {row.stage for row in rows} == {"prices"}


def test_who_had_to_wait_once_gets_more_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    def estimated(*seconds: float) -> tuple[float, int]:
        taken = iter(seconds)
        monkeypatch.setattr("bench.protocol.measure._seconds", lambda call, n=1: next(taken))
        whole = replace(WORKLOAD, shape=WORKLOAD.part(1).shape)
        scale = whole.outputs / whole.part(PARTS).outputs
        return estimate_s(GOOD, whole, 1.0) / scale, len(seconds) - len(list(taken))

    assert estimated(0.1, 0.2, 9.0) == (0.1, 2)  # well within the limit
    assert estimated(99.0, 99.0, 0.1) == (99.0, 2)  # hopeless
    assert estimated(1.0, 1.0, 0.9, 0.2, 0.1) == (0.2, 4)  # within it at the fourth try


def test_owners_take_turns_as_a_whole_and_warm_up_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, int]] = []

    def timed(call: Callable[[], int], n: int = 1) -> float:
        events.append(("timed", call()))
        return 1.0

    monkeypatch.setattr("bench.protocol.measure._calibrate", lambda call: (1, 1.0))
    monkeypatch.setattr("bench.protocol.measure._settle", lambda call: events.append(("settles", call())))
    monkeypatch.setattr("bench.protocol.measure._seconds", timed)
    calls = [lambda i=i: i for i in range(4)]
    taken = take_turns(calls, Patience(0.01, 1.0, (8, 8)), 0, lambda done: None, ["a", "b", "b", "a"])
    assert [len(samples) for samples, _ in taken] == [8] * 4
    turns = [events[i : i + 3] for i in range(0, len(events), 3)]
    assert all([what for what, _ in turn] == ["settles", "timed", "timed"] for turn in turns)
    assert all({i for _, i in turn} in ({0, 3}, {1, 2}) for turn in turns)
    assert {turn[0][1] for turn in turns} == {0, 1, 2, 3}  # whose order is drawn, among owners and among their calls


def test_only_where_frameworks_take_part_turns_begin_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[object] = []
    monkeypatch.setattr("bench.protocol.measure._settle", settled.append)
    measure(WORKLOAD, [GOOD], BRIEF, threads=1)
    assert not settled
    measure(WORKLOAD, [GOOD, replace(GOOD, name="rival", kind="peer")], BRIEF, threads=1)
    assert settled


def test_pinned_threads_are_given_back() -> None:
    """A number of threads that stayed set made POOLING_NUM_THREADS count for nothing afterwards."""
    with pinned(3):
        assert pooling.get_num_threads() == 3
    assert chosen_threads() is None
