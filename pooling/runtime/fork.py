"""What a fork waits for: its child has no other thread, and would wait for ever for whatever one of them has locked.

That is Numba's compiler, and what the first calls of a process import: Python locks each module while it is imported, and LLVM
itself while it is asked for anything. So first calls do these things under locks that a fork takes before, and gives back in
both processes.
"""

from __future__ import annotations

import functools
import logging  # noqa: F401  (before what is registered here: see below)
import os
import sys
from collections.abc import Callable
from threading import RLock
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_preparing = RLock()
"""Held where a call imports modules or queries LLVM for the CPU. Lock order: this one before `compiling`."""

compiling = RLock()
"""Held where kernels are made."""

_taken: list[Any] = []


def _take() -> None:
    _preparing.acquire()
    compiling.acquire()
    # Numba's own, once it has been imported.
    lock = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    if lock is not None:
        lock.acquire()
    _taken.append(lock)


def _give_back() -> None:
    lock = _taken.pop()
    if lock is not None:
        lock.release()
    compiling.release()
    _preparing.release()


def prepares(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what is done once for many calls: no other thread forks meanwhile."""

    @functools.wraps(function)
    def prepared(*args: P.args, **kwargs: P.kwargs) -> R:
        with _preparing:
            return function(*args, **kwargs)

    return prepared


if hasattr(os, "register_at_fork"):
    # What is registered last is done first. A fork that had `logging`'s lock would wait here for whoever imports Numba, who waits
    # for that lock: so it has to be imported, and registered, before.
    os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_give_back)
