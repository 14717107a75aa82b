"""Boxes: which results a kernel computes, and which cells it may read for them, along each of the three axes.

A box is a tuple: for each axis the first result and the one after the last, then for each axis the first cell, then for each axis
the number of cells.
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.jit import kernel
from pooling.simd.plan.geometry import FIELDS, OUT, SIZE

D_FIRST, D_STOP, H_FIRST, H_STOP, W_FIRST, W_STOP, D_LOW, H_LOW, W_LOW, D_N, H_N, W_N = range(12)


@kernel
def band_box(g: Any, axis: int, first: int, stop: int, low: int, high: int) -> Any:
    """All results and cells, but along `axis` results `first` to `stop` from cells `low` to `high`."""
    d_first, d_stop, d_low, d_n = 0, g[OUT], 0, g[SIZE]
    h_first, h_stop, h_low, h_n = 0, g[FIELDS + OUT], 0, g[FIELDS + SIZE]
    w_first, w_stop, w_low, w_n = 0, g[2 * FIELDS + OUT], 0, g[2 * FIELDS + SIZE]
    if axis == 0:
        d_first, d_stop, d_low, d_n = first, stop, low, max(high - low, 1)
    elif axis == 1:
        h_first, h_stop, h_low, h_n = first, stop, low, max(high - low, 1)
    else:
        w_first, w_stop, w_low, w_n = first, stop, low, max(high - low, 1)
    return d_first, d_stop, h_first, h_stop, w_first, w_stop, d_low, h_low, w_low, d_n, h_n, w_n
