"""Memory for results: aligned buffers that return to a pool when the last array over them dies.

A large new array costs as much as the work: the system hands out its pages one by one, at the first touch. A training loop
makes arrays of the same few sizes again and again, so buffers are kept and lent again.

A result is a plain array over a buffer. Between the two stands a :class:`Lease`: views, memoryviews and whatever else looks
at the memory keep alive what they look at, all of it in the end the lease, and when that dies the buffer is free. NumPy shortens
chains of views to the array at their end, so that a buffer that were an array itself could be seen past its lease;
a lease is no array, and only the pool refers to the buffer behind it.
"""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np

from pooling.errors import PoolingError, shown

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector there is."""

SMALL = 1 << 16
"""Bytes below which an array is NumPy's own: the system's allocator keeps such memory at hand, and a lease costs 3 us."""

FINENESS = 3
"""Buffers come in 2 ** FINENESS sizes for each power of two, so that at most an eighth of one is not used."""

MOST = 1 << 30
"""Bytes that the pool's buffers may hold together by default, where an eighth of the machine's memory is not less."""


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

    __slots__ = ("__array_interface__", "__weakref__", "_buffer")

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer = buffer
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (buffer.size,),
            "data": (buffer.address, False),
        }


class _Lent(weakref.ref[Lease]):
    """A buffer that is in use, and by whom."""

    __slots__ = ("buffer",)

    buffer: _Buffer


class _Pool:
    """Buffers in use and free ones, by size.

    A lease may die anywhere: in any thread, in a garbage collection in the middle of this very code, while a Ctrl-C waits to be
    raised. So what happens then is one append to `returned`, made by the weak reference itself: no Python code, in which an
    interrupt would be reported and lost; no lock. Sorting in is left to the next call that wants a buffer. That the limit holds
    meanwhile is seen to beforehand: in use or free, the pool's buffers never hold more, and memory beyond that is not the pool's.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.forget()

    def forget(self) -> None:
        """Start anew. In a forked child the lock, and what it guards, are as a thread left them that is not there."""
        self.lock = RLock()  # a garbage collection in the middle may run code that pools
        self.returned: deque[_Lent] = deque()
        self.lent: set[_Lent] = set()
        self.free: dict[int, list[_Buffer]] = {}  # the size used last stands last
        self.total = 0

    def lend(self, size: int) -> Lease:
        """A lease of a free buffer of this size, or of a new one."""
        with self.lock:
            self.sort_in()
            same = self.free.get(size)
            if same:
                buffer = same.pop()
            else:
                buffer = _Buffer.new(size)
                if self.total - self.held() + size > self.most():
                    return Lease(buffer)  # which is not taken back
                self.trim(self.most() - size)
                self.total += size
            lease = Lease(buffer)
            lent = _Lent(lease, self.returned.append)
            lent.buffer = buffer
            self.lent.add(lent)
            return lease

    def sort_in(self) -> None:
        """Make what was returned free for others. The caller has the lock."""
        while self.returned:
            lent = self.returned.popleft()
            self.lent.discard(lent)
            size = lent.buffer.size
            same = self.free.pop(size, [])
            same.append(lent.buffer)
            self.free[size] = same

    def trim(self, most: int) -> None:
        """Let go of free buffers, of the size unused longest first, until all hold `most` bytes. The caller has the lock."""
        while self.total > most and self.free:
            size, same = next(iter(self.free.items()))
            if same:
                same.pop()
                self.total -= size
            else:
                del self.free[size]

    def set_limit(self, limit: int) -> None:
        with self.lock:
            self.limit = limit
            self.sort_in()
            self.trim(limit)
            while self.total > limit and self.lent:
                self.total -= self.lent.pop().buffer.size  # it is not taken back
            in_use = sum(lent.buffer.size for lent in self.lent)
            self.total = in_use + self.held()  # in case an interrupt came between a buffer and its being counted

    def held(self) -> int:
        """Bytes that are free."""
        return sum(size * len(same) for size, same in self.free.items())

    def most(self) -> int:
        return self.limit or 0


_pool = _Pool()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array with anything in it, as np.empty gives; a large one over a buffer of the pool."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALL or not get_buffer_bytes():
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, buffer=np.asarray(_pool.lend(size_class(nbytes))))


def size_class(nbytes: int) -> int:
    """The size of the buffers that serve `nbytes`."""
    step = 1 << max(nbytes.bit_length() - 1 - FINENESS, 0)
    return -(-nbytes // step) * step


def get_buffer_bytes() -> int:
    """Bytes that buffers for results may hold together, in use or free.

    What was set, else POOLING_BUFFER_BYTES, else an eighth of the machine's memory, but at most 1 GiB.
    """
    if _pool.limit is None:
        _pool.limit = _default_limit()
    return _pool.limit


def set_buffer_bytes(n: int | None) -> None:
    """Let buffers for results, in use or free, hold at most `n` bytes; free ones beyond that go now. 0 turns them off.

    Results that need more get memory that is not kept when they die. None goes back to POOLING_BUFFER_BYTES or the default.
    Arrays in use stay what they are.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise PoolingError(f"n={shown(n)}: it must be an int, the bytes to keep (0: none), or None for the default")
    _pool.set_limit(_default_limit() if n is None else n)


def _default_limit() -> int:
    from_environment = os.environ.get("POOLING_BUFFER_BYTES")
    if from_environment:
        digits = from_environment.strip()
        if not digits.isdecimal() or len(digits) > 18:
            raise PoolingError(
                f"POOLING_BUFFER_BYTES={shown(from_environment)}: it must be a number of bytes, such as 0 (keep none) "
                "or 268435456"
            )
        return int(digits)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not everywhere
        return MOST // 4
    return min(MOST, memory // 8)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _pool.forget())
