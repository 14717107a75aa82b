"""Threads: any number of them, forks, and errors in the middle."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.parallel import pool
from pooling.parallel.work_queue import run_units, wait_for_work
from pooling.runtime.jit import kernel
from tests.cases import gradient_for, same_bits
from tests.processes import HANG_S, run_python

COUNTS = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    yield
    pooling.set_num_threads(None)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_every_part_is_done_once(n: int) -> None:
    pooling.set_num_threads(n)
    for size in (1, 2, 7, 100):
        done = np.zeros(size, int)

        def work(start: int, stop: int, done: Any = done) -> None:
            done[start:stop] += 1

        pool.split(work, size, 1 << 24)
        assert (done == 1).all()


@pytest.mark.parametrize("n", [0, -1, True, 1.0, "2", pool.MOST_THREADS + 1, 10**20])
def test_an_impossible_number_of_threads_is_refused(n: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pooling.PoolingError, match="number of threads must be an int from 1"):
        pooling.set_num_threads(n)
    if n not in (True, "2"):
        monkeypatch.setenv("POOLING_NUM_THREADS", str(n))
        with pytest.raises(pooling.PoolingError, match="POOLING_NUM_THREADS="):
            pooling.get_num_threads()


def test_integers_of_numpy_count_threads() -> None:
    pooling.set_num_threads(np.int64(2))
    assert pooling.get_num_threads() == 2
    assert type(pooling.get_num_threads()) is int


def test_fewer_threads_than_asked_for_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may give no more: whoever there is goes on."""
    started: list[threading.Thread] = []

    class Scarce(threading.Thread):
        def start(self) -> None:
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    monkeypatch.setattr(pool, "Thread", Scarce)
    pooling.set_num_threads(50)
    done = np.zeros(100, int)

    def work(start: int, stop: int) -> None:
        done[start:stop] += 1

    for _ in range(3):
        pool.split(work, 100, 1 << 24)
    assert (done == 3).all()
    x = np.random.default_rng(0).standard_normal((64, 40, 24, 24)).astype(np.float32)
    y = pooling.max_pool(x, 2, backend="simd")
    np.testing.assert_array_equal(y, pooling.max_pool(x, 2, backend="strided_slices"))
    assert len(started) == 2


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    pooling.set_num_threads(4)

    def work(start: int, stop: int) -> None:
        raise RuntimeError(f"at {start}")

    with pytest.raises(RuntimeError, match="at"):
        pool.split(work, 100, 1 << 24)
    test_every_part_is_done_once(4)


@pytest.mark.parametrize("name", ["strided_slices", "numba_loops", "simd"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_same_bits_with_any_number_of_threads(name: str, data_format: Any, batch: int) -> None:
    """Planes too large for a buffer, cut into bands and over threads. One item is split as well."""
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((batch, 20, 131, 97)) * 2).astype(np.float32)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for arguments in ((3, 2, 1), (2, 2), (3, 1, 1)):
        exact = pooling.MaxPool(*arguments, data_format=data_format, backend="argmax_switches")
        y, saved = exact.forward(x)
        dx = exact.backward(gradient_for(y), saved)
        pool = pooling.MaxPool(*arguments, data_format=data_format, backend=name)
        for n in COUNTS:
            pooling.set_num_threads(n)
            got, saved = pool.forward(x)
            assert same_bits(got, y)
            assert same_bits(pool.backward(gradient_for(y), saved), dx)


@pytest.mark.parametrize("ties", ["split", "all"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_shares_have_the_same_bits_with_any_number_of_threads(data_format: Any, ties: Any) -> None:
    """Bands share the outputs between them: each works out what they pay."""
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((2, 20, 131, 97)) * 2).astype(np.float32)
    x[rng.random(x.shape) < 0.001] = np.nan
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    exact, pool = (
        pooling.MaxPool(3, 2, 1, ties=ties, data_format=data_format, backend=name)
        for name in ("strided_slices", "simd")
    )
    y, saved = exact.forward(x)
    dx = exact.backward(gradient_for(y), saved)
    for n in COUNTS:
        pooling.set_num_threads(n)
        got, saved = pool.forward(x)
        assert same_bits(got, y)
        assert same_bits(pool.backward(gradient_for(y), saved), dx)


@pytest.mark.parametrize("name", ["strided_slices", "numba_loops", "simd"])
def test_means_have_the_same_bits_with_any_number_of_threads(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((7, 20, 80, 60)).astype(np.float32)
    for arguments in ((3, 2, 1), (2, 2)):
        pool = pooling.AvgPool(*arguments, backend=name)
        results = []
        for n in COUNTS:
            pooling.set_num_threads(n)
            y, saved = pool.forward(x)
            results.append((y, pool.backward(gradient_for(y), saved)))
        for y, dx in results[1:]:
            assert same_bits(y, results[0][0])
            assert same_bits(dx, results[0][1])


def test_the_environment_sets_the_number() -> None:
    done = run_python("import pooling; print(pooling.get_num_threads())", POOLING_NUM_THREADS="7")
    assert done.stdout.strip() == "7"
    done = run_python("import pooling; pooling.get_num_threads()", POOLING_NUM_THREADS="many")
    assert "POOLING_NUM_THREADS='many'" in done.stderr


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "2"])
def test_wrong_numbers_are_named(n: Any) -> None:
    with pytest.raises(pooling.PoolingError, match="threads"):
        pooling.set_num_threads(n)


def test_who_helps_does_not_wait_for_help() -> None:
    """Work that splits again, on a helper, does so alone: else helpers could wait for each other for ever."""
    pooling.set_num_threads(4)
    done = np.zeros((50, 50), int)

    def outer(start: int, stop: int) -> None:
        for i in range(start, stop):

            def inner(first: int, last: int, i: int = i) -> None:
                done[i, first:last] += 1

            pool.split(inner, 50, 1 << 24)

    pool.split(outer, 50, 1 << 24)
    assert (done == 1).all()


def test_a_helper_that_fails_in_the_middle_is_told() -> None:
    """What it had taken is not done: the caller must not go on with half a result."""
    pooling.set_num_threads(2)
    caller, failed = threading.get_ident(), threading.Event()

    def work(start: int, stop: int) -> None:
        if threading.get_ident() != caller:
            failed.set()
            raise MemoryError("no room")
        assert failed.wait(HANG_S), "no helper came"

    with pytest.raises(MemoryError, match="no room"):
        pool.split(work, 8, 1 << 24)


def test_a_call_that_is_done_lets_go_of_its_arrays() -> None:
    """Though its helpers have not yet seen that there is nothing left: here they are busy elsewhere."""
    pooling.set_num_threads(2)
    release, busy = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        release.wait(HANG_S)

    workers = pool._get_workers(1)
    for _ in range(workers.n):
        workers.jobs.put(pool._Job(hold))
    assert busy.wait(HANG_S)
    x = np.zeros(1000)
    alive = weakref.ref(x)
    try:
        pool.split(lambda start, stop, x=x: x[start:stop].fill(1), 1000, 1 << 24)  # type: ignore[misc]
        pool.share(lambda *_, x=x: x.sum(), 8, 1 << 24, lambda box: -1)
        del x
        assert alive() is None
    finally:
        release.set()


def test_small_work_stays_here() -> None:
    pooling.set_num_threads(4)
    seen = set()
    pool.split(lambda start, stop: seen.add((threading.get_ident(), start, stop)), 100, 1000)
    assert seen == {(threading.get_ident(), 0, 100)}


def test_scratch_is_aligned_and_kept() -> None:
    first = pool.scratch(100, np.dtype(np.float32), 7)
    assert first.size >= 100
    assert first.ctypes.data % 64 == 0
    assert pool.scratch(50, np.dtype(np.float32), 7) is first
    others = [pool.scratch(50, np.dtype(np.float64), 7), pool.scratch(50, np.dtype(np.float32), 8)]
    assert not any(np.may_share_memory(first, other) for other in others)
    assert pool.scratch(1000, np.dtype(np.float32), 7).size >= 1000


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no thread to a CPU")


@needs_affinity
def test_a_helper_on_the_callers_cpu_goes_elsewhere() -> None:
    """Linux left both there, and a call took 2.5 times as long as alone on two CPUs."""
    cpus = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cpus)})
        box = np.zeros(pool.BOX, np.int64)
        box[pool.CPU] = min(cpus)
        assert wait_for_work(box) == min(cpus)
        box[pool.CPU] = min(cpus) + 1
        assert wait_for_work(box) == -1
        assert box[pool.WAITING] == 0
    finally:
        os.sched_setaffinity(0, cpus)
    answers = iter([min(cpus), -1])
    pool._serve_mailbox(box, lambda box: next(answers))
    assert os.sched_getaffinity(0) == cpus
    if len(cpus) > 1:
        assert not list(answers)


def add_one(start: int, stop: int, done: Any, same: Any, won: Any, values: Any, taps: Any) -> None:
    for i in range(start, stop):
        done[i] += 1


def test_each_thread_has_its_part_and_helps_with_the_others() -> None:
    """All is done once, whoever comes first or not at all."""
    turns = kernel(run_units).bind(body=kernel(add_one))
    for pieces in (1, 2, 3, 5):
        for n in (1, 4, 11, 40):
            done = np.zeros(n, np.int64)
            queue = np.zeros(pool.NEXT + 8 * pieces, np.int64)
            for place in (1, 0, 2):
                turns(place, 2, pieces, queue, done, done, np.zeros(8), None, None, n, 1, 1, ())
            assert (done == 1).all()
            assert queue[pool.DONE] == n


@pytest.mark.parametrize("n", ["²", "1" * 5000, "0", "-1", "1.5", "two"])
def test_variables_that_are_no_numbers_are_named(n: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``"²".isdigit()`` is true, and Python reads no integer of 5,000 digits."""
    monkeypatch.setenv("POOLING_NUM_THREADS", n)
    with pytest.raises(pooling.PoolingError, match=r"POOLING_NUM_THREADS=.*it must be an integer from 1"):
        pooling.get_num_threads()
    if n != "0":
        monkeypatch.setenv("POOLING_BUFFER_BYTES", n)
        with pytest.raises(pooling.PoolingError, match=r"POOLING_BUFFER_BYTES=.*it must be a number of bytes"):
            pooling.set_buffer_bytes(None)
