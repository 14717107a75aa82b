"""Is this gradient right? A check that needs nothing but the operator's own forward pass.

A maximum has a kink wherever cells tie, and there no number is *the* derivative. But one-sided derivatives exist, and what
one output y pays to the cells, its row of the Jacobian, has to stay between them in every direction v::

    -y'(x; -v)  <=  <row, v>  <=  y'(x; v)

Where nothing ties both ends are the same number, and this is the usual comparison with differences. At a tie they span
the subdifferential (Rockafellar, *Convex Analysis*, section 23): tied cells may get anything from 0 to 1, all others 0; and
along v = 1, where all cells grow alike, both ends are 1: the shares have to add up. The first cell, the last, or equal shares
pass. Paying every tied cell in full does not. A row is ``backward`` of a dy with a single 1; sums of rows, for dy >= 0, obey
the sum of the bounds; for any other dy it is enough that ``backward`` is linear, which is checked as well.

Single cells and outputs are sampled where there are many. What the sample leaves out, projections on directions over all cells
have to find (as in autograd's ``check_grads``). Half of these move equal cells alike: ties stay tied, and the bounds are one
number. Steps are powers of two, smaller than any distance between values: none crosses a kink, and differences are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling.accuracy import check_accuracy, index, most, shown
from pooling.errors import GradientError, PoolingError
from pooling.errors import shown as repr_of

Array = NDArray[Any]
Cell = tuple[int, ...]

GRIDS = {np.dtype(np.float64): 2.0**-26, np.dtype(np.float32): 2.0**-6}
"""x is rounded to this multiple of its largest value, so that no two are nearly equal: differences would drown in rounding."""

WITHIN, TABLE = 32, 1 << 22
"""Steps that fit between two values of x, at least; and numbers that outputs looked at one by one may pay to all cells."""


class Differentiable(Protocol):
    """What can be checked: the operators of this package, or anything with the same two methods."""

    def forward(self, x: Any, /, *arguments: Any, **options: Any) -> tuple[Any, Any]: ...
    def backward(self, dy: Any, saved: Any, /) -> Any: ...


@dataclass(frozen=True)
class Checked:
    """What has been compared: cells and outputs one by one, of all that there are, and directions over all of them."""

    cells: int
    all_cells: int
    outputs: int
    all_outputs: int
    directions: int
    dtype: str


def gradcheck(
    operator: Differentiable,
    x: ArrayLike,
    *,
    cells: int = 200,
    directions: int = 6,
    seed: int = 0,
    shifts: bool | None = None,
    accuracy: bool | None = None,
    arguments: tuple[Any, ...] = (),
) -> Checked:
    """Check that ``operator.backward`` is the gradient of ``operator.forward`` at `x`, by forward passes alone.

    Parameters
    ----------
    operator
        Has ``forward(x) -> (y, saved)`` and ``backward(dy, saved) -> dx``, on float64 arrays. One that refuses float64 is
        checked in float32, less sharply, if `x` is float32.
    x
        Where to check: finite real numbers, converted to float64 and rounded to 2**-26 of the largest, so that nearly
        equal ones are equal. Small is enough, and ties are worth having. It costs 2 * `cells` forward passes.
    cells
        Check so many cells one by one, drawn at random, or all if there are no more; and as many outputs.
    directions, seed
        Number of random directions, beside that of all cells and that of the cells that are paid; seed of what is drawn.
    shifts
        Whether pooling x + c has to give y + c, as for a maximum, or a mean whose padding does not count. None: when
        ``operator.op`` is "max".
    accuracy
        Whether results in float32 and float16 have to be those in float64, but for 64 units in the last place of the largest
        number; of an array of equal numbers, too. None: when `operator` is one of this package.
    arguments
        What ``forward`` takes beside x: ``arguments=(indices,)`` checks an unpooling.

    Returns
    -------
    Checked
        How much has been compared.

    Raises
    ------
    GradientError
        The gradient is wrong: the message names the worst cell, what it got and should have got. Or an array has the wrong
        shape or dtype, an input was changed, or the same call gave another answer.
    PoolingError
        `x` or `operator` can't be checked.

    Examples
    --------
    >>> import numpy as np, pooling
    >>> x = np.maximum(np.random.default_rng(0).standard_normal((1, 2, 8, 8)), 0)
    >>> pooling.gradcheck(pooling.MaxPool(3, 2, 1), x)
    Checked(cells=128, all_cells=128, outputs=32, all_outputs=32, directions=8, dtype='float64')
    >>> pooling.gradcheck(pooling.MaxPool(2, ties="all"), np.zeros((1, 1, 2, 2)))
    Traceback (most recent call last):
        ...
    pooling.errors.GradientError: backward pays every tied cell: of a dy of 1 at output (0, 0, 0, 0), 4 cells get up to
    1 each, the first of them cell (0, 0, 0, 0); together they get 4, expected 1
    """
    if isinstance(operator, type) or not all(callable(getattr(operator, m, None)) for m in ("forward", "backward")):
        raise PoolingError(
            f"operator={repr_of(operator)} has no forward and backward: pass one, such as pooling.MaxPool(2)"
        )
    for name, value, least in (("cells", cells, 1), ("directions", directions, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise PoolingError(f"{name}={repr_of(value)}: give an int, at least {least}")
    try:
        given = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise PoolingError(f"x is no array: {error}; pass one, or lists of equal lengths") from None
    if given.dtype.kind not in "fiub" or np.ma.isMaskedArray(x):
        raise PoolingError(f"x has dtype {given.dtype}: gradients are checked at real, unmasked numbers; pass floats")
    if not np.isfinite(given).all():
        raise PoolingError("x holds NaN or infinity, where there are no differences: pass finite numbers")
    if given.size == 0:
        return Checked(0, 0, 0, 0, 0, "float64")
    operator = getattr(operator, "settled", lambda _: operator)(given.shape)  # windows drawn anew have no differences
    prepared = _prepared(given, _dtype(operator, given, arguments))
    check = _Check(operator, arguments, *prepared, np.random.default_rng(seed))
    if getattr(operator, "op", None) == "max" if shifts is None else shifts:
        check.shifts()
    check.repeats()
    check.linear()
    if hasattr(operator, "op") and hasattr(operator, "rule") if accuracy is None else accuracy:
        check_accuracy(operator, given, arguments)
    rows = check.rows(min(cells, max(TABLE // given.size, 1)))
    looked_at = check.cells(cells, rows)
    for v, how in check.directions(directions):
        check.along(v, how)
    return Checked(looked_at, check.x.size, len(rows), check.y.size, 2 + directions, str(check.x.dtype))


def _dtype(operator: Any, x: Array, arguments: tuple[Any, ...]) -> np.dtype[Any]:
    """float64, unless `x` is float32 and the operator refuses to work on anything wider."""
    if x.dtype == np.float32:
        try:
            operator.forward(x.astype(np.float64), *arguments)
        except Exception:  # whatever a foreign operator makes of float64
            return x.dtype
    return np.dtype(np.float64)


def _prepared(x: Array, dtype: np.dtype[Any]) -> tuple[Array, float, float]:
    """`x` with nearly equal values made equal, a step, and the power of two above the largest value."""
    wide = x.astype(np.float64)
    largest = float(np.abs(wide).max())
    exponent = float(np.ceil(np.log2(largest))) if largest else 0.0
    if abs(exponent) > 0.75 * np.finfo(dtype).maxexp:
        raise PoolingError(f"the largest number in x is {largest:.3g}: differences would leave {dtype}; scale x")
    scale = 2.0**exponent
    grid = GRIDS[dtype] * scale
    values = (np.round(wide / grid) * grid).astype(dtype)
    # Kinks may lie at 0 and between values of equal magnitude too: of an absolute value, or a ReLU.
    magnitudes = np.unique(np.append(np.abs(values).astype(np.float64), 0))
    # Longer steps would let curvature widen the bounds, shorter ones rounding: the precision's cube root balances both.
    longest = scale * 2.0 ** np.round(np.log2(np.finfo(dtype).eps) / 3)
    return values, min(longest, 2.0 ** np.floor(np.log2(np.diff(magnitudes).min(initial=scale) / WITHIN))), scale


@dataclass(frozen=True)
class _Slopes:
    """Every output's one-sided derivatives along one direction, the smaller first, and how far off rounding leaves one."""

    low: Array
    high: Array
    rounding: float

    def excess(self, got: float, dy: Array) -> float:
        """By how much `got`, for a `dy` without negative entries, lies beyond the bounds; below 0 if between them."""
        # Rounding has either sign; it adds up like a random walk, and only where an output moves at all.
        walk = 4 * self.rounding * float(np.linalg.norm(dy * ((self.low != 0) | (self.high != 0))))
        room = self.rounding + walk + 1e-13 * float(dy.sum())
        return max(float(np.vdot(dy, self.low)) - got, got - float(np.vdot(dy, self.high))) - room

    def expected(self, dy: Array) -> str:
        """The number, or the two that it may lie between."""
        low, high = float(np.vdot(dy, self.low)), float(np.vdot(dy, self.high))
        if high - low <= 1e-5 * (1 + abs(high)):
            return shown((low + high) / 2)
        return f"between {shown(low)} and {shown(high)}"


class _Check:
    """One operator at one point."""

    def __init__(
        self, operator: Any, arguments: Any, x: Array, step: float, scale: float, random: np.random.Generator
    ) -> None:
        self.operator, self.arguments, self.x, self.step, self.random = operator, arguments, x, step, random
        self.given = x.copy()
        self.y, self.saved = self.pooled(self.given)
        self.live = np.isfinite(self.y)  # windows of padding alone give -inf, whatever x is
        self.dy = random.uniform(0.5, 1.5, self.y.shape)
        self.dx = self.backward(self.dy)
        largest = max(scale, float(np.abs(self.y).max(where=self.live, initial=0)))
        self.rounding = 1e-10 + 8 * float(np.finfo(x.dtype).eps) * largest / step

    def pooled(self, x: Array) -> tuple[Array, Any]:
        """y in float64, and what was saved."""
        before = x.copy()
        result = self.operator.forward(x, *self.arguments)
        if not isinstance(result, tuple) or len(result) != 2:
            raise PoolingError(
                f"operator.forward returned {type(result).__name__}: it has to return the tuple (y, saved)"
            )
        y = np.asarray(result[0])
        _unchanged("forward changed x", x, before)
        if y.dtype != x.dtype:
            raise GradientError(f"forward made y of dtype {y.dtype} from x of {x.dtype}: expected that of x")
        if np.isnan(y).any():
            raise GradientError(f"y is nan at output {most(np.isnan(y))}, though x has no NaN")
        return y.astype(np.float64), result[1]

    def forward(self, x: Array) -> Array:
        y = self.pooled(x)[0]
        if y.shape != self.y.shape:
            raise GradientError(f"forward gave y of shape {self.y.shape}, then {y.shape} of an x of the same shape")
        return y

    def backward(self, dy: Array) -> Array:
        """dx in float64."""
        given, before = dy.astype(self.x.dtype), dy.astype(self.x.dtype)
        dx = np.asarray(self.operator.backward(given, self.saved))
        if dx.shape != self.x.shape:
            raise GradientError(f"dx has shape {dx.shape}, expected {self.x.shape}, that of x")
        if dx.dtype != self.x.dtype:
            raise GradientError(f"dx has dtype {dx.dtype}, expected {self.x.dtype}, that of x and dy")
        _unchanged("backward changed dy", given, before)
        _unchanged("backward changed x", self.given, self.x)
        if not np.isfinite(dx).all():
            at = most(~np.isfinite(dx))
            raise GradientError(f"the gradient at cell {at} is {dx[at]}, expected a finite number")
        return dx.astype(np.float64)

    def slopes(self, v: Array) -> _Slopes:
        """A curved function's derivative lies between the two as well, as close as the step is short."""
        ends = []
        for step in (self.step, -self.step):
            moved = self.forward((self.x + step * v).astype(self.x.dtype))
            ends.append(np.subtract(moved, self.y, out=np.zeros(self.y.shape), where=self.live) / step)
        return _Slopes(np.minimum(*ends), np.maximum(*ends), self.rounding)

    def shifts(self) -> None:
        for sign in (1, -1):
            c = sign * 2.0 ** np.ceil(np.log2(1 + 2 * float(np.abs(self.x).max())))
            moved = self.forward((self.x + c).astype(self.x.dtype))
            off = np.abs(np.subtract(moved, self.y + c, out=np.zeros(self.y.shape), where=self.live))
            if off.max(initial=0) > 64 * np.finfo(self.x.dtype).eps * abs(c):
                at = most(off)
                raise GradientError(
                    f"pooling x{c:+g} must give y{c:+g}, but at output {at} it gives {shown(moved[at])}, expected "
                    f"{shown(self.y[at] + c)}: something other than the cells of x takes part, such as padding by a number"
                )

    def repeats(self) -> None:
        """The same call gives the same answer, whatever was called in between."""
        again = self.forward(self.x.copy())
        if not np.array_equal(again, self.y):
            at = most(again != self.y)
            raise GradientError(f"forward of the same x gave {self.y[at]:.6g}, then {again[at]:.6g}, at output {at}")
        self.same(self.backward(self.dy), self.dx, "backward of the same dy and saved, a second time")
        self.forward(self.x.ravel()[::-1].reshape(self.x.shape))
        what = "backward of the same dy and saved, after forward of another x (saved has to carry what it needs)"
        self.same(self.backward(self.dy), self.dx, what)

    def linear(self) -> None:
        other = self.random.standard_normal(self.y.shape).astype(self.x.dtype).astype(np.float64)
        expected = self.dx - 2 * self.backward(other)
        self.same(self.backward(self.dy - 2 * other), expected, "backward is not linear in dy; of a sum of two")

    def same(self, got: Array, expected: Array, what: str) -> None:
        if np.abs(got - expected).max() > 256 * np.finfo(self.x.dtype).eps * (1 + np.abs(expected).max()):
            at = most(got - expected)
            raise GradientError(f"{what}: the gradient at cell {at} is {got[at]:.6g}, expected {expected[at]:.6g}")

    def rows(self, wanted: int) -> dict[int, Array]:
        """What single outputs pay to the cells, by the output's flat index."""
        one, drawn = np.ones(self.y.shape), self.drawn(np.arange(self.y.size), wanted)
        return {output: self.backward(_only(one, output)).ravel() for output in drawn}

    def cells(self, wanted: int, rows: dict[int, Array]) -> int:
        """Each cell's derivative, of all outputs together and of single ones; names the worst. Says how many cells."""
        outputs, table = list(rows), np.array(list(rows.values())).reshape(len(rows), self.x.size)
        every = np.arange(self.x.size)
        # Where they are too many, half of those looked at are cells that these outputs pay.
        chosen = self.drawn(every[table.any(axis=0)], wanted // 2) if every.size > wanted else []
        chosen += self.drawn(np.setdiff1d(every, chosen), wanted - len(chosen))
        sums = shares = (0.0, "")
        for cell in chosen:
            slopes = self.slopes(_only(np.ones(self.x.shape), cell))
            got = float(self.dx.flat[cell])
            excess = slopes.excess(got, self.dy)
            if excess > sums[0]:
                at, expected = index(cell, self.x.shape), slopes.expected(self.dy)
                sums = excess, f"the gradient at cell {at} is {shown(got)}, expected {expected}"
            paid = table[:, cell]
            low, high = (a.ravel()[outputs] for a in (slopes.low, slopes.high))
            each = np.maximum(low - paid, paid - high) - 5 * self.rounding
            if each.max(initial=0) > shares[0]:
                shares = float(each.max()), self.share(outputs[int(each.argmax())], cell, slopes)
        if sums[1] or shares[1]:
            raise GradientError(sums[1] or shares[1])
        return len(chosen)

    def share(self, output: int, cell: int, slopes: _Slopes) -> str:
        """What is wrong with what `output` pays to `cell`."""
        dy = _only(np.ones(self.y.shape), output)
        got = f"cell {index(cell, self.x.shape)} gets {shown(self.backward(dy).flat[cell])}"
        return f"of a dy of 1 at output {index(output, self.y.shape)}, {got}, expected {slopes.expected(dy)}"

    def directions(self, wanted: int) -> Iterator[tuple[Array, str]]:
        yield np.ones(self.x.shape), "together"
        yield np.sign(self.dx), "together"
        value = np.unique(self.x, return_inverse=True)[1].reshape(self.x.shape)
        for number in range(wanted):
            tied = number % 2 == 0  # cells of equal value move alike, so that ties stay ties
            size: Any = int(value.max()) + 1 if tied else self.x.shape
            # In sixteenths, so that steps, and sums of cells, round as little as along one cell.
            v = self.random.integers(-16 if number % 4 < 2 else 1, 17, size) / 16
            yield v[value] if tied else v, "each times a random number"

    def along(self, v: Array, how: str) -> None:
        """All outputs together in one direction; where that is wrong, an output and a cell that are to blame are found."""
        slopes = self.slopes(v)
        if slopes.excess(float(np.vdot(self.dx, v)), self.dy) <= 0:
            return

        def by_outputs(part: slice) -> float:
            dy = _only(self.dy, part)
            return slopes.excess(float(np.vdot(self.backward(dy), v)), dy)

        output = _narrowed(self.y.size, by_outputs, -np.inf).start
        dy = _only(np.ones(self.y.shape), output)
        row = self.backward(dy)

        def by_cells(part: slice) -> float:
            some = _only(v, part)
            return self.slopes(some).excess(float(np.vdot(row, some)), dy)

        cells = _narrowed(self.x.size, by_cells, 0)  # stops at a tie, where any one cell could be right, but not all
        if cells.stop - cells.start == 1:
            raise GradientError(self.share(output, cells.start, self.slopes(_only(np.ones(v.shape), cells.start))))
        paid, first = np.count_nonzero(row), most(row)
        tied = "backward pays every tied cell: " if paid > 1 and np.all(row[row != 0] == 1) else ""
        raise GradientError(
            f"{tied}of a dy of 1 at output {index(output, self.y.shape)}, {paid} cells get up to {shown(row[first])} each, "
            f"the first of them cell {first}; {how} they get {shown(float(np.vdot(row, v)))}, expected {slopes.expected(dy)}"
        )

    def drawn(self, these: Array, wanted: int) -> list[int]:
        """So many of `these`, in order."""
        if these.size > wanted:
            these = np.sort(self.random.choice(these, wanted, replace=False))
        return [int(i) for i in these]


def _unchanged(wrong: str, now: Array, before: Array) -> None:
    if not np.array_equal(now, before):
        raise GradientError(f"{wrong}, at {most(now != before)}: it must leave its inputs alone")


def _only(values: Array, part: int | slice) -> Array:
    """`values` with zeros everywhere else than in one part, by flat indices."""
    some = np.zeros(values.size)
    some[part] = values.reshape(-1)[part]
    return some.reshape(values.shape)


def _narrowed(n: int, excess: Callable[[slice], float], least: float) -> slice:
    """A part of range(n) that is to blame: halved towards the larger excess, until none of the halves has more than `least`."""
    part = slice(0, n)
    while part.stop - part.start > 1:
        middle = (part.start + part.stop) // 2
        halves = [(excess(half), half) for half in (slice(part.start, middle), slice(middle, part.stop))]
        worse, half = max(halves, key=lambda found: found[0])
        if worse <= least:
            break
        part = half
    return part
