"""Which backend is the fastest for an array? A rule that costs nothing and never changes what is computed."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import DTypeLike

from pooling.backend import Describes, Problem, as_dtype, as_problem
from pooling.backends import REGISTRY
from pooling.errors import UnsupportedError

PREFERENCE = ("simd", "numba_loops", "strided_slices", "repeat_mask", "reference")
"""Fastest first, as the benchmarks order them; each does what the ones before it can't."""


def pick(shape: Sequence[int], dtype: DTypeLike, operator: Describes | Problem) -> str:
    """Name of the fastest backend for `operator` on arrays of `shape` and `dtype`.

    Parameters
    ----------
    shape, dtype
        Of the input.
    operator
        A :class:`pooling.MaxPool` or any other. Its tie policy is kept, whatever it costs.

    Examples
    --------
    >>> import pooling
    >>> pick((64, 20, 24, 24), "float32", pooling.MaxPool(2)) in pooling.backends()
    True
    """
    problem, dtype = as_problem(operator, shape), as_dtype(dtype)
    reasons = []
    for name in PREFERENCE:
        reason = REGISTRY[name].why_not(shape, dtype, problem)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise UnsupportedError("no backend can do this: " + "; ".join(reasons))
