"""Max backward for regions: windows whose starts and lengths are given one by one.

Forward, and for means, the passes per axis read each window's cells from a table, so regions need nothing new; they are not
unrolled, as no two need be alike, and not scanned. The scatter steps from window to window; here it looks up where each starts.
The starts are stored after the taps' offsets, in the same array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.geometry.problem import Array
from pooling.runtime.jit import kernel
from pooling.simd.plan.box import D_FIRST, D_LOW, D_STOP, H_FIRST, H_LOW, H_N, H_STOP, W_FIRST, W_LOW, W_N, W_STOP
from pooling.simd.plan.geometry import FIELDS, KERNEL, OUT, Program
from pooling.simd.vector.ops import load, width

# Bound when a pass is made:
VECTOR = 0  # 1: a pixel is one vector


@kernel
def scatter_regions(
    dy: Any,
    y0: int,
    won: Any,
    t0: int,
    dx: Any,
    x0: int,
    pixel: int,
    first: int,
    stop: int,
    g: Any,
    offsets: Any,
    box: Any,
) -> None:
    """As `scatter`, which it stands for."""
    lanes = width(load(dy, 0))
    step = lanes if VECTOR else pixel
    d_at = g[KERNEL] * g[FIELDS + KERNEL] * g[2 * FIELDS + KERNEL]
    h_at = d_at + g[OUT]
    w_at = h_at + g[FIELDS + OUT]
    h_by = box[W_N] * step
    d_by = box[H_N] * h_by
    i = 0
    for d in range(box[D_FIRST], box[D_STOP]):
        for h in range(box[H_FIRST], box[H_STOP]):
            row = (
                x0
                + (offsets[d_at + d] - box[D_LOW]) * d_by
                + (offsets[h_at + h] - box[H_LOW]) * h_by
                - box[W_LOW] * step
            )
            for w in range(box[W_FIRST], box[W_STOP]):
                p = row + offsets[w_at + w] * step
                for c in range(0 if VECTOR else first, lanes if VECTOR else stop):
                    cell = np.uintp(p + offsets[won[t0 + i + c]] + c)  # unsigned: no check for negative indices
                    dx[cell] += dy[y0 + i + c]
                i += step


def with_starts(offsets: Array, program: Program) -> Array:
    """Tap offsets, and after them where each window starts along the first axis, the second, and the last."""
    starts = [axis.table[:, 0] - axis.table[:, 1] * axis.step for axis in program.axes]
    return np.concatenate([offsets, *starts])
