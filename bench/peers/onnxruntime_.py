"""ONNX Runtime, inference: a model of one MaxPool or AveragePool, run with its input and output bound to our arrays.

It pools channels_first only, but over up to three dimensions: channels_last arrays of up to two are read as planes with one more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pooling
from bench.peers.planes import in_planes
from bench.protocol.contenders import Arrays, Calls, Contender
from bench.schema.workloads import Workload

OPSET = 22


def why_not(workload: Workload) -> str | None:
    if workload.dtype != "float32":
        return f"not offered for {workload.dtype}"
    if in_planes(workload).window.ndim > 3:
        return f"it pools over up to 3 dimensions, in channels_last up to 2, not {workload.window.ndim}"
    return None


def model(workload: Workload) -> bytes:
    """The ONNX model of a workload in channels_first."""
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
    planes = in_planes(workload)
    session = ort.InferenceSession(model(planes), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    y_shape = (*planes.shape[:2], *planes.window.output_size)
    binding.bind_input("x", "cpu", 0, np.float32, planes.shape, arrays.x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y_shape, arrays.y.ctypes.data)

    def forward(alive: Arrays = arrays) -> None:  # the binding knows addresses, and keeps nothing alive
        session.run_with_iobinding(binding)

    return {"forward": forward}


def contenders() -> tuple[Contender, ...]:
    note = "ONNX Runtime, inference: one node, input and output bound"
    return (Contender("onnxruntime", "peer", note, "first", why_not, bind),)
