"""What else a measured time depends on: the machine, and the versions of what runs on it."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from typing import Any

import numpy as np

from pooling.errors import printable
from pooling.runtime.availability import why_not_compiled

CPUINFO = "/proc/cpuinfo"
FIRST_CPU = 8192
"""Bytes that hold all that is said of one CPU; of machines with hundreds of them, not all need to be read."""

CPU_FIELDS = (
    "vendor_id",
    "model name",
    "cpu family",
    "model",
    "stepping",
    "CPU implementer",
    "CPU part",
    "CPU variant",
)


@functools.cache
def machine() -> dict[str, str]:
    """CPU model, its vector features, and the versions of this library, NumPy and Numba."""
    facts = {
        "cpu": _cpu(),
        "features": " ".join(_features()),
        "pooling": str(getattr(sys.modules.get("pooling"), "__version__", "unknown")),
        "numpy": np.__version__,
        # Times of other candidates: what is chosen among those that need no Numba says nothing of the rest.
        "numba": "unused" if why_not_compiled() else _version("numba"),
    }
    return {name: printable(fact) for name, fact in facts.items()}  # as a file of records needs them


def name_of(facts: dict[str, str]) -> str:
    """A short name for a machine with its versions, the same wherever the same is found."""
    import hashlib

    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:12]


def _cpu() -> str:
    """The CPU's model, with the numbers that tell models of one name apart."""
    try:
        with open(CPUINFO, "rb") as file:
            text = file.read(FIRST_CPU).decode(errors="replace").split("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in said.items()}
    return " ".join([platform.machine(), *(facts[name] for name in CPU_FIELDS if facts.get(name))])


def _features() -> list[str]:
    """What NumPy found the CPU to have: the one list of that kind that is there on every system."""
    core: Any = sys.modules.get("numpy._core._multiarray_umath")
    found: dict[str, bool] = getattr(core, "__cpu_features__", {})
    return sorted(name for name, on in found.items() if on)


def _version(package: str) -> str:
    """An installed package's version, by the name of the folder that says so: importlib.metadata takes 20 ms to import."""
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.startswith(f"{package}-") and name.endswith(".dist-info"):
                    return name.removeprefix(f"{package}-").removesuffix(".dist-info")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
