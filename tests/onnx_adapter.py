"""ONNX's nodes in terms of this library: just what its operator tests need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import pooling

Array = NDArray[Any]
Attributes = Mapping[str, Any]
AUTO_PAD = {"VALID": "valid", "SAME_UPPER": "same_upper", "SAME_LOWER": "same_lower"}


def window(attributes: Attributes) -> dict[str, Any]:
    """Arguments of an operator from ONNX's: a stride is 1 unless given, and pads are all befores, then all afters."""
    kernel = tuple(attributes["kernel_shape"])
    n = len(kernel)
    pads = attributes.get("pads", [0] * 2 * n)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    return {
        "kernel_size": kernel,
        "stride": tuple(attributes.get("strides", [1] * n)),
        "padding": AUTO_PAD.get(auto, tuple(zip(pads[:n], pads[n:], strict=True))),
        "dilation": tuple(attributes.get("dilations", [1] * n)),
        "ceil_mode": bool(attributes.get("ceil_mode", 0)),
    }


def max_pool(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    y, indices = pooling.max_pool(x, **window(attributes), return_indices=True, backend=backend)
    return [y, pooling.indices_to_onnx(indices, x.shape, attributes.get("storage_order", 0))]


def average_pool(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    include = bool(attributes.get("count_include_pad", 0))
    return [pooling.avg_pool(x, **window(attributes), count_include_pad=include, backend=backend)]


def lp_pool(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    return [pooling.lp_pool(x, p=attributes.get("p", 2), **window(attributes), backend=backend)]


def global_max_pool(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    return [pooling.global_max_pool(x, backend=backend)]


def global_average_pool(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    return [pooling.global_avg_pool(x, backend=backend)]


def max_unpool(attributes: Attributes, y: Array, indices: Array, *wanted: Array, backend: str) -> list[Array]:
    """ONNX's indices are those of the size that the window gives, also where a larger one is wanted."""
    kernel, stride = (np.array(attributes[name]) for name in ("kernel_shape", "strides"))
    shape = (*y.shape[:2], *((np.array(y.shape[2:]) - 1) * stride + kernel))
    x = pooling.max_unpool(y, pooling.indices_from_onnx(indices, shape), tuple(kernel), tuple(stride))
    if wanted:
        x = np.pad(x, [(0, large - small) for small, large in zip(shape, wanted[0], strict=True)])
    return [x]


def squeeze(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    return [np.squeeze(x, tuple(attributes["axes"]))]


def unsqueeze(attributes: Attributes, x: Array, *, backend: str) -> list[Array]:
    return [np.expand_dims(x, tuple(attributes["axes"]))]


POOLING: dict[str, Callable[..., list[Array]]] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalMaxPool": global_max_pool,
    "GlobalAveragePool": global_average_pool,
    "MaxUnpool": max_unpool,
}
OTHERS: dict[str, Callable[..., list[Array]]] = {"Squeeze": squeeze, "Unsqueeze": unsqueeze}
"""What ONNX's exporters put around a pooling over one dimension."""


def run(model: Any, inputs: Sequence[Array], backend: str) -> list[Array]:
    """The outputs of a model that pools."""
    values = dict(zip((given.name for given in model.graph.input), inputs, strict=True))
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        given = [values[name] for name in node.input]
        results = (POOLING | OTHERS)[node.op_type](attributes, *given, backend=backend)
        values |= dict(zip(node.output, results, strict=False))
    return [values[result.name] for result in model.graph.output]


def operators(model: Any) -> set[str]:
    return {node.op_type for node in model.graph.node}


def data_sets(folder: Path) -> list[tuple[list[Array], list[Array]]]:
    """Inputs and outputs as files beside a model."""

    def tensors(one: Path, kind: str) -> list[Array]:
        paths = sorted(one.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rsplit("_")[-1]))
        return [onnx.numpy_helper.to_array(onnx.load_tensor(str(path))) for path in paths]

    return [(tensors(one, "input"), tensors(one, "output")) for one in sorted(folder.glob("test_data_set_*"))]
