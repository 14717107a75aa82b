"""The thread pool: the one place that splits work over threads.

Work is a function of a range, ``work(start, stop)``, that releases the GIL (a NumPy loop, a ``nogil`` kernel) and writes only
what belongs to its range. The caller and its helper threads each take the next range of a common list: a thread that starts late,
because waking it takes 20 to 50 us or because the machine is busy, takes fewer. The caller waits only for helpers that have
started, so a call never takes much longer than it would have alone.

The threads are Python's own: Numba's parallel layers abort the process when two threads enter them at once, and do not
survive a fork; threads made anew in a forked child have neither problem, and what they run can be cached on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from queue import SimpleQueue
from threading import Lock, RLock, Thread, local
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling.errors import PoolingError, shown
from pooling.parallel.quota import cpu_quota

Array = NDArray[Any]
Work = Callable[[int, int], None]
WaitForWork = Callable[[Array], int]

SMALL = 1 << 18
"""Bytes moved up to which work stays on the caller's thread: it would be done before a helper has woken up."""

RANGE = 1 << 17
"""Bytes that a range should move at least: handing one out costs a few microseconds."""

RANGES = 4
"""Ranges for each thread at most. With one range each, all wait for the slowest: 1.6 times as long at 800 KB."""

ALONE = 1 << 17
"""Bytes moved up to which compiled work stays on the caller's thread although a helper spin-waits for it."""

WAKEN = 1 << 19
"""Bytes moved from which sleeping helpers are woken for compiled work: in time for the next call at least."""

OFTEN = 5e-5
"""Seconds since the last call within which they are woken for less work, too: at such a rate they will still spin-wait."""

DONE, OVERFLOWED, PARTICIPANTS, ARGUMENTS, NEXT = 0, 1, 8, 16, 272
"""Layout of a work queue, an array of int64: units done, overflow flag, participants, room for arguments, and from NEXT on, one
cache line each, the counter of every part."""

PARTS = 16
"""Parts that a work queue has room for from the beginning."""

NUMBER, MESSAGE, CALLED, FUNCTION, WITH, CPU, INSIDE, WAITING, BOX = 0, 1, 2, 3, 4, 5, 8, 16, 24
"""Layout and length of a mailbox (`work_queue.py`). What callers write is one cache line."""

_lock = RLock()  # a signal's handler, or a finalizer, may pool while this thread has it
_workers: _Workers | None = None
_threads: int | None = None


class _Own(local):
    """Thread-local state."""

    busy = False  # whether it is a helper; a lookup of a missing attribute takes 0.7 us

    def __init__(self) -> None:
        self.buffers: dict[tuple[int, int], Array] = {}


_own = _Own()

MOST_THREADS = 1 << 12
"""More than any machine has CPUs for one process; a number beyond that is a slip, and starting so many might fail halfway."""

UNSHARED = np.zeros(0, np.int64)
"""The mailbox of work that its caller does alone."""


class _Job:
    """Work for several threads, and how many are at it."""

    __slots__ = ("active", "closed", "error", "idle", "lock", "take")

    def __init__(self, take: Callable[[], None]) -> None:
        self.take = take
        self.lock, self.idle = Lock(), Lock()
        self.active, self.closed = 0, False
        self.error: BaseException | None = None
        self.idle.acquire()

    def help(self) -> None:
        """Take parts until there are none, unless the job is closed already."""
        with self.lock:
            if self.closed:
                return
            self.active += 1
            take = self.take
        try:
            take()
        except BaseException as error:
            self.error = error
        finally:
            with self.lock:
                self.active -= 1
                if self.closed and not self.active:
                    self.idle.release()

    def close(self) -> None:
        """Let no further helper start, and wait for those that have."""
        with self.lock:
            self.closed = True
            del self.take  # or the arrays would live until each helper, perhaps much later, has seen that it is closed
            waiting = self.active > 0
        if waiting:
            self.idle.acquire()


class _Workers:
    """Helper threads that wait for jobs."""

    def __init__(self, n: int) -> None:
        self.asked = self.n = n
        room = np.zeros(BOX + 7, np.int64)
        self.mailbox = room[-(room.ctypes.data // 8) % 8 :][:BOX]
        self.mailbox[CPU] = -1
        self.mailbox_view = self.mailbox.data  # the same, read and written by Python in a third of the time
        self.writing = Lock()  # held by the call that uses the mailbox
        self.called = 0.0  # when the last call ended
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        for started in range(n):
            try:
                Thread(target=self._serve, name="pooling", daemon=True).start()
            except RuntimeError:  # the system gives no more: those that there are do the work
                self.n = started
                break

    def _serve(self) -> None:
        _own.busy = True
        np.seterr(all="ignore")  # of this thread; the caller's are the operators' business
        while (job := self.jobs.get()) is not None:
            job.help()
            del job  # or the arrays of the last call would live until the next

    def dismiss(self) -> None:
        for _ in range(self.n):
            self.jobs.put(None)


def get_num_threads() -> int:
    """Threads that one pooling call may use: what was set, else POOLING_NUM_THREADS, else the CPUs of this process.

    Those are the CPUs that it may run on, or fewer where a container has a quota of their time (Linux's control groups, version
    1 or 2): half a CPU is one thread, one and a half are two. The quota is read once, when it is first asked for, and not again
    when it changes, nor in a child made by fork; ``set_num_threads(None)`` looks again.
    """
    if _threads is not None:
        return _threads
    from_environment = os.environ.get("POOLING_NUM_THREADS")
    if from_environment:
        digits = from_environment.strip()
        if not digits.isdecimal() or len(digits) > 9 or not 1 <= int(digits) <= MOST_THREADS:
            raise PoolingError(
                f"POOLING_NUM_THREADS={shown(from_environment)}: it must be an integer from 1 to {MOST_THREADS}"
            )
        return int(digits)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cpus if quota is None else min(cpus, quota)


@cache
def _quota() -> int | None:
    return cpu_quota()


def chosen_threads() -> int | None:
    """What :func:`set_num_threads` was last given: what a call looks at to see that nothing has changed."""
    return _threads


def set_num_threads(n: int | np.integer[Any] | None) -> None:
    """Let every later call use `n` threads; None goes back to POOLING_NUM_THREADS or the CPUs of this process.

    With None the CPUs' quota is read again; a number is taken as it is, whatever the quota.
    """
    global _threads, _workers
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MOST_THREADS):
        raise PoolingError(
            f"n={shown(n)}: the number of threads must be an int from 1 to {MOST_THREADS}, or None for the default"
        )
    if n is None:
        _quota.cache_clear()
    with _lock:
        _threads = None if n is None else int(n)
        if _workers is not None:
            _workers.dismiss()  # once they have done what is waiting
            _workers = None


@contextmanager
def using_threads(n: int | None) -> Iterator[None]:
    """Use `n` threads within the block, and afterwards what was set before: nothing, if nothing was. None changes nothing."""
    before = _threads
    if n is not None:
        set_num_threads(n)
    try:
        yield
    finally:
        if n is not None:
            set_num_threads(before)


def split(work: Work, n: int, nbytes: int) -> None:
    """Call ``work`` over ranges that together make ``range(n)``, on several threads where that is faster.

    Parameters
    ----------
    work
        Called with `start` and `stop`.
    n
        How much there is.
    nbytes
        Bytes that all of it moves: up to :data:`SMALL` it stays on this thread.
    """
    threads = min(n, get_num_threads()) if nbytes > SMALL else 1
    # A helper that splits again would wait for threads that wait for it.
    if threads <= 1 or _own.busy:
        work(0, n)
        return
    parts = parts_of(n, threads, nbytes)
    ranges = iter([(n * i // parts, n * (i + 1) // parts) for i in range(parts)])

    def take() -> None:
        for start, stop in ranges:  # a list's iterator yields each range once, to whichever thread
            work(start, stop)

    job = _Job(take)
    try:
        _call(job, threads - 1)
        take()
    finally:
        job.close()  # the arrays must not be handed back while a thread still writes to them
    if job.error is not None:
        raise job.error


def share(take: Callable[[int, int, Array], None], n: int, nbytes: int, wait_for_work: WaitForWork) -> None:
    """As :func:`split`, for compiled work that takes its ranges itself, and is not small (:func:`is_small`).

    Parameters
    ----------
    take
        Called with the units to take at a time, the number of threads that may take part, and the mailbox for them: it does
        units until all are done and no helper is inside. With 0 threads it does all units itself.
    wait_for_work
        Run by helpers on the mailbox: it returns -1 when no message has come for a while, or the number of a CPU that the helper
        shares with its caller and should leave.
    """
    threads = min(n, get_num_threads())
    if threads == 1:
        take(n, 0, UNSHARED)
        return
    workers = _get_workers(threads - 1)
    if not workers.writing.acquire(False):  # another call uses the helpers
        take(n, 0, UNSHARED)
        return
    try:
        workers.mailbox_view[CALLED] = 1  # before checking whether helpers wait: from now on they do not stop waiting
        if _offer(workers, wait_for_work, threads - 1, nbytes > WAKEN or perf_counter() - workers.called < OFTEN):
            take(-(-n // parts_of(n, threads, nbytes)), threads, workers.mailbox)
        else:
            take(n, 0, UNSHARED)
    finally:
        workers.mailbox_view[CALLED] = 0
        workers.writing.release()
    workers.called = perf_counter()  # last, because an interrupt may come with any call


def is_small(n: int, nbytes: int) -> bool:
    """Whether compiled work of `n` units, or any that a helper would share again, stays on the thread that has it.

    Nested sharing would wait for threads that wait for it.
    """
    return n <= 1 or nbytes <= ALONE or _own.busy


def _offer(workers: _Workers, wait_for_work: WaitForWork, helpers: int, wake: bool) -> bool:
    """Whether to post a message: helpers spin-wait for one, or are woken if `wake` allows it."""
    waiting: int = workers.mailbox_view[WAITING]
    if wake and waiting < helpers:
        for _ in range(helpers - waiting - workers.jobs.qsize()):  # those may not have been seen yet
            workers.jobs.put(_Job(lambda: _serve_mailbox(workers.mailbox, wait_for_work)))
        return True
    return waiting > 0


def _serve_mailbox(mailbox: Array, wait_for_work: WaitForWork) -> None:
    """Serve messages, on another CPU than the caller's.

    If all CPUs are busy when a helper is woken, Linux may place it on the caller's, and leaves it there for some 30 ms after
    another has become idle. Both then share one CPU, and a call takes 2.5 times as long.
    """
    for _ in range(4):
        cpu = wait_for_work(mailbox)
        if cpu < 0:
            return
        try:
            cpus = os.sched_getaffinity(0)
            if cpus <= {cpu}:
                return
            os.sched_setaffinity(0, cpus - {cpu})
            os.sched_setaffinity(0, cpus)
        except OSError:  # not allowed
            return


@lru_cache(maxsize=512)
def parts_of(n: int, threads: int, nbytes: int) -> int:
    """In how many ranges to cut `n` units that move so many bytes."""
    return min(n, max(threads, min(threads * RANGES, nbytes // RANGE)))


def _call(job: _Job, helpers: int) -> None:
    workers = _get_workers(helpers)
    for _ in range(helpers):
        workers.jobs.put(job)


def scratch(n: int, dtype: np.dtype[Any], slot: int) -> Array:
    """This thread's own scratch buffer number `slot`: at least `n` elements, 64-byte aligned, uninitialized.

    Valid until the same thread requests the slot again. What one unit of work needs is small; memory allocated at each call would
    cost more than the work, in page faults.
    """
    buffers = _own.buffers
    key = slot, dtype.num  # dtypes themselves take four times as long to find
    buffer = buffers.get(key)
    if buffer is None or len(buffer) < n:
        raw = np.empty(n * dtype.itemsize + 64, np.uint8)
        skip = -raw.ctypes.data % 64
        buffer = buffers[key] = raw[skip : skip + n * dtype.itemsize].view(dtype)
    return buffer


def _get_workers(n: int) -> _Workers:
    """At least `n` helpers."""
    global _workers
    workers = _workers
    if workers is None or workers.asked < n:
        with _lock:
            workers = _workers
            if workers is None or workers.asked < n:
                workers = _Workers(max(n, get_num_threads() - 1))
                if _workers is not None:  # perhaps made by what interrupted this very line
                    _workers.dismiss()
                _workers = workers
    return workers


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _workers, _lock
    _workers, _lock = None, RLock()
    _own.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
