"""A job: a compiled pass with what it needs beside its arrays: tables, units of work, and buffers that stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from pooling.errors import UnsupportedError
from pooling.geometry.argmax_rules import wide
from pooling.geometry.problem import Array
from pooling.parallel.pool import NEXT, PARTS, UNSHARED, is_small, scratch, share
from pooling.runtime.availability import DISABLED, disabled
from pooling.runtime.buffer_pool import ALIGNMENT
from pooling.runtime.jit import Kernel
from pooling.simd.plan.cache_blocking import Plan, bands, chain_pixels, scan_vectors
from pooling.simd.plan.channel_folding import lanes_of
from pooling.simd.plan.geometry import Program


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """A pass with all that it needs beside its arrays.

    Parameters
    ----------
    kernel
        One of `simd/kernels/drivers.py`, or what plans a pass over planes as they lie gave.
    given
        Its arguments between the arrays and the buffers.
    units
        How many units of work there are.
    elements, tap_elements
        Sizes of the buffers for values and for taps that each thread needs; both are 0, or none is.
    ready
        The prepared work queue and its function, by the dtype of taps, once it has been run.
    """

    kernel: Kernel[..., None]
    given: tuple[Any, ...]
    units: int
    elements: int
    tap_elements: int
    ready: dict[int, tuple[Array, int]] = field(
        init=False, default_factory=dict
    )  # each job's own, when it is replaced, too
    prepare: Any = field(init=False)
    run_shared: Any = field(init=False)

    def __post_init__(self) -> None:
        """Kernels in the form that is called fastest.

        Raises
        ------
        UnsupportedError
            NUMBA_DISABLE_JIT was set after the backend had been chosen: between forward and backward, say.
        """
        if disabled():
            raise UnsupportedError(f"backend 'simd' can't run as Python: {DISABLED}; unset it, or use another backend")
        from pooling.parallel.work_queue import prepare, run_shared

        object.__setattr__(self, "prepare", prepare.bind(body=self.kernel.noinline()).compiled())
        object.__setattr__(self, "run_shared", run_shared.compiled())

    def run(self, source: Array, target: Array, taps: Array | None, *more: Array) -> int:
        """Do it. `more` are arrays that the kernel takes after the taps. Not 0 where some sum may have overflowed."""
        dtype = target.dtype
        if dtype.char == "e":
            from pooling.simd.vector.ops import HALF

            dtype = wide(dtype)
            source, target, more = source.view(HALF), target.view(HALF), tuple(array.view(HALF) for array in more)
        # Small work is done before Python has reshaped three arrays: ravel does it in half the time.
        a, b = source.ravel(), target.ravel()
        won = None if taps is None else taps.ravel()
        of_taps = -1 if won is None else won.dtype.num
        ready = None if more else self.ready.get(of_taps)
        if ready is None:
            v, t = self.room(1, dtype, a, won)
            rest = [*[array.ravel() for array in more], *self.given]
            queue = np.zeros(NEXT + 8 * PARTS, np.int64)
            sizes = self.units, self.elements, self.tap_elements
            ready = queue, self.prepare(queue, *sizes, a, b, v, won, t, *rest)
            if not more:
                self.ready[of_taps] = ready

        queue, function = ready
        nbytes = max(a.nbytes, b.nbytes)
        if is_small(self.units, nbytes):
            v, t = self.room(1, dtype, a, won) if self.elements else (a, won)
            return self.run_shared(UNSHARED, queue.copy(), function, self.units, 0, 0, a, b, v, won, t)
        overflowed = 0

        def take(grain: int, most: int, box: Array) -> None:
            nonlocal overflowed
            v, t = self.room(most or 1, dtype, a, won)
            own = queue.copy() if most <= PARTS else np.resize(queue, NEXT + 8 * most)
            overflowed = self.run_shared(box, own, function, self.units, grain, most, a, b, v, won, t)

        share(take, self.units, nbytes, helper())
        return overflowed

    def room(self, threads: int, dtype: np.dtype[Any], a: Array, won: Array | None) -> tuple[Array, Array | None]:
        """Buffers for so many threads. Where none is needed, another array stands for it."""
        if not self.elements:
            return a, won
        v = scratch(self.elements * threads, dtype, 0)
        return v, None if won is None else scratch(self.tap_elements * threads, won.dtype, 1)


@cache
def helper() -> Any:
    """What helpers do while they wait for work."""
    from pooling.parallel.work_queue import wait_for_work

    return wait_for_work.compiled()


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
    again: bool = False,
    wide_sums: bool = False,
) -> Job:
    """The job of a kernel that goes band by band, over blocks of planes or over items.

    Parameters
    ----------
    between
        Whether there are passes along axes, with buffers between them.
    whole_strides
        Whether bands may be cut only where a stride ends.
    again
        Whether a band costs what it reads, and not what it results in; with passes along axes it does.
    wide_sums
        Whether what cells reach is added up in elements of twice the size.
    """
    lanes = lanes_of(dtype)
    pixel = lanes if inner == 1 else inner

    def elements(cells: int, results: int) -> int:
        turned = (max(cells, 1) * program.slab + results * program.out_slab) * lanes if inner == 1 else 0
        return turned + (
            chain_pixels(program, cells, results) * pixel + scan_vectors(program, cells) * lanes if between else 0
        )

    def moved(cells: int, results: int) -> int:
        return 0 if inner == 1 else max(cells * program.slab, results * program.out_slab) * inner

    blocks = -(-outer // lanes) if inner == 1 else outer
    wide_from = (2 if blocks == 1 else 1) if between or again else None
    rows = bands(
        program,
        lambda c, r: max(elements(c, r), moved(c, r)) * wide(dtype).itemsize,
        whole_strides,
        wide_from=wide_from,
    )
    most = most_taps = 0
    if inner == 1 or between:
        # What cells reach may be wider than the band itself; a scatter needs room for all of it.
        most = max(
            elements(high - low, stop - first)
            + max(reach_high - reach_low - stop + first, 0) * program.out_slab * lanes
            + wide_sums * max(reach_high - reach_low, 0) * program.out_slab * lanes
            for first, stop, low, high, reach_low, reach_high in rows.tolist()
        )
        most_taps = 1
    if between:
        most_taps = max(elements(high - low, stop - first) for first, stop, low, high, _, _ in rows.tolist())
    given = (outer if inner == 1 else inner, program.g, program.factors, rows, program.where)
    return Job(kernel, given, blocks * len(rows), in_lines(most), in_lines(most_taps))


def in_lines(n: int) -> int:
    """At least `n` elements that fill cache lines: each thread's share of a buffer begins with one."""
    return -(-n // ALIGNMENT) * ALIGNMENT
