"""Streaming (non-temporal) stores: which results bypass the caches.

An ordinary store first reads the cache line (write-allocate), and of a result larger than the caches nothing is left there for
the next pass. Streaming stores save that read, a third of the bytes moved. They need whole cache lines, which kernels write where
they are bound to STREAM. Such stores may complete late, but the locked instruction by which a thread reports its end waits for
them. Measurements: docs/experiments.md, streaming stores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.geometry.axis import Axis
from pooling.geometry.problem import Problem
from pooling.runtime.buffer_pool import ALIGNMENT

LARGE, LARGE_ROWS = 1 << 23, 1 << 25
"""Bytes of a result in channels_last, and in channels_first, from which stores are streaming."""


def streaming_bytes(problem: Problem, result: np.ndarray[Any, Any], back: bool) -> int:
    """How many bytes of a result each streaming store covers; 0: stores are ordinary.

    Parameters
    ----------
    result
        Of shape (outer, *spatial, inner).
    back
        Whether it is a gradient.
    """
    if result.nbytes < LARGE:  # as most often
        return 0
    row, inner = result.shape[-2:]
    if result.nbytes < (LARGE if inner > 1 else LARGE_ROWS) or result.ctypes.data % ALIGNMENT:
        return 0
    if inner > 1:
        return ALIGNMENT if inner * result.itemsize % ALIGNMENT == 0 else 0
    axis = problem.window.axes[-1]
    if not isinstance(axis, Axis) or (back and row % axis.stride):
        return 0
    # Rows of gradients that end within a line are streamed in half lines; quarters gained nothing.
    parts = (ALIGNMENT, ALIGNMENT // 2) if back else (ALIGNMENT,)
    return next((some for some in parts if row * result.itemsize % some == 0), 0)
