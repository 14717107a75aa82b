"""When rows are too short for a vector, and pooled several at a time (`short_rows.py`); what its kernels are bound to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pooling.axis import Axis
from pooling.backend import Array, Problem
from pooling.memory import ALIGNMENT
from pooling.simd.program import FACTOR, FIELDS, Program, backward_program, forward_program
from pooling.simd.rowplan import BAND, MOST_STRIDE, MOST_TAPS
from pooling.simd.schedule import Plan, shifts_of
from pooling.simd.short_back import backward_short
from pooling.simd.short_rows import careful_rows, forward_short, nothing
from pooling.simd.tiles import are_tiles
from pooling.simd.vectors import lanes
from pooling.taps import lowest, tap_dtype

USED = 0.8
"""Share of its lanes that a vector must use, in both passes, where windows are a cell apart. At 12 of 16 the backward pass of 3x3
windows took 1.4 to 1.7 times as long as with planes for lanes, and forward gained a quarter."""


def short_fit(problem: Problem, dtype: np.dtype[Any]) -> bool:
    """Whether rows are so short, and windows so small, that this is the faster way, for both passes.

    For floats alone, which networks are trained in: each length of a row asks for kernels of its own.
    """
    if not problem.window.slides or problem.ties in ("split", "all") or dtype not in (np.float32, np.float64):
        return False
    program = forward_program(problem, dtype)
    d, h, w = program.axes
    n = lanes(dtype)
    if min(d.out, h.out, w.out) < 1 or d.padded or max(h.stride, w.stride) > MOST_STRIDE:
        return False
    pitch = strides_of(w).pitch
    used = USED if w.stride == 1 < w.kernel else 0
    return (
        problem.window.n_taps <= (MOST_STRIDE**2 if are_tiles(program.axes) else MOST_TAPS)
        and max(w.out, pitch) <= n
        and all(n // each * each >= used * n for each in (w.out, pitch))
    )


@dataclass(frozen=True)
class Strides:
    """The strides of cells along an axis over which there are outputs, and how these are laid out for them.

    Parameters
    ----------
    count
        How many there are.
    before, gap
        Elements before the first output, and between the last one and the next row's first.
    pitch
        From one row to the next.
    """

    count: int
    before: int
    gap: int
    pitch: int


def strides_of(axis: Axis) -> Strides:
    reached = min((axis.out - 1) * axis.stride + axis.span - axis.before, axis.size)
    count = -(-reached // axis.stride)
    shifts = shifts_of(axis)
    before, after = max(-min(shifts), 0), max(count - 1 + max(shifts) - (axis.out - 1), 0)
    pitch = max(count, axis.out + max(before, after))
    return Strides(count, before, pitch - axis.out, pitch)


@dataclass(frozen=True)
class Cut:
    """How planes are taken: so many together as a unit, and so many of these as rows of one."""

    together: int
    run: int
    rows: int

    @classmethod
    def of(cls, outer: int, rows: int, plane: int, fit: int, one: bool) -> Cut:
        """For planes with so many `rows`, of `plane` bytes; `fit` rows in a vector; whether they follow as rows do (`one`)."""
        units = -(-outer // max(BAND // max(plane, 1), 1))
        together = max(
            -(-outer // max(units, 1)), 1
        )  # nearly as many in the last one, so that it has the rows for a vector
        last = outer - (max(outer, 1) - 1) // together * together
        run = together if one else 1
        return cls(together, run, max(min(fit, rows * (max(last, 1) if one else 1)), 1))


@lru_cache(maxsize=512)
def forward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """Outputs from cells."""
    program = forward_program(problem, dtype)
    d, h, w = program.axes
    margins = h.padded or w.padded
    gap_h, gap_w = (max(axis.before, over(axis)) if margins else 0 for axis in (h, w))
    line = w.size + gap_w
    alone = d.size == d.out == 1 and h.size == h.out * h.stride and not margins
    cut = Cut.of(outer, h.out, moved(problem, dtype, margins), lanes(dtype) // w.out, alone)
    names = constants(problem, program) | {
        "LANES": lanes(dtype),
        "ROWS": cut.rows,
        "RESULTS": w.out,
        "USED": cut.rows * w.out,
        "LINE": line,
        "APART": h.stride * line,
        "LAST": int(problem.op == "max" and problem.ties == "last"),
        "MARGINS": int(margins),
        "GAP_H": gap_h,
        "GAP_W": gap_w,
        "SIZE_W": w.size,
    }
    careful = careful_rows.over(**names, CAREFUL=1, careful=nothing).apart()
    kernel = forward_short.over(**names, CAREFUL=0, careful=careful)
    edge = lowest(dtype) if problem.op == "max" else dtype.type(0)
    beyond = 2 * lanes(dtype)
    room = ((cut.together * d.size * (h.size + gap_h) + gap_h) * line + gap_w if margins else 0) + beyond
    shape = (outer, cut.together, cut.run, d.size, d.out, h.size, h.out, room)
    starts = np.zeros(h.out * w.out + beyond, tap_dtype(problem.window.n_taps))
    starts[: h.out * w.out] = (
        program.tables[0][0, 1] + program.tables[1][:, None, 1] + program.tables[2][:, 1]
    ).reshape(-1)
    divisors = over_plane(program, problem.op == "avg", h.out, w.out, h.out, w.out)
    units = -(-outer // cut.together)
    return Plan(kernel, (shape, edge, starts, divisors), units, room, 1)


@lru_cache(maxsize=512)
def backward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """Cells from outputs."""
    program = backward_program(problem, dtype)
    d, h, w = program.axes
    along, across = strides_of(w), strides_of(h)
    # What means are divided by differs where windows stick out: gradients are multiplied where they are copied.
    margins = along.gap > 0 or across.gap > 0 or (problem.op == "avg" and (h.padded or w.padded))
    alone = d.size == d.out == 1 and h.size == h.out * h.stride and not margins
    cut = Cut.of(outer, across.count, moved(problem, dtype, margins), lanes(dtype) // along.pitch, alone)
    names = constants(problem, program) | {
        "LANES": lanes(dtype),
        "ROWS": cut.rows,
        "FEWER": cut.rows - 1,
        "STRIDES": along.count,
        "PITCH": along.pitch,
        "USED": lanes(dtype) if margins else cut.rows * along.pitch,
        "MOST_D": int(program.tables[0][:, 2].max()),
        "MARGINS": int(margins),
        "TOP": across.before,
        "LEFT": along.before,
        "GAP_H": across.gap,
        "SIZE_W": w.size,
        "APART": h.stride * w.size,
        "RESULTS": w.out,
    }
    room = (cut.together * d.out * across.pitch + across.before) * along.pitch if margins else 0
    room += along.before + 2 * lanes(dtype)
    shape = (outer, cut.together, cut.run, d.size, d.out, h.size, h.out, across.count, room)
    nobody = np.iinfo(tap_dtype(problem.window.n_taps)).max
    factors = over_plane(program, problem.op == "avg", h.out, w.out, across.pitch, along.pitch)
    given = (shape, dtype.type(0), nobody, factors, program.g)
    return Plan(backward_short.over(**names), given, -(-outer // cut.together), room, room)


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
    found = {"MAX": int(problem.op == "max")}
    for name, axis in zip("DHW", program.axes, strict=True):
        found |= {f"K_{name}": axis.kernel, f"S_{name}": axis.stride, f"D_{name}": axis.dilation}
        found[f"BEFORE_{name}"] = axis.before
    return found
