"""Processes that have nowhere to keep a file: they compute, keep nothing, and `pooling info` says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from bench.training import data
from bench.training.idx import DataError
from pooling.runtime.user_dirs import NoPlace, named, user_folder
from tests.processes import HANG_S, STEP, unprivileged

PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "POOLING_CACHE_DIR", "POOLING_WISDOM")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere homes are found in other ways")

NO_PASSWD_ENTRY = """
import pwd
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""
"""As for a user whom the system doesn't know."""

WORKS = STEP + "print(step('numba_loops'), step('strided_slices'))\n"
KEEPS = """
from pooling.tuning.store import store
from pooling.tuning.wisdom import Measured, Record
kept = store.add("a layer", Record("simd", "", {"simd": Measured("", "2025-01-01", 2.0, 1.0, 3.0, 5)}))
print(kept, pooling.pick(x.shape, x.dtype, pooling.MaxPool(2)) in pooling.list_backends())
"""
INFO = "import runpy; sys.argv = ['pooling', 'info', *sys.argv[1:]]; runpy.run_module('pooling', run_name='__main__')\n"
INFO_CODE = "import sys\n" + INFO
SHOW_CODE = INFO_CODE.replace("'info'", "'wisdom', 'show'")


def python(code: str, *arguments: str, cwd: Path, **places: str) -> subprocess.CompletedProcess[str]:
    """A process in `cwd` that has these places, and no other."""
    return started((), code, *arguments, cwd=cwd, **places)


def started(
    before: tuple[str, ...], code: str, *arguments: str, cwd: Path, **places: str
) -> subprocess.CompletedProcess[str]:
    """The same, started by way of another program."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name not in PLACES} | {"PYTHONPATH": paths}
    return subprocess.run(
        [*before, sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment | places,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def info(code: str, cwd: Path, **places: str) -> Any:
    done = python(code + "import sys\n" + INFO, "--json", cwd=cwd, **places)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


HOMELESS = {
    "none": {},
    "empty": {"HOME": ""},
    "relative": {"HOME": "home"},
    "relative XDG": {"XDG_CACHE_HOME": "cache"},
}


@LINUX
@pytest.mark.parametrize("places", HOMELESS.values(), ids=HOMELESS)
def test_without_a_home_nothing_is_kept(places: dict[str, str], tmp_path: Path) -> None:
    """hatch#544, black#2813: RuntimeError about the home directory, from any call that compiles."""
    done = python(NO_PASSWD_ENTRY + WORKS + KEEPS, cwd=tmp_path, **places)
    assert (done.returncode, done.stdout, done.stderr) == (0, "576 576\nFalse True\n", "")
    facts = info(NO_PASSWD_ENTRY, tmp_path, **places)
    assert (facts["cache_folder"], facts["cache_writable"], facts["wisdom_file"]) == (None, False, None)
    assert "no home folder" in facts["cache_problem"]
    assert "POOLING_CACHE_DIR" in facts["cache_problem"]
    assert "POOLING_WISDOM" in facts["wisdom_problem"]
    shown = python(NO_PASSWD_ENTRY + "import sys\n" + INFO, cwd=tmp_path, **places).stdout
    assert facts["cache_problem"] in shown
    assert facts["wisdom_problem"] in shown
    assert not list(tmp_path.iterdir()), "something was written where the process happened to be"


@LINUX
def test_a_home_that_can_not_be_written(tmp_path: Path) -> None:
    """dottxt-ai/outlines#1425: docker run --user gives HOME=/, which belongs to somebody else."""
    places = {"HOME": "/dev/null"}
    done = python("import warnings; warnings.simplefilter('ignore')\n" + WORKS + KEEPS, cwd=tmp_path, **places)
    assert (done.returncode, done.stdout, done.stderr) == (0, "576 576\nFalse True\n", "")
    facts = info("", tmp_path, **places)
    assert facts["cache_folder"] is None
    assert "/dev/null/.cache/pooling" in facts["cache_problem"]
    assert "can't be written" in facts["wisdom_problem"]


@LINUX
@pytest.mark.parametrize("mode", [0o666, 0o000])
def test_a_home_that_can_not_be_searched(mode: int, tmp_path: Path) -> None:
    """With a right to write that is of no use, `pooling info` said that choices are kept there."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    before = unprivileged()
    try:
        told = started(before, INFO_CODE, "--json", cwd=tmp_path, HOME=str(home))
        shown = started(before, SHOW_CODE, cwd=tmp_path, HOME=str(home))
    finally:
        home.chmod(0o700)
    assert (told.returncode, told.stderr) == (0, "")
    assert "can't be written" in json.loads(told.stdout)["wisdom_problem"]
    assert "POOLING_WISDOM" in json.loads(told.stdout)["wisdom_problem"]
    assert shown.returncode
    assert "Permission denied" in shown.stderr
    assert "set POOLING_WISDOM" in shown.stderr


@LINUX
@pytest.mark.parametrize("variable", ["POOLING_CACHE_DIR", "POOLING_WISDOM"])
def test_a_home_that_is_named_but_not_there(variable: str, tmp_path: Path) -> None:
    """A folder called ~ was made in the working directory."""
    places = {"POOLING_CACHE_DIR": "/dev/null", "POOLING_WISDOM": "/dev/null"} | {variable: "~/kept"}
    done = python(NO_PASSWD_ENTRY + WORKS + KEEPS, cwd=tmp_path, **places)
    assert (done.returncode, done.stdout, done.stderr) == (0, "576 576\nFalse True\n", "")
    assert not list(tmp_path.iterdir())
    told = info(NO_PASSWD_ENTRY, tmp_path, **places)
    assert f"{variable}='~/kept'" in told["cache_problem" if "CACHE" in variable else "wisdom_problem"]


def test_a_relative_cache_folder_stays_where_it_was(tmp_path: Path) -> None:
    away = "import os; os.mkdir('away'); os.chdir('away')\n"
    code = (
        STEP
        + "print(step('numba_loops'))\n"
        + away
        + "print(float(pooling.AvgPool(2, backend='numba_loops')(x)[0, 0, 0, 0]))"
    )
    done = python(code, cwd=tmp_path, HOME=str(tmp_path), POOLING_CACHE_DIR="kept")
    assert (done.returncode, done.stdout, done.stderr) == (0, "576\n4.5\n", "")
    assert len(list((tmp_path / "kept").rglob("*.nbi"))) == 3
    assert not list((tmp_path / "away").iterdir())
    assert info("", tmp_path, HOME=str(tmp_path), POOLING_CACHE_DIR="kept")["cache_folder"].startswith(str(tmp_path))


@LINUX
def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Numba compiles nothing there, but asking where to keep a file raises nothing of its own."""
    gone = "import os\nos.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
    ask = "from pooling.tuning.store import location, no_location\nprint(location(), no_location())"
    done = python("import pooling; pooling.MaxPool\n" + gone + ask, cwd=tmp_path, POOLING_WISDOM="kept.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "relative to a folder that is gone" in done.stdout


def test_what_is_empty_or_relative_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """The XDG specification: all paths must be absolute; others are to be ignored."""
    plain = {"HOME": str(tmp_path)}
    odd = {"XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "", "POOLING_CACHE_DIR": "", "POOLING_WISDOM": ""}
    assert info("", tmp_path, **plain, **odd) == info("", tmp_path, **plain)


def test_a_place_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    places = {"POOLING_CACHE_DIR": str(tmp_path / "a" / "b"), "POOLING_WISDOM": str(tmp_path / "c" / "d" / "e.json")}
    facts = info("", tmp_path, **places)
    assert (facts["cache_problem"], facts["cache_writable"], facts["wisdom_problem"]) == (None, True, None)
    assert facts["wisdom_file"] == places["POOLING_WISDOM"]
    done = python(WORKS + KEEPS, cwd=tmp_path, **places)
    assert (done.returncode, done.stdout, done.stderr) == (0, "576 576\nTrue True\n", "")
    assert (tmp_path / "c" / "d" / "e.json").is_file()


@pytest.mark.parametrize("kind", ["cache", "data"])
def test_a_platformdirs_that_knows_no_home(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its older versions give a relative path, its newer ones RuntimeError."""
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platformdirs, f"user_{kind}_dir", lambda *_, **__: "~/.cache/pooling")
    with pytest.raises(NoPlace, match="no home folder"):
        user_folder(kind)

    def refuse(*_: Any, **__: Any) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, f"user_{kind}_dir", refuse)
    with pytest.raises(NoPlace, match="no home folder"):
        user_folder(kind)


def test_what_a_variable_names_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for given, path in (("kept", "kept"), ("./~kept", "~kept"), ("~/kept", "home/kept")):
        monkeypatch.setenv("POOLING_CACHE_DIR", given)
        assert named("POOLING_CACHE_DIR") == str(tmp_path / path)


def test_digits_are_not_kept_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(kind: str) -> str:
        raise NoPlace("this user has no home folder")

    monkeypatch.setattr(data, "user_folder", nowhere)
    with pytest.raises(DataError, match="POOLING_DATA_DIR"):
        data.download()
