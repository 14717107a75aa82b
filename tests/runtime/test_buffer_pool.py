"""Results in buffers that are lent again: only when nobody can see them any more."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

import pooling
from pooling.runtime import buffer_pool
from pooling.runtime.buffer_pool import ALIGNMENT, SMALL, Lease, empty, size_class
from tests.cases import Array, same_bits
from tests.processes import HANG_S, run_python

F4 = np.dtype(np.float32)
LARGE = (4, 16, 80, 80)  # its output has 409,600 bytes, and so 102,400 switches

VIEWS: dict[str, Any] = {
    "itself": lambda y: y,
    "slice": lambda y: y[1:, ::2],
    "element": lambda y: y[-1, -1, -1, -1:],
    "reshaped": lambda y: y.reshape(-1)[7:],
    "transposed": lambda y: y.transpose(3, 1, 0, 2)[::-1],
    "other dtype": lambda y: y.view(np.uint8),
    "subclass": lambda y: y.view(np.recarray),
    "memoryview": memoryview,
    "memoryview's part": lambda y: memoryview(y).cast("B")[100:200],
    "frombuffer": lambda y: np.frombuffer(y, np.int32),
    "array of memoryview": lambda y: np.asarray(memoryview(y[2])),
    "view of view": lambda y: np.lib.stride_tricks.sliding_window_view(y[0].T, 2, axis=0)[1:],
    "broadcast": lambda y: np.broadcast_to(y[:1], y.shape),
    "base": lambda y: y[1:].base,
    "base of base": lambda y: y.base.base,
    "array of base": lambda y: np.asarray(y.base)[5:],
    "array of lease": lambda y: np.asarray(y.base.base)[5:],
    "view of base": lambda y: y.base[4:].view(np.int16),
    "iterator": lambda y: y.flat,
    "dlpack": np.from_dlpack,
}


@pytest.fixture(autouse=True)
def pool() -> Iterator[Any]:
    """An empty pool for each test, of the default size."""
    before, buffer_pool._pool = buffer_pool._pool, buffer_pool._Pool()
    yield buffer_pool._pool
    buffer_pool._pool = before


def free(pool: Any) -> int:
    """Bytes in buffers that can be lent again."""
    with pool.lock:
        pool.sort_in()
    return int(pool.held())


def address(y: Array) -> int:
    return int(y.ctypes.data)


def image(shape: tuple[int, ...] = LARGE, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def train(x: Array, **arguments: Any) -> list[Array]:
    """All arrays that a step makes."""
    operator = pooling.MaxPool(2, **arguments)
    y, saved = operator.forward(x)
    return [y, operator.backward(y, saved), *saved.kept]


@pytest.mark.parametrize("name", ["strided_slices", "numba_loops", "simd"])
def test_results_are_plain_aligned_arrays(name: str) -> None:
    for array in train(image(), backend=name):
        assert type(array) is np.ndarray
        assert array.nbytes >= SMALL
        assert address(array) % ALIGNMENT == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.base is not None
        assert isinstance(array.base.base, Lease)


@pytest.mark.parametrize("dtype", [*"?bBhHiIlLqQefd", "m8[s]"])
def test_any_dtype_and_shape(dtype: str) -> None:
    for shape in ((SMALL,), (3, SMALL, 1), (SMALL + 1, 2), (0, 5), ()):
        array = empty(shape, np.dtype(dtype))
        assert (array.shape, array.dtype.char) == (shape, np.dtype(dtype).char)
        array[...] = 1
        assert array.size == 0 or array.reshape(-1)[-1] == np.ones((), dtype)


def test_a_buffer_is_lent_again_when_its_array_dies() -> None:
    x = image()
    arrays = train(x)
    places = sorted(map(address, arrays))
    arrays.clear()
    assert sorted(map(address, train(x))) == places
    y = empty((1000, 100), F4)
    place = address(y)
    del y
    assert address(empty((100_001,), F4)) == place, "a size that is almost the same"


def test_what_lives_is_not_lent() -> None:
    arrays = [empty((100, 1000), F4) for _ in range(20)]
    for i, array in enumerate(arrays):
        array[...] = i
    assert len({address(array) for array in arrays}) == 20
    assert all((array == i).all() for i, array in enumerate(arrays))


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_keeps_its_memory(kind: str) -> None:
    y = empty((4, 16, 40, 40), F4)
    y[...] = 3
    lease, place = weakref_of_lease(y), address(y)
    view = VIEWS[kind](y)
    del y
    gc.collect()
    assert lease() is not None
    others = [empty((4, 16, 40, 40), F4) for _ in range(3)]
    assert place not in map(address, others)
    del view
    gc.collect()
    assert lease() is None
    assert address(empty((4, 16, 40, 40), F4)) == place


def weakref_of_lease(y: Array) -> weakref.ref[Any]:
    assert y.base is not None
    return weakref.ref(y.base.base)


@pytest.mark.parametrize("seed", range(5))
def test_live_arrays_never_share(seed: int) -> None:
    """A random life: results and views of them kept and dropped, while more are computed."""
    choose = random.Random(seed)
    shapes = [(4, 16, 80, 80), (4, 16, 82, 80), (4, 15, 84, 80), (4, 17, 132, 60)]
    kinds = sorted(VIEWS.keys() - {"iterator", "base of base"})
    alive: list[tuple[Any, bytes, int, int]] = []
    for step in range(60):
        for result in train(image(choose.choice(shapes), step)):
            if choose.random() < 0.4:
                view = VIEWS[choose.choice(kinds)](result.reshape(4, 2, -1, 10))
                low, high = np.lib.array_utils.byte_bounds(np.asarray(view))
                assert all(stop <= low or high <= start for _, _, start, stop in alive)
                alive.append((view, np.asarray(view).tobytes(), low, high))
        while len(alive) > 12:
            view, contents, *_ = alive.pop(choose.randrange(len(alive)))
            assert np.asarray(view).tobytes() == contents
        del result
    for view, contents, *_ in alive:
        assert np.asarray(view).tobytes() == contents


def test_buffers_stay_under_the_bound(pool: Any) -> None:
    pooling.set_buffer_bytes(1_000_000)
    arrays = [empty((n, 1000), F4) for n in range(20, 120)]
    assert all(address(array) % ALIGNMENT == 0 for array in arrays)
    assert not any(np.may_share_memory(a, b) for a, b in itertools.combinations(arrays, 2))
    assert free(pool) == 0
    arrays.clear()
    assert 0 < free(pool) == pool.total <= 1_000_000
    before = free(pool)
    large = empty((1_000_000,), F4)
    assert address(large) % ALIGNMENT == 0
    del large
    assert free(pool) == before, "one that is larger than the bound pushed out others"
    pooling.set_buffer_bytes(200_000)
    assert free(pool) <= 200_000
    assert pooling.get_buffer_bytes() == 200_000


def test_a_lower_bound_holds_for_what_is_in_use(pool: Any) -> None:
    arrays = [empty((100_000,), F4) for _ in range(5)]
    for i, array in enumerate(arrays):
        array[...] = i
    pooling.set_buffer_bytes(1_000_000)
    assert pool.total == 2 * size_class(400_000)
    assert all((array == i).all() for i, array in enumerate(arrays))
    del array
    arrays.clear()
    assert free(pool) == pool.total == 2 * size_class(400_000)


def test_the_size_unused_longest_goes_first(pool: Any) -> None:
    pooling.set_buffer_bytes(700_000)
    for n in (50_000, 60_000, 50_000, 40_000, 45_000):
        empty((n,), F4)
    assert free(pool) <= 700_000
    assert not pool.free.get(size_class(240_000))
    assert pool.free[size_class(200_000)]


def test_zero_turns_it_off(pool: Any) -> None:
    x = image()
    y, dx, taps = (array.copy() for array in train(x))
    kept = train(x)
    pooling.set_buffer_bytes(0)
    assert free(pool) == 0
    for got, want in zip(kept, (y, dx, taps), strict=True):
        assert same_bits(got, want), "a result did not survive"
    assert all(array.flags.owndata or not isinstance(array.base, np.ndarray) for array in train(x))
    kept.clear()
    assert free(pool) == 0
    pooling.set_buffer_bytes(None)
    train(x)
    assert free(pool) > 0


def test_sizes_waste_little() -> None:
    for nbytes in [*range(SMALL, SMALL + 5000), *np.geomspace(SMALL, 1 << 40, 1000, dtype=int).tolist()]:
        assert nbytes <= size_class(nbytes) <= nbytes * 1.125
        assert size_class(size_class(nbytes)) == size_class(nbytes)


def test_out_is_filled_and_not_taken(pool: Any) -> None:
    x = image()
    y = np.empty((4, 16, 40, 40), np.float32)
    assert pooling.max_pool(x, 2, out=y) is y
    assert y.base is None
    del y
    assert free(pool) == 0


def test_a_result_can_be_pickled_and_copied() -> None:
    y = pooling.max_pool(image(), 2)
    for again in (pickle.loads(pickle.dumps(y)), pickle.loads(pickle.dumps(y, protocol=5)), y.copy(), y + 0):
        assert same_bits(again, y)
        assert not np.may_share_memory(again, y)


def test_sixteen_threads() -> None:
    def work(seed: int) -> bool:
        choose = random.Random(seed)
        kept: list[tuple[Array, int]] = []
        for i in range(400):
            array = empty((choose.choice((20_000, 30_000, 40_000)),), F4)
            mark = seed * 1000 + i
            array[...] = mark
            kept.append((array, mark))
            if len(kept) > 4:
                old, mark = kept.pop(choose.randrange(5))
                if not (old == mark).all():
                    return False
        return True

    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(work, range(16)))


def test_a_lease_may_die_while_the_pool_is_busy(pool: Any) -> None:
    """In the same thread, even: a garbage collection frees arrays wherever it happens to run."""
    y = empty((100_000,), F4)
    with pool.lock:
        del y
        assert pool.held() == 0
        assert address(empty((100_000,), F4))
    assert free(pool) == size_class(400_000)


def test_no_python_code_runs_when_a_lease_dies() -> None:
    """An interrupt that arrives in a finalizer is reported and lost."""
    ran = []
    y = empty((100_000,), F4)
    lease = weakref_of_lease(y)
    sys.setprofile(lambda frame, event, argument: ran.append(frame.f_code.co_name) if event == "call" else None)
    del y
    sys.setprofile(None)
    assert lease() is None
    assert not ran


def test_arrays_in_cycles_come_back(pool: Any) -> None:
    cycle: dict[str, Any] = {"y": empty((100_000,), F4)}
    cycle["itself"] = cycle
    del cycle
    gc.collect()
    assert free(pool) == size_class(400_000)


def _in_child(queue: Any, y: Array, before: bytes) -> None:
    same = y.tobytes() == before
    more = [empty(y.shape, y.dtype) for _ in range(3)]
    for array in more:
        array[...] = 1
    queue.put(same and y.tobytes() == before and not any(np.may_share_memory(y, array) for array in more))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:os.fork:RuntimeWarning")  # of Python, of JAX
def test_a_forked_child_has_its_own() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    y = pooling.max_pool(image(), 2)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            empty((100_000,), F4)

    busy = [threading.Thread(target=churn) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(5):
            child = context.Process(target=_in_child, args=(queue, y, y.tobytes()))
            child.start()
            assert queue.get(timeout=HANG_S)
            child.join(HANG_S)
            assert child.exitcode == 0
    finally:
        stop.set()
        for thread in busy:
            thread.join()


def test_memory_does_not_grow(pool: Any) -> None:
    x = image((1, 4, 256, 256))
    operator = pooling.MaxPool(2)

    def steps(n: int) -> None:
        for _ in range(n):
            y, saved = operator.forward(x)
            operator.backward(y, saved)

    steps(500)
    gc.collect()
    before = psutil.Process().memory_info().rss
    steps(9500)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 4_000_000
    assert free(pool) <= 2 * x.nbytes, "helpers that come late held on to the arrays of calls that were done"


def test_the_environment_sets_the_bound() -> None:
    show = "import pooling; print(pooling.get_buffer_bytes())"
    assert run_python(show, POOLING_BUFFER_BYTES="12345").stdout.strip() == "12345"
    assert run_python(show, POOLING_BUFFER_BYTES="0").stdout.strip() == "0"
    assert int(run_python(show, POOLING_BUFFER_BYTES="").stdout) > 1 << 24
    assert "POOLING_BUFFER_BYTES='much'" in run_python(show, POOLING_BUFFER_BYTES="much").stderr


@pytest.mark.parametrize("n", [-1, True, 1.5, "2"])
def test_wrong_bounds_are_named(n: Any) -> None:
    with pytest.raises(pooling.PoolingError, match=r"n=.*bytes.*0: none"):
        pooling.set_buffer_bytes(n)


def test_nothing_is_said_when_the_interpreter_ends() -> None:
    code = """
import numpy as np, pooling
x = np.zeros((4, 16, 80, 80), np.float32)
class Holder: pass
holder = Holder(); holder.itself = holder; holder.y = pooling.max_pool(x, 2, backend="strided_slices")
y = pooling.max_pool(x, 2, backend="strided_slices")
np.y = y[1:]
"""
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")
