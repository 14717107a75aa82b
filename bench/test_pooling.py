"""Every backend at every workload, for pytest-benchmark: ``pytest --benchmark-only``.

Generated from the registry and the table of workloads. A test proves its pair right before it times it, which also compiles
what has to be compiled. Plain ``pytest`` runs each pair once, on a small cut of the workload.

The workloads are those of the preset that ``POOLING_BENCH_PRESET`` names, quick by default. Pairs that a backend does not
offer, and backends that are for reference only when times are asked for, are never generated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.protocol.contenders import Arrays, Calls, Contender, backends
from bench.protocol.measure import prove_small, prove_whole
from bench.schema.workloads import PRESETS, Direction, Workload, of_preset

Pair = tuple[Workload, Contender]

DIRECTIONS: tuple[Direction, ...] = ("forward", "forward_train", "backward")
MAX_S = 0.2
"""Seconds that pytest-benchmark may spend on the rounds of a pair and direction, if five rounds take no longer."""


def pairs(timed: bool) -> Iterator[Pair]:
    """What is to be tested or timed, by workload, so that those who compare stand together."""
    wanted = os.environ.get("POOLING_BENCH_PRESET", "quick")
    for preset in PRESETS:
        if wanted == preset:
            break
    else:
        raise pytest.UsageError(f"POOLING_BENCH_PRESET={wanted!r}: choose one of {', '.join(PRESETS)}")
    for workload in of_preset(preset):
        for contender in backends():
            if contender.why_not(workload) is None and not (timed and contender.reference_only):
                yield workload, contender


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    timed = not metafunc.config.getoption("benchmark_disable")
    found = list(pairs(timed))
    names = [f"{workload.id}-{contender.name}" for workload, contender in found]
    metafunc.parametrize("proven", found, ids=names, indirect=True, scope="module")
    metafunc.parametrize("direction", DIRECTIONS)


@pytest.fixture(scope="module")
def proven(request: pytest.FixtureRequest) -> tuple[Workload, Calls]:
    """A pair's calls, each of which has been run once and has given the right result."""
    workload, contender = request.param
    prove_small(contender, workload)
    if request.config.getoption("benchmark_disable"):
        workload = workload.small()
    _, calls = prove_whole(contender, workload, Arrays.of(workload))
    return workload, calls


@pytest.mark.benchmark(max_time=MAX_S, warmup=False)
def test_pooling(benchmark: BenchmarkFixture, proven: tuple[Workload, Calls], direction: Direction) -> None:
    workload, calls = proven
    benchmark.group = f"{workload.id} {direction}"
    benchmark.extra_info["bytes_moved"] = workload.bytes_moved(direction)
    result = benchmark(calls[direction])
    assert result is not None
