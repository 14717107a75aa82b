"""How many CPUs a container gives: quotas of control groups, in folders made up for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import pooling
from pooling.cli import app
from pooling.parallel import pool, quota
from pooling.parallel.quota import cpu_quota

V2 = "30 23 0:26 {inside} {mount} rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 {inside} {mount} rw,relatime shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = (
    "23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    "32 23 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "33 23 0:29 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
)
CGROUP = Path("sys/fs/cgroup")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("POOLING_NUM_THREADS", raising=False)
    yield
    monkeypatch.undo()
    pooling.set_num_threads(None)


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def system(root: Path, groups: str, mounts: str, limits: dict[str, str]) -> str:
    """A root folder with what Linux says of this process, and these files below its control groups."""
    write(root / "proc/self/cgroup", groups)
    write(root / "proc/self/mountinfo", OTHERS + mounts)
    for name, text in limits.items():
        write(root / CGROUP / name, text)
    return str(root)


def second(root: Path, path: str, limits: dict[str, str], inside: str = "/", mount: str = "/sys/fs/cgroup") -> str:
    return system(root, f"0::{path}\n", V2.format(inside=inside, mount=mount), limits)


def first(root: Path, path: str, limits: dict[str, str], inside: str = "/") -> str:
    groups = f"12:memory:/somewhere\n4:cpu,cpuacct:{path}\n3:cpuset:/\n1:name=systemd:/init.scope\n"
    folders = {f"cpu,cpuacct/{name}": text for name, text in limits.items()}
    return system(root, groups, V1.format(inside=inside, mount="/sys/fs/cgroup/cpu,cpuacct"), folders)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("50000 100000\n", 1),
        ("100000 100000\n", 1),
        ("100001 100000\n", 2),
        ("150000 100000\n", 2),
        ("200000 100000", 2),
        ("6400000 100000\n", 64),
        ("1000 1000000\n", 1),
        ("max 100000\n", None),
        ("max\n", None),
        ("", None),
        ("\n", None),
        ("50000\n", None),
        ("half 100000\n", None),
        ("50000 0\n", None),
        ("0 100000\n", None),
        ("-1 100000\n", None),
        ("5e4 100000\n", None),
        ("²0000 100000\n", None),
        ("1" * 5000 + " 100000\n", None),
        ("50000 100000 extra\n", 1),
        ("50000 100000\nmore\n", 1),
    ],
)
def test_version_2(tmp_path: Path, said: str, expected: int | None) -> None:
    """In a container of half a CPU on a host of 64, `get_num_threads` said 64: it knew affinity alone."""
    assert cpu_quota(second(tmp_path, "/", {"cpu.max": said})) == expected


@pytest.mark.parametrize(
    ("quota_us", "period_us", "expected"),
    [
        ("50000\n", "100000\n", 1),
        ("150000\n", "100000\n", 2),
        ("200000", "100000", 2),
        ("-1\n", "100000\n", None),
        ("0\n", "100000\n", None),
        ("50000\n", "0\n", None),
        ("50000\n", "", None),
        ("50000\n", None, None),
        (None, "100000\n", None),
        ("many\n", "100000\n", None),
    ],
)
def test_version_1(tmp_path: Path, quota_us: str | None, period_us: str | None, expected: int | None) -> None:
    said = {"docker/abc/cpu.cfs_quota_us": quota_us, "docker/abc/cpu.cfs_period_us": period_us}
    limits = {name: text for name, text in said.items() if text is not None}
    assert cpu_quota(first(tmp_path, "/docker/abc", limits)) == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"a/b/c/cpu.max": "max 100000", "a/b/cpu.max": "300000 100000", "a/cpu.max": "400000 100000"}, 3),
        ({"a/b/c/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        ({"a/b/c/cpu.max": "200000 100000", "a/b/cpu.max": "nonsense"}, 2),
        ({"a/cpu.max": "250000 50000"}, 5),
        ({"cpu.max": "70000 10000"}, 7),
        ({"a/b/c/d/cpu.max": "100000 100000", "b/cpu.max": "100000 100000"}, None),
    ],
)
def test_the_tightest_quota_on_the_way_up_counts(tmp_path: Path, limits: dict[str, str], expected: int | None) -> None:
    assert cpu_quota(second(tmp_path, "/a/b/c", limits)) == expected


def test_of_both_versions_at_once_the_tighter_counts(tmp_path: Path) -> None:
    limits = {
        "cpu/a/cpu.cfs_quota_us": "300000",
        "cpu/a/cpu.cfs_period_us": "100000",
        "unified/b/cpu.max": "200000 100000",
    }
    mounts = V1.format(inside="/", mount="/sys/fs/cgroup/cpu") + V2.format(inside="/", mount="/sys/fs/cgroup/unified")
    assert cpu_quota(system(tmp_path, "2:cpu:/a\n0::/b\n", mounts, limits)) == 2
    assert cpu_quota(system(tmp_path, "2:cpu:/a\n", mounts, {})) == 3
    assert cpu_quota(system(tmp_path, "0::/b\n", mounts, {})) == 2


@pytest.mark.parametrize("version", [first, second])
def test_a_container_that_sees_its_own_group_as_the_mount(tmp_path: Path, version: Any) -> None:
    """Docker without a namespace for control groups: the path is the host's, and the mount shows the group at its top."""
    limits = {"cpu.max": "200000 100000", "cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}
    assert cpu_quota(version(tmp_path / "own", "/docker/abc", limits, "/docker/abc")) == 2
    inner = {f"inner/{name}": text.replace("200000", "100000", 1) for name, text in limits.items()}
    assert cpu_quota(version(tmp_path / "within", "/docker/abc/inner", limits | inner, "/docker/abc")) == 1
    assert cpu_quota(version(tmp_path / "beside", "/../../elsewhere", limits)) == 2, "nothing but the mount can be seen"
    assert cpu_quota(version(tmp_path / "above", "/", limits, "/..")) == 2


def test_a_group_outside_the_mount_is_not_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "sys/fs/secret/cpu.max", "100000 100000")
    assert cpu_quota(second(tmp_path, "/../secret", {})) is None


def test_names_with_spaces(tmp_path: Path) -> None:
    text = {"my groups/a b/cpu.max": "200000 100000"}
    assert cpu_quota(second(tmp_path, "/a b", text, mount=r"/sys/fs/cgroup/my\040groups")) == 2


def test_what_can_not_be_read_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(str(tmp_path / "nowhere")) is None
    assert cpu_quota(second(tmp_path / "a", "/gone (deleted)", {"cpu.max": "200000 100000"})) == 2
    root = second(tmp_path / "b", "/a", {"a/cpu.max": "100000 100000", "cpu.max": "300000 100000"})
    (tmp_path / "b" / CGROUP / "a/cpu.max").unlink()
    (tmp_path / "b" / CGROUP / "a/cpu.max").mkdir()
    assert cpu_quota(root) == 3
    if os.geteuid() != 0:
        (tmp_path / "b" / CGROUP / "cpu.max").chmod(0)
        assert cpu_quota(root) is None
    write(tmp_path / "c/proc/self/cgroup", "0::/\n")
    assert cpu_quota(str(tmp_path / "c")) is None


LINE = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"0::/", b"0::", b"::", b"4:cpu:/a", b"4:cpu", b"0::/\xff\xfe", b"0::/../..", b"0:cpu:/x:y", b" - ", b"a - b"]
    ),
    st.sampled_from(
        [V2.format(inside="/", mount="/sys/fs/cgroup").strip().encode(), b"1 2 3 / /m rw - cgroup x rw,cpu"]
    ),
    st.sampled_from([b"1 2 3 / /m rw - cgroup2", rb"1 2 3 /\777 /m\000 rw - cgroup2 x rw", b"100000 100000", b"max 1"]),
)
FILE = st.lists(LINE, max_size=5).map(b"\n".join)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=FILE, mounts=FILE, limit=FILE)
def test_files_that_say_anything(tmp_path: Path, groups: bytes, mounts: bytes, limit: bytes) -> None:
    write(tmp_path / "proc/self/cgroup", groups)
    write(tmp_path / "proc/self/mountinfo", mounts)
    write(tmp_path / CGROUP / "cpu.max", limit)
    found = cpu_quota(str(tmp_path))
    assert found is None or found >= 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_threads_follow_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, read = {"now": second(tmp_path / "two", "/", {"cpu.max": "150000 100000"})}, []

    def asked() -> int | None:
        read.append(root["now"])
        return cpu_quota(root["now"])

    monkeypatch.setattr(pool, "cpu_quota", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    pooling.set_num_threads(None)
    assert [pooling.get_num_threads() for _ in range(3)] == [2, 2, 2]
    root["now"] = second(tmp_path / "half", "/", {"cpu.max": "50000 100000"})
    assert pooling.get_num_threads() == 2, "it is read once"
    pooling.set_num_threads(None)
    assert pooling.get_num_threads() == 1, "and again when it is asked for"
    assert len(read) == 2
    pooling.set_num_threads(8)
    assert pooling.get_num_threads() == 8, "who names a number gets it"
    monkeypatch.setenv("POOLING_NUM_THREADS", "5")
    pooling.set_num_threads(None)
    assert pooling.get_num_threads() == 5
    monkeypatch.delenv("POOLING_NUM_THREADS")
    root["now"] = second(tmp_path / "many", "/", {"cpu.max": "9900000 100000"})
    pooling.set_num_threads(None)
    assert pooling.get_num_threads() == 64, "affinity may allow less"
    assert len(read) == 3


def test_this_system_has_some_quota_or_none() -> None:
    found = quota.cpu_quota()
    assert found is None or found >= 1
    assert pooling.get_num_threads() >= 1


def test_info_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooling.cli.info.cpu_quota", lambda: 3)
    assert "where a container's quota allows 3" in CliRunner().invoke(app, ["info"]).output
    assert json.loads(CliRunner().invoke(app, ["info", "--json"]).output)["cpu_quota"] == 3
