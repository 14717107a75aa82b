"""The one place that splits work over threads.

Work is a function of a range, ``work(start, stop)``, that releases the GIL (a NumPy loop, a ``nogil`` kernel) and writes only
what belongs to its range. The ranges lie in a row, and the caller and its helpers each take the next one: who comes late,
because waking a thread takes 20 to 50 us, or because the machine is busy, takes fewer. The caller waits only for helpers
that have begun, so that a call never takes much longer than it would have alone.

The threads are Python's own: Numba's parallel layers abort the process when two threads enter them at once, and do not
survive a fork; threads made anew in a forked child have neither problem, and what they run can be cached on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, lru_cache
from queue import SimpleQueue
from threading import Lock, RLock, Thread, local
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling.errors import PoolingError, shown
from pooling.quota import cpu_quota

Array = NDArray[Any]
Work = Callable[[int, int], None]
Attend = Callable[[Array], int]

SMALL = 1 << 18
"""Bytes moved up to which work stays on the caller's thread, because it would be done before a helper is awake."""

RANGE = 1 << 17
"""Bytes that a range should move at least: handing one out costs a few microseconds."""

RANGES = 4
"""Ranges for each thread at most. With 1, a helper that was late made everybody wait: 1.6 times as long at 800 KB."""

ALONE = 1 << 17
"""Bytes moved up to which compiled work stays on the caller's thread although a helper is waiting for it."""

WAKEN = 1 << 19
"""Bytes moved from which helpers are woken for compiled work: too late for this call perhaps, but in time for the next."""

OFTEN = 5e-5
"""Seconds since the last call within which they are woken for less, too: who calls so often will find them still there."""

DONE, OVERFLOWED, WHO, ARGUMENTS, NEXT = 0, 1, 8, 16, 272
"""Where in the tickets is counted what is done, and whose sums overflowed, and who takes part, a cache line each; room; and what
of each part is drawn."""

PARTS = 16
"""For how many parts tickets have room from the beginning."""

NUMBER, LETTER, CALLED, FUNCTION, WITH, CPU, INSIDE, WAITING, BOX = 0, 1, 2, 3, 4, 5, 8, 16, 24
"""Where what is in a letter box (`simd/tickets.py`), and how long it is. What callers write is one cache line."""

_lock = RLock()  # a signal's handler, or a finalizer, may pool while this thread has it
_crew: _Crew | None = None
_threads: int | None = None


class _Own(local):
    """What each thread has of its own."""

    busy = False  # whether it is a helper; asking for an attribute that is not there takes 0.7 us

    def __init__(self) -> None:
        self.buffers: dict[tuple[int, int], Array] = {}


_worker = _Own()

MOST_THREADS = 1 << 12
"""More than any machine has CPUs for one process; a number beyond that is a slip, and starting so many might fail halfway."""

UNSHARED = np.zeros(0, np.int64)
"""The letter box of work that its caller does alone."""


class _Job:
    """Work for several threads, and who is at it."""

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
        """Let nobody begin any more, and wait for those who have."""
        with self.lock:
            self.closed = True
            del self.take  # or the arrays would live until each helper, perhaps much later, has seen that it is closed
            waiting = self.active > 0
        if waiting:
            self.idle.acquire()


class _Crew:
    """Helpers that wait for jobs."""

    def __init__(self, n: int) -> None:
        self.asked = self.n = n
        room = np.zeros(BOX + 7, np.int64)
        self.box = room[-(room.ctypes.data // 8) % 8 :][:BOX]
        self.box[CPU] = -1
        self.mail = self.box.data  # the same, read and written by Python in a third of the time
        self.writing = Lock()  # who has it may use the letter box
        self.called = 0.0  # when the last call ended
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        for started in range(n):
            try:
                Thread(target=self._serve, name="pooling", daemon=True).start()
            except RuntimeError:  # the system gives no more: those that there are do the work
                self.n = started
                break

    def _serve(self) -> None:
        _worker.busy = True
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
    global _threads, _crew
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MOST_THREADS):
        raise PoolingError(
            f"n={shown(n)}: the number of threads must be an int from 1 to {MOST_THREADS}, or None for the default"
        )
    if n is None:
        _quota.cache_clear()
    with _lock:
        _threads = None if n is None else int(n)
        if _crew is not None:
            _crew.dismiss()  # once they have done what is waiting
            _crew = None


def split(work: Work, n: int, nbytes: int) -> None:
    """Call ``work`` over ranges that together make ``range(n)``, on several threads when it pays.

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
    if threads <= 1 or _worker.busy:
        work(0, n)
        return
    parts = parts_of(n, threads, nbytes)
    ranges = iter([(n * i // parts, n * (i + 1) // parts) for i in range(parts)])

    def take() -> None:
        for start, stop in ranges:  # a list's iterator hands out each range once, whoever asks
            work(start, stop)

    job = _Job(take)
    try:
        _call(job, threads - 1)
        take()
    finally:
        job.close()  # the arrays must not be handed back while a thread still writes to them
    if job.error is not None:
        raise job.error


def share(take: Callable[[int, int, Array], None], n: int, nbytes: int, attend: Attend) -> None:
    """As :func:`split`, for compiled work that draws its ranges itself, and is not small (:func:`is_small`).

    Parameters
    ----------
    take
        Called with how many units to draw at a time, how many threads may be at it by way of the letter box, and that box: does
        units until all are drawn and done, and no helper is inside. With 0 threads it does all that there is.
    attend
        What helpers do that wait for letters in a box: until none comes, or until they had better run elsewhere than on the
        CPU whose number they return.
    """
    threads = min(n, get_num_threads())
    if threads == 1:
        take(n, 0, UNSHARED)
        return
    crew = _get_crew(threads - 1)
    if not crew.writing.acquire(False):  # the helpers are another caller's
        take(n, 0, UNSHARED)
        return
    try:
        crew.mail[CALLED] = 1  # before looking whether helpers wait: from now on they do not give up
        if _attended(crew, attend, threads - 1, nbytes > WAKEN or perf_counter() - crew.called < OFTEN):
            take(-(-n // parts_of(n, threads, nbytes)), threads, crew.box)
        else:
            take(n, 0, UNSHARED)
    finally:
        crew.mail[CALLED] = 0
        crew.writing.release()
    crew.called = perf_counter()  # after all: an interrupt may come with any call


def is_small(n: int, nbytes: int) -> bool:
    """Whether compiled work of `n` units, or any that a helper would share again, stays on the thread that has it.

    Who shares again would wait for threads that wait for it.
    """
    return n <= 1 or nbytes <= ALONE or _worker.busy


def _attended(crew: _Crew, attend: Attend, helpers: int, wake: bool) -> bool:
    """Whether a letter is worth while: helpers wait for one, or are woken if they may be."""
    waiting: int = crew.mail[WAITING]
    if wake and waiting < helpers:
        for _ in range(helpers - waiting - crew.jobs.qsize()):  # those may not have been seen yet
            crew.jobs.put(_Job(lambda: _attend(crew.box, attend)))
        return True
    return waiting > 0


def _attend(box: Array, attend: Attend) -> None:
    """Help with what comes by letter, on another CPU than the caller's.

    Where all CPUs were busy when a helper was woken, Linux put it on the caller's, and left it there for some 30 ms after another
    had become idle: both had taken turns, and a call 2.5 times as long.
    """
    for _ in range(4):
        cpu = attend(box)
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
    crew = _get_crew(helpers)
    for _ in range(helpers):
        crew.jobs.put(job)


def scratch(n: int, dtype: np.dtype[Any], slot: int) -> Array:
    """This thread's own buffer number `slot`, of at least `n` elements, 64-byte aligned, with anything in it.

    Valid until the same thread asks for the slot again. What one unit of work needs is small; memory obtained anew at each
    call would cost more than the work, in page faults.
    """
    buffers = _worker.buffers
    key = slot, dtype.num  # dtypes themselves take four times as long to find
    buffer = buffers.get(key)
    if buffer is None or len(buffer) < n:
        raw = np.empty(n * dtype.itemsize + 64, np.uint8)
        skip = -raw.ctypes.data % 64
        buffer = buffers[key] = raw[skip : skip + n * dtype.itemsize].view(dtype)
    return buffer


def _get_crew(n: int) -> _Crew:
    """At least `n` helpers."""
    global _crew
    crew = _crew
    if crew is None or crew.asked < n:
        with _lock:
            crew = _crew
            if crew is None or crew.asked < n:
                crew = _Crew(max(n, get_num_threads() - 1))
                if _crew is not None:  # perhaps made by what interrupted this very line
                    _crew.dismiss()
                _crew = crew
    return crew


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _crew, _lock
    _crew, _lock = None, RLock()
    _worker.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
