"""The store: damage, disks that refuse, many writers, kills; nothing of it reaches a call that pools."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

import pooling
from pooling.tuning import wisdom
from pooling.tuning.machine import machine
from pooling.tuning.store import here, location, locked, store
from pooling.tuning.wisdom import WisdomError, from_text, raw
from tests.processes import HANG_S
from tests.wisdom import SHAPE, key, made_up, store_in

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with store_in(tmp_path / "home" / "wisdom.json", monkeypatch) as path:
        yield path


KEY = key(direction="inference")
"""Of what `pools` does."""


def good_text() -> str:
    record = made_up({"strided_slices": 5.0, "simd": 7.0})
    return wisdom.to_text(wisdom.Wisdom({here(): machine()}, {here(): {KEY: record}}))


def changed(path: tuple[Any, ...], value: Any) -> str:
    data: Any = json.loads(good_text())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data)


RECORD = ("records", here(), KEY)
TIMES = (*RECORD, "candidates", "strided_slices")
DAMAGED = {
    "empty": "",
    "half": good_text()[: len(good_text()) // 2],
    "binary": "\x00\x01\x02",
    "list": "[]",
    "another program's": '{"wisdom": 3}',
    "older": changed(("schema",), 0),
    "newer": changed(("schema",), 99),
    "deep": "[" * 100_000,
    "no table": changed(("records",), [1]),
    "negative time": changed((*TIMES, "median_us"), -1),
    "time in words": changed((*TIMES, "median_us"), "fast"),
    "infinite time": changed((*TIMES, "median_us"), 1e999).replace("1e999", "Infinity"),
    "choice without a time": changed((*RECORD, "choice"), "numba_loops"),
    "unknown entry": changed((*TIMES, "colour"), "red"),
    "candidate is a number": changed(TIMES, 3),
}


def pools() -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert pooling.max_pool(x, 2).shape == (4, 3, 6, 6)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_set_aside_with_one_warning(path: Path, damage: str) -> None:
    path.parent.mkdir()
    path.write_text(DAMAGED[damage], encoding="utf-8")
    with pytest.warns(pooling.WisdomWarning, match=r"can't be used: .* It is now wisdom.json.aside") as caught:
        pools()
    pools()
    assert [one.filename for one in caught] == [__file__], "told of a line of the library's"
    aside = path.with_name("wisdom.json.aside")
    assert aside.read_text(encoding="utf-8") == DAMAGED[damage]
    readable = True
    try:
        raw(DAMAGED[damage])
    except WisdomError:
        readable = False
    assert ("with the 0 records in it that are sound" in str(caught[0].message)) == readable
    assert store.add(key(), made_up({"strided_slices": 1.0}))
    assert from_text(path.read_text(encoding="utf-8")).count == 1


def test_a_call_does_not_wait_long_for_who_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    module, waits = sys.modules["pooling.tuning.store"], list[float]()

    def waiting(path: Path, wait_s: float = math.inf) -> Any:
        waits.append(wait_s)
        return locked(path, wait_s)

    monkeypatch.setattr(module, "GLANCE_S", 0.05)
    monkeypatch.setattr(module, "locked", waiting)
    with locked(path):
        with pytest.warns(pooling.WisdomWarning, match="left alone"):
            pools()
        assert waits == [0.05]
    assert path.read_text(encoding="utf-8") == "{"


def test_whatever_a_file_says_can_be_written_again(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(changed(("machines", "é"), {"cpu": "ü"}), encoding="utf-8")
    path.write_text(
        path.read_text(encoding="utf-8").replace('"schema"', r'"\ud800": "\ud800", "schema"'), encoding="utf-8"
    )
    assert store.add(key(), made_up({"strided_slices": 1.0}))
    assert from_text(path.read_text(encoding="utf-8")).machines["é"] == {"cpu": "ü"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
def test_beside_what_is_no_file_no_lock_is_left(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.warns(pooling.WisdomWarning, match="not a file"):
        assert not store.add(key(), made_up({"strided_slices": 1.0}))
    assert list(path.parent.iterdir()) == [path]


def test_what_was_set_aside_before_is_not_overwritten(path: Path) -> None:
    path.parent.mkdir()
    for text in ("first", "second", "third"):
        path.write_text(text, encoding="utf-8")
        store.reload()
        with pytest.warns(pooling.WisdomWarning):
            pools()
    asides = sorted(one.read_text(encoding="utf-8") for one in path.parent.glob("*.aside*"))
    assert asides == ["first", "second", "third"]


def test_damage_while_a_process_runs_costs_none_of_its_records(path: Path) -> None:
    store.add(key(), made_up({"strided_slices": 1.0}))
    path.write_text("gone", encoding="utf-8")
    with pytest.warns(pooling.WisdomWarning, match="can't be used"):
        store.add(key(direction="inference"), made_up({"strided_slices": 1.0}))
    assert from_text(path.read_text(encoding="utf-8")).count == 2


def test_warnings_as_errors_do_not_reach_the_call(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pools()
    assert "can't be used" in capsys.readouterr().err


def test_a_folder_that_can_not_be_made_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with store_in(tmp_path / "file" / "wisdom.json", monkeypatch):
        with pytest.warns(pooling.WisdomWarning, match="kept in memory"):
            assert not store.add(key(), made_up({"argmax_switches": 1.0}))
        assert not store.add(key(direction="inference"), made_up({"argmax_switches": 1.0})), "and no second warning"
        assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) == "argmax_switches"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_disk_that_refuses_leaves_memory(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(pooling.WisdomWarning, match=rf"can't be written \({error.strerror}\)"):
        assert not store.add(key(), made_up({"argmax_switches": 1.0}))
    assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) == "argmax_switches"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
def test_a_pipe_is_neither_waited_for_nor_moved(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.warns(pooling.WisdomWarning, match="not a file"):
        pools()
    assert path.is_fifo()


def test_dev_null_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with store_in(Path(os.devnull), monkeypatch):
        assert not store.add(key(), made_up({"argmax_switches": 1.0}))
        assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) == "argmax_switches"
    assert not Path(os.devnull).is_file()


def test_a_folder_is_where_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_in(tmp_path, monkeypatch):
        store.add(key(), made_up({"argmax_switches": 1.0}))
    assert from_text((tmp_path / "wisdom.json").read_text(encoding="utf-8")).count == 1


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    target = tmp_path / "elsewhere.json"
    target.write_text(good_text(), encoding="utf-8")
    path.symlink_to(target)
    store.add(key(), made_up({"argmax_switches": 1.0}))
    assert path.is_symlink()
    assert from_text(target.read_text(encoding="utf-8")).count == 2


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"XDG_DATA_HOME": "/data"},
        {"XDG_DATA_HOME": "not/absolute"},
        {"HOME": "/somewhere/"},
        {"HOME": ""},
        {"HOME": "not/absolute"},
        {"HOME": None},
    ],
)
def test_the_folder_is_what_platformdirs_says(monkeypatch: pytest.MonkeyPatch, places: dict[str, str | None]) -> None:
    monkeypatch.delenv("POOLING_WISDOM")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in places.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    try:
        expected = Path(platformdirs.user_data_dir("pooling", appauthor=False), "wisdom.json").resolve()
    except RuntimeError:  # no absolute home
        assert location() is None
    else:
        assert location() == expected


def test_a_home_that_no_shell_has_spelled_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("POOLING_WISDOM", "~/tuned.json")
    assert location() == (tmp_path / "tuned.json").resolve()


LOADED = """
before = set(sys.modules)
store.load()
print(sorted({"pathlib", "platformdirs", "tempfile", "filelock"} & (set(sys.modules) - before)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs has to be asked")
def test_to_load_the_store_takes_no_slow_import(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(good_text(), encoding="utf-8")
    environment = os.environ | {"HOME": str(path.parent), "XDG_DATA_HOME": str(path.parent)}
    for given in ({"POOLING_WISDOM": str(path)}, {"POOLING_WISDOM": ""}):
        script = f"import sys\nimport pooling\nfrom pooling.tuning.store import store\n{LOADED}"
        done = subprocess.run(
            (sys.executable, "-c", script),
            cwd=ROOT,
            env=environment | given,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "[]"


def test_frozen_writes_nothing_and_chooses_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(key(), made_up({"argmax_switches": 1.0}))
    text = path.read_bytes()
    monkeypatch.setenv("POOLING_FROZEN", "1")
    store.reload()
    before = sorted(path.parent.iterdir())
    assert {pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) for _ in range(3)} == {"argmax_switches"}
    with pytest.raises(pooling.PoolingError, match="POOLING_FROZEN"):
        pooling.tune([(SHAPE, "float32", pooling.MaxPool(2))])
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == (text, before)
    path.write_text("{", encoding="utf-8")
    store.reload()
    with pytest.warns(pooling.WisdomWarning, match="left alone"):
        pools()
    assert path.read_text(encoding="utf-8") == "{"


def test_threads_that_write_at_once_lose_nothing(path: Path) -> None:
    def work(i: int) -> None:
        for j in range(5):
            assert store.add(f"key {i} {j}", made_up({"strided_slices": 1.0}))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert from_text(path.read_text(encoding="utf-8")).count == 20


def test_records_of_other_machines_are_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(good_text().replace(here(), "another"), encoding="utf-8")
    store.add(key(), made_up({"argmax_switches": 1.0}))
    assert len(from_text(path.read_text(encoding="utf-8")).records) == 2


def test_of_two_measurements_the_later_stays() -> None:
    old = made_up({"strided_slices": 5.0, "simd": 9.0}, measured="2026-01-01T00:00:00+00:00")
    new = made_up({"simd": 2.0}, measured="2026-02-01T00:00:00+00:00")
    both = wisdom.joined(old, new)
    assert {name: one.median_us for name, one in both.candidates.items()} == {"strided_slices": 5.0, "simd": 2.0}
    assert both.choice == "simd"
    assert wisdom.joined(new, old).candidates == both.candidates


def helper(body: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, that may fork as it likes: it has one thread."""
    head = "import os, random, signal, sys, time\nimport pooling\nfrom pooling.tuning.store import store\n"
    head += "from pooling.tuning.wisdom import from_text\nfrom pathlib import Path\nfrom tests.wisdom import made_up\n"
    environment = os.environ | {"POOLING_WISDOM": str(path), "POOLING_NUM_THREADS": "1"}
    return subprocess.run(
        (sys.executable, "-c", head + body),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )


EIGHT = """
from pooling.backends.registry import REGISTRY
for name in ("simd", "numba_loops", "block_reduce"):
    del REGISTRY[name]
children = []
for i in range(8):
    child = os.fork()
    if not child:
        layers = [((2, 3, 8 << j, 8 << (i % 4)), dtype, pooling.MaxPool(2)) for j in range(3) for dtype in ("f4", "f8")]
        layers += [((2, 2, 10, 10), "float32", pooling.MaxPool(1 + i))]
        tuned = pooling.tune(layers, float('inf'))  # whatever the eight of them take
        os._exit(0 if tuned.kept and len(tuned.measured) + len(tuned.known) == 7 else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
print(from_text(Path(os.environ["POOLING_WISDOM"]).read_text()).count)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_eight_processes_tune_into_one_store(path: Path) -> None:
    done = helper(EIGHT, path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 3 * 2 * 4 + 8


KILLED = """
path = Path(os.environ["POOLING_WISDOM"])
record = made_up({"strided_slices": 1.0, "simd": 2.0})
chance = random.Random(0)
kept = set()
for i in range(100):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        for j in range(1000):
            store.add(f"{i} {j}", record)
            os.write(writing, f"{i} {j};".encode())
        os._exit(0)
    os.close(writing)
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        kept |= set(filter(None, said.read().split(";")))
    if path.exists():
        records = from_text(path.read_text()).records.values()
        there = {key for of_machine in records for key in of_machine}
        assert kept <= there, kept - there
        assert len(list(path.parent.glob(".*.tmp"))) <= 1
    if len(kept) > 150:  # a small file, so that a kill may hit any moment and not mostly its writing
        path.unlink(); kept.clear(); wrote = True
    store.reload()
print("survived")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_hundred_kills_leave_a_valid_file_with_all_that_was_kept(path: Path) -> None:
    done = helper(KILLED, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "survived"
