"""What a backend is: plain data and plain functions.

A backend's functions take what to compute as one :class:`Problem` and fill an array that the caller made. Every array
they see is C-contiguous and has the shape ``(outer, *spatial, inner)``: `inner` counts the channels in channels_last
and is 1 in channels_first; `outer` is the product of all other axes. So validation, layout, allocation and the choice
of a backend each live in one place above them (`operators.py`), and no backend knows how many axes a user's array had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling.available import imports, missing
from pooling.errors import DTypeError, PoolingError, shown
from pooling.lazy import cached_property
from pooling.window import Window, is_many

Array = NDArray[Any]
Op = Literal["max", "avg", "lp"]
Ties = Literal["first", "last", "split", "all"]

TIES: tuple[Ties, ...] = ("first", "last", "split", "all")
"""Who takes the gradient of a window whose maximum occurs more than once.

first, last
    The first or last of the tied cells, in row-major order.
split
    Each of them, in equal shares.
all
    Each of them, the whole of it. Not a subgradient: what the mask trick does.
"""

DTYPES = "?bBhHiIlLqQefd"
"""Characters of the dtypes that backends know: bool, integers, float16, float32 and float64."""


def computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which arrays of `dtype` are pooled: in this machine's byte order, and float32 for ml_dtypes' bfloat16."""
    # A look at the kind first: NumPy takes 2 us to say a dtype's name.
    if dtype.kind == "V":
        return np.dtype(np.float32) if dtype.name == "bfloat16" else dtype  # which NumPy can't compare
    if (dtype.isnative and dtype.fields is None) or dtype.char not in DTYPES:
        return dtype
    return np.dtype(dtype.char)  # numbers whose parts have names, too, are numbers


Kept = tuple[Array, ...]
"""The arrays a backward pass needs from its forward pass."""

Forward = Callable[[Array, "Problem", Array, bool], Kept]
"""``forward(x, problem, y, training) -> kept``: fill `y`; `kept` may be empty unless `training`."""

Backward = Callable[[Array, Kept, "Problem", Array], None]
"""``backward(dy, kept, problem, dx)``: fill `dx`, which holds garbage at the start."""


@dataclass(frozen=True)
class Problem:
    """One pooling of arrays of one spatial size: what every backend must agree on.

    Parameters
    ----------
    op
        "max", "avg" or "lp".
    window
        The window, bound to the input's spatial size.
    ties
        Max only: who takes the gradient of a tied window.
    count_include_pad
        Avg only: divide by the cells of the padded window instead of the real ones.
    divisor_override
        Avg only: divide by this number instead of by any count.
    p
        Lp only: the power, inf for the largest magnitude.
    signed
        Lp only: sum x ** p instead of abs(x) ** p.
    scale_partial
        Lp only: weigh a window's sum as if it had no cell less than the others.
    fitted
        The window was made for the array's size: arrays of another size have another one. No result depends on this field.
    drawn
        The window is one of many that are drawn for single planes: whatever has much to prepare for each is slow.
    """

    op: Op
    window: Window
    ties: Ties = "first"
    count_include_pad: bool = True
    divisor_override: int | None = None
    p: float = 2.0
    signed: bool = False
    scale_partial: bool = False
    fitted: bool = field(default=False, repr=False)
    drawn: bool = False

    @cached_property
    def _hash(self) -> int:
        norm = (self.p, self.signed, self.scale_partial)
        return hash((self.op, self.window, self.ties, self.count_include_pad, self.divisor_override, *norm))

    def __hash__(self) -> int:
        """Worked out once: tables are looked up by problem at every call."""
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash: another process hashes words in another way."""
        return {name: value for name, value in vars(self).items() if name != "_hash"}

    def divisors(self, dtype: DTypeLike) -> Array:
        """Avg: what each window's sum is divided by, in an array that broadcasts against the output."""
        n = self.window.ndim
        if self.divisor_override is not None:
            return np.full((1,) * (n + 1), self.divisor_override, dtype)
        counts = np.ones((1,) * n)
        for i, axis in enumerate(self.window.axes):
            along = (1,) * i + (axis.out,) + (1,) * (n - 1 - i)
            counts = counts * np.reshape(axis.counts(self.count_include_pad), along)
        # A window with no cell at all has the sum 0 and shall have the mean 0.
        return np.maximum(counts, 1).astype(dtype)[..., None]

    def weights(self) -> Array:
        """Lp: what each window's sum is multiplied by, in an array that broadcasts against the output."""
        if self.scale_partial:
            return self.window.n_taps / self.divisors(np.float64)
        return np.ones((1,) * (self.window.ndim + 1))


@dataclass(frozen=True)
class Pass:
    """An op's forward pass and the backward pass that belongs to it.

    `taps` gives, from what a max forward with ties "first" or "last" kept, the tap that won each window, in y's shape;
    without it, whoever needs the taps finds them again from `x` and `y`.
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
        Tie policies under which max backward reads x and y again, so that nobody may overwrite them in between.
    compiled
        Whether Numba compiles it. Then its arithmetic never tells NumPy of invalid values and overflows, which are answers here
        like any other.
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
        >>> pooling.backend("strided_reshape").why_not((1, 1, 8, 8), "float32", pooling.MaxPool(3, stride=2))
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
    """The registry, which rests on this module: so it is imported when it is asked for."""
    registry: Mapping[str, Backend] = import_module("pooling.backends").REGISTRY
    return registry


def _registered(name: str) -> Backend:
    return _registry()[name]
