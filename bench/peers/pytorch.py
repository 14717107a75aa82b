"""PyTorch: its operators called directly, with ``out=``, in both memory formats; and the code its compiler makes.

The operators are those that ``torch.nn.functional.max_pool2d`` and its gradient end in, called without the autograd engine, so
that nothing but pooling is timed and all results land in memory that exists. Max pooling always computes int64 indices;
only over one dimension, channels first, it has another kernel for inference, many times faster, whose result is copied to ours.

In channels_last, tensors are permuted views of our NHWC arrays: PyTorch's channels_last memory format, without a copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pooling
from bench.protocol.contenders import Array, Arrays, Calls, Contender
from bench.schema.workloads import Workload
from pooling.operators.base import DataFormat

COMPILERS = ("g++", "clang++", "c++")


def windows(workload: Workload) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel size, stride, padding and dilation for the 2-D or 3-D operator; one dimension becomes a row of two."""
    window = workload.window
    row = [1] * (window.ndim == 1)
    before = [pads[0] for pads in window.padding]
    return (
        row + list(window.kernel_size),
        row + list(window.stride),
        [0] * (window.ndim == 1) + before,
        row + list(window.dilation),
    )


def tensor(array: Array, workload: Workload) -> Any:
    """The memory of `array` as a tensor (N, C, *spatial)."""
    import torch

    result = torch.from_numpy(array)
    if workload.data_format == "channels_last":
        result = result.movedim(-1, 1)
    return result.unsqueeze(2) if workload.window.ndim == 1 else result


def limits(workload: Workload) -> str | None:
    """Why PyTorch can't do it in any form."""
    window = workload.window
    if window.ndim > 3:
        return f"it pools over up to 3 dimensions, not {window.ndim}"
    if any(axis.before != axis.after for axis in window.affine):
        return "it pads both sides alike"
    if any(2 * axis.before > axis.span for axis in window.affine):
        return "it allows padding of at most half the window"
    if workload.op == "avg" and any(dilation > 1 for dilation in window.dilation):
        return "its average pooling has no dilation"
    return None


def bind(workload: Workload, arrays: Arrays) -> Calls:
    """The operators on tensors that share the memory of `arrays`."""
    import torch

    torch.set_num_threads(pooling.get_num_threads())
    x, dy, y, dx = (tensor(array, workload) for array in (arrays.x, arrays.dy, arrays.y, arrays.dx))
    kernel, stride, padding, dilation = windows(workload)
    dimensions = len(kernel)
    aten = torch.ops.aten
    forward: Callable[[], None]
    infer: Callable[[], None]
    if workload.op == "max":
        indices = torch.empty_like(y, dtype=torch.int64)  # in y's memory format
        window = (kernel, stride, padding, dilation, workload.ceil_mode)
        run = getattr(aten, f"max_pool{dimensions}d_with_indices").out
        run_back = getattr(aten, f"max_pool{dimensions}d_with_indices_backward").grad_input

        def forward() -> None:
            run(x, *window, out=y, indices=indices)

        def backward() -> None:
            run_back(dy, x, *window, indices, grad_input=dx)

    else:
        average = (kernel, stride, padding, workload.ceil_mode, workload.count_include_pad, None)
        run = getattr(aten, f"avg_pool{dimensions}d").out
        run_back = getattr(aten, f"avg_pool{dimensions}d_backward").grad_input

        def forward() -> None:
            run(x, *average, out=y)

        def backward() -> None:
            run_back(dy, x, *average, grad_input=dx)

    def step() -> None:
        forward()
        backward()

    forward()  # the indices that backward reads
    infer = forward
    if workload.op == "max" and workload.window.ndim == 1 and workload.data_format == "channels_first":
        given, result = x.squeeze(2), y.squeeze(2)
        window_1d = (*workload.window.kernel_size, stride[1:], padding[1:], dilation[1:], workload.ceil_mode)

        def infer() -> None:
            result.copy_(torch.max_pool1d(given, *window_1d))

    return {"forward": infer, "forward_train": forward, "backward": backward, "step": step}


def bind_compiled(workload: Workload, arrays: Arrays) -> Calls:
    """What the compiler makes of the functional form and of its gradient. Results are new tensors each time."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(pooling.get_num_threads())
    torch.compiler.reset()  # else it gives up on a function that was compiled for many shapes
    x, dy = (tensor(array, workload) for array in (arrays.x, arrays.dy))
    kernel, stride, padding, dilation = windows(workload)
    functional: Any
    if workload.op == "max":
        functional = getattr(F, f"max_pool{len(kernel)}d")
        window: tuple[Any, ...] = (kernel, stride, padding, dilation, workload.ceil_mode)
    else:
        functional = getattr(F, f"avg_pool{len(kernel)}d")
        window = (kernel, stride, padding, workload.ceil_mode, workload.count_include_pad)

    def pool(x: Any) -> Any:
        return functional(x, *window)

    infer = torch.compile(pool, dynamic=False, fullgraph=True)
    train = torch.compile(pool, dynamic=False, fullgraph=True)
    leaf = x.detach().requires_grad_()

    def array(result: Any) -> Array:
        result = result.squeeze(2) if workload.window.ndim == 1 else result
        if workload.data_format == "channels_last":
            result = result.movedim(1, -1)
        found: Array = result.detach().numpy()
        return found

    def forward() -> Array:
        with torch.no_grad():
            return array(infer(x))

    def backward() -> Array:
        return array(torch.autograd.grad(kept, leaf, dy, retain_graph=True)[0])

    def step() -> tuple[Array, Array]:
        y = train(leaf)
        return array(y), array(torch.autograd.grad(y, leaf, dy)[0])

    import torch._functorch.config as functorch

    # A backward pass that is called again and again must not reuse the memory of what the forward pass kept.
    with functorch.patch(donated_buffer=False):
        kept = train(leaf)
        backward()
    return {"forward": forward, "forward_train": lambda: array(train(leaf)), "backward": backward, "step": step}


def contenders() -> tuple[Contender, ...]:
    """PyTorch in NCHW, in channels_last, and compiled."""

    def only(data_format: DataFormat) -> Callable[[Workload], str | None]:
        def why_not(workload: Workload) -> str | None:
            if workload.data_format != data_format:
                return f"it competes on {data_format} arrays"
            if workload.op == "avg" and workload.window.ndim == 3 and data_format == "channels_last":
                return "its 3-D average pooling writes NCDHW, whatever the memory format of out="
            return limits(workload)

        return why_not

    def why_not_compiled(workload: Workload) -> str | None:
        if not any(map(shutil.which, COMPILERS)):
            return "PyTorch's compiler needs a C++ compiler when it runs; apt-get install g++"
        return limits(workload)

    return (
        Contender(
            "pytorch",
            "peer",
            "PyTorch, NCHW: its operators with out=, int64 indices",
            "first",
            only("channels_first"),
            bind,
        ),
        Contender(
            "pytorch_channels_last",
            "peer",
            "PyTorch in its channels_last memory format, with out=, int64 indices",
            "first",
            only("channels_last"),
            bind,
        ),
        Contender(
            "pytorch_compiled",
            "peer",
            "PyTorch compiled by inductor, in the arrays' layout",
            "first",
            why_not_compiled,
            bind_compiled,
            reuses_outputs=False,
            setup_s=10.0,
        ),
    )
