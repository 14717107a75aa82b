"""The operators users call: they check, choose a backend, bring arrays into canonical form, and allocate.

Data runs one way::

    x -> operator (validates, makes a Problem) -> backend.forward fills y -> y, saved
                                   dy, saved  -> backend.backward fills dx -> dx

An operator has no hidden state: what backward needs travels in :class:`Saved`, so one operator serves many threads.
What follows from shape and dtype alone is worked out once, and remembered in a plan.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal

import numpy as np

from pooling.backends.base import Pass
from pooling.backends.registry import get_backend
from pooling.dtypes import computed_in
from pooling.errors import DTypeError, PoolingError, UnsupportedError, shown
from pooling.geometry.argmax_rules import MOST_TAPS
from pooling.geometry.problem import TIES, Array, Kept, Op, Problem, Ties, describe
from pooling.geometry.window import per_axis
from pooling.operators.indices import flat_indices
from pooling.operators.selection import observers, selector
from pooling.operators.validation import as_array, check_choice, check_out, in_order, shaped, widened
from pooling.operators.window_specs import Rule
from pooling.runtime.buffer_pool import empty
from pooling.runtime.fork import prepares

DataFormat = Literal["channels_first", "channels_last"]
DATA_FORMATS: tuple[DataFormat, ...] = ("channels_first", "channels_last")

MOST_DIMENSIONS = 62
"""Spatial dimensions: NumPy's arrays have up to 64, and backends see two more."""

MAX_PLANS = 128
"""Plans an operator remembers; beyond that it forgets them all, so that ever-changing shapes can't fill memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that follows from an operator and an array's shape and dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data_format: DataFormat
    problem: Problem
    backend: str
    run: Pass
    y_shape: tuple[int, ...]
    canonical: tuple[int, ...]
    y_canonical: tuple[int, ...]
    key: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """For every protocol of pickle: the old ones can't pickle slots."""
        return Plan, tuple(getattr(self, one.name) for one in fields(self))


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Saved:
    """What a backward pass needs of its forward pass: to be handed on, not changed."""

    plan: Plan
    kept: Kept

    def __reduce__(self) -> tuple[Any, ...]:
        """For every protocol of pickle: the old ones can't pickle slots."""
        return Saved, (self.plan, self.kept)

    @property
    def backend(self) -> str:
        """Name of the backend that ran the forward pass, and will run the backward pass."""
        return self.plan.backend


@lru_cache(maxsize=512)
def _one(problem: Problem) -> Problem:
    """One object for all equal problems: finding tables by an equal one, but not the same, takes 3 us for each."""
    return problem


def _arrays(kept: Any) -> list[Array]:
    """All arrays that a forward pass kept, those of its groups among them."""
    if isinstance(kept, np.ndarray):
        return [kept]
    return [array for each in kept for array in _arrays(each)] if isinstance(kept, tuple) else []


def _in_order(kept: Any) -> Any:
    """The same, with every array as kernels take it to be."""
    if isinstance(kept, np.ndarray):
        return in_order(kept)
    if isinstance(kept, tuple):
        each = tuple([_in_order(one) for one in kept])
        return each if type(kept) is tuple or not hasattr(kept, "_make") else kept._make(each)
    return kept


def _unwarned(run: Pass) -> Pass:
    """Passes in which NumPy says nothing of ``inf - inf`` and the like: their results are as right as any, and backends agree."""
    return Pass(partial(_quietly, run.forward), partial(_quietly, run.backward), run.taps)


def _quietly(call: Callable[..., Any], *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return call(*args)


class Operator:
    """What all operators share; they differ in their op, and in the rule that makes a window for an array's size."""

    op: ClassVar[Op]

    def __init__(self, rule: Rule, data_format: DataFormat, backend_name: str, **of_problem: Any) -> None:
        vars(self).update(vars(rule) | of_problem)  # the arguments are attributes
        self.rule = rule
        self.data_format = data_format
        self.backend = backend_name
        self._of_problem = of_problem
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Layout and backend may be changed; what the rule was made of can't be any more."""
        if "_plans" in vars(self) and (name in vars(self.rule) or name in self._of_problem):
            raise AttributeError(
                f"{name}={shown(value)}: the window of an operator can't be changed; make another one: "
                f"{type(self).__name__}(..., {name}={shown(value)})"
            )
        if name == "data_format":
            check_choice(name, value, DATA_FORMATS)
        elif name == "backend" and not (isinstance(value, str) and value == "auto"):
            get_backend(value)  # raises for an unknown name
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, without plans: another machine, or other arguments, may ask for others."""
        return vars(self) | {"_plans": {}}

    def __eq__(self, other: object) -> bool:
        """Whether the other does the same: one of its kind, with the same arguments. So is its copy, in any process."""
        if not isinstance(other, Operator):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        """Of what can't be changed."""
        return hash((type(self), self.rule))

    def _identity(self) -> tuple[Any, ...]:
        return type(self), self.rule, self._of_problem, self.data_format, self.backend

    def __repr__(self) -> str:
        """The call that makes this operator, without the arguments that are left at their defaults."""
        given = vars(self.rule) | self._of_problem | {"data_format": self.data_format, "backend": self.backend}
        parameters = inspect.signature(type(self)).parameters.values()
        shown = [f"{p.name}={given[p.name]!r}" for p in parameters if p.name in given and given[p.name] != p.default]
        return f"{type(self).__name__}({', '.join(shown)})"

    def problem(self, shape: Sequence[int]) -> Problem:
        """The problem this operator is on arrays of `shape`; PoolingError when it can't be applied to them."""
        shape = per_axis("shape", shape, len(shape), least=0)
        n = self._spatial_ndim(len(shape))
        first = len(shape) - n - self._trailing
        window = self.rule.window(shape[first : first + n])
        return Problem(self.op, window, fitted=self.rule.fitted, **self._of_problem)

    @property
    def _trailing(self) -> int:
        return int(self.data_format == "channels_last")

    def _spatial_ndim(self, ndim: int) -> int:
        n = ndim - 2 if self.rule.ndim is None else self.rule.ndim
        if n < 1 or n + self._trailing > ndim:
            beside = ", beside the channels' own" if self._trailing else ""
            least = 3 if self.rule.ndim is None else n + self._trailing
            raise PoolingError(
                f"x has {ndim} dimensions, which does not go with {self.rule.described} in {self.data_format}: "
                f"{self.rule.dimensions}{beside}; give an x of at least {least} dimensions"
            )
        if n > MOST_DIMENSIONS:
            raise PoolingError(
                f"{self.rule.described}: {n} spatial dimensions are too many, use at most {MOST_DIMENSIONS}"
            )
        return n

    def _plan(self, x: Array, training: bool) -> Plan:
        key: tuple[Any, ...] = (x.shape, x.dtype, self.data_format, self.backend)
        if self.backend == "auto":
            key += (training, selector().state())
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._make_plan(x.shape, x.dtype, training, key)
        return plan

    @prepares
    def _make_plan(self, shape: tuple[int, ...], dtype: np.dtype[Any], training: bool, key: tuple[Any, ...]) -> Plan:
        problem = _one(self.problem(shape))
        if problem.op != "max" and computed_in(dtype).kind != "f":
            what = {"avg": "mean", "lp": "norm"}[problem.op]
            raise DTypeError(f"x has dtype {dtype}: a {what} of it would be rounded; pass x.astype(np.float32)")
        window, n = problem.window, problem.window.ndim
        if window.n_taps > MOST_TAPS:
            raise PoolingError(
                f"{self.rule.described}: a window of {window.n_taps} cells is too large, it must have at most {MOST_TAPS}; "
                "use a smaller one with less padding"
            )
        first = len(shape) - n - self._trailing
        outer, inner = math.prod(shape[:first]), math.prod(shape[first + n :])
        name = (
            selector().auto(problem, outer, inner, computed_in(dtype), training)
            if self.backend == "auto"
            else self.backend
        )
        chosen = get_backend(name)
        reason = chosen.why_not(shape, dtype, problem)
        if reason is not None and self.backend == "auto":  # Numba can't be imported, which is only known now
            name = selector().auto(problem, outer, inner, computed_in(dtype), training)
            chosen = get_backend(name)
            reason = chosen.why_not(shape, dtype, problem)
        if reason is not None:
            error = DTypeError if "does not take" in reason else UnsupportedError
            raise error(f"backend={shown(name)} can't do this: {reason}; use backend='auto' or another one")
        return Plan(
            shape,
            dtype,
            self.data_format,
            problem,
            name,
            chosen.ops[problem.op] if chosen.compiled else _unwarned(chosen.ops[problem.op]),
            (*shape[:first], *(window.output_size if self.rule.keepdims else ()), *shape[first + n :]),
            (outer, *window.input_size, inner),
            (outer, *window.output_size, inner),
            key,
        )

    def _forward(self, given: Any, out: Array | None, training: bool) -> tuple[Array, Array, Saved]:
        """x as the backend sees it, y, and what to hand to `backward`."""
        x = as_array("x", given)
        plan = self._plan(x, training)
        for observer in observers():
            observer.note(plan.shape, plan.dtype, self, plan.problem, training)
        # Not only x may not be written to: where it is a copy, neither may what the caller has.
        y = empty(plan.y_shape, x.dtype) if out is None else check_out(out, plan.y_shape, x.dtype, x, given)
        kept: Kept = ()
        x = widened(x)
        if y.size:
            result = y if x.dtype == plan.dtype else empty(plan.y_shape, x.dtype)
            # As views: a caller that reshapes its x or y in place must not change what is kept.
            kept = self._run(plan, x.reshape(plan.canonical), result.reshape(plan.y_canonical), training)
            if result is not y:
                y[...] = result
        return x, y, Saved(plan, kept)

    def _run(self, plan: Plan, x: Array, y: Array, training: bool) -> Kept:
        """The forward pass of arrays in canonical form."""
        return plan.run.forward(x, plan.problem, y, training)

    def _run_back(self, plan: Plan, dy: Array, kept: Kept, dx: Array) -> None:
        plan.run.backward(dy, kept, plan.problem, dx)

    def _indices(self, plan: Plan, x: Array, y: Array, kept: Kept) -> Array:
        one_wins = plan.problem.ties in ("first", "last")
        taps = plan.run.taps(kept, plan.problem, y) if plan.run.taps and kept and one_wins else None
        return flat_indices(x, y, taps, plan.problem)

    def __call__(self, x: Any, *, out: Array | None = None) -> Array:
        """Pool `x` and keep nothing: :meth:`forward` for inference."""
        return self._forward(x, out, False)[1]

    def forward(self, x: Any, *, out: Array | None = None) -> tuple[Array, Saved]:
        """Pool `x` and keep what :meth:`backward` needs.

        Parameters
        ----------
        x
            Array of this operator's layout. One that is not C-contiguous is copied once. The bfloat16 of ml_dtypes is pooled in
            float32, and rounded once.
        out
            Array to fill instead of a new one: C-contiguous, of the result's shape and x's dtype, apart from `x`. Large ones are
            filled faster where they begin at a multiple of 64 bytes, as new ones do; NumPy's own need not.

        Returns
        -------
        y, saved
            The pooled array, of x's dtype, and what to hand to :meth:`backward`. Backends with ``keeps_x`` read `x`
            again in backward, and so does Lp pooling; with the others it may be overwritten in between.

        Raises
        ------
        PoolingError
            `x`, or an argument of the operator on it, is wrong; nothing has been computed.
        """
        return self._forward(x, out, True)[1:]

    def backward(self, dy: Any, saved: Saved, *, out: Array | None = None) -> Array:
        """Gradient with respect to the `x` whose :meth:`forward` gave `saved`, given the gradient `dy` with respect to `y`.

        Parameters
        ----------
        dy
            Array of y's shape and dtype (float16, float32 or float64).
        saved
            From the forward pass of this operator, or of one with equal arguments; with backend="auto", any backend's.
        out
            Array to fill instead of a new one: C-contiguous, of x's shape and dtype, apart from `dy`; aligned as in
            :meth:`forward`.

        Returns
        -------
        dx
            Array of x's shape and dtype. Where windows overlap, a cell's shares of maxima are added in the windows' row-major
            order, so that all backends agree to the bit; those of means may be added along one axis after the other.

        Raises
        ------
        PoolingError
            `dy` or `saved` does not belong to this operator; nothing has been computed.
        """
        if not isinstance(saved, Saved):
            raise PoolingError(
                f"saved is of type {type(saved).__name__}: pass what this operator's forward returned as its second value"
            )
        plan = saved.plan
        if self._plans.get(plan.key) is not plan and (
            self.data_format != plan.data_format or self.problem(plan.shape) != plan.problem
        ):
            raise PoolingError(
                f"saved comes from another operator's forward pass (of {describe(plan.problem)}), not from {shown(self)}: "
                "call backward of the operator whose forward gave it"
            )
        if self.backend not in ("auto", plan.backend):
            raise PoolingError(
                f"saved comes from backend={shown(plan.backend)}, but this operator has backend={shown(self.backend)}: "
                "call backward of the operator whose forward gave it"
            )
        if computed_in(plan.dtype).kind != "f":
            raise DTypeError(f"x had dtype {plan.dtype}, which has no gradient: pool x.astype(np.float32) to train")
        given = dy
        dy = as_array("dy", given)
        if dy.shape != plan.y_shape:
            raise PoolingError(
                f"dy has shape {dy.shape}, but the y of this forward pass has {plan.y_shape}: pass that y's gradient"
            )
        if dy.dtype != plan.dtype:
            raise DTypeError(f"dy has dtype {dy.dtype}, but y has {plan.dtype}: pass dy.astype('{plan.dtype}')")
        # A copy of `saved` may have another memory order; kernels assume C order.
        kept = _in_order(saved.kept)
        if out is None:
            dx = empty(plan.shape, dy.dtype)
        else:
            dx = check_out(out, plan.shape, dy.dtype, dy, given, *_arrays(saved.kept))
        if not dy.size:
            dx.fill(0)
        elif dx.size:
            dy = widened(dy)
            result = dx if dy.dtype == plan.dtype else empty(plan.shape, dy.dtype)
            self._run_back(plan, shaped(dy, plan.y_canonical), kept, shaped(result, plan.canonical))
            if result is not dx:
                dx[...] = result
        return dx


class MaxOperator(Operator):
    """What all max pooling shares: the tie policy, and indices."""

    op = "max"

    def __init__(self, rule: Rule, data_format: DataFormat, backend_name: str, *, ties: Ties) -> None:
        check_choice("ties", ties, TIES)
        super().__init__(rule, data_format, backend_name, ties=ties)

    def forward_with_indices(self, x: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """Pool `x`, and say where each maximum lies: `y` and int64 indices, flat within one spatial plane of `x`.

        The convention of PyTorch's ``return_indices=True``. A window of padding alone has the index -1.
        """
        x, y, saved = self._forward(x, out, True)
        plan = saved.plan
        if not y.size:
            return y, np.zeros(y.shape, np.int64)
        indices = self._indices(plan, x.reshape(plan.canonical), widened(y).reshape(plan.y_canonical), saved.kept)
        return y, indices.reshape(y.shape)
