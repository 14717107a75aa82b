"""Two versions of the library that share a cache folder, however they are installed: each runs its own code."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import pooling.runtime.loaded_code
from tests.processes import HANG_S, run_python

SOURCE = Path(pooling.__file__).parent
LINE = "y[b, d, h, w, c] = total / divisors[d, h, w]"
OTHER = "y[b, d, h, w, c] = total * 3 / divisors[d, h, w]"
"""Of a version whose means are three times as large, such as 6 of 1 and 3. Only a constant in the bytecode is another one."""
TRIPLED = OTHER.replace("3", "5")

MEAN = """
import numpy as np, pooling
pool = pooling.AvgPool(2, backend="numba_loops")
print(float(pool(np.array([[[[1, 3], [1, 3]]]], np.float32))[0, 0, 0, 0]))
"""


def package(folder: Path, line: str = LINE) -> Path:
    """A copy of the library in which this line computes means."""
    shutil.copytree(SOURCE, folder / "pooling", ignore=shutil.ignore_patterns("__pycache__"))
    edit(folder, LINE, line)
    return folder


def edit(folder: Path, old: str, new: str) -> Path:
    loops = folder / "pooling" / "backends" / "numba_loops.py"
    text = loops.read_text(encoding="utf-8")
    assert old in text
    loops.write_text(text.replace(old, new), encoding="utf-8")
    return loops


def in_folder(folder: Path) -> Path:
    return folder


def without_sources(folder: Path) -> Path:
    """As the bytecode alone, beside where the sources were."""
    assert compileall.compile_dir(folder, quiet=2, legacy=True)
    for path in folder.rglob("*.py"):
        path.unlink()
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


def zipped_without_sources(folder: Path) -> Path:
    return zipped(without_sources(folder))


FORMS = (in_folder, without_sources, zipped, zipped_without_sources)


def answer(place: Path, kept: Path, *options: str, code: str = MEAN, **environment: str) -> str:
    """What a process says that imports the library from there and keeps kernels in `kept`."""
    done = run_python(code, "-P", *options, PYTHONPATH=str(place), POOLING_CACHE_DIR=str(kept), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kernels(kept: Path) -> list[Path]:
    return sorted(kept.rglob("*.nbc"))


@pytest.mark.parametrize("form", FORMS)
def test_each_version_runs_its_own_kernels(form: Callable[[Path], Path], tmp_path: Path) -> None:
    """numba#4908, numba#7883: from an archive, or without sources, an older version's machine code was run."""
    kept = tmp_path / "kept"
    versions = [form(package(tmp_path / name, line)) for name, line in (("a", OTHER), ("b", TRIPLED), ("c", LINE))]
    assert [answer(version, kept) for version in versions] == ["6.0", "10.0", "2.0"]
    files = kernels(kept)
    assert len({path.parent for path in files}) == 3
    assert [answer(version, kept) for version in versions] == ["6.0", "10.0", "2.0"]
    assert kernels(kept) == files, "compiled again"


@pytest.mark.parametrize("form", FORMS)
def test_prices_and_digests_are_found_wherever_the_library_is(form: Callable[[Path], Path], tmp_path: Path) -> None:
    """The rule's prices, and the digests by which records of another version are told, were lost without sources or files."""
    code = """
import pooling
from pooling.tuning.candidates import source_of
from pooling.tuning.rule import rule
print(len(rule()["prices"]) > 0, source_of(pooling.REGISTRY["numba_loops"]))
"""
    told = [
        answer(form(package(tmp_path / name, line)), tmp_path, code=code).split()
        for name, line in (("a", LINE), ("b", OTHER))
    ]
    assert [prices for prices, _ in told] == ["True", "True"]
    assert told[0][1] != told[1][1]


LOADER = """
import importlib.abc, importlib.util, marshal, sys
from pathlib import Path

ROOT = Path({folder!r})
CODE = {{}}
for path in sorted((ROOT / "pooling").rglob("*.py")):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    CODE[name] = compile(path.read_bytes(), f"<frozen {{name}}>", "exec"), path.name == "__init__.py"

class Frozen(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name not in CODE: return None
        spec = importlib.util.spec_from_loader(name, self, is_package=CODE[name][1])
        if CODE[name][1]: spec.submodule_search_locations = ["<frozen>/" + name]
        return spec
    def exec_module(self, module):
        exec(CODE[module.__name__][0], module.__dict__)
    {methods}

class Listed:
    def __init__(self, path): self.package = path.removeprefix("<frozen>/")
    def iter_modules(self, prefix=""):
        for name, (_, package) in CODE.items():
            if name.rpartition(".")[0] == self.package: yield prefix + name.rpartition(".")[2], package

def hook(path):
    if not path.startswith("<frozen>/"): raise ImportError
    return Listed(path)

sys.meta_path.insert(0, Frozen())
"""
GIVES_CODE = "def get_code(self, name): return CODE[name][0]"
LISTS = "sys.path_hooks.insert(0, hook)\n"


@pytest.mark.parametrize(("methods", "more", "cached"), [(GIVES_CODE, LISTS, 2), (GIVES_CODE, "", 0), ("", LISTS, 0)])
def test_a_frozen_application(methods: str, more: str, cached: int, tmp_path: Path) -> None:
    """numba#1907, erlabpy#510: of another loader the code objects count, if it gives and lists them; else nothing is kept."""
    kept, said = tmp_path / "kept", []
    for name, line in (("a", OTHER), ("b", TRIPLED), ("a", OTHER)):
        folder = tmp_path / name
        if not folder.exists():
            package(folder, line)
        said.append(answer(tmp_path, kept, code=LOADER.format(folder=str(folder), methods=methods) + more + MEAN))
    assert said == ["6.0", "10.0", "6.0"]
    assert len(kernels(kept)) == cached


def test_an_import_hook_that_rewrites_modules(tmp_path: Path) -> None:
    """beartype and typeguard rewrite what they import: machine code of that is not the source's."""
    place = package(tmp_path / "a")
    hook = f"""
import importlib.machinery, sys

class Rewriting(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        text = self.get_data(self.path).decode().replace({LINE!r}, {OTHER!r})
        return compile(text, self.path, "exec")

finder = importlib.machinery.FileFinder.path_hook((Rewriting, [".py"]))
def hook(path):
    if not path.startswith({str(tmp_path)!r}): raise ImportError
    return finder(path)
sys.path_hooks.insert(0, hook)
sys.path_importer_cache.clear()
"""
    kept = tmp_path / "kept"
    assert [answer(place, kept, code=code) for code in (MEAN, hook + MEAN, MEAN)] == ["2.0", "6.0", "2.0"]


def test_bytecode_of_another_source_is_told_from_it(tmp_path: Path) -> None:
    """PEP 552: bytecode that nobody compares with its source is run whatever the source says."""
    place, kept = package(tmp_path / "a", OTHER), tmp_path / "kept"
    loops = place / "pooling" / "backends" / "numba_loops.py"
    cached = py_compile.compile(
        str(loops), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    edit(place, OTHER, LINE)
    assert answer(place, kept) == "6.0"
    Path(str(cached)).unlink()
    assert answer(place, kept) == "2.0"


def test_an_edit_within_a_second(tmp_path: Path) -> None:
    """A source of the same size and second as the one its bytecode was made of: Python runs the old one."""
    place, kept = package(tmp_path / "a", OTHER), tmp_path / "kept"
    loops = place / "pooling" / "backends" / "numba_loops.py"
    second = 1_700_000_000
    os.utime(loops, ns=(0, second * 10**9))
    cached = py_compile.compile(str(loops), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    os.utime(str(cached), ns=(0, second * 10**9 + 1000))
    edit(place, OTHER, TRIPLED)
    os.utime(loops, ns=(0, second * 10**9 + 2000))
    assert answer(place, kept) == "6.0"
    os.utime(loops)
    assert answer(place, kept) == "10.0"


PACKED = 1_580_601_600
"""The time of every file in a reproducible build."""


def packed(folder: Path) -> Path:
    for path in folder.rglob("*"):
        os.utime(path, (PACKED, PACKED))
    return folder


def test_a_version_unpacked_over_another_of_the_same_times(tmp_path: Path) -> None:
    """Reproducible builds: Python runs the old version's bytecode, which was kept as the new version's machine code."""
    old, new = packed(package(tmp_path / "a", OTHER)), packed(package(tmp_path / "b", TRIPLED))
    kept = tmp_path / "kept"
    writes = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
    assert answer(old, kept, **writes) == "6.0"
    bytecode = list((old / "pooling" / "backends").rglob("numba_loops*.pyc"))
    assert bytecode, "nothing to be misled by"
    shutil.copytree(new, old, dirs_exist_ok=True)
    assert answer(old, kept, **writes) == "6.0", "Python has noticed"
    assert answer(new, kept) == "10.0"
    for path in bytecode:
        path.unlink()
    assert answer(old, kept) == "10.0"


def test_a_copy_in_place_of_the_same_times(tmp_path: Path) -> None:
    """`cp -p` over what a process has imported: time, size and inode of every file stay."""
    old, new = packed(package(tmp_path / "a", OTHER)), packed(package(tmp_path / "b", TRIPLED))
    kept = tmp_path / "kept"
    code = f"""
import shutil, pooling.backends.numba_loops
shutil.copytree({str(new)!r}, {str(old)!r}, dirs_exist_ok=True)
"""
    assert answer(old, kept, code=code + MEAN) == "6.0"
    assert not kernels(kept)
    assert answer(old, kept) == "10.0"


def test_code_is_the_same_wherever_it_is(tmp_path: Path) -> None:
    """Files are named after the code in memory, not after where it was found or what else was imported."""
    kept = tmp_path / "kept"
    places = [package(tmp_path / name, OTHER) for name in "ab"]
    others = (
        "import pooling.gradient_check, pooling.simd.kernels.rows.forward, pooling.simd.planner, pooling.tuning.tuner\n"
    )
    said = [answer(place, kept, code=more + MEAN) for place, more in zip(places, ("", others), strict=True)]
    assert said == ["6.0", "6.0"]
    assert len(kernels(kept)) == 1


DIGEST = """
import pooling.simd.kernels.rows.forward as rows
from pooling.runtime.code_objects import digest_of
from pooling.runtime.jit import Kernel
print([digest_of(one.functions()) for one in vars(rows).values() if isinstance(one, Kernel)])
"""


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("simd/vector/ops.py", "types.intp, vector.count)", "types.intp, vector.count + 1)", False),
        ("simd/vector/ops.py", "return builder.not_(args[0])", "return builder.neg(args[0])", False),
        ("simd/vector/ops.py", "aligned: bool = False", "aligned: bool = True", False),
        ("geometry/argmax_rules.py", "SUM_BLOCK = 32", "SUM_BLOCK = 64", False),
        ("geometry/window.py", '"""', '"""The same code. ', True),
        ("cli/info.py", "return", "return None or", True),
    ],
)
def test_code_is_told_by_what_it_is_made_of(name: str, old: str, new: str, same: bool, tmp_path: Path) -> None:
    """An intrinsic, an operator of vectors, which no kernel names, a default, a constant; not what kernels have no part of."""
    place = package(tmp_path / "a")
    before = answer(place, tmp_path, code=DIGEST)
    file = place / "pooling" / name
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert (answer(place, tmp_path, code=DIGEST) == before) is same


@pytest.mark.parametrize("form", [in_folder, zipped])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_upgrade_while_a_process_runs(form: Callable[[Path], Path], when: str, tmp_path: Path) -> None:
    """What has been imported before the upgrade is not kept as the new version's, nor what comes after as the old one's."""
    old, new, kept = package(tmp_path / "a", OTHER), package(tmp_path / "b"), tmp_path / "kept"
    place, fresh = form(old), form(new)
    replace = f"""
import os, shutil
def upgrade():
    old, new = {str(place)!r}, {str(fresh)!r}
    if os.path.isdir(old): shutil.copytree(new, old, dirs_exist_ok=True, copy_function=shutil.copyfile)
    else: os.replace(new, old)
"""
    first = "import pooling; pooling.MaxPool(2, backend='numba_loops')({})\n"
    one = "__import__('numpy').ones((1, 1, 4, 4))"
    prepare = (
        first.format(one)
        if when == "after"
        else "import pooling.runtime.numba_api, pooling.runtime.kernel_cache; pooling.MaxPool\n"
    )
    assert answer(place, kept, code=replace + prepare + "upgrade()\n" + MEAN) == "6.0"
    assert not [path for path in kernels(kept) if "add_cells" in path.name]
    assert answer(place, kept) == "2.0"


def test_asserts_are_another_version(tmp_path: Path) -> None:
    """python -O leaves asserts out of kernels, too."""
    place, kept = package(tmp_path / "a", f"assert total > 100; {LINE}"), tmp_path / "kept"
    assert answer(place, kept, "-O") == "2.0"
    failed = run_python(MEAN, "-P", PYTHONPATH=str(place), POOLING_CACHE_DIR=str(kept))
    assert "AssertionError" in failed.stderr


@pytest.mark.parametrize("setting", ["NUMBA_OPT", "NUMBA_BOUNDSCHECK", "NUMBA_DEBUGINFO", "NUMBA_SLP_VECTORIZE"])
def test_machine_code_of_other_settings_is_not_found(setting: str, tmp_path: Path) -> None:
    """numba#10821: code compiled under other settings, for debugging say, was run."""
    told = "from pooling.runtime.kernel_cache import cache_folder; print(cache_folder())"
    folders = [run_python(told, POOLING_CACHE_DIR=str(tmp_path), **more) for more in ({}, {setting: "1"})]
    assert folders[0].stdout != folders[1].stdout


def test_every_source_counts(tmp_path: Path) -> None:
    place, told = package(tmp_path / "a"), "from pooling.runtime.kernel_cache import fingerprint; print(fingerprint())"
    found = [answer(place, tmp_path, code=told)]
    helper = place / "pooling" / "simd" / "vector" / "ops.py"
    helper.write_text(helper.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    found.append(answer(place, tmp_path, code=told))
    helper.rename(helper.with_name("words.py"))
    found.append(answer(place, tmp_path, code=told))
    assert len(set(found)) == 3
    assert found[-1] == answer(place, tmp_path, code=told)


def test_the_library_is_loaded_from_its_sources() -> None:
    found = pooling.runtime.loaded_code.contents()
    assert found is not None
    sources = {str(path.relative_to(SOURCE)): path.read_bytes() for path in SOURCE.rglob("*.py")}
    assert sources.items() <= found.items()
    assert sys.modules["pooling.runtime.jit"].__name__ == "pooling.runtime.jit"


def test_an_editable_installation(tmp_path: Path) -> None:
    """A line in a .pth file, or a finder: the modules are files like any others."""
    place, kept = package(tmp_path / "a", OTHER), tmp_path / "kept"
    finder = f"""
import importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pooling":
            where = {str(place)!r} + "/pooling"
            return importlib.util.spec_from_file_location(name, where + "/__init__.py", submodule_search_locations=[where])
sys.meta_path.insert(0, Finder)
"""
    code = finder + MEAN
    done = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"POOLING_CACHE_DIR": str(kept)},
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=HANG_S,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert done == ["6.0", "6.0"]
    assert len(kernels(kept)) == 1
