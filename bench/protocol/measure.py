"""Honest timing: prove it, warm it up, then take turns.

1. Wrong results never get a time. On a small cut of the workload each contender's maxima are compared with `reference`, whose
   loops would take minutes on the whole; on the whole with a second backend that has passed the same. Means are compared with
   sums in a wider type (:mod:`bench.protocol.exact`), on both.
2. The calls that prove it also compile it, and say how long a call takes.
3. Contenders take turns in rounds, in an order drawn anew each round, so that a busy moment of the machine, or a cache
   full of somebody else's data, hits all of them. A sample is as many calls as a clock can measure well.
4. What counts is the median; the quartiles tell how far to trust it.

A contender that needs much of the time budget gets fewer rounds, and one that would need more than the limit for a single
call is left out with the estimate as the reason.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import pooling
from bench.protocol import exact
from bench.protocol.contenders import Arrays, Calls, Contender
from bench.schema.results import LeftOut, Stage, Timing
from bench.schema.workloads import DIRECTIONS, Direction, Workload
from pooling.parallel.pool import using_threads

Array = NDArray[Any]
Progress = Callable[[float], None]

WITNESSES = ("strided_slices", "numba_loops")
"""Backends whose results on a whole workload the others are compared with; the first that isn't the contender itself."""

SAMPLE_S = 5e-4
"""Least duration of a sample: ten thousand times what the clock resolves."""

SETTLE_S = 0.01
"""How long a turn goes on untimed where frameworks take part, until the threads of the one before have stopped spinning."""

PARTS = 16
LARGEST_PART = 1 << 22
"""By how many a workload is divided to estimate its time; by more where the part's input would have more bytes than that."""

MORE_TRIES = 8
HOPELESS = 10
"""Tries for a contender whose estimate is over the limit, but by less than this factor."""

ULPS = 64
"""Means may differ from the exact ones by this many units in the last place of the mean of the cells' absolute values."""


class WrongResult(AssertionError):
    """A contender computed something else than the reference; the message tells where and what."""


@dataclass(frozen=True)
class Patience:
    """How long to measure.

    Parameters
    ----------
    budget_s
        Seconds for the rounds of one workload, all contenders and directions together.
    limit_s
        A contender that would take longer for a training step is left out.
    rounds
        Least and largest number of samples of each call.
    """

    budget_s: float
    limit_s: float
    rounds: tuple[int, int] = (3, 41)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """The same number of threads for everybody: this library, BLAS, OpenMP."""
    with using_threads(threads), threadpool_limits(threads):
        yield


def measure(
    workload: Workload,
    contenders: Sequence[Contender],
    patience: Patience,
    *,
    threads: int,
    stage: Stage = "workloads",
    directions: Sequence[Direction] = DIRECTIONS,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> list[Timing | LeftOut]:
    """Prove and time `contenders` at `workload`; one row each per direction, or one that says why not.

    Parameters
    ----------
    progress
        Called with the part that is done, from 0 to 1.
    """
    return measure_together(
        [workload],
        contenders,
        patience,
        threads=threads,
        stage=stage,
        directions=directions,
        seed=seed,
        progress=progress,
    )


def measure_together(
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    patience: Patience,
    *,
    threads: int,
    stage: Stage,
    directions: Sequence[Direction] = DIRECTIONS,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> list[Timing | LeftOut]:
    """The same, with the calls of all `workloads` taking turns: for ratios between workloads, which a drift would spoil."""
    left_out: list[LeftOut] = []
    calls: dict[tuple[Workload, Contender, Direction], Callable[[], object]] = {}
    proofs = {}
    pairs = [(workload, contender) for workload in workloads for contender in contenders]
    with pinned(threads):
        arrays = {workload: Arrays.of(workload) for workload in workloads}
        for i, (workload, contender) in enumerate(pairs):
            progress(0.5 * i / len(pairs))
            found = proven(workload, contender, patience, arrays[workload], stage)
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            proofs[workload, contender], bound = found
            calls |= {(workload, contender, d): bound[d] for d in directions if d in bound}
        owners = [key[:2] for key in calls] if any(c.kind == "peer" for _, c, _ in calls) else ()
        samples = take_turns(list(calls.values()), patience, seed, lambda done: progress(0.5 + 0.5 * done), owners)
    rows: list[Timing | LeftOut] = [
        timing(stage, workload, contender, direction, threads, seconds, n, proofs[workload, contender])
        for (workload, contender, direction), (seconds, n) in zip(calls, samples, strict=True)
    ]
    return rows + left_out


def proven(
    workload: Workload, contender: Contender, patience: Patience, arrays: Arrays, stage: Stage
) -> tuple[str, Calls] | LeftOut:
    """What proves a contender and its calls, or why it is left out."""

    def leave_out(reason: str, wrong: bool = False) -> LeftOut:
        return LeftOut(stage, workload.id, contender.name, reason, wrong)

    reason = contender.why_not(workload)
    if reason is not None:
        return leave_out(reason)
    try:
        prove_small(contender, workload)
        expected_s = estimate_s(contender, workload, patience.limit_s)
        if expected_s > patience.limit_s:
            return leave_out(f"about {expected_s:.2g} s a training step: over the limit of {patience.limit_s:g} s")
        return prove_whole(contender, workload, arrays)
    except WrongResult as error:
        return leave_out(str(error), wrong=True)


def timing(
    stage: Stage,
    workload: Workload,
    contender: Contender,
    direction: Direction,
    threads: int,
    seconds: list[float],
    calls: int,
    proof: str,
) -> Timing:
    """The row of what :func:`take_turns` gives: samples, and the calls in each."""
    fastest, q1, median, q3 = (float(f"{s:.5g}") for s in np.quantile(seconds, (0, 0.25, 0.5, 0.75)))
    ties = contender.ties if workload.op == "max" else None
    moved = workload.bytes_moved(direction)
    return Timing(
        stage=stage,
        workload=workload.id,
        direction=direction,
        contender=contender.name,
        kind=contender.kind,
        ties=ties,
        threads=threads,
        median_s=median,
        q1_s=q1,
        q3_s=q3,
        fastest_s=fastest,
        samples=len(seconds),
        calls=calls,
        bytes_moved=moved,
        reuses_outputs=contender.reuses_outputs,
        proof=proof,
    )


@dataclass(frozen=True)
class Truth:
    """What `by` says the results are; of means also the sizes that their errors are measured by."""

    y: Array
    dx: Array
    by: str
    y_size: Array | None = None
    dx_size: Array | None = None

    @classmethod
    def of_means(cls, workload: Workload, arrays: Arrays) -> Truth:
        """From sums in a wider type."""
        x, dy = arrays.x, arrays.dy
        y, dx = exact.means(workload, x), exact.gradients(workload, dy)
        y_size = y if x.min(initial=0) >= 0 else exact.means(workload, np.abs(x))
        return cls(y, dx, "the exact sum", y_size, exact.gradients(workload, np.abs(dy)))


def prove_small(contender: Contender, workload: Workload) -> None:
    """Compare with the reference, or the exact means, on a small cut."""
    small = workload.small()
    arrays = Arrays.of(small)
    if workload.op == "avg":
        truth = Truth.of_means(small, arrays)
    else:
        reference = small.operator("reference", contender.ties)
        y, saved = reference.forward(arrays.x)
        truth = Truth(y, reference.backward(arrays.dy, saved), "reference")
    results_of(contender, small, arrays, truth)


def estimate_s(contender: Contender, workload: Workload, limit_s: float = math.inf) -> float:
    """Seconds a training step of the whole would take, from one on a part of its planes.

    Who comes out a little over `limit_s` gets more tries: threads that had to wait once would leave the strongest out.
    """
    part = workload.part(max(PARTS, workload.nbytes // LARGEST_PART))
    calls = contender.bind(part, Arrays.of(part))
    slowest = calls["step" if "step" in calls else "forward"]
    scale = workload.outputs / part.outputs
    best = min(_seconds(slowest) for _ in range(2)) * scale
    for _ in range(MORE_TRIES):
        if not limit_s < best < HOPELESS * limit_s:
            break
        best = min(best, _seconds(slowest) * scale)
    return best


def prove_whole(contender: Contender, workload: Workload, arrays: Arrays) -> tuple[str, Calls]:
    """Compare with a witness on the whole workload; return what proves it, and the contender's calls."""
    if workload.op == "avg":
        return "exact means", results_of(contender, workload, arrays, Truth.of_means(workload, arrays))
    name = next(name for name in WITNESSES if name != contender.name)
    if contender.ties not in pooling.get_backend(name).ties:
        raise ValueError(
            f"no second backend has ties={contender.ties!r}: {contender.name} can't be proven at full size"
        )
    pool = workload.operator(name, contender.ties)
    y, saved = pool.forward(arrays.x)
    truth = Truth(y, pool.backward(arrays.dy, saved), name)
    return f"reference, {name}", results_of(contender, workload, arrays, truth)


def results_of(contender: Contender, workload: Workload, arrays: Arrays, truth: Truth) -> Calls:
    """Bind `contender` and run every call once; WrongResult unless each leaves what `truth` holds."""
    arrays.y.fill(np.nan)  # a contender that writes nothing must not find its forerunner's results
    arrays.dx.fill(np.nan)
    calls = contender.bind(workload, arrays)
    to_the_bit = contender.exact and workload.op == "max"
    for direction in [direction for direction in DIRECTIONS if direction in calls]:
        returned = calls[direction]()
        if not contender.reuses_outputs:
            _take(returned, direction, arrays)
        what = f"{contender.name}, {direction} of {workload.id}"
        if direction != "backward":
            compare(arrays.y, truth.y, to_the_bit, f"{what}: y", truth.by, truth.y_size)
        if direction in ("backward", "step"):
            compare(arrays.dx, truth.dx, to_the_bit, f"{what}: dx", truth.by, truth.dx_size)
            arrays.dx.fill(np.nan)
    return calls


def _take(returned: Any, direction: Direction, arrays: Arrays) -> None:
    """Copy what a call returned to where the results of others are."""
    y, dx = returned if direction == "step" else (None, returned) if direction == "backward" else (returned, None)
    for result, array in ((y, arrays.y), (dx, arrays.dx)):
        if result is not None:
            if result.shape != array.shape or result.dtype != array.dtype:
                raise WrongResult(
                    f"{direction} gives {result.dtype}{result.shape}, expected {array.dtype}{array.shape}"
                )
            np.copyto(array, result)


def compare(got: Array, want: Array, to_the_bit: bool, what: str, by: str, size: Array | None = None) -> None:
    """WrongResult, with the worst cell, unless `got` is `want`: to the bit, or within ULPS.

    Parameters
    ----------
    size
        What a cell's error is measured by: a sum's terms may be far larger than itself. None is the largest value of `want`.
    """
    if to_the_bit and np.array_equal(_bits(got), _bits(want)):
        return
    error = np.abs(got - want, dtype=np.float64)
    if not to_the_bit:
        largest = np.abs(want, dtype=np.float64).max(initial=0) if size is None else size
        error -= ULPS * float(np.finfo(got.dtype).eps) * np.asarray(largest, np.float64)
        if not (error > 0).any() and not np.isnan(error).any():
            return
    worst = np.unravel_index(int(np.argmax(error)), got.shape)
    raise WrongResult(
        f"{what} differs from {by}'s, most at {tuple(map(int, worst))}: {got[worst]!r}, expected {want[worst]!r}"
    )


def _bits(array: Array) -> Array:
    """The same memory as integers, which compare by their bits: -0.0 is not 0.0, and a NaN is itself."""
    return array.view(f"u{array.itemsize}")


def take_turns(
    calls: Sequence[Callable[[], object]],
    patience: Patience,
    seed: int,
    progress: Progress,
    owners: Sequence[object] = (),
) -> list[tuple[list[float], int]]:
    """Time warmed-up `calls` in interleaved rounds; per call its samples, in seconds a call, and the calls in each.

    Parameters
    ----------
    owners
        Of each call, whose it is: an owner's calls then follow each other, and a turn begins with SETTLE_S of calls that
        nobody times. By default every call is on its own, and timed at once.
    """
    whose = list(owners) or list(range(len(calls)))
    groups = [[i for i, owner in enumerate(whose) if owner == one] for one in dict.fromkeys(whose)]
    loops = [_calibrate(call) for call in calls]
    share = patience.budget_s / max(len(calls), 1)
    least, most = patience.rounds
    turns = [min(max(round(share / max(n * t, SAMPLE_S)), least), most) for n, t in loops]
    rounds = max(turns, default=0)
    order = np.random.default_rng(seed)
    samples: list[list[float]] = [[] for _ in calls]
    enabled = gc.isenabled()
    gc.disable()
    try:
        for r in range(rounds):
            for g in order.permutation(len(groups)):
                # Those with fewer turns take them evenly spread over the rounds.
                due = [i for i in order.permutation(groups[g]) if (r + 1) * turns[i] // rounds > r * turns[i] // rounds]
                if owners and due:
                    _settle(calls[due[0]])
                for i in due:
                    samples[i].append(_seconds(calls[i], loops[i][0]))
            progress((r + 1) / rounds)
    finally:
        if enabled:
            gc.enable()
    return [(seconds, n) for seconds, (n, _) in zip(samples, loops, strict=True)]


def _settle(call: Callable[[], object]) -> None:
    end = perf_counter() + SETTLE_S
    while perf_counter() < end:
        call()


def _calibrate(call: Callable[[], object]) -> tuple[int, float]:
    """How many calls make a sample, and the seconds of one."""
    n, seconds = 1, _seconds(call)
    while n * seconds < SAMPLE_S:
        n = max(n + 1, math.ceil(SAMPLE_S / max(seconds, 1e-9)))
        seconds = _seconds(call, n)
    return n, seconds


def _seconds(call: Callable[[], object], n: int = 1) -> float:
    start = perf_counter()
    for _ in range(n):
        call()
    return (perf_counter() - start) / n
