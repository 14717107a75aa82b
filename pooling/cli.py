"""The command line: what this machine has, which backend is the fastest for an array, are the gradients right.

Each command prints a table for people or, with ``--json``, one JSON document for scripts. A mistake in what was asked is one
line on stderr and exit code 2; exit code 1 is left to answers, such as a wrong gradient.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import pooling
from pooling.backend import Op, Ties
from pooling.operators import DataFormat
from pooling.sliding import AvgPool, LpPool, MaxPool

WINDOWS: dict[str, dict[str, Any]] = {
    "2x2": {"kernel_size": 2},
    "3x3, stride 2, padding 1": {"kernel_size": 3, "stride": 2, "padding": 1},
}
"""On which windows `check` checks: side by side, and overlapping."""

VECTOR_FEATURES = ("sse", "ssse", "avx", "fma", "f16c", "neon", "sve", "asimd")
"""How the names of vector instruction sets begin, among all that LLVM tells about a CPU."""


class OneLineErrors(TyperGroup):
    """A group of commands whose errors are one line, the user's as well as the library's."""

    def main(self, *args: Any, **options: Any) -> Any:
        standalone = options.get("standalone_mode", True)
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except (TyperException, pooling.PoolingError) as error:
            if not standalone:
                raise
            message = error.format_message() if isinstance(error, TyperException) else str(error)
            typer.echo(f"pooling: {' '.join(message.split())}", err=True)
            code = 2
        if standalone:
            sys.exit(code or 0)
        return code


app = typer.Typer(cls=OneLineErrors, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def pooling_command(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Max and mean pooling with their backpropagation, on the CPU."""
    if version:
        typer.echo(pooling.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def info(as_json: Json = False) -> None:
    """Version, backends, threads, cache folder, CPU."""
    import llvmlite.binding as llvm

    from pooling.jit import cache_folder
    from pooling.simd.vectors import vector_bytes

    cache = cache_folder()
    features = sorted(f for f, on in llvm.get_host_cpu_features().items() if on and f.startswith(VECTOR_FEATURES))
    facts: dict[str, Any] = {
        "version": pooling.__version__,
        "threads": pooling.get_num_threads(),
        "cache_folder": None if cache is None else str(cache),
        "cpu": llvm.get_host_cpu_name(),
        "vector_bytes": vector_bytes(),
        "vector_features": features,
        "backends": [
            {
                "name": b.name,
                "note": b.note,
                "ops": list(b.ops),
                "ties": list(b.ties),
                "reference_only": b.reference_only,
            }
            for b in pooling.REGISTRY.values()
        ],
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"pooling        {facts['version']}")
    typer.echo(f"threads        {facts['threads']}")
    typer.echo(f"kernel cache   {cache or 'nowhere: no folder can be written, each process compiles anew'}")
    typer.echo(f"CPU            {facts['cpu']}, vectors of {facts['vector_bytes']} bytes ({' '.join(features)})")
    typer.echo()
    rows = [(b["name"], " ".join(b["ops"]), " ".join(b["ties"]), b["note"]) for b in facts["backends"]]
    for line in _table([("backend", "ops", "ties", "note"), *rows]):
        typer.echo(line)


@app.command()
def pick(
    shape: Annotated[str, typer.Option(help="Of the input, such as 64,20,24,24.")],
    kernel: Annotated[str, typer.Option(help="kernel_size: an integer, or one per dimension, such as 3,3.")],
    stride: Annotated[str | None, typer.Option(help="As kernel; the kernel's unless given.")] = None,
    padding: Annotated[
        str, typer.Option(help="As kernel, or before:after per dimension, or valid, same_upper, same_lower.")
    ] = "0",
    dilation: Annotated[str, typer.Option(help="As kernel.")] = "1",
    ceil_mode: Annotated[bool, typer.Option("--ceil-mode", help="Count a last, partial window.")] = False,
    op: Annotated[Op, typer.Option(help="What to compute.")] = "max",
    dtype: Annotated[str, typer.Option(help="Of the input.")] = "float32",
    ties: Annotated[Ties | None, typer.Option(help="With max: who takes a tied window's gradient; first.")] = None,
    data_format: Annotated[DataFormat, typer.Option(help="Where the channels are.")] = "channels_first",
    as_json: Json = False,
) -> None:
    """Name the fastest backend for an array.

    Backends that are not considered follow, each with its reason.
    """
    sizes = _integers("shape", shape)
    if min(sizes) < 0:
        raise pooling.PoolingError(f"--shape {shape}: sizes can't be negative")
    if op != "max" and ties is not None:
        what = {"avg": "mean", "lp": "norm"}[op]
        raise pooling.PoolingError(f"--ties {ties}: a {what} has no ties; leave it out, or pass --op max")
    window: dict[str, Any] = {
        "kernel_size": _one_or_many("kernel", kernel),
        "stride": None if stride is None else _one_or_many("stride", stride),
        "padding": _padding(padding),
        "dilation": _one_or_many("dilation", dilation),
        "ceil_mode": ceil_mode,
        "data_format": data_format,
    }
    averages: dict[str, Any] = {"avg": AvgPool, "lp": LpPool}
    operator = MaxPool(**window, ties=ties or "first") if op == "max" else averages[op](**window)
    element = _dtype(dtype)
    name = pooling.pick(sizes, element, operator)
    left_out = {}
    for backend in pooling.REGISTRY.values():
        reason = backend.why_not(sizes, element, operator)
        if reason is None and backend.reference_only and backend.name != name:
            reason = "it is for reference only"
        if reason is not None:
            left_out[backend.name] = reason
    if as_json:
        asked = {"shape": list(sizes), "dtype": str(element), "operator": repr(operator)}
        typer.echo(json.dumps({"backend": name, **asked, "not_considered": left_out}, indent=2))
        return
    typer.echo(name)
    if left_out:
        typer.echo("\nnot considered:")
        for line in _table(list(left_out.items())):
            typer.echo(f"  {line}")


@app.command()
def check(
    backend: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random input.")] = 0,
    as_json: Json = False,
) -> None:
    """Check the gradients of every backend.

    On a small random input; exit code 1 if one is wrong.
    """
    chosen = pooling.backends() if backend is None else (pooling.backend(backend).name,)
    x = np.random.default_rng(seed).standard_normal((2, 3, 7, 6))
    found: list[dict[str, str]] = []
    template = "{:16} {:4} {:6} {:26} {}".format
    if not as_json:
        typer.echo(template("backend", "op", "ties", "window", "gradient"))
    for name, operator, described in _operators(chosen):
        reason = pooling.backend(name).why_not(x.shape, x.dtype, operator)
        result = {"backend": name, **described, **_verdict(operator, x, reason)}
        found.append(result)
        if not as_json:
            said = result["verdict"] + (f": {result['message']}" if result["message"] else "")
            typer.echo(template(name, result["op"], result["ties"], result["window"], said))
    wrong = sum(result["verdict"] == "WRONG" for result in found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        right = sum(result["verdict"] == "right" for result in found)
        typer.echo(f"\n{right} right, {wrong} wrong, {len(found) - right - wrong} not offered")
    if wrong:
        raise typer.Exit(1)


def _operators(names: Sequence[str]) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Everything these backends offer: under which name, the operator, and what to call it."""
    for name in names:
        backend = pooling.backend(name)
        for title, window in WINDOWS.items():
            for ties in backend.ties:
                operator = MaxPool(**window, ties=ties, backend=name)
                yield name, operator, {"op": "max", "ties": ties, "window": title}
            if "avg" in backend.ops:
                yield name, AvgPool(**window, backend=name), {"op": "avg", "ties": "", "window": title}
            if "lp" in backend.ops:
                yield name, LpPool(**window, backend=name), {"op": "lp", "ties": "", "window": title}


def _verdict(operator: Any, x: Any, reason: str | None) -> dict[str, str]:
    if reason is not None:
        return {"verdict": "not offered", "message": reason}
    try:
        pooling.gradcheck(operator, x, cells=60, directions=3)
    except pooling.GradientError as error:
        return {"verdict": "WRONG", "message": str(error)}
    return {"verdict": "right", "message": ""}


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(entry) for entry in text.split(","))
    except ValueError:
        raise pooling.PoolingError(f"--{option} {text}: give integers separated by commas, such as 2,2") from None


def _one_or_many(option: str, text: str) -> int | tuple[int, ...]:
    """An integer is the same for all dimensions, with a comma one for each."""
    entries = _integers(option, text.removesuffix(","))
    return entries if "," in text else entries[0]


def _padding(text: str) -> Any:
    if text.isidentifier():
        return text
    if ":" not in text:
        return _one_or_many("padding", text)
    pairs = tuple(_integers("padding", entry.replace(":", ",")) for entry in text.split(","))
    if any(len(pair) != 2 for pair in pairs):
        raise pooling.PoolingError(f"--padding {text}: give before:after for each dimension, such as 0:1,0:1")
    return pairs


def _dtype(text: str) -> np.dtype[Any]:
    try:
        return np.dtype(text)
    except TypeError:
        raise pooling.PoolingError(f"--dtype {text}: NumPy knows no such dtype; try float32") from None


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def main() -> None:
    """What the console script calls."""
    app(prog_name="pooling")
