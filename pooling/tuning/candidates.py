"""Which backends are candidates, and in which state of its source a candidate was measured."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator

from pooling.backends.base import Backend
from pooling.backends.registry import REGISTRY
from pooling.runtime.availability import IN_PYTHON, disabled
from pooling.runtime.loaded_code import read
from pooling.tuning.layer import Facts

FOR_REFERENCE = "it is for reference only"
READS_X_AGAIN = "its backward reads x again, which with other backends the caller may overwrite in between"

PREPARES = "for windows that are drawn for each plane it has too much to prepare"

QUICK_TO_PREPARE = "numba_loops"
"""Of windows drawn for single planes, a thousand in a batch, it asks only for a table; others make more of each."""

IMPORT = re.compile(rb"^\s*(?:from\s+(pooling[\w.]*)\s+import\s+(\w+)|import\s+(pooling[\w.]*))", re.MULTILINE)
PLUMBING = frozenset(
    f"pooling.{name}"
    for name in ["backends.base", "dtypes", "errors", "geometry.problem", "geometry.window"]
    + [
        "runtime.availability",
        "runtime.code_objects",
        "runtime.kernel_cache",
        "runtime.loaded_code",
        "runtime.user_dirs",
    ]
)
"""What all share, and what is done before a first call: a change there is no reason to measure everything anew."""


def sort_out(facts: Facts) -> tuple[list[str], dict[str, str]]:
    """The backends that may be chosen, in registry order, and the others with the reason for each.

    What a choice may not change is what users see. With ties="first" and "last" that includes whether x may be overwritten
    between forward and backward: when some backend allows it, those that don't are left out.
    """
    reasons = {}
    able: list[str] = []
    for name, backend in REGISTRY.items():
        reason = backend.refuses(facts.problem, facts.dtype)
        if reason is None:
            able.append(name)
        else:
            reasons[name] = reason
    left_out = {name: FOR_REFERENCE for name in able if REGISTRY[name].reference_only}
    if disabled():
        left_out |= {name: IN_PYTHON for name in able if REGISTRY[name].compiled}
    others = [name for name in able if name not in left_out]
    if facts.direction == "training" and facts.problem.op == "max":
        keeping = [name for name in others if facts.problem.ties in REGISTRY[name].keeps_x]
        if len(keeping) < len(others):
            left_out |= dict.fromkeys(keeping, READS_X_AGAIN)
    if facts.problem.drawn and QUICK_TO_PREPARE in others:
        left_out |= dict.fromkeys((name for name in others if name != QUICK_TO_PREPARE), PREPARES)
    chosen = [name for name in able if name not in left_out]
    if not chosen:  # better slow than not at all
        chosen, left_out = able, {}
    return chosen, {name: {**reasons, **left_out}[name] for name in REGISTRY if name in reasons or name in left_out}


def source_of(backend: Backend) -> str:
    """A digest of the files that a backend is made from: its own, and those of the library that it imports."""
    functions = [f for run in backend.ops.values() for f in (run.forward, run.backward)]
    modules = sorted({str(getattr(function, "__module__", "")) for function in functions})
    names = sorted({str(getattr(function, "__qualname__", "")) for function in functions})
    return _digest(tuple(modules), tuple(names))


@functools.lru_cache(maxsize=256)
def _digest(modules: tuple[str, ...], names: tuple[str, ...]) -> str:
    import hashlib

    found: dict[str, bytes] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in found and module not in PLUMBING:
            found[module] = _source(module)
            todo += _imports(found[module])
    whole = hashlib.sha256(repr(names).encode())
    for module in sorted(found):
        whole.update(module.encode() + b"\0" + found[module])
    return whole.hexdigest()[:12]


def _imports(source: bytes) -> Iterator[str]:
    """Names of the library's modules that a source file may import."""
    for package, name, module in IMPORT.findall(source):
        for found in (package, package + b"." + name, module):
            if found.count(b".") > 0:
                yield found.decode()


@functools.cache
def _source(module: str) -> bytes:
    """The text of a module, or what it is loaded from without one; nothing where its loader doesn't say."""
    if module.partition(".")[0] == "pooling":
        return read(module)
    try:
        with open(str(getattr(sys.modules.get(module), "__file__", "")), "rb") as file:
            return file.read()
    except OSError:
        return b""
