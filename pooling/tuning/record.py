"""Which poolings a program does: noted while it runs, for :func:`pooling.tune` to measure afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pooling.operators.selection import add_observer, after_fork, observers, remove_observer
from pooling.tuning.layer import Layer


class Recording:
    """The layers that were seen, each with how often it was called: an iterable of :class:`pooling.Layer`.

    It may be pickled and copied, by :mod:`copy` too; what was recorded in another process is tuned as any other. A copy notes
    nothing more. Two are equal if they have seen the same calls, whatever their order.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, ...], list[Any]] = {}
        self._lock = threading.Lock()

    def note(self, shape: tuple[int, ...], dtype: Any, operator: Any, problem: Any, training: bool) -> None:
        """Count a call."""
        direction = "training" if training else "inference"
        key = (shape, dtype, operator.data_format, problem, direction)
        with self._lock:
            entry = self._seen.setdefault(key, [operator, 0])
            entry[1] += 1

    def __iter__(self) -> Iterator[Layer]:
        for (shape, dtype, _, _, direction), (operator, count) in self._counts().items():
            yield Layer(shape, dtype, operator, direction, count)

    def __len__(self) -> int:
        return len(self._seen)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recording):
            return NotImplemented
        return self._counts() == other._counts()

    __hash__ = None  # type: ignore[assignment]  # it changes while it is on

    def _counts(self) -> dict[tuple[Any, ...], tuple[Any, int]]:
        with self._lock:
            return {key: (operator, count) for key, (operator, count) in self._seen.items()}

    def __getstate__(self) -> dict[str, Any]:
        """What was seen, without the lock, which no other process and no copy may share."""
        return {"_seen": {key: list(entry) for key, entry in self._counts().items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._seen.update({key: list(entry) for key, entry in state["_seen"].items()})

    def __repr__(self) -> str:
        return f"<Recording of {len(self)} layers, {sum(layer.count for layer in self)} calls>"


@contextmanager
def record() -> Iterator[Recording]:
    """Note every pooling, of all threads, while the ``with`` block runs.

    Blocks may lie within one another; each notes what happens in it.

    Examples
    --------
    >>> import numpy as np, pooling
    >>> x = np.zeros((2, 3, 8, 8), np.float32)
    >>> with pooling.record() as seen:
    ...     y = pooling.max_pool(x, 2)
    >>> [(layer.shape, layer.direction, layer.count) for layer in seen]
    [((2, 3, 8, 8), 'inference', 1)]
    """
    recording = Recording()
    add_observer(recording)
    try:
        yield recording
    finally:
        remove_observer(recording)


def _after_fork() -> None:
    """A forked child may have locks that another thread held."""
    after_fork()
    for one in observers():
        if isinstance(one, Recording):
            one._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
