"""What the numbers were measured on: the machine, the versions, and the state of the sources."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.files import ROOT

PACKAGES = ("numpy", "numba", "llvmlite", "scikit-image")
"""Whose versions go with the results."""

LINUX_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Machine:
    """One computer, as far as timings depend on it.

    Parameters
    ----------
    cpu
        Model name.
    architecture
        For example x86_64.
    caches
        Bytes of each data cache as one core sees it, smallest first: "L1", "L2", "L3".
    cores, threads
        Physical cores (0 when not known) and hardware threads of the machine.
    usable_threads
        Those this process may use.
    memory
        Bytes.
    system
        Operating system and its release.
    """

    cpu: str
    architecture: str
    caches: dict[str, int]
    cores: int
    threads: int
    usable_threads: int
    memory: int
    system: str


@dataclass(frozen=True)
class Source:
    """The sources that were measured.

    Parameters
    ----------
    commit
        Of the checkout; "unknown" without git.
    dirty
        Whether files of the library or the suite differed from that commit.
    digest
        Of the Python files of library and suite themselves.
    """

    commit: str
    dirty: bool
    digest: str


@functools.cache
def machine() -> Machine:
    import cpuinfo
    import psutil

    info = cpuinfo.get_cpu_info()
    return Machine(
        cpu=info.get("brand_raw") or platform.processor() or "unknown",
        architecture=platform.machine(),
        caches=_linux_caches() or _caches_by_cpuinfo(info),
        cores=psutil.cpu_count(logical=False) or 0,
        threads=psutil.cpu_count() or 0,
        usable_threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
    )


def _linux_caches() -> dict[str, int]:
    caches = {}
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for index in sorted(LINUX_CACHES.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            if kind in ("Data", "Unified"):
                caches[f"L{level}"] = int(size[:-1]) * units[size[-1]]
        except (OSError, ValueError, KeyError):
            continue  # a virtual machine may hide them
    return caches


def _caches_by_cpuinfo(info: dict[str, object]) -> dict[str, int]:
    names = {"L1": "l1_data_cache_size", "L2": "l2_cache_size", "L3": "l3_cache_size"}
    return {level: size for level, name in names.items() if isinstance(size := info.get(name), int) and size > 0}


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide about speed."""
    import numpy as np  # noqa: F401  (loads the BLAS that is asked for its version)
    from threadpoolctl import threadpool_info

    import pooling

    found = {"python": platform.python_version(), "pooling": pooling.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    blas = {f"{pool['internal_api']}": str(pool["version"]) for pool in threadpool_info() if pool["user_api"] == "blas"}
    return found | blas


def source() -> Source:
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", "pooling", "bench")
    digest = hashlib.sha256()
    for folder in ("pooling", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return Source(commit or "unknown", bool(changed), digest.hexdigest()[:16])


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def size_text(nbytes: float) -> str:
    """Bytes for people, in powers of 1024 as caches are.

    Examples
    --------
    >>> size_text(48 * 1024), size_text(1.5 * 2**30)
    ('48 KB', '1.5 GB')
    """
    value, unit = float(nbytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}"


def describe(machine: Machine, threads: int, software: dict[str, str], source: Source) -> list[tuple[str, str]]:
    """The same facts as (what, value) pairs for people."""
    caches = ", ".join(f"{name} {size_text(size)}" for name, size in machine.caches.items()) or "not known"
    return [
        ("CPU", f"{machine.cpu} ({machine.architecture})"),
        ("Cores", f"{machine.cores or '?'} cores, {machine.threads} hardware threads; {threads} used"),
        ("Data caches", caches),
        ("Memory", size_text(machine.memory)),
        ("System", machine.system),
        ("Versions", ", ".join(f"{name} {number}" for name, number in software.items())),
        ("Commit", source.commit[:12] + (", with uncommitted changes" if source.dirty else "")),
    ]
