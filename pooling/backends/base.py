"""What a backend is: plain data and plain functions.

A backend's functions take what to compute as one :class:`Problem` and fill an array that the caller made. Every array
they see is C-contiguous and has the shape ``(outer, *spatial, inner)``: `inner` counts the channels in channels_last
and is 1 in channels_first; `outer` is the product of all other axes. So validation, layout, allocation and the choice
of a backend each live in one place above them (`pooling/operators/`), and no backend knows how many axes a user's array had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from pooling.dtypes import DTYPES, computed_in
from pooling.errors import DTypeError, PoolingError, shown
from pooling.geometry.problem import Array, Kept, Op, Problem, Ties
from pooling.geometry.window import is_many
from pooling.runtime.availability import imports, missing

Forward = Callable[[Array, "Problem", Array, bool], Kept]
"""``forward(x, problem, y, training) -> kept``: fill `y`; `kept` may be empty unless `training`."""

Backward = Callable[[Array, Kept, "Problem", Array], None]
"""``backward(dy, kept, problem, dx)``: fill `dx`, which holds garbage at the start."""


@dataclass(frozen=True)
class Pass:
    """An op's forward pass and the backward pass that belongs to it.

    `taps` gives, from what a max forward with ties "first" or "last" kept, the tap that won each window, in y's shape;
    without it, the taps are recomputed from `x` and `y` where they are needed.
    """

    forward: Forward
    backward: Backward
    taps: Callable[[Kept, Problem, Array], Array] | None = None


class Describes(Protocol):
    """Anything that can say which :class:`Problem` it is on arrays of a given shape: the operators."""

    @property
    def data_format(self) -> str: ...

    def problem(self, shape: Sequence[int]) -> Problem: ...


def as_problem(operator: Any, shape: Any) -> Problem:
    """What `operator` computes on arrays of `shape`."""
    if isinstance(operator, Problem):
        return operator
    if isinstance(operator, type) or not callable(getattr(operator, "problem", None)):
        raise PoolingError(f"operator={shown(operator)} is none: pass one, such as pooling.MaxPool(2)")
    if not is_many(shape) and not (isinstance(shape, np.ndarray) and shape.ndim == 1):
        raise PoolingError(f"shape={shown(shape)}: give the input's shape, such as (64, 20, 24, 24)")
    problem: Problem = operator.problem(tuple(shape))
    return problem


def as_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        if dtype is not None:  # which NumPy takes for float64
            known: np.dtype[Any] = np.dtype(dtype)
            return known
    except Exception:  # NumPy's, of whatever kind, for tables, lists and words that are none
        pass
    raise DTypeError(f"dtype={shown(dtype)}: NumPy knows no such dtype; give one such as 'float32' or x.dtype")


def _nothing_to_specialize(problem: Problem, inner: int, dtype: np.dtype[Any]) -> None:
    """Most backends compile nothing, or the same for all sizes."""


def _no_limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One way to pool, with its limits.

    Parameters
    ----------
    name
        The key in the registry.
    note
        One line on the trick.
    ops
        The passes of each op it can do, by the op's name.
    ties
        Tie policies that its max backward implements.
    kinds
        NumPy dtype kinds that its max forward takes ("f" float, "i" and "u" integers, "b" bool); the other ops take only "f".
    limits
        Everything else it can't do: returns the reason, or None.
    keeps_x
        Tie policies under which max backward reads x and y again, so that they must not be overwritten in between.
    compiled
        Whether Numba compiles it. Then its arithmetic raises no NumPy warnings of invalid values and overflows, which are
        results here like any other.
    reference_only
        Whether it is here to be right and readable, and never to be picked.
    specialize
        Called with a problem, `inner`, and the dtype of the arrays: what the backend would compile for them after some calls,
        it compiles at the next one. To be called before it is timed.
    """

    name: str
    note: str
    ops: Mapping[Op, Pass]
    ties: tuple[Ties, ...] = ()
    kinds: str = "fiub"
    limits: Callable[[Problem, np.dtype[Any]], str | None] = _no_limits
    keeps_x: tuple[Ties, ...] = ()
    compiled: bool = False
    reference_only: bool = False
    specialize: Callable[[Problem, int, np.dtype[Any]], None] = _nothing_to_specialize

    def __reduce__(self) -> tuple[Any, ...]:
        """A backend of the registry is copied, and pickled, as its name: in another process it is the one that is there."""
        if _registry().get(self.name) is self:
            return _registered, (self.name,)
        return Backend, tuple(getattr(self, one.name) for one in fields(self))

    def why_not(self, shape: Sequence[int], dtype: DTypeLike, operator: Describes | Problem) -> str | None:
        """The reason why this backend can't do `operator` on arrays of `shape` and `dtype`, or None when it can.

        Examples
        --------
        >>> import pooling
        >>> pooling.get_backend("strided_reshape").why_not((1, 1, 8, 8), "float32", pooling.MaxPool(3, stride=2))
        'its windows overlap: writing through a view in which they share cells would lose gradient'
        """
        reason = self.refuses(as_problem(operator, shape), computed_in(as_dtype(dtype)))
        return missing() if reason is None and self.compiled and not imports() else reason

    def refuses(self, problem: Problem, dtype: np.dtype[Any]) -> str | None:
        """The same, without importing Numba to see whether that works."""
        if problem.op not in self.ops:
            return f"it has no {problem.op} pooling"
        kinds = self.kinds if problem.op == "max" else "f"
        if dtype.kind not in kinds or dtype.char not in DTYPES:
            return f"its {problem.op} pooling does not take {dtype}"
        if problem.op == "max" and problem.ties not in self.ties:
            return f"its backward has no ties={problem.ties!r}, only {', '.join(self.ties)}"
        return (missing() if self.compiled else None) or self.limits(problem, dtype)


def _registry() -> Mapping[str, Backend]:
    """The registry, which imports this module, and is therefore imported on first use."""
    registry: Mapping[str, Backend] = import_module("pooling.backends.registry").REGISTRY
    return registry


def _registered(name: str) -> Backend:
    return _registry()[name]
