"""OpenVINO, inference: a model of one pooling, compiled for the CPU, that reads and writes our arrays in place.

OpenVINO pools (N, C, *spatial). For channels_last arrays the model transposes, pools and transposes back; its compiler turns
the transposes into another view of the same memory and pools NHWC directly.
"""

from __future__ import annotations

import os
from typing import Any

import pooling
from bench.contenders import Arrays, Calls, Contender
from bench.workloads import Workload


def why_not(workload: Workload) -> str | None:
    if workload.dtype != "float32":
        return f"its CPU plugin computes in float32, not {workload.dtype}"
    if workload.window.ndim > 3:
        return f"it pools over up to 3 dimensions, not {workload.window.ndim}"
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
    """The OpenVINO model of the workload, in its layout."""
    ov = quietly()
    from openvino import opset14 as ops

    window, n = workload.window, workload.window.ndim
    before, after = ([pads[side] for pads in window.padding] for side in (0, 1))
    given = data = ops.parameter(workload.array_shape, ov.Type.f32, name="x")
    if workload.data_format == "channels_last":
        data = ops.transpose(data, [0, n + 1, *range(1, n + 1)])
    rounding = "ceil_torch" if workload.ceil_mode else "floor"
    stride, kernel = list(window.stride), list(window.kernel_size)
    if workload.op == "max":
        pooled = ops.max_pool(data, stride, list(window.dilation), before, after, kernel, rounding).output(0)
    else:
        pooled = ops.avg_pool(data, stride, before, after, kernel, not workload.count_include_pad, rounding).output(0)
    if workload.data_format == "channels_last":
        pooled = ops.transpose(pooled, [0, *range(2, n + 2), 1]).output(0)
    return ov.Model([pooled], [given], "pool")


def bind(workload: Workload, arrays: Arrays) -> Calls:
    ov = quietly()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": pooling.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = ov.Core().compile_model(model(workload), "CPU", settings).create_infer_request()
    request.set_input_tensor(ov.Tensor(arrays.x, shared_memory=True))
    request.set_output_tensor(ov.Tensor(arrays.y, shared_memory=True))
    # What `request.infer()` does besides is convert inputs and wrap outputs, in Python.
    start, wait = request.start_async, request.wait

    def forward(alive: Arrays = arrays) -> None:  # tensors that share memory keep nothing alive
        start(share_inputs=True)
        wait()

    return {"forward": forward}


def contenders() -> tuple[Contender, ...]:
    note = "OpenVINO, inference: one operation in the arrays' layout, tensors shared"
    return (Contender("openvino", "peer", note, "first", why_not, bind),)
