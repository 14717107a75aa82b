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

In JSON the same names hold the same; a list alone is taken as the layers. In CSV a line is a layer, and the first line has the
names; :mod:`pooling.tuning.tables` says how a list is written in a cell. TOML has no null: there it is the word "none".
"""

from __future__ import annotations

import inspect
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from importlib import import_module
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from pooling.errors import PoolingError, printable, shown
from pooling.geometry.window import as_int
from pooling.operators.base import Operator
from pooling.operators.validation import as_plain
from pooling.tuning import onnx_nodes
from pooling.tuning.layer import DIRECTIONS, Layer
from pooling.tuning.tables import MOST_DIGITS, integer, rows_of, table_of

LEFT_OUT = ("backend", "rng", "random_samples")
"""Arguments that are not written: which backend is to be found out, and where windows fall by chance says nothing of speed."""

NULL = "none"
"""What TOML, which has no null, says instead."""

DEEP = "its lists or tables are nested too deeply"

OF_LAYER = ("shape", "dtype", "direction", "count")


def operators() -> dict[str, type[Operator]]:
    """The operators by what a file may call them: ``max`` and ``MaxPool``."""
    import_module("pooling._api")  # a class is among its parent's when its module is loaded, and this loads them all
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
        raise PoolingError(f"{shown(data)} is not a layer: give a table with shape, op, kernel_size, ...")
    known = operators()
    name = data.get("op", "max")
    if not isinstance(name, str) or name not in known:
        raise PoolingError(f"op={shown(name)}: there are {', '.join(known)}; give one of them")
    arguments = [argument for argument in inspect.signature(known[name]).parameters if argument != "backend"]
    unknown = [entry for entry in data if entry not in (*OF_LAYER, "op", "name", *arguments)]
    if unknown:
        raise PoolingError(
            f"{shown(unknown[0])} is no entry of a layer: there are {', '.join((*OF_LAYER, 'op', 'name', *arguments))}; remove it"
        )
    if "shape" not in data:
        raise PoolingError(f"shape is missing in {shown(dict(data))}: give that of the input")
    try:
        operator = known[name](**{argument: data[argument] for argument in arguments if argument in data})
    except TypeError as error:  # an argument that it needs
        raise PoolingError(f"{name}: {error}; give it as an entry of the layer") from None
    count = as_int("count", data.get("count", 1), data.get("count", 1), least=1)
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
            f"operator={shown(operator)}: only an operator, such as pooling.MaxPool(2), can be written to a file; give one"
        )
    data: dict[str, Any] = {"op": type(operator).__name__.removesuffix("Pool").lower(), "shape": _data(layer.shape)}
    count = as_int("count", layer.count, layer.count, least=0)
    data |= {"dtype": str(layer.facts().dtype), "direction": layer.direction, "count": max(count, 1)}
    given = vars(operator) | operator._of_problem
    for name, argument in inspect.signature(type(operator)).parameters.items():
        if name not in LEFT_OUT and given[name] != argument.default:
            data[name] = _data(given[name])
    return data


def _data(value: Any) -> Any:
    """An argument as files hold it: lists, and Python's own numbers."""
    plain = as_plain(value)
    if isinstance(plain, tuple):
        return [_data(entry) for entry in plain]
    return plain if not isinstance(plain, Real) or isinstance(plain, int) else float(plain)


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
            entries: Sequence[Any] = onnx_nodes.entries_of(path, batch)
            defaults: Mapping[str, Any] = {}
        else:
            entries, defaults = _entries(path.suffix, _text_of(path))
    except RecursionError:
        raise PoolingError(f"{path}: {DEEP}: write a list of layers") from None
    except (OSError, ValueError) as error:
        raise PoolingError(f"{path}: {_said(error)}") from None
    layers = []
    for number, entry in enumerate(entries, start=1):
        try:
            layers.append(layer_of({**defaults, **entry} if isinstance(entry, Mapping) else entry))
        except RecursionError:
            raise PoolingError(f"{path}, layer {number}: {DEEP}: write lists of numbers") from None
        except PoolingError as error:
            raise PoolingError(f"{path}, layer {number}: {error}") from None
    if not layers:
        raise PoolingError(f"{path} has no layers: describe at least one")
    return layers


def _text_of(path: Path) -> str:
    """A file's text; some editors put a mark before it, or write two bytes a character."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "no UTF-8"
        raise PoolingError(f"it is {kind} (at byte {error.start}): save it as UTF-8") from None
    if "\0" in text:
        raise PoolingError("it has zero bytes, as UTF-16 without a mark has: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _said(error: Exception) -> str:
    """What is wrong, in a line; parsers tell of long integers that Python has a limit, and not what to do."""
    message = getattr(error, "strerror", None) or str(error)
    if "integer string conversion" in message:
        return f"it has an integer of more than {MOST_DIGITS} digits: write a smaller one"
    return printable(" ".join(message.split()))


def write(path: Path, layers: Sequence[Layer]) -> None:
    """Write a description of these layers, as JSON with a line for each, as TOML or as a CSV table: what `path` ends in."""
    path.write_text(_text(path.suffix, [data_of(layer) for layer in layers]), encoding="utf-8")


def _text(suffix: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if suffix == ".csv":
        return table_of(rows)
    if suffix == ".toml":
        tables = ("".join(f"{name} = {_toml(value)}\n" for name, value in row.items()) for row in rows)
        return "\n".join(f"[[layers]]\n{table}" for table in tables)
    if suffix == ".json":
        lines = ",\n".join(json.dumps(row) for row in rows)
        return f'{{"layers": [\n{lines}\n]}}\n'
    raise PoolingError(f"{shown(suffix)}: a description that is written ends in .toml, .json or .csv; give such a name")


def _toml(value: Any) -> str:
    """A value as TOML: JSON's form, but for numbers that are not finite, and null."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if value is None:
        return f'"{NULL}"'
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return json.dumps(value)


def _entries(suffix: str, text: str) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The layers' entries in a file's text, and those that hold for all of them."""
    if suffix == ".csv":
        return rows_of(text), {}
    if suffix == ".toml":
        import tomllib

        data: Any = _with_null(tomllib.loads(text))
    elif suffix == ".json":
        data = json.loads(text, parse_int=integer, object_pairs_hook=_each_once)
    else:
        raise PoolingError(f"{shown(suffix)}: a description ends in .toml, .json, .csv or .onnx; rename it")
    if isinstance(data, list):
        data = {"layers": data}
    if not isinstance(data, dict) or not isinstance(data.get("layers"), list) or set(data) - {"layers", "defaults"}:
        raise PoolingError("it has to hold a list `layers`, and may hold a table `defaults`, and nothing else")
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        raise PoolingError(f'defaults={shown(defaults)}: it has to be a table, such as {{"dtype": "float32"}}')
    return data["layers"], defaults


def _with_null(value: Any) -> Any:
    """A document of TOML, with None for the word that stands for it."""
    if isinstance(value, dict):
        return {name: _with_null(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_with_null(entry) for entry in value]
    return None if value == NULL else value


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise PoolingError(f"a table has the entry {shown(twice[0])} twice: leave one out")
    return dict(pairs)
