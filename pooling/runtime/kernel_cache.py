"""Where compiled kernels are kept on disk, and under which name, so that no process runs those of another version.

Numba's own ``cache=True`` raises at decoration when no folder is writable, and does not notice that another file a kernel is made
from has changed. Here the folder's name holds a digest of all that the package is loaded from (`loaded_code.py`), beside the
versions and settings of what compiles it, so that an edit or an upgrade leads to another folder. Each file's name holds one of
the code in memory that it is compiled from (`code_objects.py`), which may be another than the files'. A folder that
can't be written is only read, and where there is none, each process compiles for itself: both cost time, and neither is an error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pooling.runtime.code_objects import digest_of
from pooling.runtime.loaded_code import contents, unchanged
from pooling.runtime.user_dirs import NoPlace, named, user_folder

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "POOLING_CACHE_DIR"

UNKNOWN = "what this package is loaded from can't be told, or has changed since this process imported it"

SETTINGS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")
"""Settings of Numba that change the machine code, and that its own index does not know."""


def attach(dispatcher: Any, function: Callable[..., Any], made_of: Iterable[FunctionType]) -> None:
    """Let a dispatcher of Numba's keep on disk what it compiles of `function`, if there is a place for that.

    Files are named after the code of `made_of`: the functions, imported from modules, that are compiled.
    """
    folder = cache_folder()
    if folder is not None:
        dispatcher._cache = _cache_in(folder, function, digest_of(made_of))


def cache_folder() -> Path | None:
    """Where compiled kernels of exactly this library, Python and machine code live; None when there is no such folder.

    A folder that can't be written may hold kernels that another user has compiled.
    """
    folder = _folder()[0]
    return folder if folder is not None and unchanged() else None


def problem() -> str | None:
    """Why there is no cache folder, or why it is only read; None where there is nothing to say."""
    folder, reason = _folder()
    if folder is None:
        return reason
    if not unchanged():
        return UNKNOWN
    return None if os.access(folder, os.W_OK) else f"{folder} can't be written"


@functools.cache
def _folder() -> tuple[Path | None, str]:
    """The folder, or None and the reason. It stays the same when the process goes to another working directory."""
    from pathlib import Path

    name = fingerprint()
    if name is None:
        return None, UNKNOWN
    try:
        folder = Path(named(VARIABLE) or user_folder("cache"), "kernels", name)
    except NoPlace as error:
        return None, f"{error}; set {VARIABLE} to a folder"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.R_OK | os.X_OK):
        return folder, ""
    return None, f"{folder} can't be made or read; set {VARIABLE} to a folder that can be written"


@functools.cache
def fingerprint() -> str | None:
    """A digest of what the library is loaded from and of what compiles it; None where the former can't be known."""
    import llvmlite
    import numpy as np

    from pooling.runtime.numba_api import config, numba

    files = contents()
    if files is None:
        return None
    versions = (sys.version, sys.flags.optimize, np.__version__, numba.__version__, llvmlite.__version__)
    settings = [f"{name}={getattr(config, name, None)!s}" for name in SETTINGS]
    digest = hashlib.sha256(repr((versions, settings)).encode())
    for name in sorted(files):
        digest.update(repr((name, hashlib.sha256(files[name]).hexdigest())).encode())
    return digest.hexdigest()[:16]


def _cache_in(folder: Path, function: Callable[..., Any], code: str) -> Any:
    from pooling.runtime.numba_api import CompileResultCacheImpl, FunctionCache, _CacheLocator

    class Locator(_CacheLocator):
        """Numba's question "where, and how fresh?", answered with our folder."""

        def get_cache_path(self) -> str:
            return str(folder)

        def get_source_stamp(self) -> str:
            return folder.name

        def get_disambiguator(self) -> str:
            return function.__module__

    class Implementation(CompileResultCacheImpl):
        def __init__(self, py_func: Callable[..., Any]) -> None:
            self._lineno = py_func.__code__.co_firstlineno
            self._locator = Locator()
            self._filename_base = f"{py_func.__module__}.{py_func.__qualname__}-{self._lineno}-{code}"

    class Cache(FunctionCache):
        _impl_class = Implementation

        def load_overload(self, *args: Any) -> Any:
            try:
                return super().load_overload(*args)
            except Exception:  # whatever unpickling makes of a damaged file
                return None  # compile instead

        def save_overload(self, *args: Any) -> None:
            for _ in range(2):
                try:
                    super().save_overload(*args)
                    return
                except OSError:
                    return  # read-only or full: the next process compiles again
                except Exception:  # a damaged index: without it, the second time works
                    with contextlib.suppress(OSError):
                        os.unlink(self._cache_file._index_path)

    return Cache(function)
