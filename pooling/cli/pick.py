"""``pooling pick``: the fastest backend for an array, with the reasons, and its source to read."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

import pooling
from pooling.cli.app import Json, app, table
from pooling.cli.arguments import (
    CeilMode,
    Dilation,
    Dtype,
    Format,
    Kernel,
    OfDirection,
    OfOp,
    OfTies,
    Padding,
    Shape,
    Stride,
    Threads,
    layer_of,
)
from pooling.runtime.availability import imports

EXAMPLES = """Examples:

  pooling pick --shape 64,20,24,24 --kernel 2

  pooling pick --shape 16,112,112,64 --kernel 3 --stride 2 --padding 1 --data-format channels_last --direction inference

  pooling pick --shape 64,20,24,24 --kernel 2 --show-source | less"""


@app.command(epilog=EXAMPLES)
def pick(
    shape: Shape,
    kernel: Kernel,
    stride: Stride = None,
    padding: Padding = "0",
    dilation: Dilation = "1",
    ceil_mode: CeilMode = False,
    op: OfOp = "max",
    dtype: Dtype = "float32",
    ties: OfTies = None,
    data_format: Format = "channels_first",
    direction: OfDirection = "training",
    threads: Threads = None,
    show_source: Annotated[bool, typer.Option("--show-source", help="Print the chosen trick's source.")] = False,
    as_json: Json = False,
) -> None:
    """Name the fastest backend for an array.

    The ranking follows, with times and where they come from, and the backends that are not considered, each with its reason.
    Nothing is measured: `pooling tune` does that.
    """
    imports()  # what can't be imported is not picked
    layer = layer_of(shape, kernel, stride, padding, dilation, ceil_mode, op, dtype, ties, data_format, direction)
    choice = pooling.pick(layer.shape, layer.dtype, layer.operator, direction, threads=threads, explain=True)
    source = _source(choice.backend) if show_source else None
    if as_json:
        asked: dict[str, Any] = {
            "shape": list(layer.shape),
            "dtype": str(layer.dtype),
            "operator": repr(layer.operator),
        }
        asked |= {"direction": direction, "threads": threads or pooling.get_num_threads()}
        output: dict[str, Any] = {"backend": choice.backend, **asked, "origin": choice.origin}
        output |= {
            "ranking": [asdict(place) for place in choice.ranking],
            "not_considered": dict(choice.not_considered),
        }
        output |= {"layer": choice.layer, "machine": dict(choice.machine), "key": choice.key}
        typer.echo(json.dumps(output | ({"source": source} if show_source else {}), indent=2))
        return
    typer.echo(f"{choice.backend}\n\n{choice}")
    if choice.not_considered:
        typer.echo("\nnot considered:")
        for line in table(list(choice.not_considered.items())):
            typer.echo(f"  {line}")
    if source is not None:
        typer.echo(f"\n{source}")


def _source(name: str) -> str:
    """The file of a trick: of a backend, that which its passes are defined in."""
    backend = pooling.get_backend(name)
    run = next(iter(backend.ops.values()))
    try:
        return inspect.getsource(sys.modules[run.forward.__module__])
    except OSError:
        raise pooling.PoolingError(
            f"the source of {name} is not here: pooling was installed as bytecode alone"
        ) from None
