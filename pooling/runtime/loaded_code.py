"""What the modules of this package are loaded from: the bytes that tell one version of its code from another.

Sources in folders and in zip archives, and bytecode that is shipped without them, are read as they are. Of any other loader, such
as that of a frozen application or an import hook that rewrites modules, the code objects are taken. A loader that gives neither,
and files that were changed after this process imported them, have no answer: the code in memory may differ from theirs.

Files do not determine the code in memory, which may come from stale bytecode: `code_objects.py` digests that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import BYTECODE_SUFFIXES, ExtensionFileLoader, SourceFileLoader, SourcelessFileLoader
from types import ModuleType
from typing import Any
from zipimport import zipimporter

PACKAGE = __name__.partition(".")[0]

FROM_FILES = {SourceFileLoader, SourcelessFileLoader, ExtensionFileLoader}
"""Loaders of modules that are files. A subclass may load something else than its file, and counts as another loader."""


def contents() -> dict[str, bytes] | None:
    """By the name of a file or module, all that this package's code may be loaded from; None where that can't be known."""
    loaded = [sys.modules[name] for name in list(sys.modules) if name == PACKAGE or name.startswith(f"{PACKAGE}.")]
    loaders = [_loader(module) for module in loaded]
    kinds = {type(loader) for loader in loaders}
    try:
        if kinds <= FROM_FILES:
            found = dict(_in_folders(sys.modules[PACKAGE]))
        elif kinds == {zipimporter} and len({loader.archive for loader in loaders}) == 1:
            found = dict(_in_archive(loaders[0]))
        else:
            found = _code_objects({module.__name__ for module in loaded})
    except Exception:  # whatever a loader, or a file that disappears, makes of it
        return None
    return found if found and unchanged() else None


def read(module: str) -> bytes:
    """A module's source; in a package without sources, all that it is loaded from; nothing where there is no such module."""
    source = _source(module)
    if source or _source(PACKAGE):
        return source
    return b"".join((contents() or {}).values())


def _source(module: str) -> bytes:
    base = os.path.join(_folder(), *module.split(".")[1:])
    loader = _loader(sys.modules[PACKAGE])
    for path in (f"{base}.py", os.path.join(base, "__init__.py")):
        try:
            return bytes(loader.get_data(path))
        except (OSError, AttributeError):
            continue
    return b""


def _loader(module: ModuleType) -> Any:
    return getattr(getattr(module, "__spec__", None), "loader", None)


def _folder() -> str:
    """Where the package is, be it a folder or a path into an archive."""
    return str(next(iter(sys.modules[PACKAGE].__path__)))


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _files(entry.path)
            elif entry.name.endswith((".py", *BYTECODE_SUFFIXES, ".so", ".pyd")):
                yield entry


def _in_folders(package: ModuleType) -> Iterator[tuple[str, bytes]]:
    for root in package.__path__:
        for entry in _files(root):
            name = os.path.relpath(entry.path, root)
            with open(entry.path, "rb") as file:
                yield name, file.read()


def _in_archive(loader: Any) -> Iterator[tuple[str, bytes]]:
    """Each module's source and bytecode: which of them is loaded depends on their times."""
    import pkgutil

    todo = [(PACKAGE, _folder(), True)]
    while todo:
        name, base, is_package = todo.pop()
        if is_package:
            todo += [
                (f"{name}.{one.name}", os.path.join(base, one.name), one.ispkg) for one in pkgutil.iter_modules([base])
            ]
            base = os.path.join(base, "__init__")
        for suffix in (".py", ".pyc"):
            try:
                yield name + suffix, loader.get_data(base + suffix)
            except OSError:
                continue


def _code_objects(loaded: set[str]) -> dict[str, bytes]:
    """The code of every module that is loaded or may be; nothing if a loader doesn't give it, or doesn't name its modules."""
    import marshal
    import pkgutil

    found: dict[str, bytes] = {}
    todo = [(PACKAGE, sys.modules[PACKAGE].__spec__)]
    while todo:
        name, spec = todo.pop()
        code = spec.loader.get_code(name) if spec and spec.loader else None  # type: ignore[attr-defined]
        if code is None:
            return {}
        found[name] = marshal.dumps(code, 2)  # later versions write what is referred to twice in more than one way
        path = spec.submodule_search_locations if spec else None
        if path is not None:
            inside = [f"{name}.{one.name}" for one in pkgutil.iter_modules(path)]
            todo += [(one, _spec(one, path)) for one in inside]
    return found if loaded <= set(found) and len(found) > 1 else {}


def _spec(name: str, path: Any) -> Any:
    """A module's, whether it is loaded or not: importlib.util.find_spec would import the packages around it."""
    if name in sys.modules:
        return sys.modules[name].__spec__
    specs = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _state() -> object:
    """What changes when the package's files do."""
    loader = _loader(sys.modules[PACKAGE])
    try:
        if isinstance(loader, zipimporter):
            return _stamp(os.stat(loader.archive))
        return [(one.path, _stamp(one.stat())) for root in sys.modules[PACKAGE].__path__ for one in _files(root)]
    except (OSError, AttributeError):  # not files
        return None


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    """The time of a change, too: a copy in place that keeps times (`cp -p`) leaves all the others as they are."""
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino


def unchanged() -> bool:
    """Whether the files are as they were when this process imported them."""
    return _state() == AT_IMPORT


AT_IMPORT = _state()
