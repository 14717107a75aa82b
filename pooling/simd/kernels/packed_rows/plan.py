"""When kernels are compiled for the length of rows (`forward.py`), and what they are bound to."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import lowest, tap_dtype
from pooling.geometry.axis import Axis
from pooling.geometry.problem import Array, Problem
from pooling.geometry.window import Window
from pooling.runtime.buffer_pool import ALIGNMENT
from pooling.runtime.jit import never
from pooling.simd.kernels.disjoint import are_disjoint
from pooling.simd.kernels.packed_rows.backward import backward_short
from pooling.simd.kernels.packed_rows.forward import forward_short, nan_safe_rows
from pooling.simd.kernels.rows.plan import BAND, MOST_STRIDE, MOST_TAPS, rows_fit
from pooling.simd.memory.prefetch import from_memory, interleaves_prefetch
from pooling.simd.plan.cache_blocking import Plan, shifts_of
from pooling.simd.plan.geometry import FACTOR, FIELDS, RECENT, Program, backward_program, forward_program
from pooling.simd.vector.ops import lanes, vector_bytes

SHARE, SHARE_CLOSE = 0.5, 0.8
"""Share of its lanes that a vector must use, in both passes; the second for maxima at stride 1."""

VECTORS, VECTORS_CLOSE = 2, 4
"""Vectors that a row of outputs may take, where windows overlap; the second at stride 1."""

LARGE = 1 << 18
"""Bytes of a unit of work beyond which another strategy is used, which can cut it: a quarter of a common L2 cache."""


def short_fit(problem: Problem, dtype: np.dtype[Any]) -> bool:
    """Whether rows are so short, and windows so small, that this is the faster way, for both passes.

    Only for what networks are trained with: each length of a row takes kernels of its own, a second or two of compiling.
    """
    if not problem.window.slides or problem.ties != "first" or dtype not in (np.float32, np.float64):
        return False
    axes = forward_program(problem, dtype).axes
    d, h, w = axes
    n = lanes(dtype)
    if min(d.out, h.out, w.out) < 1 or d.padded or any(axis.dilation > 1 for axis in axes):
        return False
    along, across = strides_of(w), strides_of(h)
    margins = padded(axes)
    close = w.stride == 1 < w.kernel
    share = SHARE_CLOSE if close and problem.op == "max" else SHARE
    # Without masks, maxima of overlapping windows are faster with planes in lanes (docs/experiments.md, packed rows).
    several = not are_disjoint(axes) and (problem.op == "avg" or vector_bytes() == 64 or rows_fit(problem, dtype))
    vectors = (VECTORS_CLOSE if close else VECTORS) if several else 1
    rows = n if follow(axes) else h.out
    back_rows = n if follow(axes) and along.gap == 0 else across.count

    def used(length: int, pitch: int, rows: int) -> float:
        """The share of its lanes that a vector uses."""
        if length > n:
            return length / (-(-length // n) * n)
        return max(min(n // pitch, rows), 1) * length / n

    return (
        max(h.stride, w.stride) <= MOST_STRIDE
        and problem.window.n_taps <= (MOST_STRIDE**2 if are_disjoint(axes) else MOST_TAPS)
        and max(w.out, along.count) <= vectors * n
        and used(w.out, w.out, rows) >= share
        and used(along.count, along.pitch, back_rows) >= share
        and moved(problem, dtype, margins) <= LARGE * (1 if margins else min(d.size, d.out))
    )


def row_length(problem: Problem, dtype: np.dtype[Any]) -> Hashable:
    """What the kernels are compiled for, as far as it depends on the size of arrays: equal for rows of equal length."""
    *above, w = problem.window.affine
    return problem.op, dtype.char, w, *((axis.kernel, axis.stride, axis.before, axis.padded) for axis in above)


def padded(axes: tuple[Any, Any, Any]) -> bool:
    """Whether windows stick out of a plane."""
    return bool(axes[1].padded or axes[2].padded)


def follow(axes: tuple[Any, Any, Any]) -> bool:
    """Whether the first row of the next plane lies where another row of windows of this one would: all planes are as one."""
    d, h, _ = axes
    return bool(d.size == d.out == 1 and h.size == h.out * h.stride and h.span <= h.stride and not padded(axes))


@dataclass(frozen=True)
class Strides:
    """The strides of cells along an axis over which there are outputs, and how these are laid out for them.

    Parameters
    ----------
    count
        How many there are.
    before, gap
        Places before the first output, and between the last one and the next row's first, or the next plane's.
    pitch
        From one row, or plane, to the next.
    """

    count: int
    before: int
    gap: int
    pitch: int


def strides_of(axis: Axis) -> Strides:
    """One gap is what lies after a row and before the next one, so it is as long as the longer of the two has to be."""
    reached = min((axis.out - 1) * axis.stride + axis.span - axis.before, axis.size)
    count = -(-reached // axis.stride)
    shifts = shifts_of(axis)
    before, after = max(-min(shifts), 0), max(count - 1 + max(shifts) - (axis.out - 1), 0)
    pitch = max(count, axis.out + max(before, after))
    return Strides(count, before, pitch - axis.out, pitch)


@dataclass(frozen=True)
class Cut:
    """How planes are taken: in so many groups, each of which is cut along the first axis into so many pieces.

    Parameters
    ----------
    most
        Planes in the largest group.
    rows
        Rows that a vector takes.
    """

    groups: int
    pieces: int
    most: int
    rows: int

    @classmethod
    def of(cls, outer: int, rows: int, nbytes: int, depth: int, fit: int, one: bool) -> Cut:
        """For planes with so many `rows`, of so many bytes; `fit` rows in a vector.

        Parameters
        ----------
        depth
            In how many pieces they could be cut.
        one
            Whether all planes of a group are as one.
        """
        groups = max(-(-outer // max(BAND // max(nbytes, 1), 1)), 1)
        fewest = max(outer // groups, 1)  # planes are dealt out evenly, so that all groups have the rows for a vector
        return cls(
            groups,
            min(max(nbytes // BAND, 1), depth),
            -(-outer // groups),
            max(min(fit, rows * (fewest if one else 1)), 1),
        )


@lru_cache(maxsize=RECENT)
def forward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """Outputs from cells."""
    program = forward_program(problem, dtype)
    d, h, w = program.axes
    margins, one = padded(program.axes), follow(program.axes)
    gap_h, gap_w = (max(axis.before, over(axis)) if margins else 0 for axis in (h, w))
    line = w.size + gap_w
    depth = 1 if margins else d.out
    cut = Cut.of(outer, h.out, moved(problem, dtype, margins), depth, lanes(dtype) // w.out, one)
    names = constants(problem, program) | {
        "K_D": d.kernel,
        "S_D": d.stride,
        "LANES": lanes(dtype),
        "ROWS": cut.rows,
        "RESULTS": w.out,
        "ACROSS": min(w.out, lanes(dtype)),
        "OUTPUTS": cut.rows * min(w.out, lanes(dtype)),
        "LINE": line,
        "APART": h.stride * line,
        "MARGINS": int(margins),
        "GAP_H": gap_h,
        "GAP_W": gap_w,
        "INTERLEAVED": int(from_memory(problem, outer, 1, dtype) and interleaves_prefetch()),
    }
    nan_safe = nan_safe_rows.bind(**nan_safe_rows.known(names), NAN_SAFE=1, nan_safe=never(nan_safe_rows)).noinline()
    kernel = forward_short.bind(**forward_short.known(names), NAN_SAFE=0, nan_safe=nan_safe)
    edge = lowest(dtype) if problem.op == "max" else dtype.type(0)
    beyond = 2 * lanes(dtype)
    room = (cut.most * d.size * (h.size + gap_h) + gap_h) * line + gap_w + beyond if margins else 0
    shape = (outer, cut.groups, cut.pieces, int(one), d.size, d.out, h.size, h.out, room)
    starts = np.zeros(h.out * w.out + beyond, tap_dtype(problem.window.n_taps))
    first = program.tables[0][0, 1] + program.tables[1][:, None, 1] + program.tables[2][:, 1]
    starts[: first.size] = first.reshape(-1)
    divisors = over_plane(program, problem.op == "avg", h.out, w.out, h.out, w.out)
    return Plan(kernel, (shape, edge, starts, divisors), cut.groups * cut.pieces, room, int(margins))


@lru_cache(maxsize=RECENT)
def backward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """Cells from outputs."""
    mirror = mirrored(problem, dtype)
    if mirror is not None:
        return forward_plan(mirror, outer, dtype)
    program = backward_program(problem, dtype)
    d, h, w = program.axes
    along, across = strides_of(w), strides_of(h)
    mean = problem.op == "avg"
    # What means are divided by differs where windows stick out: gradients are multiplied where they are copied.
    margins = along.gap > 0 or across.gap > 0 or (mean and padded(program.axes))
    one = follow(program.axes) and not margins
    depth = 1 if margins else d.size
    cut = Cut.of(outer, across.count, moved(problem, dtype, margins), depth, lanes(dtype) // along.pitch, one)
    across_vector = min(along.count, lanes(dtype))
    names = constants(problem, program) | {
        "LANES": lanes(dtype),
        "ROWS": cut.rows,
        "FEWER": cut.rows - 1,
        "STRIDES": along.count,
        "PITCH": along.pitch,
        "ACROSS": across_vector,
        "CELLS": across_vector * w.stride,
        "LAST": w.size - (along.count - across_vector) * w.stride,
        "READ": lanes(dtype) if margins else (cut.rows - 1) * along.pitch + across_vector,
        "MOST_D": int(program.tables[0][:, 2].max()),
        "MARGINS": int(margins),
        "TOP": across.before,
        "LEFT": along.before,
        "GAP_H": across.gap,
        "APART": h.stride * w.size,
        "RESULTS": w.out,
    }
    room = (cut.most * d.out * across.pitch + across.before) * along.pitch + along.before + 2 * lanes(dtype)
    room = room if margins else 0
    shape = (outer, cut.groups, cut.pieces, int(one), d.size, d.out, h.size, h.out, across.count, room)
    no_tap = np.iinfo(tap_dtype(problem.window.n_taps)).max
    factors = over_plane(program, mean, h.out, w.out, across.pitch, along.pitch)
    given = (shape, dtype.type(0), no_tap, factors, program.g)
    return Plan(backward_short.bind(**names), given, cut.groups * cut.pieces, room, room)


def mirrored(problem: Problem, dtype: np.dtype[Any]) -> Problem | None:
    """The means of gradients that are the gradients of means: where windows are a cell apart, and all divided by one number.

    These are added up along the other axes first, and took 0.6 to 0.8 of the time of a gather. As in the forward
    pass, a sum may overflow before it is divided.
    """
    axes = problem.window.affine
    if problem.op != "avg" or any(axis.stride > 1 or max(axis.before, axis.after) >= axis.kernel for axis in axes):
        return None
    divisors = np.unique(problem.divisors(np.float64))
    if len(divisors) > 1:
        return None
    turned = (Axis(a.out, a.kernel, 1, a.kernel - 1 - a.before, a.kernel - 1 - a.after) for a in axes)
    mirror = replace(problem, window=Window(tuple(turned)), divisor_override=int(divisors[0]))
    return mirror if short_fit(mirror, dtype) else None


def moved(problem: Problem, dtype: np.dtype[Any], margins: bool) -> int:
    """Bytes of the cells and the outputs of a plane; of copies too."""
    n = math.prod(problem.window.input_size) + math.prod(problem.window.output_size)
    return n * dtype.itemsize * (2 if margins else 1)


def over(axis: Axis) -> int:
    """How many cells its last window lacks after the data."""
    return max((axis.out - 1) * axis.stride + axis.span - axis.before - axis.size, 0)


def over_plane(program: Program, mean: bool, rows: int, line: int, rows_there: int, pitch: int) -> Array:
    """The divisors, or factors, of a plane's outputs, in rows of `pitch`."""
    g, factors = program.g, program.factors
    table = np.ones((rows_there, pitch), factors.dtype)
    if mean:
        of_d, of_h, of_w = (factors[g[i * FIELDS + FACTOR] :] for i in range(3))
        table[:rows, :line] = of_d[0] * of_h[:rows, None] * of_w[:line]
    return np.concatenate([table.reshape(-1), np.ones(ALIGNMENT, factors.dtype)])  # read beyond it are ones too


def constants(problem: Problem, program: Program) -> dict[str, int]:
    """What both passes are bound to."""
    found = {"MAX": int(problem.op == "max"), "SIZE_W": program.axes[2].size}
    for name, axis in zip("HW", program.axes[1:], strict=True):
        found |= {f"K_{name}": axis.kernel, f"S_{name}": axis.stride, f"BEFORE_{name}": axis.before}
    return found
