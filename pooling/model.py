"""Files that describe a model's pooling layers, for tuning: TOML, JSON, a table as CSV, or an ONNX model.

A description is a list of layers, each with the shape of its input and the arguments of its operator::

    [defaults]
    dtype = "float32"
    direction = "training"        # or "inference"

    [[layers]]
    op = "max"                    # the operator: max, avg, ... or its class, MaxPool
    shape = [64, 20, 24, 24]
    kernel_size = 2

    [[layers]]
    op = "avg"
    shape = [64, 7, 7, 2048]
    kernel_size = 7
    stride = 1
    data_format = "channels_last"
    count = 3                     # how often it is called: what is called more is measured first

In JSON the same names hold the same; a list alone is taken as the layers. In CSV a line is a layer, the first line has the
names, and what is a list is written like 64x20x24x24.
"""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pooling.errors import PoolingError
from pooling.operators import Operator
from pooling.tune.layer import DIRECTIONS, Layer

LEFT_OUT = ("backend", "rng", "random_samples")
"""Arguments that are not written: which backend is to be found out, and where windows fall by chance says nothing of speed."""

OF_LAYER = ("shape", "dtype", "direction", "count")


def operators() -> dict[str, type[Operator]]:
    """The operators by what a file may call them: ``max`` and ``MaxPool``."""
    import_module("pooling.public")  # a class is among its parent's when its module is loaded, and this loads them all
    found: dict[str, type[Operator]] = {}
    todo = list(Operator.__subclasses__())
    while todo:
        one = todo.pop()
        todo += one.__subclasses__()
        if one.__name__.endswith("Pool"):  # not what several of them have in common
            found |= {one.__name__.removesuffix("Pool").lower(): one, one.__name__: one}
    return found


def layer_of(data: Mapping[str, Any]) -> Layer:
    """The layer that these entries describe.

    Raises
    ------
    PoolingError
        An entry is missing, unknown or wrong.

    Examples
    --------
    >>> layer_of({"op": "max", "shape": [1, 1, 4, 4], "kernel_size": 2}).operator.op
    'max'
    """
    if not isinstance(data, Mapping):
        raise PoolingError(f"{data!r} is not a layer: give a table with shape, op, kernel_size, ...")
    known = operators()
    name = data.get("op", "max")
    if not isinstance(name, str) or name not in known:
        raise PoolingError(f"op={name!r}: there are {', '.join(known)}")
    arguments = [argument for argument in inspect.signature(known[name]).parameters if argument != "backend"]
    unknown = [entry for entry in data if entry not in (*OF_LAYER, "op", "name", *arguments)]
    if unknown:
        raise PoolingError(
            f"{unknown[0]!r} is no entry of a layer: there are {', '.join((*OF_LAYER, 'op', 'name', *arguments))}"
        )
    if "shape" not in data:
        raise PoolingError(f"shape is missing in {dict(data)!r}")
    try:
        operator = known[name](**{argument: data[argument] for argument in arguments if argument in data})
    except TypeError as error:  # an argument that it needs
        raise PoolingError(f"{name}: {error}") from None
    count = data.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise PoolingError(f"count={count!r}: it must be a positive int")
    direction = data.get("direction", DIRECTIONS[0])
    shape = data["shape"]
    layer = Layer(
        tuple(shape) if isinstance(shape, list) else shape, data.get("dtype", "float32"), operator, direction, count
    )
    layer.facts()  # raises for what does not go together
    return layer


def data_of(layer: Layer) -> dict[str, Any]:
    """The entries that describe a layer, without those that are what they are by default."""
    operator: Any = layer.operator
    if not isinstance(operator, Operator):
        raise PoolingError(
            f"operator={operator!r}: only an operator, such as pooling.MaxPool(2), can be written to a file"
        )
    data: dict[str, Any] = {"op": type(operator).__name__.removesuffix("Pool").lower(), "shape": list(layer.shape)}
    data |= {"dtype": str(layer.facts().dtype), "direction": layer.direction, "count": layer.count}
    given = vars(operator) | operator._of_problem
    for name, argument in inspect.signature(type(operator)).parameters.items():
        if name not in LEFT_OUT and given[name] != argument.default:
            data[name] = given[name]
    return data


def read(path: Path, batch: int | None = None) -> list[Layer]:
    """The layers that a file describes.

    Parameters
    ----------
    path
        Ends in .toml, .json, .csv or .onnx.
    batch
        Of an ONNX model whose own is left open.

    Raises
    ------
    PoolingError
        The file can't be read, or an entry is wrong; the message names the file and the layer.
    """
    try:
        if path.suffix == ".onnx":
            entries: Sequence[Any] = _from_onnx(path, batch)
            defaults: Mapping[str, Any] = {}
        else:
            entries, defaults = _entries(path.suffix, path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise PoolingError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    layers = []
    for number, entry in enumerate(entries, start=1):
        try:
            layers.append(layer_of({**defaults, **entry} if isinstance(entry, Mapping) else entry))
        except PoolingError as error:
            raise PoolingError(f"{path}, layer {number}: {error}") from None
    if not layers:
        raise PoolingError(f"{path} has no layers")
    return layers


def write(path: Path, layers: Sequence[Layer]) -> None:
    """Write a description of these layers as JSON, a line for each."""
    lines = ",\n".join(json.dumps(data_of(layer)) for layer in layers)
    path.write_text(f'{{"layers": [\n{lines}\n]}}\n', encoding="utf-8")


def _entries(suffix: str, text: str) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
        return [{k: _cell(k, v) for k, v in row.items() if v not in ("", None)} for row in rows], {}
    if suffix == ".toml":
        import tomllib

        data: Any = tomllib.loads(text)
    elif suffix == ".json":
        data = json.loads(text)
    else:
        raise PoolingError(f"{suffix or 'no suffix'!r}: a description ends in .toml, .json, .csv or .onnx")
    if isinstance(data, list):
        data = {"layers": data}
    if not isinstance(data, dict) or not isinstance(data.get("layers"), list) or set(data) - {"layers", "defaults"}:
        raise PoolingError("it has to hold a list `layers`, and may hold a table `defaults`")
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        raise PoolingError("`defaults` has to be a table")
    return data["layers"], defaults


def _cell(name: str | None, text: str) -> Any:
    """A cell of a table: a number, a list such as 3x3, true or false, or a word."""
    if name is None:
        raise PoolingError(f"{text!r} is in a column without a name")
    parts = text.lower().split("x")
    if all(part.strip().lstrip("-").isdigit() for part in parts):
        numbers = [int(part) for part in parts]
        return numbers if len(numbers) > 1 or name == "shape" else numbers[0]
    return {"true": True, "false": False}.get(text.lower(), text)


def _from_onnx(path: Path, batch: int | None) -> list[dict[str, Any]]:
    """The pooling nodes of an ONNX model, for inference."""
    try:
        import onnx
    except ImportError:
        raise PoolingError(
            "reading ONNX models needs the package onnx: install it, or describe the layers in TOML"
        ) from None
    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
    except OSError:
        raise
    except Exception as error:  # of protobuf, by whichever implementation is there
        raise PoolingError(f"it is not an ONNX model ({type(error).__name__})") from None
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info)}
    entries = []
    for node in graph.node:
        if node.op_type not in ("MaxPool", "AveragePool"):
            continue
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        kind = types.get(node.input[0])
        sizes = [] if kind is None else [d.dim_value for d in kind.shape.dim]
        if sizes and not sizes[0] and batch:
            sizes[0] = batch
        if kind is None or not sizes or not all(sizes):
            raise PoolingError(
                f"the input of {node.name or node.op_type} has no fixed shape: pass --batch, or fix the model's input"
            )
        pads, n = given.get("pads"), len(given["kernel_shape"])
        automatic = given.get("auto_pad", b"NOTSET").decode().lower()
        entry = {
            "op": "max" if node.op_type == "MaxPool" else "avg",
            "shape": sizes,
            "dtype": str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
            "kernel_size": tuple(given["kernel_shape"]),
            "stride": tuple(given.get("strides", (1,) * n)),
            "padding": automatic
            if automatic != "notset"
            else tuple(zip(pads[:n], pads[n:], strict=True))
            if pads
            else 0,
            "dilation": tuple(given.get("dilations", (1,) * n)),
            "ceil_mode": bool(given.get("ceil_mode", 0)),
            "direction": "inference",
        }
        if node.op_type == "AveragePool":
            entry["count_include_pad"] = bool(given.get("count_include_pad", 0))
        entries.append(entry)
    return entries
