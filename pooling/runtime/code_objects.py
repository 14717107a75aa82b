"""The code that kernels are made of, as this process has it in memory, whatever the files say.

Python tells by its time, to the second, and its size whether bytecode was made from a source. Where a version is unpacked over
another one and both have the times of one build, the old bytecode is run; and files may be replaced after they were imported.
So what is kept of a kernel on disk is named after its code objects, not after the files alone.

That is all functions of the kernel's module, and of the modules whose functions, kernels, intrinsics and classes it names, and so
on. Following only what a function names would miss how operators of vectors are lowered, which nothing names.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import marshal
import types
from collections.abc import Iterable, Iterator
from typing import Any

PACKAGE = __name__.partition(".")[0]

PLAIN = (int, float, str, bytes, type(None))


def digest_of(functions: Iterable[types.FunctionType]) -> str:
    """A digest of the code that machine code of these functions is made of; the same wherever the package is."""
    todo = [function.__globals__ for function in functions]
    packages = {PACKAGE, *map(_package, todo)}
    found: dict[str, str] = {}
    while todo:
        module = todo.pop()
        name = str(module.get("__name__"))
        if name not in found and _package(module) in packages:
            found[name], others = _contents(_Module(module))
            todo += others
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def _package(module: dict[str, Any]) -> str:
    return str(module.get("__name__")).partition(".")[0]


class _Module:
    """A module's namespace, the same as itself alone: a reloaded module has another digest only in another process."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def __hash__(self) -> int:
        return id(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Module) and self.names is other.names


@functools.cache
def _contents(module: _Module) -> tuple[str, list[dict[str, Any]]]:
    """The digest of a module's code and constants; the modules of what it names."""
    digest = hashlib.sha256()
    others: list[dict[str, Any]] = []
    for name, value in sorted(module.names.items()):
        if name.isupper() and _is_plain(value):
            digest.update(repr((name, value)).encode())
        for function in _functions(value):
            if function.__globals__ is module.names:
                defaults = [one for one in function.__defaults__ or () if _is_plain(one)]
                digest.update(repr((name, function.__qualname__, defaults)).encode())
                digest.update(marshal.dumps(_anywhere(function.__code__), 2))  # later versions write references anyhow
            else:
                others.append(function.__globals__)
    return digest.hexdigest(), others


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """The Python functions of a function, kernel, intrinsic or class."""
    if isinstance(value, type):
        for member in vars(value).values():
            inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if isinstance(inner, types.FunctionType):
                yield inner
    elif callable(value):
        inner = inspect.unwrap(value)
        if isinstance(inner, types.FunctionType):
            yield inner


def _is_plain(value: Any) -> bool:
    """Whether this is a constant that is written in one way."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _anywhere(code: types.CodeType) -> types.CodeType:
    """This code without the place of its file."""
    constants = (_anywhere(one) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_filename="", co_consts=tuple(constants))
