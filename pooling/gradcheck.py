"""Is this gradient right? A check that needs nothing but the operator's own forward pass.

For a gradient dy without negative entries, L(x) = <dy, forward(x)> is a convex function of x for every pooling, so its one-sided
derivatives along a direction v bound what a right gradient may say, ties or not::

    -L'(x; -v) <= <backward(dy), v> <= L'(x; v)

Where nothing ties both bounds are the same number, and the check is the usual comparison with differences. At a tie the
bounds are those of the subdifferential: the first cell, the last, or equal shares pass, and a gradient that pays
every tied cell in full does not: it gains, along v = 1, what nobody sent. Negative entries of dy follow by linearity,
which is checked as well.

All is computed in float64. Steps are smaller than the smallest distance between two values of x, so that differences of a
maximum are exact but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling.errors import GradientError, PoolingError

Array = NDArray[np.float64]

FINEST = 2.0**-30
"""Least step relative to the largest value: below it, differences drown in rounding. Closer values are made equal."""


class Differentiable(Protocol):
    """What can be checked: the operators of this package, or anything with the same two methods."""

    def forward(self, x: Any, /) -> tuple[Any, Any]: ...

    def backward(self, dy: Any, saved: Any, /) -> Any: ...


def gradcheck(
    operator: Differentiable,
    x: ArrayLike,
    *,
    cells: int = 200,
    directions: int = 6,
    seed: int = 0,
    shifts: bool | None = None,
) -> None:
    """Check that ``operator.backward`` is the gradient of ``operator.forward`` at `x`.

    Parameters
    ----------
    operator
        Has ``forward(x) -> (y, saved)`` and ``backward(dy, saved) -> dx``, on float64 arrays.
    x
        Where to check: finite numbers of any real dtype, checked as float64. Small is enough: its cost is about
        2 * `cells` forward passes.
    cells
        Check the derivative with respect to so many cells, drawn at random; all of them if there are no more. As many
        outputs, at most 32, are checked one by one.
    directions
        Number of random directions, beside the one along which all cells grow alike.
    seed
        Of what is drawn.
    shifts
        Whether pooling x + c has to give y + c, as for a maximum, or a mean whose padding does not count. None: when
        ``operator.op`` is "max".

    Raises
    ------
    GradientError
        The gradient is wrong; the message names the worst cell, what it should have got, and what it got.
    PoolingError
        `x` can't be checked.

    Notes
    -----
    The gradient test by random projections is that of autograd's ``check_grads``; the bounds at ties are the definition of the
    subdifferential of a convex function (Rockafellar, *Convex Analysis*, section 23).

    Examples
    --------
    >>> import numpy as np, pooling
    >>> x = np.maximum(np.random.default_rng(0).standard_normal((2, 3, 8, 8)), 0)
    >>> pooling.gradcheck(pooling.MaxPool(3, 2, 1), x)
    >>> pooling.gradcheck(pooling.MaxPool(2, ties="all"), x)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    pooling.errors.GradientError: ...
    """
    values, step = _prepared(x)
    if values.size == 0:
        return
    check = _Check(operator, values, step, np.random.default_rng(seed))
    if getattr(operator, "op", None) == "max" if shifts is None else shifts:
        check.shifts()
    check.linear()
    check.along(np.ones_like(values), "along which all cells grow alike")
    check.single_cells(cells)
    check.single_outputs(min(cells, 32))
    for number in range(directions):
        check.along(check.random.uniform(-1, 1, values.shape), f"number {number}, drawn at random")


def _prepared(x: ArrayLike) -> tuple[Array, float]:
    """`x` in float64, with nearly equal values made equal, and a step smaller than all distances."""
    given = np.asarray(x)
    if given.dtype.kind not in "fiub":
        raise PoolingError(f"x has dtype {given.dtype}: gradients are checked at real numbers; pass floats")
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise PoolingError("x holds NaN or infinity, where there are no differences: pass finite numbers")
    scale = 2.0 ** np.ceil(np.log2(max(float(np.abs(values).max(initial=0)), 1e-300)))
    finest = 4 * FINEST * scale
    gaps = np.diff(np.unique(values))
    smallest = float(gaps.min(initial=scale))
    if smallest < finest:
        values = np.round(values / finest) * finest
        smallest = float(np.diff(np.unique(values)).min(initial=scale))
    return values, 2.0 ** np.floor(np.log2(min(smallest, scale) / 4))


class _Check:
    """One operator at one point, evaluated there once."""

    def __init__(self, operator: Differentiable, x: Array, step: float, random: np.random.Generator) -> None:
        self.operator, self.x, self.step, self.random = operator, x, step, random
        self.y, self.saved = self.forward(x)
        self.live = np.isfinite(self.y)  # windows of padding alone give -inf, whatever x is
        self.dy = random.uniform(0.5, 1.5, self.y.shape)
        self.dx = self.backward(self.dy)
        self.tolerance = 1e-7 + 64 * np.finfo(float).eps * (1 + float(np.abs(x).max())) / step

    def forward(self, x: Array) -> tuple[Array, Any]:
        given = x.copy()
        y, saved = self.operator.forward(given)
        if not np.array_equal(given, x):
            raise GradientError(f"forward changed its input, at {_first(given != x)}: it must leave x alone")
        y = np.asarray(y)
        if y.dtype != np.float64:
            raise GradientError(f"forward made {y.dtype} of a float64 x: the gradient is checked in float64")
        return np.array(y), saved

    def backward(self, dy: Array) -> Array:
        given = dy.copy()
        dx = np.array(self.operator.backward(given, self.saved))
        if dx.shape != self.x.shape:
            raise GradientError(f"dx has shape {dx.shape}, expected {self.x.shape}, that of x")
        if dx.dtype != np.float64:
            raise GradientError(f"dx has dtype {dx.dtype}, expected float64, that of dy")
        if not np.array_equal(given, dy):
            raise GradientError(f"backward changed dy, at {_first(given != dy)}: it must leave dy alone")
        if not np.isfinite(dx).all():
            where = _first(~np.isfinite(dx))
            raise GradientError(f"dx is {dx[where]} at {where}, expected a finite number")
        return dx

    def bounds(self, dy: Array, v: Array) -> tuple[float, float]:
        """What a right gradient of <dy, y> may say along `v`."""
        y, live = self.y, self.live
        up, down = (self.forward(self.x + sign * self.step * v)[0] for sign in (1, -1))
        high = float(dy[live] @ (up - y)[live]) / self.step
        low = -float(dy[live] @ (down - y)[live]) / self.step
        return min(low, high), max(low, high)

    def shifts(self) -> None:
        for sign in (1, -1):
            c = sign * 2.0 ** np.ceil(np.log2(1 + 2 * float(np.abs(self.x).max())))
            moved, _ = self.forward(self.x + c)
            off = np.where(self.live, np.abs(moved - np.where(self.live, self.y, 0) - c), 0)
            if off.max(initial=0) > 1e-12 * abs(c) * 16:
                worst = _first(off == off.max())
                raise GradientError(
                    f"pooling x{c:+g} must give y{c:+g}, but at output {worst} it gives {moved[worst]:.6g}, expected "
                    f"{self.y[worst] + c:.6g}: something other than the cells of x takes part, such as padding by a number"
                )

    def linear(self) -> None:
        again = self.backward(self.dy)
        if not np.array_equal(again, self.dx):
            raise self.wrong(again, self.dx, "backward of the same dy a second time")
        for sign in (-1.0, 1.0):
            other = self.random.standard_normal(self.y.shape)
            expected = self.dx + sign * self.backward(other)
            got = self.backward(self.dy + sign * other)
            if np.abs(got - expected).max() > 1e-10 * (1 + np.abs(expected).max()):
                raise self.wrong(got, expected, "backward is linear in dy, but that of a sum is not the sum")

    def along(self, v: Array, which: str) -> None:
        low, high = self.bounds(self.dy, v)
        got = float(np.vdot(self.dx, v))
        room = self.tolerance * (1 + float(np.abs(self.dy).sum()))
        if not low - room <= got <= high + room:
            self.single_cells(self.x.size)  # names the cell, if it is a cell's fault alone
            self.single_outputs(self.y.size)
            raise GradientError(
                f"in the direction {which}, y grows by {_interval(low, high)} a unit, but dx says {got:.6g}; "
                f"the largest entry of dx is {self.dx.flat[np.abs(self.dx).argmax()]:.6g} at cell {_first_max(self.dx)}"
            )

    def single_cells(self, cells: int) -> None:
        """Each cell's own derivative; of those that are wrong the worst is named."""
        worst: tuple[float, str] = (0.0, "")
        room = self.tolerance * (1 + float(self.dy.max(initial=0)) * 4)
        for i in self._drawn(self.x.size, cells):
            v = np.zeros(self.x.size)
            v[i] = 1
            low, high = self.bounds(self.dy, v.reshape(self.x.shape))
            got = float(self.dx.flat[i])
            off = max(low - got, got - high)
            if off > room and off > worst[0]:
                cell = _index(i, self.x.shape)
                worst = off, f"the gradient at cell {cell} is {got:.6g}, expected {_interval(low, high)}"
        if worst[1]:
            raise GradientError(worst[1])

    def single_outputs(self, outputs: int) -> None:
        """What one output sends must arrive: at its own cells, and not more or less of it than y grows when all cells do."""
        for i in self._drawn(self.y.size, outputs):
            if not self.live.flat[i]:
                continue
            one = np.zeros(self.y.size)
            one[i] = 1
            dy = one.reshape(self.y.shape)
            dx = self.backward(dy)
            paid = (dx != 0).astype(float)
            for v, what in ((np.ones_like(self.x), "all cells together"), (paid, "the cells that it pays")):
                low, high = self.bounds(dy, v)
                got = float(np.vdot(dx, v))
                if not low - self.tolerance <= got <= high + self.tolerance:
                    raise GradientError(
                        f"output {_index(i, self.y.shape)} sends 1 and {what} get {got:.6g}, expected {_interval(low, high)}; "
                        f"the most, {dx.flat[np.abs(dx).argmax()]:.6g}, at cell {_first_max(dx)}"
                    )

    def wrong(self, got: Array, expected: Array, what: str) -> GradientError:
        worst = _first_max(got - expected)
        return GradientError(f"{what}: at cell {worst} it is {got[worst]:.6g}, expected {expected[worst]:.6g}")

    def _drawn(self, n: int, wanted: int) -> Iterator[int]:
        drawn = range(n) if n <= wanted else np.sort(self.random.choice(n, wanted, replace=False)).tolist()
        yield from drawn


def _interval(low: float, high: float) -> str:
    """A number, or the two that it may lie between."""
    return f"{high:.6g}" if high - low <= 1e-6 * (1 + abs(high)) else f"between {low:.6g} and {high:.6g}"


def _index(i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(i, shape)))


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return _index(int(np.argmax(mask)), mask.shape)


def _first_max(values: Array) -> tuple[int, ...]:
    return _index(int(np.abs(values).argmax()), values.shape)
