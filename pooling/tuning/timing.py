"""Timing of candidates: prove each, warm it up, leave out the hopeless, then take turns.

1. On a small cut, with ties, NaN and infinities in it, a candidate has to give what `reference` gives; on the whole, what the
   witness gave: for maxima the first candidate, for sums one that adds in float64. A wrong one never gets a time.
2. These calls compile what is to be compiled, so that no time holds it. The first whole call comes only after one on a
   part of the planes, and not at all when that says it would take many times as long as the best so far.
3. The rest take turns in rounds, in an order drawn anew for each, so that a busy moment of the machine hits all alike.
   A candidate that is clearly slower after a few rounds drops out, with the time it has.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from time import perf_counter
from typing import Any

import numpy as np

from pooling.accuracy import units
from pooling.backends.base import Backend
from pooling.backends.registry import REGISTRY
from pooling.geometry.problem import Array, Kept, Problem
from pooling.tuning.layer import Facts

PLANES = 21
"""In a small cut: no multiple of any vector's lanes."""

SHORT = 9
"""Cells of a small cut along an axis, where its window allows."""

REFERENCE_CELLS = 400_000
"""Cells that the reference may look at: it needs a microsecond for each."""

WITNESS = "strided_slices"
"""Of sums: it takes windows of every kind."""

BLOCK = (1 << 20) - 3
"""Values that are drawn at random, and then repeated: to draw them takes longer than to pool them."""

PART = 16
HOPELESS = 6.0
"""A candidate is stopped when a part says that the whole would take so many times as long as the best so far."""

SOON_S = 0.02
"""Seconds below which a part says nothing: what a call costs whatever its size would count many times."""

SLOWER = 1.5
"""One that even at its fastest takes so many times as long as the best has its time, and drops out."""

LEAST, FEW, MOST = 3, 5, 41
"""Samples that make a time; rounds before anybody drops out; rounds at most."""

SAMPLE_S = 3e-4
"""Least duration of a sample."""


@dataclass
class Clock:
    """How much time there is."""

    budget_s: float
    start: float = field(default_factory=perf_counter)

    @property
    def left(self) -> float:
        return self.budget_s - (perf_counter() - self.start)


@dataclass(frozen=True)
class Times:
    """Seconds a call: all samples, and why there are not more."""

    samples: tuple[float, ...]
    note: str = ""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        low, middle, high = np.quantile(self.samples, (0.25, 0.5, 0.75)).tolist()
        return low, middle, high


@dataclass
class Outcome:
    """What came of measuring.

    Parameters
    ----------
    times
        Of those that were proven.
    refused
        Why others were not.
    raised
        Which of these raised errors.
    in_time
        Whether there was time for all.
    """

    times: dict[str, Times] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    raised: set[str] = field(default_factory=set)
    in_time: bool = True


def measure(facts: Facts, names: Sequence[str], clock: Clock, share: Clock, best_s: float = math.inf) -> Outcome:
    """Prove and time these backends.

    Parameters
    ----------
    names
        The likely fastest first.
    clock
        When to stop. Candidates that have not been timed by then have no entry in the outcome.
    share
        When to be content with few rounds, because others wait.
    best_s
        Seconds of the best one that need not be measured again.
    """
    outcome = Outcome()
    arrays = _Arrays.of(facts, facts.outer, proof=False)
    proof = _Proof.of(facts)
    calls: dict[str, Callable[[], object]] = {}
    first: dict[str, float] = {}
    witness: _Arrays | None = None
    for name in names:
        if clock.left <= 0:
            outcome.in_time = False
            break
        backend = REGISTRY[name]
        try:
            reason = proof.refutes(backend)
            expected = math.inf if reason else _estimate(backend, facts, arrays)
            if reason is None and expected > HOPELESS * best_s:
                outcome.times[name] = Times((expected,), "stopped early: hopeless by a part of the work")
                continue
            if reason is None and LEAST * expected > clock.left:
                outcome.in_time = False
                continue
            if reason is None:
                call = arrays.call(backend)
                call()
                if witness is None:
                    witness = arrays.results() if facts.problem.op == "max" else arrays.exact()
                reason = arrays.differ(witness)
        except MemoryError:
            raise
        except Exception as error:  # whatever a candidate does wrong, the others are measured
            reason = f"it raises {error!r}"
            outcome.raised.add(name)
        if reason is not None:
            outcome.refused[name] = reason
            continue
        calls[name], first[name] = call, _seconds(call, 1)
        best_s = min(best_s, first[name])
    _take_turns(calls, first, clock, share, outcome, best_s)
    return outcome


def _take_turns(
    calls: dict[str, Callable[[], object]],
    first: dict[str, float],
    clock: Clock,
    share: Clock,
    outcome: Outcome,
    best_s: float,
) -> None:
    repeats = {name: max(1, math.ceil(SAMPLE_S / max(first[name], 1e-9))) for name in calls}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    notes = dict.fromkeys(calls, "")
    racing = list(calls)
    order = np.random.default_rng(0)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(MOST):
            for i in order.permutation(len(racing)):
                name = racing[i]
                if turn and clock.left <= 0:
                    break
                samples[name].append(_seconds(calls[name], repeats[name]))
            if clock.left <= 0:
                break
            if turn + 1 < FEW:
                continue
            if share.left <= 0:
                break
            best = min([best_s, *(min(samples[name]) for name in racing)])
            for name in [name for name in racing if min(samples[name]) > SLOWER * best]:
                racing.remove(name)
                notes[name] = f"stopped early: slower after {turn + 1} rounds"
            if len(racing) < 2 and (turn + 1 >= 2 * FEW or not racing):
                break
    finally:
        if enabled:
            gc.enable()
    for name, seconds in samples.items():
        if len(seconds) >= LEAST:
            outcome.times[name] = Times(tuple(seconds), notes[name])
        else:
            outcome.in_time = False


def _seconds(call: Callable[[], object], n: int) -> float:
    start = perf_counter()
    for _ in range(n):
        call()
    return (perf_counter() - start) / n


def _estimate(backend: Backend, facts: Facts, whole: _Arrays) -> float:
    """Seconds of a whole call, by one on a part of it; 0 where it is soon done, or there is not enough to make parts of."""
    outer = facts.outer // PART
    if outer < 1:
        return 0.0
    part = whole.part(outer)
    call = part.call(backend)
    expected = min(_seconds(call, 1) for _ in range(2)) * facts.outer / outer
    return expected if expected > SOON_S else 0.0


@dataclass
class _Arrays:
    """What a candidate computes from, and what it fills."""

    facts: Facts
    x: Array
    dy: Array
    y: Array
    dx: Array

    @classmethod
    def of(cls, facts: Facts, outer: int, proof: bool) -> _Arrays:
        window = facts.problem.window
        rng = np.random.default_rng(0)
        x = _values(rng, (outer, *window.input_size, facts.inner), facts, proof)
        y = np.empty((outer, *window.output_size, facts.inner), facts.dtype)
        dy = y
        if facts.dtype.kind == "f":
            block = rng.standard_normal(BLOCK, np.float32)
            dy = _repeated(block if facts.problem.op == "max" else _level(rng, block), y.shape, facts.dtype)
        return cls(facts, x, dy, y, np.empty_like(x))

    def part(self, outer: int) -> _Arrays:
        return _Arrays(self.facts, self.x[:outer], self.dy[:outer], self.y[:outer], self.dx[:outer])

    def call(self, backend: Backend) -> Callable[[], object]:
        """The candidate's call as the operators make it: forward alone, or with backward where there is a gradient."""
        problem, run = self.facts.problem, backend.ops[self.facts.problem.op]
        backend.specialize(problem, self.facts.inner, self.facts.dtype)
        x, dy, y, dx = self.x, self.dy, self.y, self.dx
        training = self.facts.direction == "training"

        def forward() -> Kept:
            return run.forward(x, problem, y, training)

        def both() -> None:
            run.backward(dy, run.forward(x, problem, y, True), problem, dx)

        return both if training and self.facts.dtype.kind == "f" else forward

    def spoil(self) -> None:
        """Fill results with improbable values, so that a candidate that writes nothing is detected."""
        for array in (self.y, self.dx):
            array.view(np.uint8).fill(0x5A)

    def results(self) -> _Arrays:
        return replace(self, y=self.y.copy(), dx=self.dx.copy() if self._has_gradient else self.dx)

    @property
    def _has_gradient(self) -> bool:
        return self.facts.direction == "training" and self.facts.dtype.kind == "f"

    def exact(self) -> _Arrays:
        """What is right, by sums in float64."""
        double = np.dtype(np.float64)
        x, y, dx = self.x.astype(double), np.empty(self.y.shape), np.empty(self.x.shape)
        dy = self.dy.astype(double) if self._has_gradient else y
        exact = _Arrays(replace(self.facts, dtype=double), x, dy, y, dx)
        with np.errstate(all="ignore"):
            exact.call(REGISTRY[WITNESS])()
        return exact

    def differ(self, truth: _Arrays) -> str | None:
        """In what these results differ from those that are right; None if they don't."""
        pairs = [("y", self.y, truth.y)] + [("dx", self.dx, truth.dx)] * self._has_gradient
        for what, got, want in pairs:
            if not _same(got, want, self.facts.problem):
                return f"its {what} differs from what is right"
        return None


@dataclass
class _Proof:
    """A small cut of the problem with the reference's results."""

    arrays: _Arrays
    truth: _Arrays

    @classmethod
    def of(cls, facts: Facts) -> _Proof:
        window = replace(facts.problem.window, axes=tuple(map(_shorter, facts.problem.window.axes)))
        small = replace(facts, problem=replace(facts.problem, window=window), inner=min(facts.inner, PLANES))
        work = math.prod(window.output_size) * window.n_taps
        planes = max(2, min(PLANES, REFERENCE_CELLS // max(work, 1)))
        outer = max(1, min(facts.outer, planes if facts.inner == 1 else 2))
        arrays, truth = _Arrays.of(small, outer, proof=True), _Arrays.of(small, outer, proof=True)
        with np.errstate(all="ignore"):
            truth.call(REGISTRY["reference"])()
        return cls(arrays, truth)

    def refutes(self, backend: Backend) -> str | None:
        """In what the backend differs from the reference; None if it does not."""
        if backend.name == "reference":
            return None
        self.arrays.spoil()
        with np.errstate(all="ignore"):
            self.arrays.call(backend)()
        difference = self.arrays.differ(self.truth)
        return difference and f"{difference.removesuffix('what is right')}that of reference on a small cut"


def _shorter(axis: Any) -> Any:
    """The axis cut by whole strides, so that windows end at the edge in the same way; one without a stride as it is."""
    if "stride" not in {field.name for field in fields(axis)}:
        return axis
    wanted = max(axis.span + axis.stride - axis.before - axis.after, SHORT)
    return replace(axis, size=axis.size - max(0, axis.size - wanted) // axis.stride * axis.stride)


def _values(rng: np.random.Generator, shape: tuple[int, ...], facts: Facts, proof: bool) -> Array:
    """An input: half of it 0, as after ReLU, or for sums nearly all equal; for a proof few different values, with NaN, and
    for maxima infinities."""
    dtype = facts.dtype
    if dtype.kind != "f":
        low, high = (0, 2) if dtype.kind == "b" else (0, 4 if proof else 100)
        return _repeated(rng.integers(low, high, BLOCK), shape, dtype)
    if not proof:
        block = np.maximum(rng.standard_normal(BLOCK, np.float32), 0)
        return _repeated(block if facts.problem.op == "max" else _level(rng, block), shape, dtype)
    x = rng.standard_normal(shape, np.float32)
    x = np.round(x)
    if facts.problem.op == "max":
        x[rng.random(shape) < 0.05] = np.nan
        x[rng.random(shape) < 0.05] = -np.inf
    return x.astype(dtype, copy=False)


def _level(rng: np.random.Generator, block: Array) -> Array:
    """0.1 but for one value in 32: the rounding errors of a long sum then have one sign, where those of others cancel."""
    return np.where(rng.random(block.shape, np.float32) < 1 / 32, block, np.float32(0.1))


def _repeated(block: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of these values, again and again."""
    array = np.empty(shape, dtype)
    flat = array.reshape(-1)
    for start in range(0, flat.size, block.size):
        part = flat[start : start + block.size]
        part[...] = block[: part.size]
    return array


def _same(got: Array, want: Array, problem: Problem) -> bool:
    if got.dtype.kind != "f":
        return bool(np.array_equal(got, want))
    if problem.op == "max":
        bits = f"u{got.dtype.itemsize}"
        equal = got.view(bits) == want.view(bits)
        return bool((equal | (np.isnan(got) & np.isnan(want))).all())
    scale = float(np.abs(want).max(initial=0, where=np.isfinite(want)))
    allowed = (
        units(got.dtype, problem.window.n_taps)
        * float(np.finfo(got.dtype).eps)
        * max(scale, float(np.finfo(got.dtype).tiny))
    )
    with np.errstate(invalid="ignore"):
        return bool(np.allclose(got, want, rtol=0, atol=allowed, equal_nan=True))
