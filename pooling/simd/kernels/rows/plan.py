"""When rows are pooled as they lie in memory (`forward.py`), and what the kernels are bound to."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from pooling.geometry.argmax_rules import lowest, tap_dtype
from pooling.geometry.problem import Problem
from pooling.runtime.jit import Kernel, never
from pooling.simd.kernels.disjoint import are_disjoint
from pooling.simd.kernels.rows.backward import exact_row, spread_rows
from pooling.simd.kernels.rows.forward import forward_rows, nan_safe_run
from pooling.simd.memory.prefetch import from_memory, interleaves_prefetch
from pooling.simd.plan.cache_blocking import Plan, bands, shifts_of
from pooling.simd.plan.geometry import RECENT, Program, backward_program, forward_program
from pooling.simd.vector.mask import has_masks
from pooling.simd.vector.ops import lanes

MOST_TAPS = 9
"""Taps up to which each is looked at where windows overlap; beyond, what rows share makes a pass per axis cheaper."""

MOST_STRIDE = 4
"""Stride along a row up to which shuffles are cheaper than turning planes into lanes; windows side by side may be as long."""

FEWEST, FEWEST_STEPPED = 24, 8
"""Outputs that a row must have, with stride 1 and with more. 3x3 windows with stride 1 took as long either way at 14 outputs."""

USED = 2 / 3
"""Share of its lanes that a vector must use. At 10 of 16 a training step took 1.05 to 1.25 times as long, at 12 of 16 0.9."""

LONGEST = 1 << 14
"""Cells of a row that lies alone: one dimension's bands would have to cut it."""

BAND = 3 << 13
"""Bytes of rows that are copied, or moved, at a time: half of a common L1 cache."""


def rows_fit(problem: Problem, dtype: np.dtype[Any]) -> bool:
    """Whether rows are long enough, and windows small enough, for both passes."""
    if not problem.window.slides or problem.ties in ("split", "all") or dtype == np.float16:
        return False
    program = forward_program(problem, dtype)
    w = program.axes[2]
    vector, longer, _ = wide(max(w.out, 1), dtype)
    fewest = FEWEST if w.stride == 1 < w.kernel else FEWEST_STEPPED
    return (
        problem.window.n_taps <= (MOST_STRIDE**2 if are_disjoint(program.axes) else MOST_TAPS)
        and w.stride <= MOST_STRIDE
        and min(w.out, w.size // w.stride) >= fewest
        and (not longer or w.out >= USED * vector)
        and (program.band_axis < 2 or w.size <= LONGEST)
    )


def wide(n: int, dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """Lanes for rows of `n`: of the widest vector, whether it is longer than the row, and of the widest that isn't."""
    fills = min(lanes(dtype), 1 << (n.bit_length() - 1))
    over = n < lanes(dtype) and fills < n
    return (2 * fills if over else fills), int(over), fills


def in_vectors(left: int, n: int, right: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Margins at least so wide that rows of `n` between them, and what comes after, start where a vector does.

    Stores across cache lines took twice the time of the pooling itself.
    """
    unit = lanes(dtype)
    left = -(-left // unit) * unit
    return left, -(-(left + n + right) // unit) * unit - left - n


@lru_cache(maxsize=RECENT)
def forward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """Outputs from cells."""
    program = forward_program(problem, dtype)
    w = program.axes[2]
    left, right = w.before, max((w.out - 1) * w.stride + w.span - w.before - w.size, 0)
    outside = left > 0 or right > 0
    overlap = problem.window.n_taps > math.prod(axis.stride for axis in program.axes)
    within = outside and has_masks()
    margins = outside and not within
    left, right = in_vectors(left, w.size, right, dtype) if margins else (0, 0)
    pitch = left + w.size + right
    over, longer, fills = wide(w.out, dtype)
    last = problem.op == "max" and problem.ties == "last"
    names = constants(problem, program) | {
        "BEFORE": w.before,
        "LAST": int(last),
        "MARGINS": int(margins),
        "WITHIN": int(within),
    }
    d, h, _ = program.axes
    names |= {"NEW_D": min(d.stride, d.kernel), "NEW_H": min(h.stride, h.kernel)}
    # Overlapping windows read several rows at a time; interleaving their prefetch was slower (docs/experiments.md, prefetch).
    turns = not outside and not overlap and interleaves_prefetch() and from_memory(problem, outer, 1, dtype)
    names["INTERLEAVED"] = int(turns)
    nan_safe = nan_safe_run.bind(
        **nan_safe_run.known(names), LANES=fills, OVER=0, NAN_SAFE=1, nan_safe=never(nan_safe_run)
    )
    kernel = forward_rows.bind(
        **forward_rows.known(names), LANES=over, OVER=longer, NAN_SAFE=int(dtype.kind != "f"), nan_safe=nan_safe
    )
    edge = lowest(dtype) if problem.op == "max" else dtype.type(0)

    def copied(cells: int) -> int:
        return cells * program.slab // w.size * pitch if margins else 0

    taps = w.out if outside else 0
    return planned(kernel, program, outer, dtype, copied, lambda room: ((left, right, outer, room), edge), taps)


@lru_cache(maxsize=RECENT)
def backward_plan(problem: Problem, outer: int, dtype: np.dtype[Any]) -> Plan:
    """Cells from outputs."""
    program = backward_program(problem, dtype)
    w = program.axes[2]
    strides = -(-w.size // w.stride)
    shifts = shifts_of(w)
    left, right = max(-min(shifts), 0), max(strides - 1 + max(shifts) - (w.out - 1), 0)
    # What means are divided by differs where windows stick out.
    uneven = problem.op == "avg" and not program.uniform
    outside = left > 0 or right > 0
    within = outside and has_masks() and not uneven
    margins = uneven or (outside and not within)
    left, right = in_vectors(left, w.out, right, dtype) if margins else (0, 0)
    pitch = left + w.out + right
    n, longer, _ = wide(strides, dtype)
    _, _, fills = wide(w.size // w.stride, dtype)
    longer = longer or w.size % w.stride > 0
    most = {f"MOST_{name}": int(program.tables[i][:, 2].max()) for i, name in enumerate("DH")}
    kernel = spread_rows.bind(
        **spread_rows.known(constants(problem, program)),
        **most,
        BEFORE=w.before,
        LANES=n,
        OVER=int(longer),
        exact_row=exact_row.bind(LANES=fills),
        MARGINS=int(margins),
        WITHIN=int(within),
    )
    no_tap = np.iinfo(tap_dtype(problem.window.n_taps)).max

    def copied(outputs: int) -> int:
        return outputs * program.slab // w.out * pitch if margins else 0

    def given(room: int) -> tuple[Any, ...]:
        return (left, right, outer, room), dtype.type(0), no_tap

    return planned(kernel, program, outer, dtype, copied, given)


def constants(problem: Problem, program: Program) -> dict[str, int]:
    """What both passes are bound to."""
    found = {"MAX": int(problem.op == "max")}
    for name, axis in zip("DHW", program.axes, strict=True):
        found |= {f"K_{name}": axis.kernel, f"S_{name}": axis.stride, f"D_{name}": axis.dilation}
    return found


def planned(
    kernel: Kernel[..., None],
    program: Program,
    outer: int,
    dtype: np.dtype[Any],
    copied: Callable[[int], int],
    given: Callable[[int], tuple[Any, ...]],
    taps: int = 0,
) -> Plan:
    """Cut into bands, and find room for the largest.

    Parameters
    ----------
    copied
        How many elements of the buffer the copies of so many cells along the band axis take.
    given
        The kernel's first arguments, by the most that any band takes.
    taps
        Elements that the buffer for taps has at least.
    """
    moved = max(program.slab, program.out_slab)
    rows = bands(program, lambda cells, n: max(copied(cells), moved * n) * dtype.itemsize, limit=BAND)
    if program.band_axis == 2:  # a row is not cut
        rows = np.array([[0, program.out[2], 0, program.size[2], 0, 0]], np.int64)
    room = max(copied(max(high - low, 1)) for _, _, low, high, *_ in rows.tolist())
    arguments = (*given(room), program.g, program.factors, rows, program.where)
    if not room and not taps:  # where there are margins, a band may have no cell, and a row is copied all the same
        return Plan(kernel, arguments, outer * len(rows), 0, 0)
    beyond = 8 * lanes(dtype)  # a vector longer than its row reads on
    return Plan(kernel, arguments, outer * len(rows), room + beyond, max(room, taps) + beyond)
