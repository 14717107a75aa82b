"""The roofline: what is measured, and the arithmetic from bytes to the time that memory needs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pooling
from bench.experiments import roofline
from bench.protocol.contenders import of_backend
from bench.protocol.measure import Patience, measure
from bench.schema.results import Bandwidth, BandwidthKind, Timing
from bench.schema.workloads import DIRECTIONS, WORKLOADS, Direction, Workload
from pooling.simd.vector.ops import lanes

Array = NDArray[Any]

WORKLOAD = Workload("pool", "a network", (2, 4, 16, 16), 2)


def row(kind: BandwidthKind, nbytes: int, gb_per_s: float) -> Bandwidth:
    return Bandwidth("roofline", kind, nbytes, 2, gb_per_s, "stores")


FLAT = [row("read", 1 << 16, 10.0), row("write", 1 << 16, 5.0), row("copy", 1 << 16, 8.0)]


@pytest.fixture(scope="module")
def measured() -> list[Bandwidth]:
    return roofline.measure(threads=2, sizes=(1 << 16, 3_000_000))


def test_each_kind_is_measured_at_each_size(measured: list[Bandwidth]) -> None:
    assert [(r.kind, r.nbytes) for r in measured] == [
        (kind, size // 2048 * 2048) for size in (1 << 16, 3_000_000) for kind in ("read", "write", "copy")
    ]
    assert all(r.gb_per_s > 0 and r.threads == 2 and r.stage == "roofline" for r in measured)


def test_threads_are_put_back(measured: list[Bandwidth]) -> None:
    before = pooling.get_num_threads()
    roofline.measure(threads=before + 1, sizes=(1 << 16,))
    assert pooling.get_num_threads() == before


def test_progress_ends_at_one() -> None:
    seen: list[float] = []
    roofline.measure(threads=1, sizes=(1 << 16, 1 << 17), progress=seen.append)
    assert seen == [0.5, 1.0]


N = 8 * roofline.BLOCK


@pytest.fixture
def memory() -> Array:
    return roofline.aligned(N + roofline.APART)


@pytest.mark.parametrize(
    "way",
    [
        "stores",
        "streaming stores",
        "streaming stores, loads ahead",
        "streaming stores, loads in places",
        "numpy.copyto",
    ],
)
def test_copies_copy_every_float(memory: Array, way: str) -> None:
    half, work = roofline.contests(memory)["copy"][way]
    memory[:half] = np.arange(half)
    work(0, half, 1)
    assert np.array_equal(memory[half + roofline.APART :], np.arange(half))


@pytest.mark.parametrize("way", ["stores", "streaming stores"])
def test_writes_write_every_float_of_their_range(memory: Array, way: str) -> None:
    n, work = roofline.contests(memory)["write"][way]
    work(roofline.BLOCK, n, 3)
    assert np.all(memory[roofline.BLOCK : n] == 3)
    assert np.all(memory[: roofline.BLOCK] == 1)
    assert np.all(memory[n:] == 1)


@pytest.mark.parametrize("way", ["vector loads", "vector loads ahead", "vector loads in places"])
def test_reads_read_every_float(memory: Array, way: str) -> None:
    n, work = roofline.contests(memory)["read"][way]
    memory[:] = 1 + np.arange(len(memory)) % 7
    before = memory.copy()
    work(0, n, 2)
    count = lanes(np.float32)
    assert memory[:count].sum() == 2 * before[:n].sum()  # the sums, one a lane, end at the start
    assert np.array_equal(memory[count:], before[count:])


@pytest.mark.parametrize("workload", WORKLOADS[:12], ids=lambda w: w.id)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bytes_read_and_written_are_those_moved(workload: Workload, direction: Direction) -> None:
    assert sum(roofline.read_and_written(workload, direction)) == workload.bytes_moved(direction)


def test_rate_lies_on_the_line_between_sizes_and_stays_level_beyond() -> None:
    roof = [row("read", 1 << 10, 40.0), row("read", 1 << 14, 20.0)]
    assert roofline.rate("read", 1 << 12, roof) == pytest.approx(30e9)
    assert roofline.rate("read", 1, roof) == 40e9
    assert roofline.rate("read", 1 << 30, roof) == 20e9


def test_rate_names_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="no row of kind 'copy'"):
        roofline.rate("copy", 100, FLAT[:2])


def test_time_needed_is_the_lesser_of_at_once_and_in_turn() -> None:
    # At once: 2 GB at 8 GB/s and 2 GB at 10; in turn: 3 at 10 and 1 at 5.
    assert roofline.time_needed(3 * 10**9, 10**9, FLAT) == pytest.approx(min(2 / 8 + 2 / 10, 3 / 10 + 1 / 5))
    slow_copy = [*FLAT[:2], replace(FLAT[2], gb_per_s=1.0)]
    assert roofline.time_needed(3 * 10**9, 10**9, slow_copy) == pytest.approx(0.5)
    assert roofline.time_needed(10**9, 0, FLAT) == pytest.approx(0.1)


def test_fraction_is_the_time_needed_over_the_time_measured() -> None:
    contender = of_backend(pooling.get_backend("strided_slices"))
    rows = measure(WORKLOAD, [contender], Patience(0.05, math.inf), threads=2)
    for timing in rows:
        assert isinstance(timing, Timing)
        needed = roofline.time_needed(*roofline.read_and_written(WORKLOAD, timing.direction), FLAT)
        assert roofline.fraction(timing, WORKLOAD, FLAT) == pytest.approx(needed / timing.median_s)
        beside = [replace(r, stage="beyond", workload=WORKLOAD.id, gb_per_s=2 * r.gb_per_s) for r in FLAT]
        assert roofline.fraction(timing, WORKLOAD, FLAT + beside) == pytest.approx(needed / timing.median_s)
        turns = replace(timing, stage="beyond")
        assert roofline.fraction(turns, WORKLOAD, FLAT + beside) == pytest.approx(needed / timing.median_s / 2)
        # A run that was cut short may lack some.
        assert roofline.fraction(turns, WORKLOAD, FLAT + beside[:2]) == pytest.approx(needed / timing.median_s)
        assert roofline.fraction(turns, WORKLOAD, FLAT[1:] + beside[:2]) is None
