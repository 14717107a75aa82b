"""Ratios against the frameworks: the arithmetic, from rows made up for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.analysis.versus import Duel, geometric_mean, prices, races, reached, summaries
from bench.experiments.roofline import fraction
from bench.experiments.studies import priced
from bench.schema.results import Bandwidth, Entrant, Results, Row, Timing
from bench.schema.workloads import Direction, Workload
from tests.bench.test_bench_results import TIMING, results

FIRST = Workload("one", "a network", (2, 3, 8, 8), 2)
LAST = replace(FIRST, name="two", data_format="channels_last")
BOTH = (FIRST, LAST)


def timing(workload: Workload, contender: str, seconds: float, direction: Direction = "step", **more: Any) -> Timing:
    kind = "backend" if contender in ("simd", "numba_loops") else "peer"
    spread = {"q1_s": seconds, "q3_s": seconds, "fastest_s": seconds, "median_s": seconds}
    moved = workload.bytes_moved(direction)
    made: dict[str, Any] = {"contender": contender, "kind": kind, "direction": direction, "bytes_moved": moved}
    return replace(TIMING, workload=workload.id, **(spread | made | more))


def found(rows: Sequence[Row]) -> Results:
    made = results()
    made.rows, made.workloads = [*rows], {workload.id: workload for workload in BOTH}
    made.entrants = [
        Entrant("simd", "backend", "vectors", "first"),
        *(Entrant(name, "peer", "a rival", "first") for name in ("swift", "slow", "infers")),
    ]
    return made


@pytest.fixture
def some() -> Results:
    return found(
        [
            timing(FIRST, "simd", 2e-3),
            timing(FIRST, "numba_loops", 1e-3),
            timing(FIRST, "swift", 1e-3),
            timing(FIRST, "slow", 16e-3),
            timing(LAST, "simd", 1e-3),
            timing(LAST, "slow", 2e-3),
            timing(FIRST, "simd", 1e-3, "forward"),
            timing(FIRST, "infers", 3e-3, "forward"),
            timing(FIRST, "swift", 0.1e-3, stage="sizes"),
        ]
    )


def test_a_ratio_is_the_peers_time_over_ours(some: Results) -> None:
    ratios = {(race.workload.name, race.peer.contender): race.ratio for race in races(some, "step")}
    assert ratios == pytest.approx({("one", "swift"): 0.5, ("one", "slow"): 8.0, ("two", "slow"): 2.0})
    assert [race.lost for race in races(some, "step")] == [True, False, False]


def test_a_duel_is_with_the_fastest_peer(some: Results) -> None:
    one, two = Duel.all_of(some)
    assert one.step is not None
    assert one.forward is not None
    assert (one.workload, one.step.peer.contender, one.forward.peer.contender) == (FIRST, "swift", "infers")
    assert two.step is not None
    assert (two.workload, two.step.peer.contender, two.forward) == (LAST, "slow", None)


def test_summaries_are_apart_by_layout_and_direction(some: Results) -> None:
    made = {(s.peer, s.data_format, s.direction): s for s in summaries(some)}
    assert list(made) == [
        ("swift", "channels_first", "step"),
        ("slow", "channels_first", "step"),
        ("slow", "channels_last", "step"),
        ("infers", "channels_first", "forward"),
    ]
    assert made["swift", "channels_first", "step"].lost == 1
    (both,) = [s for s in summaries(some, [None]) if s.peer == "slow"]
    assert [both.mean, both.worst.ratio] == pytest.approx([4, 2])
    assert (both.worst.workload, both.count, both.lost) == (LAST, 2, 0)


def test_without_peers_there_is_nothing_to_compare() -> None:
    alone = found([timing(FIRST, "simd", 1e-3)])
    assert (Duel.all_of(alone), summaries(alone), prices(alone)) == ([], [], [])


def test_geometric_mean() -> None:
    assert geometric_mean([1, 4]) == pytest.approx(2)


def test_prices_are_ratios_of_what_differs_in_one_thing() -> None:
    two, two_nan, three, three_nan, unpadded = priced("channels_last")

    def rows() -> Iterator[Timing]:
        for workload, step in ((two, 1.0), (two_nan, 2.0), (three, 3.0), (three_nan, 3.0), (unpadded, 4.0)):
            yield timing(workload, "simd", step, stage="prices")
            yield timing(workload, "simd", 1.0, "forward", stage="prices")
            yield timing(workload, "simd", 1.25, "forward_train", stage="prices")

    made = found([*rows()])
    made.workloads = {workload.id: workload for workload in priced("channels_last")}
    assert [(p.what, p.workload, p.ratio) for p in prices(made)] == [
        ("NaN in the input", two_nan, 2.0),
        ("NaN in the input", three_nan, 1.0),
        ("keeping switches", two, 1.25),
        ("keeping switches", three, 1.25),
        ("keeping switches", unpadded, 1.25),
        ("padding", three, 0.75),
    ]


def test_every_timing_has_the_part_it_reaches_where_bandwidth_is_known() -> None:
    roof = [Bandwidth("roofline", kind, 1 << 16, 2, 10.0, "stores") for kind in ("read", "write", "copy")]
    two, one = timing(FIRST, "simd", 1e-6), timing(FIRST, "simd", 1e-6, threads=1)
    made = reached(found([two, one, *roof]))
    assert [r.timing for r in made] == [two, one]
    assert made[0].fraction == pytest.approx(fraction(two, FIRST, roof))
    assert made[1].fraction is None
