"""``pooling tune``: measure, and remember."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Annotated, Any

import typer

import pooling
from pooling.cli.app import Json, app
from pooling.cli.arguments import (
    CeilMode,
    Dilation,
    Dtype,
    Format,
    OfOp,
    OfTies,
    Padding,
    Stride,
    Threads,
    layer_of,
)
from pooling.tuning.layer import Direction
from pooling.tuning.model_files import read
from pooling.tuning.store import location

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

EXAMPLES = """Examples:

  pooling tune model.toml --budget 120

  pooling tune layers.csv --direction inference --threads 1

  pooling tune --shape 64,20,24,24 --kernel 2"""


@app.command(epilog=EXAMPLES)
def tune(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Descriptions of layers: .toml, .json, .csv or .onnx.", show_default=False),
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Of the input of one layer, such as 64,20,24,24.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Its kernel_size: an integer, or one per dimension.")] = None,
    stride: Stride = None,
    padding: Padding = "0",
    dilation: Dilation = "1",
    ceil_mode: CeilMode = False,
    op: OfOp = "max",
    dtype: Dtype = "float32",
    ties: OfTies = None,
    data_format: Format = "channels_first",
    direction: Annotated[
        Direction | None, typer.Option(help="For this direction; by default what the file says, or training.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Of an ONNX model that leaves its own open.")] = None,
    budget: Annotated[float, typer.Option(help="Seconds that it may take.")] = 60.0,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is known.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure which backend is the fastest for each layer, and remember it for backend="auto" and `pooling pick`.

    Every candidate is first proven right. Only what is not known yet is measured, the layers that take the most time first,
    and each result is kept at once: Ctrl-C loses nothing but the layer it hits. Exit code 1 if a candidate was wrong.
    """
    layers = [layer for path in files or () for layer in read(path, batch)]
    if shape is not None and kernel is not None:
        layers.append(
            layer_of(
                shape,
                kernel,
                stride,
                padding,
                dilation,
                ceil_mode,
                op,
                dtype,
                ties,
                data_format,
                direction or "training",
            )
        )
    elif shape is not None or kernel is not None or not layers:
        raise pooling.PoolingError(
            "give a file that describes layers, or --shape and --kernel of one; pooling tune --help shows how"
        )
    if direction is not None:
        layers = [pooling.Layer(one.shape, one.dtype, one.operator, direction, one.count) for one in layers]
    done = 0
    try:
        with _interruptible() as interrupted, _bar(budget) as show:

            def progress(i: int, of: int, key: str) -> None:
                nonlocal done
                done = i
                if interrupted():
                    raise KeyboardInterrupt
                show(i, of, key)

            tuned = pooling.tune(layers, budget, again=again, threads=threads, progress=progress)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted: {done} layers are done, and kept; the same command goes on from there.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        output: dict[str, Any] = {"measured": {}, "known": tuned.known, "left": tuned.left, "refused": tuned.refused}
        for key, record in tuned.measured.items():
            us = {name: one.median_us for name, one in record.candidates.items() if one.median_us is not None}
            output["measured"][key] = {"choice": record.choice, "layer": record.layer, "us": us}
        typer.echo(json.dumps(output | {"store": str(location()) if tuned.kept else None}, indent=2))
    else:
        typer.echo(str(tuned))
        if tuned.measured:
            typer.echo(f"kept in {location()}" if tuned.kept else "not kept: the store can't be written")
    if tuned.refused:
        raise typer.Exit(1)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C was pressed: a KeyboardInterrupt may get lost within the compiler, and another error follow."""
    asked = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if usual:
            signal.signal(signal.SIGINT, remember)
        yield lambda: asked
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Left:
    """The time left, in words that are true whenever the bar is drawn: a layer may take long."""

    def __init__(self, budget_s: float) -> None:
        self.end = perf_counter() + budget_s

    def __format__(self, spec: str) -> str:
        return f"at most {max(0.0, self.end - perf_counter()):.0f} s left"


@contextmanager
def _bar(budget_s: float) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal's stderr with the time left and the layer, cut where the line ends; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        BarColumn(16),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True) as bar:
        task = bar.add_task("", total=None, left=_Left(budget_s))

        def show(done: int, of: int, key: str) -> None:
            bar.update(task, completed=done, total=of, description=key.split(" contiguous", maxsplit=1)[0])

        yield show
