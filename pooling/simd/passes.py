"""Whole passes: units of work, each a block of planes (or one outer item) and a band along the first axis.

Units are independent of each other and share nothing but read-only tables, so that threads take ranges of them. Where
planes are turned into lanes, a unit does so for its band alone, in two buffers that stay in the cache.

What is done to a band is the kernel `visit`, to which each pass is bound at the end of this file.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from pooling.jit import Kernel, kernel
from pooling.simd.direct import box, max_windows, mean_windows
from pooling.simd.gather import gather, mean_share, won_share
from pooling.simd.planes import turn_in, turn_out


visit: Any


@kernel
def forward_planes(
    x: Any, y: Any, extra: Any, planes: int, lanes: int, geo: Any, bands: Any, where: Any, low: Any, pixels: Any,
    out_pixels: Any, start: int, stop: int,
) -> None:  # fmt: skip
    axis, slab, out_slab, cells, outputs = where
    for unit in range(start, stop):
        band = bands[unit % len(bands)]
        first, end, low_cell, high_cell = band[0], band[1], band[2], band[3]
        plane = unit // len(bands) * lanes
        last = min(planes - plane, lanes) - 1
        turn_in(x, plane * cells + low_cell * slab, (high_cell - low_cell) * slab, cells, last, pixels, lanes)
        x0, y0 = -low_cell * slab * lanes, -first * out_slab * lanes
        visit(pixels, x0, out_pixels, y0, extra, plane * outputs, lanes, geo, box(axis, first, end, geo[1]), low)
        turn_out(out_pixels, (end - first) * out_slab, y, plane * outputs + first * out_slab, outputs, last, lanes)


@kernel
def forward_channels(
    x: Any, y: Any, extra: Any, inner: int, geo: Any, bands: Any, where: Any, low: Any, start: int, stop: int
) -> None:
    axis, _, _, cells, outputs = where
    for unit in range(start, stop):
        first, end = bands[unit % len(bands), 0], bands[unit % len(bands), 1]
        item = unit // len(bands) * inner
        ranges = box(axis, first, end, geo[1])
        visit(x, item * cells, y, item * outputs, extra, item * outputs, inner, geo, ranges, low)


@kernel
def backward_planes(
    dy: Any, extra: Any, dx: Any, planes: int, lanes: int, geo: Any, bands: Any, where: Any, zero: Any, pixels: Any,
    out_pixels: Any, start: int, stop: int,
) -> None:  # fmt: skip
    axis, slab, out_slab, cells, outputs = where
    for unit in range(start, stop):
        band = bands[unit % len(bands)]
        first, end, low_out, high_out = band[0], band[1], band[2], band[3]
        plane = unit // len(bands) * lanes
        last = min(planes - plane, lanes) - 1
        turn_in(dy, plane * outputs + low_out * out_slab, (high_out - low_out) * out_slab, outputs, last, out_pixels, lanes)
        x0, y0 = -first * slab * lanes, -low_out * out_slab * lanes
        visit(out_pixels, y0, extra, plane * outputs, pixels, x0, lanes, geo, box(axis, first, end, geo[0]), zero)
        turn_out(pixels, (end - first) * slab, dx, plane * cells + first * slab, cells, last, lanes)


@kernel
def backward_channels(
    dy: Any, extra: Any, dx: Any, inner: int, geo: Any, bands: Any, where: Any, zero: Any, start: int, stop: int
) -> None:
    axis, _, _, cells, outputs = where
    for unit in range(start, stop):
        first, end = bands[unit % len(bands), 0], bands[unit % len(bands), 1]
        item = unit // len(bands) * inner
        ranges = box(axis, first, end, geo[0])
        visit(dy, item * outputs, extra, item * outputs, dx, item * cells, inner, geo, ranges, zero)


UNROLLED = 16
"""Taps up to which a pass is compiled for its window alone; unrolling more brought nothing but time to compile."""


@functools.cache
def forward_passes(op: str, kernel_size: tuple[int, int, int]) -> tuple[Kernel[..., Any], Kernel[..., Any]]:
    """The forward passes over planes and over channels, made for this window if it is small."""
    visit = max_windows if op == "max" else mean_windows
    if math.prod(kernel_size) <= UNROLLED:
        visit = visit.over(**dict(zip(("K_D", "K_H", "K_W"), kernel_size, strict=True)))
    return forward_planes.over(visit=visit), forward_channels.over(visit=visit)


@functools.cache
def backward_passes(
    op: str, kernel_size: tuple[int, int, int], stride: tuple[int, int, int], dilated: bool
) -> tuple[Kernel[..., Any], Kernel[..., Any]]:
    """The backward passes over planes and over channels, made for this window if it is small and not dilated."""
    constants = {}
    if math.prod(kernel_size) <= UNROLLED and math.prod(stride) <= UNROLLED and not dilated:
        names = ("K_D", "K_H", "K_W", "S_D", "S_H", "S_W")
        constants = dict(zip(names, kernel_size + stride, strict=True))
    visit = gather.over(share=won_share if op == "max" else mean_share, **constants)
    return backward_planes.over(visit=visit), backward_channels.over(visit=visit)
