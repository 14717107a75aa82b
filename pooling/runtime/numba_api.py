"""The parts of Numba that the library is made with, imported in one piece.

An interrupt in the middle of importing Numba would leave half of it behind, which Python can't import again: every later
call would fail. So Ctrl-C waits for the end of it, some tenths of a second.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Within, an interrupt is remembered; it comes at the end, to whom it would have come."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # no other thread is interrupted
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


with interrupts_wait():
    import llvmlite.binding as llvm
    import numba
    import numpy.ma  # noqa: F401  (Numba would, in a call: a child forked meanwhile waits for ever for that import to end)
    from llvmlite import ir
    from numba.core import cgutils, compiler, config, types
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.datamodel import models
    from numba.core.extending import intrinsic, lower_builtin, register_model, type_callable
    from numba.np import numpy_support

__all__ = [
    "CompileResultCacheImpl",
    "FunctionCache",
    "_CacheLocator",
    "cgutils",
    "compiler",
    "config",
    "global_compiler_lock",
    "interrupts_wait",
    "intrinsic",
    "ir",
    "llvm",
    "lower_builtin",
    "models",
    "numba",
    "numpy_support",
    "register_model",
    "type_callable",
    "types",
]
