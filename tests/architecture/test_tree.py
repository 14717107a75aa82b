"""The rules of the house, as far as a program can check them."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pooling
from pooling.backends.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
OURS = ("pooling", "bench", "tests")

# What a checkout's own machine leaves behind: home folders, our workplace, registries. Spelled so as not to find itself.
MACHINE = re.compile(r"(?<![\w.~-])/(?:root|work|home/\w+|Users/\w+)/|py" + r"pi\.org|pythonhosted" + r"\.org")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sources(*OURS)}
TREES = {name: ast.parse(path.read_bytes()) for name, path in MODULES.items()}


def imports(module: str) -> Iterator[str]:
    """Our own modules that `module` imports, wherever in it; ``if TYPE_CHECKING`` and functions too."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: import by the full name, as everywhere else"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [member if member in MODULES else str(node.module) for member in members]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] in OURS)


def tracked() -> list[Path]:
    """What git has or would add; in a checkout without git, the sources."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return [*sources(*OURS), *ROOT.glob("*.*"), ROOT / "Makefile"]
    command = (git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def test_one_file_and_one_line_per_backend() -> None:
    folder = ROOT / "pooling" / "backends"
    files = {path.stem for path in folder.glob("*.py") if path.stem[0] != "_"} - {"base", "registry"}
    (literal,) = (
        node.value
        for node in TREES["pooling.backends.registry"].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "REGISTRY"
    )
    assert isinstance(literal, ast.Dict)
    lines = {
        ast.literal_eval(key): ast.unparse(value)
        for key, value in zip(literal.keys, literal.values, strict=True)
        if key
    }
    assert lines == {name: f"{name}.BACKEND" for name in files}


@pytest.mark.parametrize("name", REGISTRY)
def test_a_backend_says_what_it_is(name: str) -> None:
    backend = REGISTRY[name]
    assert backend.name == name
    assert backend.note.strip() == backend.note != ""
    assert "\n" not in backend.note
    assert backend.ops
    assert ("max" not in backend.ops) or backend.ties


@pytest.mark.parametrize("module", MODULES)
def test_a_module_begins_with_a_docstring(module: str) -> None:
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("module", MODULES)
def test_a_module_fits_in_the_head(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines: split it"


def test_the_library_imports_neither_bench_nor_tests() -> None:
    for module in MODULES:
        if module.split(".")[0] == "pooling":
            assert not [name for name in imports(module) if not name.startswith("pooling")], module


def test_bench_does_not_import_tests() -> None:
    for module in MODULES:
        if module.split(".")[0] == "bench":
            assert not [name for name in imports(module) if name.startswith("tests")], module


POOLING_LAYERS = [
    ("pooling.errors", "pooling.dtypes"),
    ("pooling.runtime",),
    ("pooling.parallel",),
    ("pooling.geometry",),
    ("pooling.accuracy", "pooling.gradient_check"),
    ("pooling.simd.vector",),
    ("pooling.simd.memory",),
    ("pooling.simd.plan",),
    ("pooling.simd.kernels",),
    ("pooling.simd.planner",),
    ("pooling.backends",),
    ("pooling.operators",),
    ("pooling.tuning",),
    ("pooling._api",),
    ("pooling.cli", "pooling.__main__"),
]
"""From the bottom up. A module imports from its own layer and from those below."""

BENCH_LAYERS = [
    ("bench.files", "bench.time_left"),
    ("bench.schema",),
    ("bench.protocol",),
    ("bench.peers",),
    ("bench.training",),
    ("bench.experiments",),
    ("bench.analysis",),
    ("bench.figures",),
    ("bench.accuracy_study",),
    ("bench.report",),
    ("bench.cli",),
    ("bench.__main__", "bench.test_pooling"),
]


def layer_of(module: str) -> int:
    found = [
        number
        for number, names in enumerate(POOLING_LAYERS if module.startswith("pooling.") else BENCH_LAYERS)
        if any(module == name or module.startswith(f"{name}.") for name in names)
    ]
    assert len(found) == 1, f"{module} is in no layer: put it into one of the folders"
    return found[0]


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith(("pooling.", "bench.")) and name != "pooling.simd"]
)
def test_a_module_imports_lower_layers_alone(module: str) -> None:
    package = module.partition(".")[0] + "."
    named = {name for name in imports(module) if name.startswith(package) and MODULES[name].stem != "__init__"}
    above = {name for name in named if layer_of(name) > layer_of(module)}
    assert not above, f"{module} imports {sorted(above)} from a layer above its own"


def test_backends_do_not_import_the_registry() -> None:
    for module in MODULES:
        if module.startswith("pooling.backends.") and module != "pooling.backends.registry":
            assert "pooling.backends.registry" not in imports(module), f"{module} imports the registry"


@pytest.mark.parametrize("package", ["pooling", "bench"])
def test_imports_run_one_way(package: str) -> None:
    # A package's __init__ gathers the names of its modules for others; inside, nobody imports them from there.
    inside = {name for name in MODULES if name.split(".")[0] == package} - {package}
    graph = {name: {other for other in imports(name) if other in inside and other != name} for name in inside}
    graphlib.TopologicalSorter(graph).prepare()


def test_only_the_command_line_imports_the_package_by_its_name() -> None:
    users = {module for module in MODULES if module.startswith("pooling.") and "pooling" in imports(module)}
    assert {user.removeprefix("pooling.").split(".")[0] for user in users} <= {"cli"}


def test_no_numba_threads_in_the_library() -> None:
    for module, tree in TREES.items():
        if module.startswith("pooling"):
            given = [k for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords]
            wrong = [
                k
                for k in given
                if k.arg == "parallel" and not (isinstance(k.value, ast.Constant) and not k.value.value)
            ]
            assert not wrong, (
                f"{module}: two threads in Numba's own layer abort the process; use pooling/parallel/pool.py"
            )


def bound_names(tree: ast.Module) -> Iterator[str]:
    """Patterns of the names that a module binds kernels to: keywords of ``bind``, and keys of dictionaries for it."""
    for node in ast.walk(tree):
        keys: list[ast.expr | None] = node.keys if isinstance(node, ast.Dict) else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "bind":
            yield from (keyword.arg for keyword in node.keywords if keyword.arg)
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value
            elif isinstance(key, ast.JoinedStr) and isinstance(key.values[0], ast.Constant):
                yield str(key.values[0].value) + "[DHW0-9]"  # of each axis


def test_names_that_kernels_are_bound_to_are_nobody_elses() -> None:
    """A kernel hands on what it is bound to, to all that it calls: a constant of the same name would change with it."""
    simd = {name: tree for name, tree in TREES.items() if name.startswith("pooling.simd.")}
    bound = {name for tree in (*simd.values(), TREES["pooling.backends.simd"]) for name in bound_names(tree)}
    pattern = re.compile("|".join(sorted(name for name in bound if name.isupper())))
    found = 0
    for module, tree in simd.items():
        lines = MODULES[module].read_text().splitlines()
        for node in tree.body:
            if not isinstance(node, ast.Assign):
                continue
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            if any(pattern.fullmatch(name) for name in names):
                start = node.lineno - 1
                while start > 0 and lines[start - 1].strip() and not lines[start].startswith("# Bound when"):
                    start -= 1
                said = lines[start].startswith("# Bound when") or lines[node.end_lineno or 0].startswith(
                    '"""Bound when'
                )
                assert said, f"{module}, line {node.lineno}: {names} is a constant, but kernels are bound to the name"
                found += 1
    assert found > 20


def test_nothing_names_the_machine_it_was_written_on() -> None:
    for path in tracked():
        found = MACHINE.search(path.read_bytes().decode("utf-8", errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)} names {found and found[0]}"


def test_the_public_names_exist_and_are_documented() -> None:
    assert sorted(set(pooling.__all__)) == sorted(pooling.__all__)
    for name in pooling.__all__:
        assert getattr(pooling, name).__doc__, name
