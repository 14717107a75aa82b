"""How many CPUs' time a container gives this process: the quota of its control groups, which affinity says nothing of.

Linux has two versions of control groups, and some systems both at once. Groups lie within one another, and what one of them may
use is bounded by all that it lies in: the tightest quota counts. A group is a folder below a mounted file system. Which mount and
which folder is said in ``/proc/self/mountinfo`` and ``/proc/self/cgroup``; in version 2 the quota is in ``cpu.max``, as
"quota period" or "max period", in version 1 in ``cpu.cfs_quota_us`` (-1: none) and ``cpu.cfs_period_us``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

LONGEST = 1 << 20
"""Bytes that are read of one file: as many as thousands of mounts take."""

ESCAPED = re.compile(r"\\([0-7]{3})")


def cpu_quota(root: str = "/") -> int | None:
    """CPUs' worth of time that this process may use, rounded up; None without a quota.

    What is missing, can't be read or makes no sense is no quota.

    Parameters
    ----------
    root
        The folder that holds ``proc`` and what is mounted: another one in tests.
    """
    found = [cpus for folders in _groups(root) for cpus in map(_cpus_of, folders) if cpus is not None]
    return min(found, default=None)


def _groups(root: str) -> Iterator[list[str]]:
    """For each mounted hierarchy that may limit CPUs, this process's folder in it, and those that it lies in."""
    paths = dict(_paths(_lines(root, "proc/self/cgroup")))
    for line in _lines(root, "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        of_mount, of_system = fields.split(), rest.split()
        if len(of_mount) < 5 or len(of_system) < 1:
            continue
        kind, options = of_system[0], of_system[-1].split(",")
        version = {"cgroup2": 2, "cgroup": 1}.get(kind)
        if version is None or version not in paths or (version == 1 and "cpu" not in options):
            continue
        inside, mount = (_unescaped(field) for field in of_mount[3:5])
        yield _folders(root, mount, paths[version], inside)


def _paths(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Versions of control groups, and where this process is in each."""
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, found, path = rest.partition(":")
        if not found or not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _folders(root: str, mount: str, path: str, inside: str) -> list[str]:
    """The process's folder below `mount`, where the folder `inside` of the hierarchy is seen, and those above it."""
    within = _names(path)
    top = _names(inside)
    if within[: len(top)] == top:
        within = within[len(top) :]
    if ".." in within:  # of a group outside the container's own nothing can be seen but the mount
        within = []
    base = os.path.join(root, mount.lstrip("/"))
    return [os.path.join(base, *within[:depth]) for depth in range(len(within), -1, -1)]


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _unescaped(field: str) -> str:
    """A field of mountinfo, in which spaces and the like are written as octal numbers."""
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)


def _cpus_of(folder: str) -> int | None:
    """What one group allows its processes; None if it sets no limit."""
    for line in _lines(folder, "cpu.max")[:1]:
        return _rounded_up(*(line.split() + ["", ""])[:2])
    quota, period = (_lines(folder, f"cpu.cfs_{what}_us")[:1] for what in ("quota", "period"))
    return _rounded_up(quota[0], period[0]) if quota and period else None


def _rounded_up(quota: str, period: str) -> int | None:
    """1.5 CPUs are two threads' work, half a one is one thread's."""
    numbers = [word.strip() for word in (quota, period)]
    if not all(re.fullmatch("[0-9]{1,18}", number) for number in numbers):
        return None  # "max", -1, or nothing that has a meaning
    used, every = map(int, numbers)
    return -(-used // every) if used and every else None


def _lines(*path: str) -> list[str]:
    """The lines of a file; none where it can't be read."""
    try:
        with open(os.path.join(*path), "rb") as file:
            return file.read(LONGEST).decode("utf-8", "surrogateescape").strip("\n").split("\n")
    except (OSError, ValueError):
        return []
