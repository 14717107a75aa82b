"""A layer, as the options of a command describe it."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import numpy as np
import typer

import pooling
from pooling.geometry.problem import Op, Ties
from pooling.operators.base import DataFormat
from pooling.tuning.layer import Direction
from pooling.tuning.model_files import operators

Shape = Annotated[str, typer.Option(help="Of the input, such as 64,20,24,24.")]
Kernel = Annotated[str, typer.Option(help="kernel_size: an integer, or one per dimension, such as 3,3.")]
Stride = Annotated[str | None, typer.Option(help="As kernel; the kernel's unless given.")]
Padding = Annotated[
    str, typer.Option(help="As kernel, or before:after per dimension, or valid, same_upper, same_lower.")
]
Dilation = Annotated[str, typer.Option(help="As kernel.")]
CeilMode = Annotated[bool, typer.Option("--ceil-mode", help="Count a last, partial window.")]
OfOp = Annotated[Op, typer.Option(help="What to compute.")]
Dtype = Annotated[str, typer.Option(help="Of the input.")]
OfTies = Annotated[Ties | None, typer.Option(help="With max: which of tied cells get the gradient; first by default.")]
Format = Annotated[DataFormat, typer.Option(help="Where the channels are.")]
OfDirection = Annotated[Direction, typer.Option(help="Forward and backward, or forward alone.")]
Threads = Annotated[int | None, typer.Option(min=1, help="On so many; by default as a call would.")]


def layer_of(
    shape: str,
    kernel: str,
    stride: str | None,
    padding: str,
    dilation: str,
    ceil_mode: bool,
    op: Op,
    dtype: str,
    ties: Ties | None,
    data_format: DataFormat,
    direction: Direction,
) -> pooling.Layer:
    """The layer; PoolingError, which names the option, when one is wrong."""
    sizes = _integers("shape", shape)
    if min(sizes) < 0:
        raise pooling.PoolingError(f"--shape {shape}: sizes can't be negative; give such as 64,20,24,24")
    made_by = operators()[op]
    if ties is not None and "ties" not in inspect.signature(made_by).parameters:
        raise pooling.PoolingError(f"--ties {ties}: only a maximum has ties; leave it out, or pass --op max")
    arguments: dict[str, Any] = {
        "kernel_size": _one_or_many("kernel", kernel),
        "stride": None if stride is None else _one_or_many("stride", stride),
        "padding": _padding(padding),
        "dilation": _one_or_many("dilation", dilation),
        "ceil_mode": ceil_mode,
        "data_format": data_format,
    }
    operator = made_by(**arguments | ({} if ties is None else {"ties": ties}))
    return pooling.Layer(sizes, _dtype(dtype), operator, direction)


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
    except (TypeError, ValueError, SyntaxError):
        raise pooling.PoolingError(f"--dtype {text}: NumPy knows no such dtype; try float32") from None
