"""Windows that lie side by side, wholly inside the data: each cell is read once, and each gradient has one source.

Such a window is read at one go, its taps unrolled; and dx is written once, in order, without being zeroed before.
"""

from __future__ import annotations

import math
from typing import Any

from pooling.jit import Kernel, kernel
from pooling.simd.program import FACTOR, FIELDS, KERNEL, SIZE, STRIDE, Program
from pooling.simd.vectors import any_lane, beats, load, load_like, select, splat, store, width

UNROLLED = 16
"""Taps up to which windows are unrolled; more brought nothing but time to compile."""

FAR = 512
"""Bytes of a pixel from which the pixels of a large window are far apart."""

# Bound when a pass is made for one window; 0 stands for any.
K_D, K_H, K_W = 0, 0, 0
S_D, S_H, S_W = 0, 0, 0
MAX = 1  # or 0: the mean
VECTOR = 0  # whether a pixel is one vector
LAST = 0  # whether windows are walked back, so that the last of tied cells wins
CAREFUL = 1  # whether to mind NaNs; otherwise they are only noticed, and `careful` does it again


@kernel
def nothing(
    x: Any, x0: int, y: Any, y0: int, won: Any, t0: int, inner: int, g: Any, factors: Any, box: Any, v: Any, v0: int, t: Any
) -> None:  # fmt: skip
    """What is called instead of `careful` by itself."""


careful: Any = nothing


@kernel
def pool_tiles(
    x: Any, x0: int, y: Any, y0: int, won: Any, t0: int, inner: int, g: Any, factors: Any, box: Any, v: Any, v0: int, t: Any
) -> None:  # fmt: skip
    """Forward: the maxima, with their taps unless `won` is None, or the means, of the outputs in `box`."""
    k_d, k_h, k_w = K_D or g[KERNEL], K_H or g[FIELDS + KERNEL], K_W or g[2 * FIELDS + KERNEL]
    s_w = S_W or g[2 * FIELDS + STRIDE]
    lanes = width(load(x, 0))
    pixel = lanes if VECTOR else inner
    h_by = box[11] * pixel
    d_by = box[10] * h_by
    suspect = load(x, x0) != load(x, x0)
    sign = -1 if LAST else 1
    last_tap = k_d * k_h * k_w - 1 if LAST else 0
    corner = (k_d - 1) * d_by + (k_h - 1) * h_by + (k_w - 1) * pixel if LAST else 0
    q = 0
    for d in range(box[0], box[1]):
        for h in range(box[2], box[3]):
            row = (
                x0
                + (d * g[STRIDE] - box[6]) * d_by
                + (h * g[FIELDS + STRIDE] - box[7]) * h_by
                - box[8] * pixel
                + corner
            )
            for w in range(box[4], box[5]):
                for c0 in range(0, pixel, lanes):
                    c = 0 if VECTOR else min(c0, pixel - lanes)
                    cell = row + w * s_w * pixel + c
                    best = load(x, cell)
                    total = best
                    if won is not None:
                        winner = splat(last_tap, load_like(won, 0, best))
                    for i in range(k_d):
                        for j in range(k_h):
                            for k in range(k_w):
                                if i + j + k > 0:
                                    value = load(x, cell + sign * (i * d_by + j * h_by + k * pixel))
                                    if MAX:
                                        greater = beats(value, best, LAST) if CAREFUL else value > best
                                        total = total + value
                                        best = select(greater, value, best)
                                        if won is not None:
                                            number = splat(last_tap + sign * ((i * k_h + j) * k_w + k), winner)
                                            winner = select(greater, number, winner)
                                    else:
                                        best = best + value
                    if not MAX:
                        factor = factors[g[FACTOR] + d] * factors[g[FIELDS + FACTOR] + h]
                        best = best * splat(factor * factors[g[2 * FIELDS + FACTOR] + w], best)
                    elif not CAREFUL:
                        suspect = suspect | (total != total)
                    store(y, y0 + q + c, best)
                    if won is not None:
                        store(won, t0 + q + c, winner)
                q += pixel
    if MAX and not CAREFUL and any_lane(suspect):
        careful(x, x0, y, y0, won, t0, inner, g, factors, box, v, v0, t)


@kernel
def spread_tiles(
    dy: Any, y0: int, won: Any, t0: int, dx: Any, x0: int, inner: int, g: Any, factors: Any, box: Any
) -> None:
    """Backward: the gradient of the cells in `box`, in order; cells between and after the windows get zeros."""
    k_d, k_h, k_w = K_D or g[KERNEL], K_H or g[FIELDS + KERNEL], K_W or g[2 * FIELDS + KERNEL]
    s_d, s_h, s_w = S_D or g[STRIDE], S_H or g[FIELDS + STRIDE], S_W or g[2 * FIELDS + STRIDE]
    lanes = width(load(dy, 0))
    pixel = lanes if VECTOR else inner
    p = x0
    for d in range(box[0], box[1]):
        o_d, i = d // s_d, d % s_d
        for h in range(box[2], box[3]):
            o_h, j = h // s_h, h % s_h
            covered = i < k_d and o_d < g[SIZE] and j < k_h and o_h < g[FIELDS + SIZE]
            w = box[4]  # a band starts where a window does
            if covered:
                o_w = w // s_w
                q = (((o_d - box[6]) * box[10] + o_h - box[7]) * box[11] + o_w - box[8]) * pixel
                if not MAX:
                    row_factor = factors[g[FACTOR] + o_d] * factors[g[FIELDS + FACTOR] + o_h]
                while w < box[5] and o_w < g[2 * FIELDS + SIZE]:
                    stride = min(s_w, box[5] - w)
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
                                store(dx, p + k * pixel + c, select(mine, gradient, zero))
                            else:
                                store(dx, p + k * pixel + c, gradient)
                        for k in range(k_w, stride):
                            store(dx, p + k * pixel + c, zero)
                    p += stride * pixel
                    q += pixel
                    w += stride
                    o_w += 1
            rest = (box[5] - w) * pixel
            for c0 in range(0, rest, lanes):
                zero = splat(0, load(dy, 0))
                store(dx, p + min(c0, rest - lanes), zero)
            p += rest


def tiles(
    kind: Kernel[..., Any], axes: Any, maximum: bool, in_lanes: bool, floats: bool = False, last: bool = False
) -> Kernel[..., Any]:
    """One of the kernels above, made for these axes if their window is small.

    `floats`: NaNs are possible; `last`: the last of tied cells wins.
    """
    names: dict[str, Any] = {"MAX": int(maximum), "VECTOR": int(in_lanes), "LAST": int(last)}
    if axes[0].kernel * axes[1].kernel * axes[2].kernel <= UNROLLED:
        for name, axis in zip("DHW", axes, strict=True):
            names |= {f"K_{name}": axis.kernel, f"S_{name}": axis.stride}
    if maximum and floats:
        names |= {"CAREFUL": 0, "careful": kind.over(**names | {"CAREFUL": 1, "careful": nothing})}
    return kind.over(**names)


def are_tiles(axes: Any) -> bool:
    """Whether all windows lie side by side, undilated and wholly inside."""
    return all(
        axis.slides
        and axis.dilation == 1
        and axis.before == 0
        and axis.stride >= axis.kernel
        and (axis.out - 1) * axis.stride + axis.kernel <= axis.size
        for axis in axes
    )


def far_apart(program: Program, pixel: int) -> bool:
    """Whether a window reads so many pixels, of so many bytes, that one vector of each after the other is slow.

    They then fall into the same few places of the cache, and nothing is fetched ahead: 7x7 windows over 2048 channels took 3 to 6
    times as long as axis by axis, with 256 channels 1.3 to 1.9 times, with 64 as long.
    """
    return math.prod(axis.kernel for axis in program.axes) > UNROLLED and pixel >= FAR
