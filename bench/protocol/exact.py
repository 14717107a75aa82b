"""Means and their gradients in a wider type than the one measured: what every contender's means are compared with.

A library's own result is no witness for a mean: in float32 a sum of a million cells that are added one by one is wrong in the
second digit, and whoever adds them in the same order is wrong alike. Here sums are float64, or long double where float64 is
measured, and go along one axis after the other, so that a window costs the sum of its sides and not their product.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.schema.workloads import Workload
from pooling.geometry.axis import Axis, Regions

Array = NDArray[Any]


def means(workload: Workload, x: Array) -> Array:
    """The mean of every window of `x`."""
    sums = _wide(x)
    for dimension, axis in _axes(workload):
        sums = _added(sums, dimension, axis, back=False)
    return np.asarray(sums / _divisors(workload))


def gradients(workload: Workload, dy: Array) -> Array:
    """The gradient with respect to x: the sum of what each of a cell's windows passes back."""
    shares = np.asarray(_wide(dy) / _divisors(workload))
    for dimension, axis in _axes(workload):
        shares = _added(shares, dimension, axis, back=True)
    return shares


def _wide(array: Array) -> Array:
    return array.astype(np.longdouble if array.dtype == np.float64 else np.float64)


def _axes(workload: Workload) -> list[tuple[int, Axis | Regions]]:
    """The window's axes, each with the dimension of the arrays it lies along."""
    first = 1 if workload.data_format == "channels_last" else 2
    return list(enumerate(workload.window.axes, start=first))


def _divisors(workload: Workload) -> Array:
    """Cells of every window, in a shape that broadcasts with the output's."""
    ndim = len(workload.shape)

    def along(dimension: int, axis: Axis | Regions) -> Array:
        shape = [1] * ndim
        shape[dimension] = -1
        return np.reshape(np.asarray(axis.counts(workload.count_include_pad), np.float64), shape)

    return reduce(np.multiply, (along(*one) for one in _axes(workload)))


def _added(array: Array, dimension: int, axis: Axis | Regions, back: bool) -> Array:
    """Each output's sum of its cells along one axis; with `back` each cell's sum of its outputs."""
    shape = list(array.shape)
    shape[dimension] = axis.size if back else axis.out
    sums = np.zeros(shape, array.dtype)
    for tap in range(axis.kernel):
        for outputs, cells in axis.runs(tap):
            target, source = (cells, outputs) if back else (outputs, cells)
            sums[_at(dimension, target)] += array[_at(dimension, source)]
    return sums


def _at(dimension: int, where: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * dimension, where)
