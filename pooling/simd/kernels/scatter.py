"""Max backward as a scatter: each output adds its gradient to the cell that won.

It is scalar code: one addition per output, however large the window, where a gather takes a comparison per tap. Outputs come in
order, so sums have one order at any thread count. Indices are unsigned, because Numba's check for negative ones made an addition
take two to three times as long. Vector scatter instructions were not tried.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import kernel
from pooling.simd.plan.box import D_FIRST, D_LOW, D_STOP, H_FIRST, H_LOW, H_N, H_STOP, W_FIRST, W_LOW, W_N, W_STOP
from pooling.simd.plan.geometry import FIELDS, START, STRIDE, TABLE
from pooling.simd.vector.ops import load, splat, store, width

# Bound when a pass is made:
VECTOR = 0  # 1: a pixel is one vector


@kernel
def zero_fill(dx: Any, p: int, n: int) -> None:
    """Zeros from element `p` on; `n` is a vector's lanes at least."""
    zero = splat(0, load(dx, p))
    lanes = width(zero)
    for i in range(0, n, lanes):
        store(dx, p + min(i, n - lanes), zero)


@kernel
def narrow(total: Any, p: int, n: int, dx: Any, q: int) -> None:
    """Round `n` sums. `dx` may be the same memory, where none is overwritten before it is read."""
    for i in range(n):
        dx[np.uintp(q + i)] = total[np.uintp(p + i)]


@kernel
def scatter_row(
    dy: Any,
    q: int,
    won: Any,
    t: int,
    dx: Any,
    p: int,
    by: int,
    pixel: int,
    first: int,
    stop: int,
    g: Any,
    offsets: Any,
    n: int,
) -> None:
    """A row of outputs: channels `first` to `stop` of pixels `pixel` long. `p` is where the first window starts."""
    table = g[2 * FIELDS + TABLE]
    for w in range(n):
        if g[table + 3 * w + 2] > 0:
            for c in range(first, stop):
                cell = np.uintp(p + offsets[won[np.uintp(t + c)]] + c)  # unsigned: no check for negative indices
                dx[cell] += dy[np.uintp(q + c)]
        p += by
        q += pixel
        t += pixel


@kernel
def scatter(
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
    """Add the gradients of the outputs in `box` to zeroed cells.

    Here `g` is the forward program: results are outputs. The first three numbers of `box` pairs are outputs, its lows the
    cells at ``dx[x0]``, its counts how many cells dx has there.
    """
    d_table, h_table = g[TABLE], g[FIELDS + TABLE]
    lanes = width(load(dy, 0))
    h_by = box[W_N] * pixel
    d_by = box[H_N] * h_by
    row = (box[W_STOP] - box[W_FIRST]) * pixel
    for d in range(box[D_FIRST], box[D_STOP]):
        for h in range(box[H_FIRST], box[H_STOP]):
            if g[d_table + 3 * d + 2] > 0 and g[h_table + 3 * h + 2] > 0:
                i = ((d - box[D_FIRST]) * (box[H_STOP] - box[H_FIRST]) + h - box[H_FIRST]) * row
                p = x0 + (g[START] + d * g[STRIDE] - box[D_LOW]) * d_by
                p += (g[FIELDS + START] + h * g[FIELDS + STRIDE] - box[H_LOW]) * h_by
                p += (g[2 * FIELDS + START] + box[W_FIRST] * g[2 * FIELDS + STRIDE] - box[W_LOW]) * pixel
                by = g[2 * FIELDS + STRIDE] * pixel
                n = box[W_STOP] - box[W_FIRST]
                if VECTOR:
                    scatter_row(dy, y0 + i, won, t0 + i, dx, p, by, lanes, 0, lanes, g, offsets, n)
                else:
                    scatter_row(dy, y0 + i, won, t0 + i, dx, p, by, pixel, first, stop, g, offsets, n)
