"""What breaks other libraries: forks, threads, interrupts, sizes. Each test names the report that it answers."""

from __future__ import annotations

import _thread
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import pooling
from tests.cases import Array, same_bits
from tests.processes import HANG_S, STEP, run_python, works

COMPILED = ("numba_loops", "simd")
NAMES = ("strided_slices", *COMPILED)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
forks = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:os.fork:RuntimeWarning")  # of Python, of JAX


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    pooling.set_num_threads(None)


def image(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _step(queue: Any) -> None:
    x = image(16, 20, 40, 40)
    pool = pooling.MaxPool(2)
    y, saved = pool.forward(x)
    queue.put((float(y.sum()), float(pool.backward(y, saved).sum())))


def in_child(context: Any, queue: Any) -> Any:
    """What another process finds; it must end well."""
    child = context.Process(target=_step, args=(queue,))
    child.start()
    found = queue.get(timeout=HANG_S)
    child.join(HANG_S)
    assert child.exitcode == 0
    return found


def here(queue: Any) -> Any:
    _step(queue)
    return queue.get(timeout=HANG_S)


@needs_fork
@forks
def test_fork_after_use() -> None:
    """pytorch#17199, numba#8563: a pool of threads did not survive it, and the child hung."""
    pooling.set_num_threads(2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    assert here(queue) == in_child(context, queue)


@needs_fork
@forks
def test_fork_during_use() -> None:
    """pytorch#2245: the child has neither the threads that were at work nor the locks they held."""
    pooling.set_num_threads(3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    expected = here(queue)
    stop = threading.Event()
    x = image(16, 20, 40, 40)

    def pool_on() -> None:
        pool = pooling.MaxPool(2)
        while not stop.is_set():
            pool(x)

    busy = [threading.Thread(target=pool_on) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(3):
            assert in_child(context, queue) == expected
    finally:
        stop.set()
        for thread in busy:
            thread.join()


@needs_fork
@pytest.mark.parametrize("before", ["", "import pooling.runtime.numba_api"])
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_fork_while_others_make_their_first_call(before: str, seconds: float) -> None:
    """Each module is locked while it is imported, and LLVM while it is asked: of 14 children 14 waited for ever."""
    code = f"""
import os, threading, time
import numpy as np, pooling
{before}
x = np.ones((8, 20, 24, 24), np.float32)
pool = pooling.MaxPool(2, backend="simd")
ready = threading.Barrier(9)
threads = [threading.Thread(target=lambda: (ready.wait(), pool.forward(x))) for _ in range(8)]
for thread in threads:
    thread.start()
ready.wait()
time.sleep({seconds})
child = os.fork()
if not child:
    os._exit(int(pool.forward(x)[0].sum()) - 8 * 20 * 12 * 12)
for thread in threads:
    thread.join()
until = time.monotonic() + {HANG_S / 2}
while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
    time.sleep(0.01)
print(done == (child, 0))
if not done[0]:
    os.kill(child, 9)
"""
    works(run_python(code, "-W", "ignore::DeprecationWarning"), "True")


@needs_fork
def test_fork_while_another_thread_compiles(tmp_path: Path) -> None:
    """The same with Numba's compiler lock: the child waited for what nobody in it would release."""
    code = """
import os, threading, time
import pooling.runtime.numba_api, pooling.backends.numba_loops  # Python's locks of imports that are under way are nobody's either
step("strided_slices")
thread = threading.Thread(target=step, args=["numba_loops"])
thread.start()
ends = []
while thread.is_alive():
    time.sleep(0.1)
    child = os.fork()
    if not child:
        os._exit(0 if step("numba_loops") == 576 else 1)
    ends.append(os.waitpid(child, 0)[1])
print(set(ends))
"""
    quiet = ("-W", "ignore::DeprecationWarning")  # Python's own, of forks among threads
    works(run_python(STEP + code, *quiet, POOLING_CACHE_DIR=str(tmp_path)), "{0}")


def test_spawn() -> None:
    """numba#2028: processes that begin anew, and compile, at once got into each other's way at the cache."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    expected = here(queue)
    children = [context.Process(target=_step, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=HANG_S) for _ in children] == [expected] * len(children)
    for child in children:
        child.join(HANG_S)
        assert child.exitcode == 0


def test_sixteen_threads_on_one_operator() -> None:
    """numba#8563, numba#9288: two threads in a threading layer at once aborted the process."""
    pooling.set_num_threads(3)
    pool = pooling.MaxPool(3, 2, 1)
    inputs = [image(8, 20, 40, 40, seed=i) for i in range(16)]
    exact = [pooling.MaxPool(3, 2, 1, backend="strided_slices")(x) for x in inputs]

    def run(i: int) -> bool:
        for _ in range(5):
            y, saved = pool.forward(inputs[i])
            dx = pool.backward(np.ones_like(y), saved)
            if not np.array_equal(y, exact[i]) or dx.sum() != y.size:
                return False
        return True

    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(run, range(16)))


def test_sixteen_threads_at_the_first_call(tmp_path: Path) -> None:
    """The same where all of them find nothing compiled, and no cache."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
together = Barrier(16)
def run(name):
    together.wait()
    return step(name)
with ThreadPoolExecutor(16) as executor:
    print(set(executor.map(run, ["numba_loops", "simd"] * 8)))
"""
    works(run_python(STEP + code, POOLING_CACHE_DIR=str(tmp_path)), "{576}")


def pool_until_interrupted(pool: pooling.MaxPool, x: Array, delay: float) -> None:
    """Pool over and over, and be interrupted `delay` seconds after the first call has begun."""
    timer = threading.Timer(delay, _thread.interrupt_main)
    try:
        timer.start()  # no sooner: an interrupt outside would end all tests, as it did on a busy machine
        stop = time.monotonic() + HANG_S
        while time.monotonic() < stop:
            y, saved = pool.forward(x)
            pool.backward(y, saved)
    finally:
        timer.join()


@pytest.mark.parametrize("name", ["reference", *NAMES])
def test_an_interrupt_in_a_long_call(name: str) -> None:
    """numba#2324: Ctrl-C in compiled code was ignored, or ended in a segmentation fault."""
    pooling.set_num_threads(3)
    x = image(8, 20, 40, 40)
    pool = pooling.MaxPool(2, backend=name)
    small = x[:1, :2]
    exact = pooling.MaxPool(2, backend="argmax_switches")(x)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pool.backward(*pool.forward(small))  # an interrupt while LLVM compiles gets lost in a callback
    try:
        for delay in (0.01, 0.02, 0.03):
            with pytest.raises(KeyboardInterrupt):
                pool_until_interrupted(pool, x, delay)
    finally:
        signal.signal(signal.SIGINT, before)
    assert same_bits(pool(small), exact[:1, :2])
    if name != "reference":
        assert same_bits(pool(x), exact)


@pytest.mark.skipif(sys.platform == "win32", reason="this system's signals are others")
@pytest.mark.parametrize("name", COMPILED)
def test_interrupts_in_the_first_call(name: str, tmp_path: Path) -> None:
    """The same while Numba is imported and kernels are compiled: no half of either may stay behind."""
    code = """
import os, random, signal, threading, time
draw, count = random.Random(0), 0
signal.signal(signal.SIGINT, signal.default_int_handler)
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
for _ in range(12):
    timer = threading.Timer(0.4 * draw.random(), interrupt)
    try:
        try:
            timer.start()
            assert step(sys.argv[1]) == 576
        finally:
            timer.join()
            time.sleep(0.01)
    except KeyboardInterrupt:
        count += 1
print(step(sys.argv[1]), count > 0)
"""
    done = run_python(STEP + code.replace("sys.argv[1]", repr(name)), POOLING_CACHE_DIR=str(tmp_path))
    # LLVM's callbacks report an interrupt that comes within them; the library goes on all the same.
    assert (done.returncode, done.stdout.strip()) == (0, "576 True"), done.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["inference", "training", "indices"])
def test_ten_thousand_calls_do_not_grow(name: str, direction: str) -> None:
    """pytorch#32284: each call of max pooling left some memory behind. A kilobyte would be seen."""
    pool = pooling.MaxPool(2, backend=name)
    x = image(2, 3, 8, 8)

    def call() -> None:
        if direction == "training":
            y, saved = pool.forward(x)
            pool.backward(y, saved)
        elif direction == "inference":
            pool(x)
        else:
            pool.forward_with_indices(x)

    def call_often(n: int) -> None:
        for _ in range(n):
            call()

    call_often(1000)
    gc.collect()
    before = psutil.Process().memory_info().rss
    call_often(10_000)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 4_000_000


@pytest.mark.parametrize("name", pooling.list_backends())
def test_absurd_sizes(name: str) -> None:
    """pytorch#189664, pytorch#73190: a dilation or stride near 2^31 was read far outside of x."""
    x = image(1, 2, 3, 4)
    ties = pooling.get_backend(name).ties[0]
    for most in (2**31 - 1, 2**31, 2**40):
        pool = pooling.MaxPool(1, most, 0, most, True, ties=ties, backend=name)
        if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
            y, saved = pool.forward(x)
            assert same_bits(y, x[:, :, :1, :1])
            assert pool.backward(y, saved).sum() == y.sum()
        with pytest.raises(pooling.PoolingError, match=f"kernel_size={most}|kernel_size {most}"):
            pooling.MaxPool(most, 1, ties=ties, backend=name)(x)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", NAMES)
def test_more_than_two_to_the_31_elements(name: str, data_format: Any) -> None:
    """pytorch#68418, pytorch#167253: indices of 32 bits overflowed. Needs 6 GB of memory."""
    side = 46_344  # a multiple of 8 whose square is just above 2^31
    assert side**2 > 1 << 31
    x = np.zeros((side, side), np.uint8)
    cells = [(0, 5), (side // 2, 7), (side - 1, side - 1)]
    for value, cell in enumerate(cells, start=1):
        x[cell] = value
    x = x[None, None] if data_format == "channels_first" else x[None, ..., None]
    pool = pooling.MaxPool(8, data_format=data_format, backend=name)
    y, indices = pool.forward_with_indices(x)
    y, indices = y.reshape(side // 8, -1), indices.reshape(side // 8, -1)
    assert int(y.sum()) == 1 + 2 + 3
    for value, (i, j) in enumerate(cells, start=1):
        assert y[i // 8, j // 8] == value
        assert indices[i // 8, j // 8] == i * side + j
    assert indices[-1, 0] == (side - 8) * side


def test_no_warning_anywhere() -> None:
    """``python -W error``, with Python's development mode, which also tells of files that were left open."""
    code = """
import pooling.cli
for name in pooling.list_backends():
    ties = pooling.get_backend(name).ties[0]
    for pool in (pooling.MaxPool(2, ties=ties, backend=name), pooling.AvgPool(2, backend=name)):
        if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
            y, saved = pool.forward(x)
            pool.backward(y, saved)
            with np.errstate(all="warn"):
                large = np.resize([np.inf, -np.inf, 3e38], (1, 2, 8, 8) if name == "reference" else (16, 20, 40, 40))
                y, saved = pool.forward(large.astype(np.float32))
                pool.backward(np.resize([np.inf, -np.inf, 3e38], y.shape).astype(np.float32), saved)
            nan = pool(np.full_like(x, np.nan))
            assert np.isnan(nan).all()
            pool(np.full_like(x, -np.inf))
pooling.gradcheck(pooling.MaxPool(2), x)
print(pooling.pick(x.shape, x.dtype, pooling.MaxPool(2)) in pooling.list_backends())
"""
    works(run_python(STEP + code, "-X", "dev", "-bb"), "True")
