"""Pooling in one line, with no state kept: for inference, and for trying things out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pooling.arrays import as_plain
from pooling.backend import Array
from pooling.operators import AvgPool, DataFormat, MaxPool
from pooling.window import IntOrSeq, Padding


def max_pool(
    x: Any,
    kernel_size: IntOrSeq,
    stride: IntOrSeq | None = None,
    padding: Padding = 0,
    dilation: IntOrSeq = 1,
    ceil_mode: bool = False,
    *,
    data_format: DataFormat = "channels_first",
    return_indices: bool = False,
    backend: str = "auto",
    out: Array | None = None,
) -> Any:
    """Max pooling of `x` in one line; arguments as for :class:`MaxPool`.

    Returns
    -------
    y
        The pooled array, of x's dtype; or ``(y, indices)`` with `return_indices`: int64, flat within one spatial plane
        of the unpadded input, the first of tied cells.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool(np.array([[1, 5, 2, 0], [3, 4, 8, 6]]), (2, 2), return_indices=True)
    (array([[5, 8]]), array([[1, 6]]))
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    pool: MaxPool = _operator(MaxPool, *window, ("data_format", data_format), ("backend", backend))
    return pool.forward_with_indices(x, out=out) if return_indices else pool(x, out=out)


def avg_pool(
    x: Any,
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
    out: Array | None = None,
) -> Array:
    """Average pooling of `x` in one line; arguments as for :class:`AvgPool`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool(np.array([[1, 5, 2, 0], [3, 3, 8, 6]], np.float32), (2, 2))
    array([[3., 4.]], dtype=float32)
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    divide = (("count_include_pad", count_include_pad), ("divisor_override", divisor_override))
    pool: AvgPool = _operator(AvgPool, *window, ("data_format", data_format), ("backend", backend), *divide)
    return pool(x, out=out)


def _operator(cls: Any, *arguments: Any) -> Any:
    """The operator of these arguments, the same one for equal arguments, so that the functions share its plans."""
    if not _hashable(arguments):  # a list or an array
        arguments = tuple(map(as_plain, arguments))
        if not _hashable(arguments):  # a wrong argument: the operator names it
            return cls(*arguments[:5], **dict(arguments[5:]))
    return _remembered(cls, *arguments)


def _hashable(arguments: tuple[Any, ...]) -> bool:
    try:
        hash(arguments)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=256, typed=True)
def _remembered(cls: Any, *arguments: Any) -> Any:
    return cls(*arguments[:5], **dict(arguments[5:]))
