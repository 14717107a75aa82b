"""A pass with all that it needs beside its arrays: a kernel, its tables, units of work, and room for what stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from pooling.backend import Array
from pooling.jit import Kernel
from pooling.memory import ALIGNMENT
from pooling.simd.channels import lanes_of
from pooling.simd.program import Program
from pooling.simd.schedule import Plan, bands, chain_pixels, scan_vectors
from pooling.taps import wide
from pooling.threads import UNSHARED, is_small, scratch, share


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """A pass with all that it needs beside its arrays.

    Parameters
    ----------
    kernel
        One of `simd/passes.py`, or what plans a pass over planes as they lie gave.
    given
        Its arguments between the arrays and the buffers.
    units
        How many units of work there are.
    elements, tap_elements
        Sizes of the buffers for values and for taps.
    """

    kernel: Kernel[..., None]
    given: tuple[Any, ...]
    units: int
    elements: int
    tap_elements: int
    call: Any = field(init=False)

    def __post_init__(self) -> None:
        """Threads draw their units from the kernel, in the form that is called fastest."""
        from pooling.simd.tickets import draw

        object.__setattr__(self, "call", draw.over(body=self.kernel.apart()).compiled())

    def run(self, source: Array, target: Array, taps: Array | None, *more: Array) -> None:
        """Do it. `more` are arrays that the kernel takes after the taps."""
        dtype = target.dtype
        if dtype.char == "e":
            from pooling.simd.vectors import HALF

            dtype = wide(dtype)
            source, target, more = source.view(HALF), target.view(HALF), tuple(array.view(HALF) for array in more)
        # Small work is done before Python has reshaped three arrays: ravel does it in half the time.
        a, b = source.ravel(), target.ravel()
        won = None if taps is None else taps.ravel()
        rest = (*[array.ravel() for array in more], *self.given) if more else self.given

        def take(tickets: Array, grain: int, most: int, box: Array) -> None:
            v = scratch(self.elements * (most or 1), dtype, 0)
            t = None if won is None else scratch(self.tap_elements * (most or 1), won.dtype, 1)
            sizes = self.elements, self.tap_elements
            self.call(box, tickets, self.units, grain, most, *sizes, v, t, a, b, won, *rest)

        nbytes = max(a.nbytes, b.nbytes)
        if is_small(self.units, nbytes):
            take(UNSHARED, self.units, 0, UNSHARED)
        else:
            share(take, self.units, nbytes, helper())


@cache
def helper() -> Any:
    """What helpers do while they wait for work."""
    from pooling.simd.tickets import attend

    return attend.compiled()


def planned(plan: Plan) -> Job:
    """The job of a kernel that comes with all it needs."""
    return Job(plan.kernel, plan.given, plan.units, in_lines(plan.elements), in_lines(plan.tap_elements))


def cut(
    kernel: Any,
    program: Program,
    outer: int,
    inner: int,
    dtype: np.dtype[Any],
    between: bool,
    whole_strides: bool = False,
) -> Job:
    """The job of a kernel that goes band by band, over blocks of planes or over items.

    Parameters
    ----------
    between
        Whether there are passes along axes, with buffers between them.
    whole_strides
        Whether bands may be cut only where a stride ends.
    """
    lanes = lanes_of(dtype)
    pixel = lanes if inner == 1 else inner

    def elements(cells: int, results: int) -> int:
        turned = (max(cells, 1) * program.slab + results * program.out_slab) * lanes if inner == 1 else 0
        return turned + (
            chain_pixels(program, cells, results) * pixel + scan_vectors(program) * lanes if between else 0
        )

    def moved(cells: int, results: int) -> int:
        return 0 if inner == 1 else max(cells * program.slab, results * program.out_slab) * inner

    rows = bands(program, lambda c, r: max(elements(c, r), moved(c, r)) * wide(dtype).itemsize, whole_strides)
    # What cells reach may be wider than the band itself; a scatter needs room for all of it.
    most = max(
        elements(high - low, stop - first) + max(reach_high - reach_low - stop + first, 0) * program.out_slab * lanes
        for first, stop, low, high, reach_low, reach_high in rows.tolist()
    )
    most_taps = (
        max(elements(high - low, stop - first) for first, stop, low, high, _, _ in rows.tolist()) if between else 1
    )
    units = (-(-outer // lanes) if inner == 1 else outer) * len(rows)
    given = (outer if inner == 1 else inner, program.g, program.factors, rows, program.where)
    return Job(kernel, given, units, in_lines(max(most, lanes)), in_lines(max(most_taps, lanes)))


def in_lines(n: int) -> int:
    """At least `n` elements that fill cache lines: each thread's share of a buffer begins with one."""
    return -(-n // ALIGNMENT) * ALIGNMENT
