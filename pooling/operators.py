"""The operators users call: they check, choose a backend, bring arrays into canonical form, and allocate.

Data runs one way::

    x -> operator (validates, makes a Problem) -> backend.forward fills y -> y, saved
                                   dy, saved  -> backend.backward fills dx -> dx

An operator has no hidden state: what backward needs travels in :class:`Saved`, so one operator serves many threads.
What follows from shape and dtype alone is worked out once, and remembered in a plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from pooling.arrays import as_array, as_plain, check_out
from pooling.backend import TIES, Array, Kept, Op, Pass, Problem, Ties
from pooling.backends import backend
from pooling.errors import DTypeError, PoolingError, UnsupportedError
from pooling.indices import flat_indices
from pooling.memory import empty
from pooling.tune.choose import auto, state
from pooling.tune.record import recordings
from pooling.window import IntOrSeq, Padding, Window, as_int

DataFormat = Literal["channels_first", "channels_last"]
DATA_FORMATS: tuple[DataFormat, ...] = ("channels_first", "channels_last")

MAX_PLANS = 128
"""Plans an operator remembers; beyond that it forgets them all, so that ever-changing shapes can't fill memory."""


@dataclass(frozen=True, slots=True)
class _Plan:
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


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backward pass needs of its forward pass: to be handed on, not changed."""

    plan: _Plan
    kept: Kept

    @property
    def backend(self) -> str:
        """Name of the backend that ran the forward pass, and will run the backward pass."""
        return self.plan.backend


@lru_cache(maxsize=1024)
def _one(problem: Problem) -> Problem:
    """One object for all equal problems: finding tables by an equal one, but not the same, takes 3 us for each."""
    return problem


class _Operator:
    """What max and average pooling share."""

    op: ClassVar[Op]

    def __init__(
        self,
        kernel_size: IntOrSeq,
        stride: IntOrSeq | None,
        padding: Padding,
        dilation: IntOrSeq,
        ceil_mode: bool,
        data_format: DataFormat,
        backend_name: str,
        **of_problem: Any,
    ) -> None:
        if data_format not in DATA_FORMATS:
            raise PoolingError(f"data_format={data_format!r}: it must be one of {', '.join(map(repr, DATA_FORMATS))}")
        if not isinstance(ceil_mode, bool | np.bool_):
            raise PoolingError(f"ceil_mode={ceil_mode!r}: it must be True or False")
        if backend_name != "auto":
            backend(backend_name)  # raises for an unknown name
        self.kernel_size = as_plain(kernel_size)
        self.stride = as_plain(stride)
        self.padding = as_plain(padding)
        self.dilation = as_plain(dilation)
        self.ceil_mode = bool(ceil_mode)
        self.data_format = data_format
        self.backend = backend_name
        self._of_problem = of_problem
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._check_arguments()

    def __repr__(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "data_format", "backend")
        shown = [f"{name}={getattr(self, name)!r}" for name in names]
        shown += [f"{name}={value!r}" for name, value in self._of_problem.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _check_arguments(self) -> None:
        """Find wrong values here and not at the first call: make the window on a size that fits any."""
        given = (self.kernel_size, self.stride, self.padding, self.dilation)
        n = next((len(value) for value in given if isinstance(value, tuple)), 1)
        if n == 0:
            raise PoolingError(f"kernel_size={self.kernel_size!r} has no entry: give one per spatial dimension")
        Window.over((1 << 40,) * n, *self._window_arguments())

    def _window_arguments(self) -> tuple[Any, ...]:
        return (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def problem(self, shape: Sequence[int]) -> Problem:
        """The problem this operator is on arrays of `shape`; PoolingError when it can't be applied to them."""
        n = self._spatial_ndim(len(shape))
        first = len(shape) - n - self._trailing
        return Problem(self.op, Window.over(shape[first : first + n], *self._window_arguments()), **self._of_problem)

    @property
    def _trailing(self) -> int:
        return int(self.data_format == "channels_last")

    def _spatial_ndim(self, ndim: int) -> int:
        n = len(self.kernel_size) if isinstance(self.kernel_size, tuple) else ndim - 2
        if n < 1 or n + self._trailing > ndim:
            raise PoolingError(
                f"x has {ndim} dimensions, which does not go with kernel_size={self.kernel_size!r} in {self.data_format}: "
                "an int pools over x.ndim - 2 dimensions, a tuple over as many as it has entries"
                + (", beside the channels' own" if self._trailing else "")
            )
        return n

    def _plan(self, x: Array, training: bool) -> _Plan:
        key = (x.shape, x.dtype, training, state()) if self.backend == "auto" else (x.shape, x.dtype)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._make_plan(x.shape, x.dtype, training, key)
        return plan

    def _make_plan(self, shape: tuple[int, ...], dtype: np.dtype[Any], training: bool, key: tuple[Any, ...]) -> _Plan:
        problem = _one(self.problem(shape))
        if problem.op == "avg" and dtype.kind != "f":
            raise DTypeError(f"x has dtype {dtype}: a mean of it would be rounded; pass x.astype(np.float32)")
        window, n = problem.window, problem.window.ndim
        first = len(shape) - n - self._trailing
        outer, inner = math.prod(shape[:first]), math.prod(shape[first + n :])
        name = auto(problem, outer, inner, dtype, training) if self.backend == "auto" else self.backend
        chosen = backend(name)
        reason = chosen.why_not(shape, dtype, problem)
        if reason is not None:
            error = DTypeError if "does not take" in reason else UnsupportedError
            raise error(f"backend={name!r} can't do this: {reason}; use backend='auto' or another one")
        return _Plan(
            shape,
            dtype,
            self.data_format,
            problem,
            name,
            chosen.ops[problem.op],
            (*shape[:first], *window.output_size, *shape[first + n :]),
            (outer, *window.input_size, inner),
            (outer, *window.output_size, inner),
            key,
        )

    def _forward(self, given: Any, out: Array | None, training: bool) -> tuple[Array, Array, Saved]:
        """x as the backend sees it, y, and what to hand to `backward`."""
        x = as_array("x", given)
        plan = self._plan(x, training)
        for recording in recordings():
            recording.note(plan.shape, plan.dtype, self, plan.problem, training)
        # Not only x may not be written to: where it is a copy, neither may what the caller has.
        y = empty(plan.y_shape, x.dtype) if out is None else check_out(out, plan.y_shape, x.dtype, x, given)
        kept: Kept = ()
        if y.size:
            kept = plan.run.forward(x.reshape(plan.canonical), plan.problem, y.reshape(plan.y_canonical), training)
        return x, y, Saved(plan, kept)

    def __call__(self, x: Any, *, out: Array | None = None) -> Array:
        """Pool `x` and keep nothing: :meth:`forward` for inference."""
        return self._forward(x, out, False)[1]

    def forward(self, x: Any, *, out: Array | None = None) -> tuple[Array, Saved]:
        """Pool `x` and keep what :meth:`backward` needs.

        Parameters
        ----------
        x
            Array of this operator's layout. One that is not C-contiguous is copied once.
        out
            Array to fill instead of a new one: C-contiguous, of the result's shape and x's dtype, apart from `x`.

        Returns
        -------
        y, saved
            The pooled array, of x's dtype, and what to hand to :meth:`backward`. Backends with ``keeps_x`` read `x`
            again in backward; with the others it may be overwritten in between.

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
            Array to fill instead of a new one: C-contiguous, of x's shape and dtype, apart from `dy`.

        Returns
        -------
        dx
            Array of x's shape and dtype. Where windows overlap, a cell's shares are added in the windows' row-major
            order, so that all backends agree to the bit.

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
                f"saved comes from another operator's forward pass (of {plan.problem}), not from {self!r}"
            )
        if self.backend not in ("auto", plan.backend):
            raise PoolingError(
                f"saved comes from backend={plan.backend!r}, but this operator has backend={self.backend!r}: "
                "call backward of the operator whose forward gave it"
            )
        if plan.dtype.kind != "f":
            raise DTypeError(f"x had dtype {plan.dtype}, which has no gradient: pool x.astype(np.float32) to train")
        given = dy
        dy = as_array("dy", given)
        if dy.shape != plan.y_shape:
            raise PoolingError(f"dy has shape {dy.shape}, but the y of this forward pass has {plan.y_shape}")
        if dy.dtype != plan.dtype:
            raise DTypeError(f"dy has dtype {dy.dtype}, but y has {plan.dtype}: pass dy.astype(np.{plan.dtype})")
        if out is None:
            dx = empty(plan.shape, dy.dtype)
        else:
            dx = check_out(out, plan.shape, dy.dtype, dy, given, *saved.kept)
        if dx.size:
            plan.run.backward(dy.reshape(plan.y_canonical), saved.kept, plan.problem, dx.reshape(plan.canonical))
        return dx


class MaxPool(_Operator):
    """Max pooling over any number of spatial dimensions.

    Parameters
    ----------
    kernel_size
        An int, or one per spatial dimension. As many spatial dimensions as it has entries; an int means x.ndim - 2.
    stride
        Distance between windows; `kernel_size` unless given.
    padding
        An int, one int or (before, after) pair per spatial dimension, "valid", "same_upper" or "same_lower".
        Padding never wins: it is "no value".
    dilation
        Distance between the cells of a window.
    ceil_mode
        Whether a last, partial window counts, unless it would start in the padding after the data.
    ties
        Who takes the gradient when a window's maximum occurs more than once: "first" or "last" in row-major order,
        "split" (each an equal share) or "all" (each the whole; not a subgradient).
    data_format
        "channels_first" (the spatial axes are the last) or "channels_last" (they come before the last). All other axes
        are batch.
    backend
        A name from :func:`pooling.backends`, or "auto".

    Notes
    -----
    A NaN wins its window, and the first NaN takes the gradient (where there are several they tie, so that another policy than
    "first" pays them as it pays other ties). A window of padding alone gives the dtype's lowest value
    and no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1, 5, 2, 0], [3, 4, 8, 6]], np.float32)
    >>> pool = MaxPool((2, 2))
    >>> y, saved = pool.forward(x)
    >>> y
    array([[5., 8.]], dtype=float32)
    >>> pool.backward(np.array([[10, 20]], np.float32), saved)
    array([[ 0., 10.,  0.,  0.],
           [ 0.,  0., 20.,  0.]], dtype=float32)
    """

    op = "max"

    def __init__(
        self,
        kernel_size: IntOrSeq,
        stride: IntOrSeq | None = None,
        padding: Padding = 0,
        dilation: IntOrSeq = 1,
        ceil_mode: bool = False,
        *,
        ties: Ties = "first",
        data_format: DataFormat = "channels_first",
        backend: str = "auto",
    ) -> None:
        if ties not in TIES:
            raise PoolingError(f"ties={ties!r}: it must be one of {', '.join(map(repr, TIES))}")
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, data_format, backend, ties=ties)

    def forward_with_indices(self, x: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """Pool `x`, and say where each maximum lies: `y` and int64 indices, flat within one spatial plane of `x`.

        The convention of PyTorch's ``return_indices=True``. A window of padding alone has the index -1.
        """
        x, y, saved = self._forward(x, out, True)
        plan = saved.plan
        c_x, c_y = x.reshape(plan.canonical), y.reshape(plan.y_canonical)
        taps = plan.run.taps(saved.kept, plan.problem, c_y) if plan.run.taps and saved.kept else None
        return y, flat_indices(c_x, c_y, taps, plan.problem).reshape(y.shape)


class AvgPool(_Operator):
    """Average pooling over any number of spatial dimensions; arguments as for :class:`MaxPool`, and:

    Parameters
    ----------
    count_include_pad
        Divide by the number of cells of the padded input under the window, instead of by that of the real ones.
    divisor_override
        Divide by this positive int instead of by any count.

    Examples
    --------
    >>> import numpy as np
    >>> pool = AvgPool((2, 2))
    >>> y, saved = pool.forward(np.array([[1, 5, 2, 0], [3, 3, 8, 6]], np.float32))
    >>> y
    array([[3., 4.]], dtype=float32)
    >>> pool.backward(np.array([[4, 8]], np.float32), saved)
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]], dtype=float32)
    """

    op = "avg"

    def __init__(
        self,
        kernel_size: IntOrSeq,
        stride: IntOrSeq | None = None,
        padding: Padding = 0,
        dilation: IntOrSeq = 1,
        ceil_mode: bool = False,
        *,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        data_format: DataFormat = "channels_first",
        backend: str = "auto",
    ) -> None:
        if divisor_override is not None:
            divisor_override = as_int("divisor_override", divisor_override, divisor_override, least=1)
        if not isinstance(count_include_pad, bool | np.bool_):
            raise PoolingError(f"count_include_pad={count_include_pad!r}: it must be True or False")
        super().__init__(
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
            data_format,
            backend,
            count_include_pad=bool(count_include_pad),
            divisor_override=divisor_override,
        )
