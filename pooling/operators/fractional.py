"""Fractional max pooling: windows of one size at random distances (Graham 2014, as in PyTorch).

The distances are drawn anew for each image and channel, so that planes differ in their windows. Planes with equal windows are
pooled together, as one array, by any backend; with a sample for all of them there is one such group, and nothing is copied.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from pooling.errors import PoolingError, shown
from pooling.geometry.axis import regions
from pooling.geometry.problem import Array, Kept, Problem, Ties
from pooling.geometry.window import IntOrSeq, Window, as_int, check_not_empty, for_all, per_axis
from pooling.operators.base import DataFormat, MaxOperator, Plan
from pooling.operators.validation import as_plain, as_plain_array
from pooling.operators.window_specs import LISTED, dimensions_of, entries_of, for_others
from pooling.runtime.buffer_pool import empty

Ratio = float | Sequence[float]


@dataclass(frozen=True)
class Fractional:
    """Windows of one size, as many as the output shall have cells, at distances that a sample from 0 to 1 determines."""

    kernel_size: Any
    output_size: Any
    output_ratio: Any

    keepdims = True
    fitted = True
    dimensions = "an int pools over x.ndim - 2 dimensions, a tuple over as many as it has entries"

    @property
    def ndim(self) -> int | None:
        counts = dimensions_of(self, ("output_size", "output_ratio"))
        return entries_of("kernel_size", self.kernel_size) or max(counts, default=None)

    @property
    def described(self) -> str:
        return f"kernel_size={shown(self.kernel_size)}"

    def sizes(self, size: Sequence[int]) -> list[tuple[int, int, int]]:
        """Per dimension: cells, cells of a window, windows."""
        n = len(size)
        kernels = per_axis("kernel_size", self.kernel_size, n, least=1)
        if self.output_size is not None:
            outs = per_axis("output_size", self.output_size, n, least=0)
            outs = tuple(as_int("output_size", out, self.output_size, 0, LISTED) for out in outs)
        else:
            ratios = for_all(self.output_ratio if isinstance(self.output_ratio, tuple) else (self.output_ratio,), n)
            if len(ratios) != n:
                raise PoolingError(f"output_ratio={shown(ratios)} has {len(ratios)} entries: give one number, or {n}")
            outs = tuple(int(cells * ratio) for cells, ratio in zip(size, ratios, strict=True))
        return list(zip(size, kernels, outs, strict=True))

    def starts(self, size: Sequence[int], samples: Array) -> list[Array]:
        """Per dimension the starts of all windows, a row for each row of `samples`."""
        found = []
        for i, (cells, kernel, out) in enumerate(self.sizes(size)):
            if kernel + out - 1 > cells:
                raise PoolingError(
                    f"kernel_size={shown(self.kernel_size)}: {out} windows of {kernel} cells need "
                    f"{max(kernel + out - 1, kernel)} in dimension {i}, but x has {cells} "
                    f"(its spatial size is {tuple(size)}): use a smaller window or output"
                )
            u = samples[:, i : i + 1]
            alpha = u.dtype.type(cells - kernel) / u.dtype.type(max(out - 1, 1))
            at = ((np.arange(out, dtype=u.dtype) + u) * alpha).astype(np.int64) - (u * alpha).astype(np.int64)
            at[:, out - 1 :] = cells - kernel  # the last one ends where the data do
            found.append(np.minimum(at, cells - kernel))
        return found

    def windows(self, size: Sequence[int], samples: Array) -> tuple[list[Window], Array]:
        """The different windows that `samples` make, and for each row the number of its own."""
        check_not_empty(size)
        starts = self.starts(size, samples)
        table = np.concatenate(starts, axis=1)
        numbers: dict[bytes, int] = {}
        which = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in table], np.int64)
        firsts = np.unique(which, return_index=True)[1]
        kernels = [kernel for _, kernel, _ in self.sizes(size)]
        made = []
        for row in firsts:
            along = ((n, at[row].tolist(), k) for n, at, k in zip(size, starts, kernels, strict=True))
            made.append(Window(tuple(regions(n, at, [a + k for a in at]) for n, at, k in along)))
        return made, which

    def window(self, size: Sequence[int]) -> Window:
        """One like those that samples make."""
        return self.windows(size, np.full((1, len(size)), 0.5))[0][0]


class _Group(NamedTuple):
    """Planes that have the same windows (None: all), and what their forward pass kept."""

    planes: Array | None
    problem: Problem
    kept: Kept


class FractionalMaxPool(MaxOperator):
    """Fractional max pooling: windows of one size, at random distances that make the output as large as is asked.

    Parameters
    ----------
    kernel_size
        Of each window: an int, or one per spatial dimension. If it is a sequence it says how many there are, else the others
        do. A sequence of one entry is for all dimensions, of which there is one unless another argument has more entries.
    output_size
        An int, or one per spatial dimension.
    output_ratio
        Instead of `output_size`: the output's size over the input's, a number between 0 and 1, or one per spatial dimension.
    random_samples
        Numbers from 0 to 1 that tell the distances: PyTorch's ``_random_samples``, of shape (N, C, n) for n spatial dimensions,
        in PyTorch's order: over two dimensions the first of the n is the width's, else the first axis'. One row,
        of shape (n,), serves all images and channels, as TensorFlow's sequences do.
    rng
        Where to draw samples from at each forward pass, if there are no `random_samples`: a NumPy Generator, or a seed.
    ties, data_format, backend
        As for :class:`MaxPool`.

    Notes
    -----
    Output ``i`` of ``out`` starts at ``floor((i + u) * a) - floor(u * a)`` with ``a = (size - kernel) / (out - 1)`` and a sample
    ``u``, the last at ``size - kernel``. Samples are taken in their own precision, as PyTorch takes them in that of x.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    >>> FractionalMaxPool(2, output_size=5, random_samples=[[[0.7]]])(x)
    array([[[1., 2., 4., 5., 7.]]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: IntOrSeq,
        output_size: IntOrSeq | None = None,
        output_ratio: Ratio | None = None,
        random_samples: Any = None,
        rng: np.random.Generator | int | None = None,
        *,
        ties: Ties = "first",
        data_format: DataFormat = "channels_first",
        backend: str = "auto",
    ) -> None:
        if (output_size is None) == (output_ratio is None):
            raise PoolingError(
                f"output_size={shown(output_size)}, output_ratio={shown(output_ratio)}: give one of them, and only one"
            )
        rule = Fractional(as_plain(kernel_size), as_plain(output_size), as_plain(output_ratio))
        counts = dimensions_of(rule, ("kernel_size", "output_size", "output_ratio"))
        rule = replace(rule, kernel_size=for_others(rule.kernel_size, counts))
        if output_ratio is not None:
            for ratio in rule.output_ratio if isinstance(rule.output_ratio, tuple) else (rule.output_ratio,):
                number: Any = ratio  # as it is: a large int has no float to compare
                if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < number < 1:
                    raise PoolingError(
                        f"output_ratio={shown(rule.output_ratio)}: {shown(ratio)} is not between 0 and 1; "
                        "give a number such as 0.5"
                    )
        rule.sizes((1,) * (rule.ndim or 1))  # wrong values are found here and not at the first call
        super().__init__(rule, data_format, backend, ties=ties)
        self.fractional = rule
        self.random_samples = None if random_samples is None else as_samples(random_samples)
        try:
            self.rng = np.random.default_rng(rng)
        except (TypeError, ValueError):
            raise PoolingError(f"rng={shown(rng)}: give a numpy.random.Generator, or a seed") from None

    def settled(self, shape: Sequence[int]) -> FractionalMaxPool:
        """This operator with the windows that it would draw next for arrays of `shape`, and from then on no others."""
        if self.random_samples is not None:
            return self
        size = self.problem(shape).window.input_size
        other = copy.copy(self)
        other.random_samples = copy.deepcopy(self.rng).random((math.prod(shape) // math.prod(size), len(size)))
        return other

    def _identity(self) -> tuple[Any, ...]:
        """With where the windows fall: the samples, or where they will be drawn from."""
        samples = self.random_samples
        if samples is None:
            return *super()._identity(), repr(self.rng.bit_generator.state)
        return *super()._identity(), samples.shape, samples.dtype, samples.tobytes()

    def problem(self, shape: Sequence[int]) -> Problem:
        return replace(super().problem(shape), drawn=True)

    def _draw(self, plan: Plan) -> list[tuple[Array | None, Problem]]:
        """The groups of planes with equal windows."""
        size = plan.problem.window.input_size
        planes, n = plan.canonical[0] * plan.canonical[-1], len(size)
        samples = self.rng.random((planes, n)) if self.random_samples is None else self.random_samples
        if samples.shape[-1:] != (n,) or samples.size not in (n, planes * n):
            raise PoolingError(
                f"random_samples has shape {samples.shape}: x of shape {plan.shape} needs {(planes, n)}, one row for each image "
                f"and channel (their two axes may be apart), or {(n,)} for all"
            )
        samples = samples.reshape(-1, n)
        windows, which = self.fractional.windows(size, samples[:, ::-1] if n == 2 else samples)
        problems = [replace(plan.problem, window=window) for window in windows]
        if len(problems) == 1:
            return [(None, problems[0])]
        order = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
        return list(zip(order, problems, strict=True))

    def _run(self, plan: Plan, x: Array, y: Array, training: bool) -> tuple[Any, ...]:
        groups = []
        cells, results = as_planes(x), as_planes(y)
        for planes, problem in self._draw(plan):
            if planes is None:
                return (_Group(None, problem, plan.run.forward(x, problem, y, training)),)
            part = empty((len(planes), *y.shape[1:-1], 1), y.dtype)
            groups.append(_Group(planes, problem, plan.run.forward(cells[planes], problem, part, training)))
            results[planes] = part
        from_planes(results, y)
        return tuple(groups)

    def _run_back(self, plan: Plan, dy: Array, kept: tuple[Any, ...], dx: Array) -> None:
        gradients, results = as_planes(dy), as_planes(dx)
        for planes, problem, arrays in kept:
            if planes is None:
                plan.run.backward(dy, arrays, problem, dx)
                return
            part = empty((len(planes), *dx.shape[1:-1], 1), dx.dtype)
            plan.run.backward(gradients[planes], arrays, problem, part)
            results[planes] = part
        from_planes(results, dx)

    def _indices(self, plan: Plan, x: Array, y: Array, kept: tuple[Any, ...]) -> Array:
        cells, maxima = as_planes(x), as_planes(y)
        indices = np.empty(y.shape, np.int64)
        results = as_planes(indices)
        for planes, problem, arrays in kept:
            part = replace(plan, problem=problem)
            if planes is None:
                return super()._indices(part, x, y, arrays)
            results[planes] = super()._indices(part, cells[planes], maxima[planes], arrays)
        from_planes(results, indices)
        return indices


def as_samples(given: Any) -> Array:
    """`random_samples` as an array of floats."""
    samples = as_plain_array("random_samples", given)
    if samples.dtype.kind != "f":
        raise PoolingError(f"random_samples has dtype {samples.dtype}: give floats from 0 to 1")
    if samples.ndim < 1 or not ((samples >= 0) & (samples <= 1)).all():
        raise PoolingError(
            f"random_samples={shown(given)}: give an array of numbers from 0 to 1, one row per image and channel"
        )
    return samples.astype(np.float32) if samples.dtype == np.float16 else samples


def as_planes(array: Array) -> Array:
    """Canonical (outer, *spatial, inner) as (planes, *spatial, 1): a view where there are no channels inside."""
    if array.shape[-1] == 1:
        return array
    return np.moveaxis(array, -1, 1).reshape(-1, *array.shape[1:-1], 1)


def from_planes(planes: Array, array: Array) -> None:
    """The way back, where :func:`as_planes` had to copy."""
    if array.shape[-1] != 1:
        apart = planes.reshape(len(array), array.shape[-1], *array.shape[1:-1])
        array[...] = np.moveaxis(apart, 1, -1)
