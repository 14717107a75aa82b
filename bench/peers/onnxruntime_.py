"""ONNX Runtime, inference: a model of one MaxPool or AveragePool, run with its input and output bound to our arrays.

It pools channels_first only. Its threads spin while a run lasts, and stop when it is done (``force_spinning_stop``), so that the
next contender finds the cores free; between two calls of a turn that costs it no measurable time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pooling
from bench.contenders import Arrays, Calls, Contender
from bench.workloads import Workload

OPSET = 22


def why_not(workload: Workload) -> str | None:
    if workload.data_format != "channels_first":
        return "its pooling takes channels_first only"
    if workload.dtype != "float32":
        return f"not offered for {workload.dtype}"
    if workload.window.ndim > 3:
        return f"it pools over up to 3 dimensions, not {workload.window.ndim}"
    return None


def model(workload: Workload) -> bytes:
    """The ONNX model of the workload."""
    from onnx import TensorProto, helper

    window = workload.window
    attributes: dict[str, Any] = {
        "kernel_shape": window.kernel_size,
        "strides": window.stride,
        "dilations": window.dilation,
        "pads": [pads[0] for pads in window.padding] + [pads[1] for pads in window.padding],
        "ceil_mode": int(workload.ceil_mode),
    }
    if workload.op == "avg":
        attributes["count_include_pad"] = int(workload.count_include_pad)
    node = helper.make_node("MaxPool" if workload.op == "max" else "AveragePool", ["x"], ["y"], **attributes)
    out = (*workload.shape[:2], *window.output_size)
    graph = helper.make_graph(
        [node],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, workload.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
    )
    # The oldest format that knows this opset: a runtime may be older than the package that writes the model.
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    data: bytes = made.SerializeToString()
    return data


def bind(workload: Workload, arrays: Arrays) -> Calls:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = pooling.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(model(workload), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array, join in (("x", arrays.x, binding.bind_input), ("y", arrays.y, binding.bind_output)):
        join(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def forward(alive: Arrays = arrays) -> None:  # the binding knows addresses, and keeps nothing alive
        session.run_with_iobinding(binding)

    return {"forward": forward}


def contenders() -> tuple[Contender, ...]:
    note = "ONNX Runtime, inference: one node, input and output bound"
    return (Contender("onnxruntime", "peer", note, "first", why_not, bind),)
