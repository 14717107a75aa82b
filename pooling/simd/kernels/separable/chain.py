"""Any window: one pass per axis, the last axis first, through buffers that stay in the cache."""

from __future__ import annotations

from typing import Any

from pooling.geometry.argmax_rules import SUM_BLOCK
from pooling.runtime.jit import Kernel, kernel, never
from pooling.simd.kernels.separable import van_herk
from pooling.simd.kernels.separable.axis import fold, read_axis
from pooling.simd.plan.box import D_FIRST, D_LOW, D_N, D_STOP, H_FIRST, H_N, H_STOP, W_FIRST, W_N, W_STOP
from pooling.simd.plan.geometry import FACTOR, FIELDS, SCAN, Program

UNROLLED = 8
"""Cells up to which a full window's run is unrolled."""

# Bound when a chain is made: the axes, in the order of the passes, and a pass for each.
AXIS_1, AXIS_2, AXIS_3 = 2, 1, 0
pass_1: Any = read_axis
pass_2: Any = read_axis
pass_3: Any = read_axis


@kernel
def shape_at(box: Any, axis: int, inner: int) -> Any:
    """(outer, n, run) of what the pass along `axis` reads: axes before it are not yet reduced, those after it are."""
    d_n, h_n, w_n = box[D_N], box[H_N], box[W_N]
    if axis == 2:
        return d_n * h_n, w_n, inner
    if axis == 1:
        return d_n, h_n, (box[W_STOP] - box[W_FIRST]) * inner
    return 1, d_n, (box[H_STOP] - box[H_FIRST]) * (box[W_STOP] - box[W_FIRST]) * inner


@kernel
def chain_1(
    x: Any,
    x0: int,
    y: Any,
    y0: int,
    won: Any,
    t0: int,
    inner: int,
    g: Any,
    factors: Any,
    box: Any,
    v: Any,
    v0: int,
    t: Any,
) -> None:
    outer, n, run = shape_at(box, AXIS_1, inner)
    first, stop, shift = box[D_FIRST + 2 * AXIS_1], box[D_STOP + 2 * AXIS_1], box[D_LOW + AXIS_1]
    pass_1(x, x0, won, 0, y, y0, won, t0, outer, n, run, g, AXIS_1 * FIELDS, first, stop, shift, factors, v, v0, t, 0)


@kernel
def chain_2(
    x: Any,
    x0: int,
    y: Any,
    y0: int,
    won: Any,
    t0: int,
    inner: int,
    g: Any,
    factors: Any,
    box: Any,
    v: Any,
    v0: int,
    t: Any,
) -> None:
    outer, n, run = shape_at(box, AXIS_1, inner)
    first, stop, shift = box[D_FIRST + 2 * AXIS_1], box[D_STOP + 2 * AXIS_1], box[D_LOW + AXIS_1]
    size = outer * (stop - first) * run
    pass_1(
        x, x0, t, 0, v, v0, t, 0, outer, n, run, g, AXIS_1 * FIELDS, first, stop, shift, factors, v, v0 + size, t, size
    )
    outer, n, run = shape_at(box, AXIS_2, inner)
    first, stop, shift = box[D_FIRST + 2 * AXIS_2], box[D_STOP + 2 * AXIS_2], box[D_LOW + AXIS_2]
    pass_2(
        v,
        v0,
        t,
        0,
        y,
        y0,
        won,
        t0,
        outer,
        n,
        run,
        g,
        AXIS_2 * FIELDS,
        first,
        stop,
        shift,
        factors,
        v,
        v0 + size,
        t,
        size,
    )


@kernel
def chain_3(
    x: Any,
    x0: int,
    y: Any,
    y0: int,
    won: Any,
    t0: int,
    inner: int,
    g: Any,
    factors: Any,
    box: Any,
    v: Any,
    v0: int,
    t: Any,
) -> None:
    outer, n, run = shape_at(box, AXIS_1, inner)
    first, stop, shift = box[D_FIRST + 2 * AXIS_1], box[D_STOP + 2 * AXIS_1], box[D_LOW + AXIS_1]
    size = outer * (stop - first) * run
    pass_1(
        x, x0, t, 0, v, v0, t, 0, outer, n, run, g, AXIS_1 * FIELDS, first, stop, shift, factors, v, v0 + size, t, size
    )
    outer, n, run = shape_at(box, AXIS_2, inner)
    first, stop, shift = box[D_FIRST + 2 * AXIS_2], box[D_STOP + 2 * AXIS_2], box[D_LOW + AXIS_2]
    both = size + outer * (stop - first) * run
    pass_2(
        v,
        v0,
        t,
        0,
        v,
        v0 + size,
        t,
        size,
        outer,
        n,
        run,
        g,
        AXIS_2 * FIELDS,
        first,
        stop,
        shift,
        factors,
        v,
        v0 + both,
        t,
        both,
    )
    outer, n, run = shape_at(box, AXIS_3, inner)
    first, stop, shift = box[D_FIRST + 2 * AXIS_3], box[D_STOP + 2 * AXIS_3], box[D_LOW + AXIS_3]
    pass_3(
        v, v0 + size, t, size, y, y0, won, t0, outer, n, run, g, AXIS_3 * FIELDS, first, stop, shift, factors, v, v0 + both,
        t, both,
    )  # fmt: skip


def chain(
    program: Program, counts: tuple[int, ...], in_lanes: bool, floats: bool = False, **bound: int
) -> Kernel[..., Any]:
    """The passes along the program's busy axes, one after the other, made for full windows of `counts` cells.

    Parameters
    ----------
    in_lanes
        Whether a pixel is one vector.
    floats
        Whether NaNs are possible: maxima are then computed without handling them, and once more where one is detected.
    bound
        Of MAX, LAST, BEFORE and AFTER what isn't as in `kernels/separable/axis.py`. Only axes with divisors divide.
    """
    names: dict[str, Any] = {}
    for i, axis in enumerate(program.passes, start=1):
        scanned = program.g[axis * FIELDS + SCAN] > 0
        count = counts[axis] if counts[axis] <= UNROLLED and not scanned else 0
        vector = int(in_lanes and axis == 2)
        names[f"AXIS_{i}"] = axis
        divisors = program.factors[program.g[axis * FIELDS + FACTOR] :][: program.out[axis]]
        regions = not program.axes[axis].slides  # one kernel serves all
        own = bound | {"AFTER": int(bool(bound.get("AFTER")) and (regions or (divisors != 1).any()))}
        long = not bound.get("MAX") and (regions or program.tables[axis][:, 2].max(initial=0) > SUM_BLOCK)
        made = {"TAPPED": int(i > 1), "VECTOR": vector, "LONG": int(long)}
        one = (van_herk.scan_axis if scanned else read_axis.bind(COUNT=count)).bind(**made, **own)
        again = van_herk.scan_lines if scanned else fold
        unused = never(again)
        if not floats:
            one = one.bind(nan_safe=unused)
        else:
            again = again.bind(nan_safe=unused)
            parameters = again.known({"NAN_SAFE": 1, "STREAM": 0, **made, **bound})
            one = one.bind(NAN_SAFE=0, nan_safe=again.bind(**parameters).noinline())
        if i < len(program.passes) and one.mentions("STREAM"):
            one = one.bind(STREAM=0)  # what is in the buffers is read at once
        names[f"pass_{i}"] = one
    return (chain_1, chain_2, chain_3)[len(program.passes) - 1].bind(**names)
