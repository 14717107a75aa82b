"""Threads: any number of them, forks, and errors in the middle."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import pooling
from pooling import threads


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

        threads.split(work, size, 1 << 24)
        assert (done == 1).all()


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    pooling.set_num_threads(4)

    def work(start: int, stop: int) -> None:
        raise RuntimeError(f"at {start}")

    with pytest.raises(RuntimeError, match="at"):
        threads.split(work, 100, 1 << 24)
    test_every_part_is_done_once(4)


def test_sixteen_threads_on_one_operator() -> None:
    pooling.set_num_threads(3)
    pool = pooling.MaxPool(3, 2, 1)
    inputs = [np.random.default_rng(i).standard_normal((8, 20, 40, 40)).astype(np.float32) for i in range(16)]
    exact = [pooling.MaxPool(3, 2, 1, backend="strided_slices").forward(x)[0] for x in inputs]

    def run(i: int) -> bool:
        for _ in range(5):
            y, saved = pool.forward(inputs[i])
            dx = pool.backward(np.ones_like(y), saved)
            if not np.array_equal(y, exact[i]) or dx.sum() != y.size:
                return False
        return True

    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(run, range(16)))


def _in_child(queue: Any) -> None:
    x = np.random.default_rng(0).standard_normal((16, 20, 40, 40)).astype(np.float32)
    pool = pooling.MaxPool(2)
    y, saved = pool.forward(x)
    queue.put((float(y.sum()), float(pool.backward(y, saved).sum())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_pools() -> None:
    """As in pytorch#17199 and numba#8563, where a pool of threads did not survive it."""
    pooling.set_num_threads(2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    _in_child(queue)
    here = queue.get(timeout=30)
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == here
    child.join(30)
    assert child.exitcode == 0


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_environment_sets_the_number() -> None:
    done = run_python("import pooling; print(pooling.get_num_threads())", POOLING_NUM_THREADS="7")
    assert done.stdout.strip() == "7"
    done = run_python("import pooling; pooling.get_num_threads()", POOLING_NUM_THREADS="many")
    assert "POOLING_NUM_THREADS='many'" in done.stderr


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "2"])
def test_wrong_numbers_are_named(n: Any) -> None:
    with pytest.raises(pooling.PoolingError, match="threads"):
        pooling.set_num_threads(n)


def test_scratch_is_aligned_and_kept() -> None:
    first = threads.scratch(100, np.float32, 7)
    assert first.size == 100
    assert first.ctypes.data % 64 == 0
    assert threads.scratch(50, np.float64, 7).ctypes.data == first.ctypes.data
