"""Whether Numba can compile here: it may not be installed, fail to load, or be switched off by NUMBA_DISABLE_JIT."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys

DISABLED = "Numba compiles nothing while NUMBA_DISABLE_JIT, or numba.config.DISABLE_JIT, is set"
IN_PYTHON = "it runs as plain Python, slowly, while NUMBA_DISABLE_JIT, or numba.config.DISABLE_JIT, is set"

_failures: list[str] = []
"""Why Numba could not be imported, once that has been tried."""


def disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is in force: read from Numba if it is loaded, else from the environment."""
    config = sys.modules.get("numba.core.config")
    if config is not None:
        return bool(getattr(config, "DISABLE_JIT", False))
    try:
        return bool(int(os.environ.get("NUMBA_DISABLE_JIT", "0")))
    except ValueError:  # which Numba ignores, too
        return False


def missing() -> str | None:
    """Why Numba can't be used at all, as far as that is known without importing it."""
    if _failures:
        return _failures[0]
    return None if _installed() else "Numba is not installed: pip install numba"


def imports() -> bool:
    """Import Numba, as the first call of a kernel would; whether that works."""
    if missing() is None:
        try:
            import pooling.runtime.numba_api  # noqa: F401
        except MemoryError:  # which says nothing of the next time
            raise
        except Exception as error:  # it also refuses versions of NumPy, and its library may not load
            _failures.append(f"Numba can't be imported: {' '.join(str(error).split())}")
    return missing() is None


def why_not_compiled() -> str | None:
    """Why no kernel can be compiled, or None."""
    return missing() or (DISABLED if disabled() else None)


@functools.cache
def _installed() -> bool:
    try:
        return sys.modules.get("numba") is not None or importlib.util.find_spec("numba") is not None
    except (ImportError, ValueError):
        return False
