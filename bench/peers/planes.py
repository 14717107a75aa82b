"""Channels-last arrays for those that pool channels-first only: the same memory, read as one plane with one more dimension."""

from __future__ import annotations

from dataclasses import replace

from bench.schema.workloads import Workload


def in_planes(workload: Workload) -> Workload:
    """The same pooling of the same memory, in channels_first.

    Channels become the last spatial dimension, along which windows are 1 wide: every tap is then contiguous, and nothing has
    to be transposed. It is far faster than transposing there and back (ONNX Runtime, OpenVINO), and even than channels_first.

    Examples
    --------
    >>> workload = Workload("pool1", "a network", (2, 16, 8, 8), 3, 2, 1, data_format="channels_last")
    >>> planes = in_planes(workload)
    >>> planes.shape, planes.kernel_size, planes.stride, planes.padding
    ((2, 1, 8, 8, 16), (3, 3, 1), (2, 2, 1), (1, 1, 0))
    """
    if workload.data_format == "channels_first":
        return workload
    window, (n, channels, *spatial) = workload.window, workload.shape
    padding = workload.padding
    return replace(
        workload,
        shape=(n, 1, *spatial, channels),
        kernel_size=(*window.kernel_size, 1),
        stride=(*window.stride, 1),
        padding=(*((padding,) * window.ndim if isinstance(padding, int) else padding), 0),
        dilation=(*window.dilation, 1),
        data_format="channels_first",
    )
