"""Memory for results: aligned buffers that return to a pool when the last array over them dies.

A large new array costs as much as the work: the system hands out its pages one by one, at the first touch. A training loop
makes arrays of the same few sizes again and again, so buffers are kept and lent again.

A result is a plain array over a buffer. Between the two stands a :class:`Lease`: views, memoryviews and whatever else looks
at the memory keep alive what they look at, all of it in the end the lease, and when that dies the buffer is free. NumPy shortens
chains of views to the array at their end, so that a buffer that were an array itself could be seen past its lease;
a lease is no array, and nobody but the pool knows the buffer behind it.
"""

from __future__ import annotations

import math
import os
from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from pooling.errors import PoolingError

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector there is."""

SMALL = 1 << 16
"""Bytes below which an array is NumPy's own: the system's allocator keeps such memory at hand, and a lease costs 2 us."""

FINENESS = 3
"""Buffers come in 2 ** FINENESS sizes for each power of two, so that at most an eighth of one is not used."""

MOST = 1 << 30
"""Bytes that free buffers may hold together by default, where an eighth of the machine's memory is not less."""


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Memory of the pool's. New memory is NumPy's, which asks for huge pages from 4 MB on: four times as fast as without.

    Asking for them with mmap took as long (5.9 ms for 51 MB, to be filled the first time), and without them 23 to 47 ms.
    """

    memory: np.ndarray[Any, Any]
    address: int
    size: int

    @classmethod
    def new(cls, size: int) -> _Buffer:
        memory = np.empty(size + ALIGNMENT, np.uint8)
        address: int = memory.__array_interface__["data"][0]
        return cls(memory, -(-address // ALIGNMENT) * ALIGNMENT, size)


class Lease:
    """A buffer as its user's arrays see it: alive as long as one of them."""

    __slots__ = ("__array_interface__", "__weakref__", "_buffer", "_pool")

    def __init__(self, pool: _Pool, buffer: _Buffer) -> None:
        self._pool, self._buffer = pool, buffer
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (buffer.size,),
            "data": (buffer.address, False),
        }

    def __del__(self) -> None:
        self._pool.give(self._buffer)


class _Pool:
    """Free buffers, by size.

    A lease may die anywhere: in any thread, and while this very code runs, since allocating can start a garbage collection. So
    nobody waits for the lock. What comes back is put into `returned`, an append that can't be interrupted, and sorted in by
    whoever gets the lock; who wants a buffer and does not get the lock takes new memory.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.forget()

    def forget(self) -> None:
        """Start anew. In a forked child the lock, and what it guards, are as a thread left them that is not there."""
        self.lock = Lock()
        self.returned: deque[_Buffer] = deque()
        self.free: dict[int, list[_Buffer]] = {}  # the size used last stands last

    def take(self, size: int) -> _Buffer:
        """A free buffer of this size, or a new one."""
        self.sort_in()
        if self.lock.acquire(blocking=False):
            try:
                same = self.free.pop(size, None)
                if same:
                    buffer = same.pop()
                    if same:
                        self.free[size] = same
                    return buffer
            finally:
                self.lock.release()
        return _Buffer.new(size)

    def give(self, buffer: _Buffer) -> None:
        """Take `buffer` back; no array uses it any more."""
        self.returned.append(buffer)
        self.sort_in()

    def sort_in(self) -> None:
        """Make what was returned free for others, within the limit."""
        # Asked again after the lock is free: what came while it was not was left to its holder.
        while self.returned and self.lock.acquire(blocking=False):
            try:
                while self.returned:
                    buffer = self.returned.popleft()
                    if buffer.size <= self.most():
                        same = self.free.pop(buffer.size, [])
                        same.append(buffer)
                        self.free[buffer.size] = same
                self.trim()
            finally:
                self.lock.release()

    def trim(self) -> None:
        """Let go of what is over the limit, of the size unused longest first; the caller has the lock."""
        while self.held() > self.most():
            size = next(iter(self.free))
            self.free[size].pop()
            if not self.free[size]:
                del self.free[size]

    def held(self) -> int:
        """Bytes that are free. Added up, as a running total would stay wrong after an interrupt in the middle."""
        return sum(size * len(same) for size, same in self.free.items())

    def most(self) -> int:
        return self.limit or 0


_pool = _Pool()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array with anything in it, as np.empty gives; a large one over a buffer of the pool."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALL:
        return np.empty(shape, dtype)
    if not get_buffer_bytes():
        return np.empty(shape, dtype)
    lease = Lease(_pool, _pool.take(size_class(nbytes)))
    return np.ndarray(shape, dtype, buffer=np.asarray(lease))


def size_class(nbytes: int) -> int:
    """The size of the buffers that serve `nbytes`."""
    step = 1 << max(nbytes.bit_length() - 1 - FINENESS, 0)
    return -(-nbytes // step) * step


def get_buffer_bytes() -> int:
    """Bytes that free buffers may hold together.

    What was set, else POOLING_BUFFER_BYTES, else an eighth of the machine's memory, but at most 1 GiB.
    """
    if _pool.limit is None:
        _pool.limit = _default_limit()
    return _pool.limit


def set_buffer_bytes(n: int | None) -> None:
    """Keep at most `n` bytes in buffers that no array uses; what is over it is freed now. 0: keep none, use NumPy's memory.

    None goes back to POOLING_BUFFER_BYTES or the default. Arrays that are in use stay what they are.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise PoolingError(f"n={n!r}: the bytes to keep must be an int from 0 (keep none) on, or None for the default")
    limit = _default_limit() if n is None else n
    with _pool.lock:
        _pool.limit = limit
        _pool.trim()
    _pool.sort_in()  # what came meanwhile


def _default_limit() -> int:
    from_environment = os.environ.get("POOLING_BUFFER_BYTES")
    if from_environment:
        if not from_environment.strip().isdigit():
            raise PoolingError(
                f"POOLING_BUFFER_BYTES={from_environment!r}: it must be a number of bytes, such as 0 (keep none) or 268435456"
            )
        return int(from_environment)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not everywhere
        return MOST // 4
    return min(MOST, memory // 8)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _pool.forget())
