"""OpenVINO, inference: a model of one pooling, compiled for the CPU, that reads and writes our arrays in place.

OpenVINO pools (N, C, *spatial) over up to three dimensions: channels_last arrays of up to two are read as planes with one more.
(Transposing in the model, there and back, was tried: its compiler does not see through it, and copies. 2 to 4 times slower.)
"""

from __future__ import annotations

import os
from typing import Any

import pooling
from bench.peers.planes import in_planes
from bench.protocol.contenders import Arrays, Calls, Contender
from bench.schema.workloads import Workload


def why_not(workload: Workload) -> str | None:
    if workload.dtype != "float32":
        return f"its CPU plugin computes in float32, not {workload.dtype}"
    if in_planes(workload).window.ndim > 3:
        return f"it pools over up to 3 dimensions, in channels_last up to 2, not {workload.window.ndim}"
    if workload.op == "avg" and any(dilation > 1 for dilation in workload.window.dilation):
        return "its average pooling has no dilation here"
    return None


def quietly() -> Any:
    """The package. Imported as in a CI job, for which it has a rule: no usage statistics go over the network."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        import openvino
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
    return openvino


def model(workload: Workload) -> Any:
    """The OpenVINO model of a workload in channels_first."""
    ov = quietly()
    from openvino import opset14 as ops

    window = workload.window
    before, after = ([pads[side] for pads in window.padding] for side in (0, 1))
    data = ops.parameter(workload.shape, ov.Type.f32, name="x")
    rounding = "ceil_torch" if workload.ceil_mode else "floor"
    stride, kernel = list(window.stride), list(window.kernel_size)
    if workload.op == "max":
        pooled = ops.max_pool(data, stride, list(window.dilation), before, after, kernel, rounding).output(0)
    else:
        pooled = ops.avg_pool(data, stride, before, after, kernel, not workload.count_include_pad, rounding).output(0)
    return ov.Model([pooled], [data], "pool")


def bind(workload: Workload, arrays: Arrays) -> Calls:
    ov = quietly()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": pooling.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    planes = in_planes(workload)
    x, y = arrays.x.reshape(planes.shape), arrays.y.reshape(*planes.shape[:2], *planes.window.output_size)
    request = ov.Core().compile_model(model(planes), "CPU", settings).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    request.set_output_tensor(ov.Tensor(y, shared_memory=True))

    def forward(alive: Arrays = arrays) -> None:  # tensors that share memory keep nothing alive
        request.infer(share_inputs=True, share_outputs=True)

    return {"forward": forward}


def contenders() -> tuple[Contender, ...]:
    note = "OpenVINO, inference: one operation in the arrays' layout, tensors shared"
    return (Contender("openvino", "peer", note, "first", why_not, bind),)
