"""The pooling nodes of an ONNX model, as entries of layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pooling.errors import PoolingError, shown

NODES = {"MaxPool": "max", "AveragePool": "avg", "LpPool": "lp"}
WHOLE = {"GlobalMaxPool": "globalmax", "GlobalAveragePool": "globalavg", "GlobalLpPool": "globallp"}
"""Nodes whose one window is the plane."""


def entries_of(path: Path, batch: int | None) -> list[dict[str, Any]]:
    """The entries of each pooling node, for inference.

    Parameters
    ----------
    path
        Of the model.
    batch
        For a model that leaves its own open.

    Raises
    ------
    PoolingError
        It is no model, or a node is not what ONNX says it is; the message names the node.
    """
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
        raise PoolingError(f"it is not an ONNX model ({type(error).__name__}): save it with onnx.save") from None
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info)}
    entries = []
    for node in graph.node:
        if node.op_type in (*NODES, *WHOLE):
            try:
                entries.append(_entry(onnx.helper, node, types, batch))
            except PoolingError:
                raise
            except Exception as error:  # an attribute that is missing, of another kind or too short
                what = f"{node.op_type} {shown(node.name)}" if node.name else node.op_type
                raise PoolingError(
                    f"the node {what} is not as ONNX defines it ({type(error).__name__}: {shown(str(error))}): "
                    "check the model with onnx.checker.check_model"
                ) from None
    return entries


def _entry(helper: Any, node: Any, types: Mapping[str, Any], batch: int | None) -> dict[str, Any]:
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kind = types.get(node.input[0])
    sizes = [] if kind is None else [d.dim_value for d in kind.shape.dim]
    if sizes and not sizes[0] and batch:
        sizes[0] = batch
    if kind is None or not sizes or not all(sizes):
        raise PoolingError(
            f"the input of {node.name or node.op_type} has no fixed shape: pass --batch, or fix the model's input"
        )
    entry: dict[str, Any] = {
        "op": (NODES | WHOLE)[node.op_type],
        "shape": sizes,
        "dtype": str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        "direction": "inference",
    }
    if node.op_type in ("LpPool", "GlobalLpPool"):
        entry["p"] = given.get("p", 2)
    if node.op_type in WHOLE:
        return entry
    kernel = tuple(given["kernel_shape"])
    n = len(kernel)
    entry |= {
        "kernel_size": kernel,
        "stride": tuple(given.get("strides", (1,) * n)),
        "padding": _padding(given, n),
        "dilation": tuple(given.get("dilations", (1,) * n)),
        "ceil_mode": bool(given.get("ceil_mode", 0)),
    }
    if node.op_type == "AveragePool":
        entry["count_include_pad"] = bool(given.get("count_include_pad", 0))
    return entry


def _padding(given: Mapping[str, Any], n: int) -> Any:
    automatic = given.get("auto_pad", b"NOTSET").decode().lower()
    if automatic not in ("", "notset"):
        return automatic
    pads = given.get("pads")
    return tuple(zip(pads[:n], pads[n:], strict=True)) if pads else 0
