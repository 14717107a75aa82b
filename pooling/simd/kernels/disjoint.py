"""Backward of disjoint windows that lie wholly inside the data: each cell gets its gradient from one output.

So dx is written once, in order, and need not be zeroed first.
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.jit import Kernel, kernel
from pooling.simd.plan.box import D_FIRST, D_LOW, D_STOP, H_FIRST, H_LOW, H_N, H_STOP, W_FIRST, W_LOW, W_N, W_STOP
from pooling.simd.plan.geometry import FACTOR, FIELDS, KERNEL, SIZE, STRIDE
from pooling.simd.vector.ops import load, load_like, select, splat, store_or_stream, width

UNROLLED = 16
"""Taps up to which windows are unrolled; more brought nothing but time to compile."""

# Bound when a pass is made for one window; 0 stands for any.
K_D, K_H, K_W = 0, 0, 0
S_D, S_H, S_W = 0, 0, 0
MAX = 1  # or 0: the mean
VECTOR = 0  # whether a pixel is one vector
STREAM = 0  # whether dx is written with streaming stores


@kernel
def spread_disjoint(
    dy: Any, y0: int, won: Any, t0: int, dx: Any, x0: int, inner: int, g: Any, factors: Any, box: Any
) -> None:
    """Backward: the gradient of the cells in `box`, in order; cells between and after the windows get zeros."""
    k_d, k_h, k_w = K_D or g[KERNEL], K_H or g[FIELDS + KERNEL], K_W or g[2 * FIELDS + KERNEL]
    s_d, s_h, s_w = S_D or g[STRIDE], S_H or g[FIELDS + STRIDE], S_W or g[2 * FIELDS + STRIDE]
    lanes = width(load(dy, 0))
    pixel = lanes if VECTOR else inner
    p = x0
    for d in range(box[D_FIRST], box[D_STOP]):
        o_d, i = d // s_d, d % s_d
        for h in range(box[H_FIRST], box[H_STOP]):
            o_h, j = h // s_h, h % s_h
            covered = i < k_d and o_d < g[SIZE] and j < k_h and o_h < g[FIELDS + SIZE]
            w = box[W_FIRST]  # a band starts where a window does
            if covered:
                o_w = w // s_w
                q = (((o_d - box[D_LOW]) * box[H_N] + o_h - box[H_LOW]) * box[W_N] + o_w - box[W_LOW]) * pixel
                if not MAX:
                    row_factor = factors[g[FACTOR] + o_d] * factors[g[FIELDS + FACTOR] + o_h]
                while w < box[W_STOP] and o_w < g[2 * FIELDS + SIZE]:
                    stride = min(s_w, box[W_STOP] - w)
                    for c0 in range(0, pixel, lanes):
                        c = 0 if VECTOR else min(c0, pixel - lanes)
                        gradient = load(dy, y0 + q + c)
                        zero = splat(0, gradient)
                        if MAX:
                            gradient = zero + gradient  # -0.0 becomes 0.0, as where several are added
                            winner = load_like(won, t0 + q + c, gradient)
                        else:
                            factor = row_factor * factors[g[2 * FIELDS + FACTOR] + o_w]
                            gradient = gradient * splat(factor, gradient)
                        for k in range(k_w):
                            if MAX:
                                mine = winner == splat((i * k_h + j) * k_w + k, winner)
                                store_or_stream(dx, p + k * pixel + c, select(mine, gradient, zero), STREAM)
                            else:
                                store_or_stream(dx, p + k * pixel + c, gradient, STREAM)
                        for k in range(k_w, stride):
                            store_or_stream(dx, p + k * pixel + c, zero, STREAM)
                    p += stride * pixel
                    q += pixel
                    w += stride
                    o_w += 1
            rest = (box[W_STOP] - w) * pixel
            for c0 in range(0, rest, lanes):
                zero = splat(0, load(dy, 0))
                store_or_stream(dx, p + min(c0, rest - lanes), zero, STREAM)
            p += rest


def disjoint_windows(axes: Any, maximum: bool, in_lanes: bool, unrolled: bool) -> Kernel[..., Any]:
    """The kernel above, made for these axes if their window is small, and to be unrolled."""
    names: dict[str, Any] = {"MAX": int(maximum), "VECTOR": int(in_lanes)}
    if unrolled and axes[0].kernel * axes[1].kernel * axes[2].kernel <= UNROLLED:
        for name, axis in zip("DHW", axes, strict=True):
            names |= {f"K_{name}": axis.kernel, f"S_{name}": axis.stride}
    return spread_disjoint.bind(**names)


def are_disjoint(axes: Any) -> bool:
    """Whether all windows lie side by side, undilated and wholly inside."""
    return all(
        axis.slides
        and axis.dilation == 1
        and axis.before == 0
        and axis.stride >= axis.kernel
        and (axis.out - 1) * axis.stride + axis.kernel <= axis.size
        for axis in axes
    )
