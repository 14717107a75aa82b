"""``pooling check``: are the gradients right?"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import typer

import pooling
from pooling.accuracy import check_accuracy
from pooling.backends.registry import REGISTRY
from pooling.cli.app import Json, app
from pooling.operators.base import DATA_FORMATS
from pooling.operators.sliding import AvgPool, LpPool, MaxPool
from pooling.runtime.availability import IN_PYTHON, disabled

WINDOWS: dict[str, dict[str, Any]] = {
    "2x2": {"kernel_size": 2},
    "3x3, stride 2, padding 1": {"kernel_size": 3, "stride": 2, "padding": 1},
}
"""On which windows `check` checks: side by side, and overlapping."""

MANY: dict[str, tuple[Any, tuple[int, int]]] = {
    "all of 125x120": ({"kernel_size": (125, 120)}, (125, 120)),
    "60x50, stride 1": ({"kernel_size": (60, 50), "stride": 1}, (80, 70)),
}
"""Windows with so many cells, and cells with so many windows, that sums of one term after the other would be far off."""


@app.command()
def check(
    backend: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random input.")] = 0,
    as_json: Json = False,
) -> None:
    """Check the gradients of every backend.

    On a small random input; exit code 1 if one is wrong.
    """
    chosen = pooling.list_backends() if backend is None else (pooling.get_backend(backend).name,)
    x = np.random.default_rng(seed).standard_normal((2, 3, 7, 6))
    found: list[dict[str, str]] = []
    template = "{:16} {:4} {:6} {:26} {}".format
    if not as_json:
        typer.echo(template("backend", "op", "ties", "window", "gradient"))
    for name, operator, described in _operators(chosen):
        given = x
        if described["window"] in MANY:
            size = MANY[described["window"]][1]
            last = operator.data_format == "channels_last"
            given = np.full((1, *size, 5) if last else (1, 1, *size), 0.1, np.float32)
        reason = pooling.get_backend(name).why_not(given.shape, given.dtype, operator)
        if reason is None and described["window"] in MANY and pooling.get_backend(name).compiled and disabled():
            verdict = {"verdict": "not checked", "message": IN_PYTHON}  # a minute for each
        else:
            verdict = _verdict(operator, given, reason)
        result = {"backend": name, **described, **verdict}
        found.append(result)
        if not as_json:
            said = result["verdict"] + (f": {result['message']}" if result["message"] else "")
            typer.echo(template(name, result["op"], result["ties"], result["window"], said))
    wrong = sum(result["verdict"] == "WRONG" for result in found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        right = sum(result["verdict"] == "right" for result in found)
        typer.echo(f"\n{right} right, {wrong} wrong, {len(found) - right - wrong} not offered or not checked")
    if wrong:
        raise typer.Exit(1)


def _operators(names: Sequence[str]) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Everything these backends offer: under which name, the operator, and what to call it."""
    for name in names:
        backend = pooling.get_backend(name)
        for title, window in WINDOWS.items():
            for ties in backend.ties:
                operator = MaxPool(**window, ties=ties, backend=name)
                yield name, operator, {"op": "max", "ties": ties, "window": title}
            if "avg" in backend.ops:
                yield name, AvgPool(**window, backend=name), {"op": "avg", "ties": "", "window": title}
            if "lp" in backend.ops:
                yield name, LpPool(**window, backend=name), {"op": "lp", "ties": "", "window": title}
        for op, kind in (("avg", AvgPool), ("lp", LpPool)):
            for title, (window, _) in MANY.items() if op in backend.ops and not backend.reference_only else ():
                for data_format in DATA_FORMATS:
                    yield (
                        name,
                        kind(**window, data_format=data_format, backend=name),
                        {"op": op, "ties": "", "window": title},
                    )


def _verdict(operator: Any, x: Any, reason: str | None) -> dict[str, str]:
    if reason is not None:
        return {"verdict": "not offered", "message": reason}
    try:
        if operator.rule.kernel_size in [window["kernel_size"] for window, _ in MANY.values()]:
            exact = copy.copy(operator)
            exact.backend = "repeat_mask" if operator.backend == "strided_slices" else "strided_slices"
            if REGISTRY[exact.backend].why_not(x.shape, np.float64, exact) is not None:
                exact = operator
            check_accuracy(operator, x, exact_operator=exact)
        else:
            pooling.gradcheck(operator, x, cells=60, directions=3)
    except pooling.GradientError as error:
        return {"verdict": "WRONG", "message": str(error)}
    return {"verdict": "right", "message": ""}
