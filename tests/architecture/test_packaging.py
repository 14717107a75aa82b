"""What is installed, from which versions, and what importing it costs."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pooling

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LOCKS = {"requirements.lock": ("bench", "test", "lint"), "requirements-peers.lock": ("peers",)}

HEAVY = "numba llvmlite platformdirs filelock typer rich skimage scipy matplotlib bench"
BENCHMARK = """
def test_fast(benchmark):
    assert benchmark(sum, [1, 2]) == 3

def test_other():
    assert True
"""


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE"))}
    command = (sys.executable, *arguments)
    return subprocess.run(command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, check=False)


def locked(name: str) -> dict[str, list[str]]:
    """Versions per package; there may be several, for several Pythons."""
    versions: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)(?: ; .+)?", line)
        assert match, f"{name}: {line!r} is not an exact version"
        versions.setdefault(match[1], []).append(match[2])
    return versions


def test_import_loads_nothing_heavy() -> None:
    code = f"import pooling, sys; print([m for m in {HEAVY.split()} if m in sys.modules])"
    done = python("-W", "error", "-c", code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_picking_a_backend_does_not_load_numba() -> None:
    code = (
        "import pooling, sys; pooling.pick((1, 8, 8, 8), 'float32', pooling.MaxPool(2)); print('numba' in sys.modules)"
    )
    done = python("-c", code, POOLING_FROZEN="1")
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_version_is_the_changelogs_newest() -> None:
    versions = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == pooling.__version__


def test_console_script_exists() -> None:
    assert callable(pkgutil.resolve_name(PROJECT["scripts"]["pooling"]))


def test_python_m_pooling() -> None:
    done = python("-m", "pooling", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, pooling.__version__)


@pytest.mark.parametrize("name", LOCKS)
def test_lock_satisfies_the_project(name: str) -> None:
    versions = locked(name)
    wanted = [*PROJECT["dependencies"]]
    for extra in LOCKS[name]:
        wanted += PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        if requirement.name != "pooling":
            chosen = versions[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in chosen), requirement


def test_locks_agree() -> None:
    main, peers = map(locked, LOCKS)
    assert {name: peers[name] for name in main.keys() & peers.keys()} == {
        name: main[name] for name in main.keys() & peers.keys()
    }


@pytest.mark.parametrize("name", [*LOCKS, "pyproject.toml", "Makefile", ".ci/run"])
def test_no_package_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|file://|--(extra-)?index-url\b(?<!emit-index-url)|--find-links|--trusted-host", text
    )


def test_wheel_holds_the_library_alone(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    info = f"pooling-{pooling.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"pooling", info}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pooling").rglob("*.py")}
    data = {"pooling/py.typed", "pooling/tuning/rule.json"}
    assert {name for name in names if name.startswith("pooling/")} == sources | data
    assert {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= set(names)


def test_every_make_target_is_explained() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(re.findall(r"^([a-z]+):.*  ## \S", MAKEFILE, re.MULTILINE))


def test_make_alone_shows_the_help() -> None:
    make = shutil.which("make")
    assert make, "make is one of the two things that this project needs"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run((make,), cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    for target in ("report", "test", "lint", "bench", "help"):
        assert f"make {target} " in shown


def test_ci_is_an_executable_script() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    subprocess.run(("bash", "-n", path), check=True)


@pytest.mark.parametrize(
    ("options", "outcome", "timed"),
    [
        ((), "2 passed", False),
        (("--benchmark-only",), "1 passed, 1 skipped", True),
        (("--benchmark-enable",), "2 passed", True),
        (("--benchmark-disable",), "2 passed", False),
    ],
)
def test_benchmarks_are_timed_when_asked(tmp_path: Path, options: tuple[str, ...], outcome: str, timed: bool) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(BENCHMARK, encoding="utf-8")
    quick = "--benchmark-max-time=0.01" if timed else "-q"
    done = python("-m", "pytest", "-p", "no:cacheprovider", *options, *([quick] if timed else []), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome in done.stdout
    assert ("OPS" in done.stdout) == timed


def test_addopts_leave_benchmarks_alone() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert "benchmark" not in tools["pytest"]["ini_options"]["addopts"]
