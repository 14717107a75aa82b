"""Targets: the arithmetic, from rows made up for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.analysis.targets import FLAT, outcomes
from bench.experiments.studies import beyond, of_kernel
from bench.schema.results import Bandwidth, BandwidthKind, Results, Timing
from bench.schema.workloads import Direction, Workload
from tests.bench.test_versus import found, timing

KINDS: tuple[BandwidthKind, ...] = ("read", "write", "copy")

FIRST = Workload("one", "a network", (2, 3, 8, 8), 2)
SECOND = replace(FIRST, name="other")


def of(rows: list[Timing | Bandwidth], *workloads: Workload) -> Results:
    made = found(rows)
    made.workloads = {workload.id: workload for workload in workloads}
    return made


@pytest.mark.parametrize(("second", "met"), [(17.0, True), (1.5, False), (2.5, False)])
def test_mean_and_worst_must_both_be_reached(second: float, met: bool) -> None:
    rows: list[Timing | Bandwidth] = [timing(FIRST, "simd", 1.0), timing(FIRST, "pytorch", 4.0)]
    rows += [timing(SECOND, "simd", 1.0), timing(SECOND, "pytorch", second)]
    (outcome,) = outcomes(of(rows, FIRST, SECOND))
    assert outcome.mean == pytest.approx((4 * second) ** 0.5)
    assert outcome.worst == min(4, second)
    assert outcome.at == (SECOND if second < 4 else FIRST).label
    assert outcome.met == met


def test_the_fastest_rival_counts_and_float64_does_not() -> None:
    double = replace(FIRST, dtype="float64")
    rows: list[Timing | Bandwidth] = [timing(w, "simd", 1.0, "forward") for w in (FIRST, double)]
    rows += [timing(FIRST, "onednn", 4.0, "forward"), timing(FIRST, "openvino", 3.0, "forward")]
    rows += [timing(double, "onednn", 0.5, "forward")]
    (outcome,) = outcomes(of(rows, FIRST, double))
    assert outcome.mean == pytest.approx(3)
    assert outcome.worst == 3
    assert outcome.met


@pytest.mark.parametrize("direction", ["forward_train", "step"])
@pytest.mark.parametrize(("large", "met"), [(FLAT, True), (FLAT + 0.1, False)])
def test_large_kernels_over_small_ones(large: float, met: bool, direction: Direction) -> None:
    kernels = [of_kernel(size, "channels_last") for size in (3, 13, 31)]
    rows: list[Timing | Bandwidth] = [
        timing(kernel, "simd", seconds, direction, stage="kernels")
        for kernel, seconds in zip(kernels, (1.0, 1.5, large), strict=True)
    ]
    (outcome,) = outcomes(of(rows, *kernels))
    assert (outcome.worst, outcome.at, outcome.met, outcome.direction) == (large, "31×31", met, direction)
    assert outcome.mean is None


def test_what_memory_allows() -> None:
    workload = beyond(1 << 20)[0]
    seconds = workload.bytes_moved("backward") / 8e9
    roof = [Bandwidth("roofline", kind, 2**22, 1, 10.0, "loads") for kind in KINDS]
    rows: list[Timing | Bandwidth] = [timing(workload, "simd", seconds, "backward", stage="beyond", threads=1), *roof]
    (outcome,) = outcomes(of(rows, workload))
    assert outcome.part
    assert outcome.worst == pytest.approx(0.8, rel=0.1)


def test_a_run_without_rivals_is_not_judged() -> None:
    assert not list(outcomes(of([timing(FIRST, "simd", 1.0)], FIRST)))
