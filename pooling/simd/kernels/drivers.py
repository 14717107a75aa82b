"""Drivers: a pass as a loop over units of work, each a block of planes (or one outer item) and a band along the first axis.

Units are independent and share only read-only tables, so threads may take any ranges of them. Where planes are transposed into
lanes, a unit transposes its own band, in a buffer that stays in the cache. The kernel `visit`, to which a driver is bound,
computes one band.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.runtime.jit import UNBOUND, kernel
from pooling.simd.kernels.scatter import narrow, scatter, zero_fill
from pooling.simd.memory.transpose import lanes_to_planes, planes_to_lanes
from pooling.simd.plan.box import band_box
from pooling.simd.vector.ops import load, width

visit: Any = UNBOUND

# Bound when a pass is made:
WIDE = 0  # whether gradients are added in float64 and rounded once


@kernel
def forward_planes(
    start: int,
    stop: int,
    x: Any,
    y: Any,
    won: Any,
    planes: int,
    g: Any,
    factors: Any,
    bands: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    """Turn a band of planes in, visit it, and turn the results out."""
    axis, slab, out_slab, cells, outputs = where
    lanes = width(load(v, 0))
    for unit in range(start, stop):
        b = unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        plane = unit // len(bands) * lanes
        last = min(planes - plane, lanes) - 1
        planes_to_lanes(x, plane * cells + low * slab, (high - low) * slab, cells, last, v, 0, lanes)
        out = (high - low) * slab * lanes
        buffers = out + (end - first) * out_slab * lanes
        box = band_box(g, axis, first, end, low, high)
        visit(v, 0, v, out, won, (plane * outputs + first * out_slab * lanes), lanes, g, factors, box, v, buffers, t)
        lanes_to_planes(v, out, (end - first) * out_slab, y, plane * outputs + first * out_slab, outputs, last, lanes)


@kernel
def forward_channels(
    start: int,
    stop: int,
    x: Any,
    y: Any,
    won: Any,
    inner: int,
    g: Any,
    factors: Any,
    bands: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    """Visit a band of an item in place: its channels are lanes already."""
    axis, slab, out_slab, cells, outputs = where
    for unit in range(start, stop):
        b = unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        item = unit // len(bands)
        box = band_box(g, axis, first, end, low, high)
        result = (item * outputs + first * out_slab) * inner
        visit(x, (item * cells + low * slab) * inner, y, result, won, result, inner, g, factors, box, v, 0, t)


@kernel
def spread_planes(
    start: int,
    stop: int,
    dy: Any,
    dx: Any,
    won: Any,
    planes: int,
    g: Any,
    factors: Any,
    bands: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    """As `forward_planes`, where a cell has one source at most: `visit` is `spread_tiles`."""
    axis, out_slab, slab, outputs, cells = where  # the results are cells here
    lanes = width(load(v, 0))
    for unit in range(start, stop):
        b = unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        plane = unit // len(bands) * lanes
        last = min(planes - plane, lanes) - 1
        planes_to_lanes(dy, plane * outputs + low * out_slab, (high - low) * out_slab, outputs, last, v, 0, lanes)
        out = (high - low) * out_slab * lanes
        box = band_box(g, axis, first, end, low, high)
        visit(v, 0, won, (plane * outputs + low * out_slab * lanes), v, out, lanes, g, factors, box)
        lanes_to_planes(v, out, (end - first) * slab, dx, plane * cells + first * slab, cells, last, lanes)


@kernel
def spread_channels(
    start: int,
    stop: int,
    dy: Any,
    dx: Any,
    won: Any,
    inner: int,
    g: Any,
    factors: Any,
    bands: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    axis, out_slab, slab, outputs, cells = where  # the results are cells here
    for unit in range(start, stop):
        b = unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        item = unit // len(bands)
        box = band_box(g, axis, first, end, low, high)
        source = (item * outputs + low * out_slab) * inner
        visit(dy, source, won, source, dx, (item * cells + first * slab) * inner, inner, g, factors, box)


@kernel
def scatter_planes(
    start: int,
    stop: int,
    dy: Any,
    dx: Any,
    won: Any,
    planes: int,
    g: Any,
    offsets: Any,
    bands: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    """Scatter the outputs `low` to `high` over all cells that they reach; cells `first` to `end` are then complete."""
    axis, out_slab, slab, outputs, cells = where  # the results are cells here
    lanes = width(load(v, 0))
    for unit in range(start, stop):
        b = unit % len(bands)
        first, end, low, high = bands[b, 0], bands[b, 1], bands[b, 2], bands[b, 3]
        reach_low, reach_high = bands[b, 4], bands[b, 5]
        plane = unit // len(bands) * lanes
        last = min(planes - plane, lanes) - 1
        planes_to_lanes(dy, plane * outputs + low * out_slab, (high - low) * out_slab, outputs, last, v, 0, lanes)
        out = (high - low) * out_slab * lanes
        reached = (reach_high - reach_low) * slab * lanes
        box = band_box(g, axis, low, high, reach_low, reach_high)
        t0 = plane * outputs + low * out_slab * lanes
        if WIDE:
            total = v[out : out + 2 * reached].view(np.float64)
            zero_fill(total, 0, reached)
            scatter(v, 0, won, t0, total, 0, lanes, 0, lanes, g, offsets, box)
            narrow(total, 0, reached, v, out)
        else:
            zero_fill(v, out, reached)
            scatter(v, 0, won, t0, v, out, lanes, 0, lanes, g, offsets, box)
        core = out + (first - reach_low) * slab * lanes
        lanes_to_planes(v, core, (end - first) * slab, dx, plane * cells + first * slab, cells, last, lanes)


@kernel
def scatter_channels(
    start: int,
    stop: int,
    dy: Any,
    dx: Any,
    won: Any,
    inner: int,
    g: Any,
    offsets: Any,
    rows: Any,
    where: Any,
    v: Any,
    t: Any,
) -> None:
    """Scatter whole items, or chunks of their channels, into dx itself; cells become zero just before the first gradient comes.

    `rows` says for each step of outputs along the first axis which cells are reached first by them.
    """
    axis, slab, out_slab, cells, outputs, chunk = where
    chunks = -(-inner // chunk)
    steps = len(rows) - 1
    for unit in range(start, stop):
        item, c = unit // chunks, unit % chunks * chunk
        c_stop = min(c + chunk, inner)
        base = item * cells * inner
        if WIDE:
            total = v[: 2 * cells * inner].view(np.float64)
            for p in range(cells):
                for k in range(c, c_stop):
                    total[np.uintp(p * inner + k)] = 0
            at = item * outputs * inner
            box = band_box(g, axis, 0, steps, 0, cells // slab)
            scatter(dy, at, won, at, total, 0, inner, c, c_stop, g, offsets, box)
            for p in range(cells):
                narrow(total, p * inner + c, c_stop - c, dx, base + p * inner + c)
            continue
        for i in range(steps + 1):
            if chunks == 1:
                n = (rows[i, 1] - rows[i, 0]) * slab * inner
                if n > 0:
                    zero_fill(dx, base + rows[i, 0] * slab * inner, n)
            else:
                for p in range(rows[i, 0] * slab, rows[i, 1] * slab):
                    for k in range(c, c_stop):
                        dx[base + p * inner + k] = 0
            if i < steps:
                box = band_box(g, axis, i, i + 1, 0, cells // slab)
                at = (item * outputs + i * out_slab) * inner
                scatter(dy, at, won, at, dx, base, inner, c, c_stop, g, offsets, box)
