"""What operators need of the layers above them, which choose backends and note calls: handed in, so that imports run one way."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from pooling.geometry.problem import Problem


class Selector(Protocol):
    """What resolves ``backend="auto"``: `pooling/tuning/choose.py`."""

    def auto(self, problem: Problem, outer: int, inner: int, dtype: np.dtype[Any], training: bool) -> str:
        """The name of the backend to take for arrays as backends see them."""
        ...

    def state(self) -> tuple[object, ...]:
        """Changes whenever a choice may."""
        ...


class Observer(Protocol):
    """What is notified of every call while it is added: `pooling/tuning/record.py`."""

    def note(self, shape: tuple[int, ...], dtype: Any, operator: Any, problem: Problem, training: bool) -> None: ...


_selector: Selector | None = None
_lock = threading.Lock()
_observers: tuple[Observer, ...] = ()
"""Replaced, never changed, so that a call reads it without the lock; and empty, it costs a call nothing."""


def install(selector: Selector) -> None:
    """Make `selector` resolve ``backend="auto"`` from now on."""
    global _selector
    _selector = selector


def selector() -> Selector:
    """The installed selector; where only an operator's module was imported, as by pickle, the package's own."""
    if _selector is None:
        import_module("pooling._api")
    assert _selector is not None
    return _selector


def observers() -> tuple[Observer, ...]:
    """Those that are added now."""
    return _observers


def add_observer(observer: Observer) -> None:
    global _observers
    with _lock:
        _observers = (*_observers, observer)


def remove_observer(observer: Observer) -> None:
    global _observers
    with _lock:
        _observers = tuple(one for one in _observers if one is not observer)


def after_fork() -> None:
    """In a forked child, another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()
