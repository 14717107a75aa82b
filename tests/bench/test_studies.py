"""The studies: each varies one thing, and keeps the rest."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import pooling
from bench.experiments.studies import (
    BEYOND_ROOM,
    KERNELS,
    LAYOUTS,
    PASSES,
    SCALED,
    SCALING,
    SUBJECT,
    beyond,
    beyond_tasks,
    kernel_tasks,
    of_kernel,
    price_tasks,
    priced,
    roofline_task,
    thread_counts,
    thread_tasks,
)
from bench.protocol.contenders import backends, of_backend
from bench.protocol.measure import Patience
from bench.schema.environment import machine
from bench.schema.results import Bandwidth, Timing
from bench.schema.workloads import WORKLOADS, Workload, of_preset
from pooling.operators.base import DataFormat

BRIEF = Patience(0.01, math.inf, (2, 2))
SMALL = Workload(SCALED[0], "a network", (2, 3, 8, 8), 2)


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("size", KERNELS)
def test_kernels_put_out_the_same_and_pad_both_sides_alike(size: int, data_format: DataFormat) -> None:
    workload = of_kernel(size, data_format)
    assert workload.outputs == of_kernel(3, data_format).outputs
    assert all(axis.before == axis.after for axis in workload.window.affine)
    assert workload.window.kernel_size == (size, size)


def test_names_of_the_studies_exist() -> None:
    names = {workload.name for workload in WORKLOADS if workload.data_format == "channels_first"}
    assert set(SCALED) <= names
    assert {SUBJECT, *SCALING} <= set(pooling.list_backends())


def test_what_no_cache_holds_is_twice_as_large_in_both_layouts() -> None:
    cache = 10**7
    workloads = beyond(cache)
    assert all(2 * cache < workload.nbytes < 2 * cache + 4 * 64 * 112 * 112 + 1 for workload in workloads)
    assert {(w.kernel_size, w.stride, w.data_format) for w in workloads} == {(k, 2, f) for k in (2, 3) for f in LAYOUTS}


def test_what_no_cache_holds_is_pooled_in_both_passes_where_memory_holds_it() -> None:
    small = replace(machine(), caches={"L1": 1 << 10, "L2": 1 << 12})
    largest = max(workload.nbytes for workload in beyond(1 << 12))
    tasks = list(beyond_tasks(backends(), replace(small, memory=BEYOND_ROOM * largest), BRIEF, 1))
    assert len(tasks) == 4
    rows = tasks[0].work(lambda done: None)
    assert [(r.stage, r.contender, r.direction) for r in rows if isinstance(r, Timing)] == [
        ("beyond", SUBJECT, direction) for direction in PASSES
    ]
    (workload,) = tasks[0].workloads
    beside = [(r.kind, r.workload, r.threads) for r in rows if isinstance(r, Bandwidth)]
    assert beside == [(kind, workload.id, 1) for kind in ("read", "write", "copy")]
    assert not list(beyond_tasks(backends(), replace(small, memory=BEYOND_ROOM * largest - 1), BRIEF, 1))
    assert not list(beyond_tasks(backends(), replace(small, caches={}), BRIEF, 1))
    assert not list(beyond_tasks([of_backend(pooling.get_backend("reference"))], small, BRIEF, 1))


def test_thread_counts_end_with_all_of_them() -> None:
    for most in (1, 2, 3, 8, 9, 16, 100):
        counts = thread_counts(most)
        assert (counts[0], counts[-1]) == (1, most)
        assert list(counts) == sorted(set(counts))


def test_threads_are_timed_at_each_count() -> None:
    (task,) = thread_tasks([SMALL], backends(), BRIEF, 3)
    rows = task.work(lambda done: None)
    timed = [(row.threads, row.contender) for row in rows if isinstance(row, Timing)]
    assert sorted(timed) == sorted((n, name) for n in (1, 2, 3) for name in SCALING)
    assert all(isinstance(row, Timing) and row.stage == "threads" and row.direction == "step" for row in rows)
    assert task.workloads == (SMALL,)


def test_one_thread_does_not_scale() -> None:
    assert not list(thread_tasks([SMALL], backends(), BRIEF, 1))
    assert not list(thread_tasks(of_preset("standard"), [of_backend(pooling.get_backend("reference"))], BRIEF, 4))


def test_kernels_are_timed_by_layout() -> None:
    tasks = list(kernel_tasks((2, 3), backends(), BRIEF, 1))
    assert [task.name for task in tasks] == [f"kernels {layout}" for layout in LAYOUTS]
    for task in tasks:
        rows = task.work(lambda done: None)
        assert [(r.workload, r.contender, r.stage, r.direction) for r in rows if isinstance(r, Timing)] == [
            (workload.id, SUBJECT, "kernels", direction)
            for workload in task.workloads
            for direction in ("forward_train", "step")
        ]
    assert not list(kernel_tasks((2, 3), [of_backend(pooling.get_backend("numba_loops"))], BRIEF, 1))


@pytest.mark.parametrize("data_format", LAYOUTS)
def test_priced_workloads_differ_in_one_thing(data_format: DataFormat) -> None:
    two, two_nan, three, three_nan, unpadded = priced(data_format)
    assert (two.shape, two.window) == (two_nan.shape, two_nan.window)
    assert (three.shape, three.window) == (three_nan.shape, three_nan.window)
    assert three.outputs == unpadded.outputs
    assert len({workload.id for workload in priced(data_format)}) == 5


def test_prices_are_proven_with_nan_too() -> None:
    task = next(price_tasks(backends(), BRIEF, 1))
    rows = task.work(lambda done: None)
    assert all(isinstance(row, Timing) and row.contender == SUBJECT for row in rows), rows
    assert {row.workload for row in rows if isinstance(row, Timing)} == {workload.id for workload in task.workloads}


def test_roofline_measures_the_sizes_it_is_given() -> None:
    rows = roofline_task((1 << 16, 1 << 17), 1).work(lambda done: None)
    assert [row.nbytes for row in rows if isinstance(row, Bandwidth)] == [1 << 16] * 3 + [1 << 17] * 3
