"""The one place that splits work over threads.

Work is a function of a range, ``work(start, stop)``, that releases the GIL (a NumPy loop, a ``nogil`` kernel) and writes
only what belongs to its range. The threads are Python's own: Numba's parallel layers abort the process when two
threads enter them at once, and do not survive a fork; a plain executor, made anew in a forked child, has neither
problem, and what it runs can be cached on disk.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, local
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling.errors import PoolingError

Array = NDArray[Any]

SMALL = 1 << 18
"""Bytes moved up to which work stays on the caller's thread: handing over costs 20 to 45 us, the time to move 250 KB."""

_lock = Lock()
_executor: ThreadPoolExecutor | None = None
_threads: int | None = None
_worker = local()


def get_num_threads() -> int:
    """Threads that one pooling call may use: what was set, else POOLING_NUM_THREADS, else the CPUs of this process."""
    if _threads is not None:
        return _threads
    from_environment = os.environ.get("POOLING_NUM_THREADS")
    if from_environment:
        if not from_environment.strip().isdigit() or int(from_environment) < 1:
            raise PoolingError(f"POOLING_NUM_THREADS={from_environment!r}: it must be a positive integer")
        return int(from_environment)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_num_threads(n: int | None) -> None:
    """Let every later call use `n` threads; None goes back to POOLING_NUM_THREADS or the CPUs of this process."""
    global _threads, _executor
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise PoolingError(f"n={n!r}: the number of threads must be a positive int, or None for the default")
    with _lock:
        _threads = n
        _executor = None  # its threads end when the calls that still use it return


def split(work: Callable[[int, int], None], n: int, nbytes: int) -> None:
    """Call ``work`` over ranges that together make ``range(n)``, on several threads when it pays.

    Parameters
    ----------
    work
        Called with `start` and `stop`.
    n
        How much there is.
    nbytes
        Bytes that all of it moves: below :data:`SMALL` it stays on this thread.
    """
    parts = min(n, get_num_threads()) if nbytes > SMALL else 1
    # A worker that splits again would wait for threads that wait for it.
    if parts <= 1 or getattr(_worker, "busy", False):
        work(0, n)
        return
    bounds = [n * i // parts for i in range(parts + 1)]
    futures = [_get_executor().submit(_run, work, a, b) for a, b in itertools.pairwise(bounds[1:])]
    try:
        work(bounds[0], bounds[1])
    finally:
        for future in futures:  # the arrays must not be handed back while a thread still writes to them
            future.result()


def scratch(n: int, dtype: DTypeLike, slot: int) -> Array:
    """This thread's own buffer number `slot`, of at least `n` elements, 64-byte aligned, with anything in it.

    Valid until the same thread asks for the slot again. What one unit of work needs is small; memory obtained anew at each
    call would cost more than the work, in page faults.
    """
    nbytes = n * np.dtype(dtype).itemsize
    buffers: dict[int, Array] = _worker.__dict__.setdefault("buffers", {})
    buffer = buffers.get(slot)
    if buffer is None or buffer.nbytes < nbytes:
        raw = np.empty(nbytes + 64, np.uint8)
        skip = -raw.ctypes.data % 64
        buffer = buffers[slot] = raw[skip : skip + nbytes]
    return buffer[:nbytes].view(dtype)


def _run(work: Callable[[int, int], None], start: int, stop: int) -> None:
    _worker.busy = True
    work(start, stop)


def _get_executor() -> ThreadPoolExecutor:
    global _executor
    executor = _executor
    if executor is None:
        with _lock:
            executor = _executor
            if executor is None:
                executor = _executor = ThreadPoolExecutor(max(get_num_threads() - 1, 1), "pooling")
    return executor


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _executor, _lock
    _executor, _lock = None, Lock()
    _worker.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
