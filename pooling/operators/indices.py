"""Indices: from "which tap won" to "which cell won", and to the conventions of others.

Ours, and PyTorch's: flat within one spatial plane of the unpadded input, so that an index does not depend on batch and channel.
ONNX counts through the whole array (N, C, spatial); TensorFlow through (spatial, C) of each image, or through (N, spatial, C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pooling.backends.base import as_problem
from pooling.errors import DTypeError, PoolingError, shown
from pooling.geometry.argmax_rules import NO_TAP, winning_taps
from pooling.geometry.problem import Array, Problem
from pooling.geometry.window import per_axis
from pooling.operators.validation import as_plain, as_plain_array, check_choice

Span = tuple[Array, Array, int]

ANOTHER_SHAPE = "pass the input_shape of the array that was pooled"


def flat_indices(x: Array, y: Array, taps: Array | None, problem: Problem) -> Array:
    """Index of each window's winner, flat within one spatial plane of the unpadded input; int64, -1 where a window has no cell.

    Parameters
    ----------
    x, y
        Input and output of a max pooling, canonical.
    taps
        The winning taps, if the backend kept them; else they are found by comparing `x` with `y`.
    problem
        What was computed.
    """
    window = problem.window
    if taps is None:
        taps = winning_taps(x, y, problem)
    no_tap = taps == NO_TAP[taps.dtype]
    along_axes = np.unravel_index(np.where(no_tap, 0, taps), window.kernel_size)
    index = np.zeros(y.shape, np.int64)
    for i, (axis, tap) in enumerate(zip(window.axes, along_axes, strict=True)):
        starts = axis.table[:, 0] - axis.table[:, 1] * axis.step
        index *= axis.size
        index += starts.reshape((-1,) + (1,) * (window.ndim - i)) + tap * axis.step
    index[no_tap] = -1
    return index


def as_indices(name: str, value: Any, shape: tuple[int, ...] | None, cells: int, remedy: str = ANOTHER_SHAPE) -> Array:
    """`value` as int64, if it holds integers from -1 (nowhere) to below `cells`, and has this shape."""
    indices = as_plain_array(name, value)
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"{name} has dtype {indices.dtype}: pass integers, as return_indices=True gives them")
    if shape is not None and indices.shape != shape:
        raise PoolingError(
            f"{name} has shape {indices.shape}: it must have that of the values, {shape}; pass what one max pooling gave together"
        )
    wrong = (indices < -1) | (indices >= cells)
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise PoolingError(
            f"{name} is {indices[at]} at {at}: it must be from 0 to {cells - 1}, or -1 for nowhere; {remedy}"
        )
    return indices.astype(np.int64)


def indices_to_onnx(
    indices: Any, input_shape: Sequence[int], storage_order: int = 0, *, data_format: str = "channels_first"
) -> Array:
    """Indices of a max pooling in ONNX's convention: flat over all axes of the input (N, C, spatial).

    Parameters
    ----------
    indices
        As ``max_pool(x, ..., return_indices=True)`` gives them, of x with a batch and a channel axis.
    input_shape
        Of x.
    storage_order
        ONNX's attribute: 0 counts a plane row by row, 1 column by column.
    data_format
        Of `indices` and `input_shape`. The numbers are those of (N, C, spatial) in either.

    Examples
    --------
    >>> import numpy as np
    >>> indices_to_onnx(np.array([[[[5]], [[6]]]]), (1, 2, 2, 4)).ravel()
    array([ 5, 14])
    """
    planes, spatial, cells, _ = _planes(indices, input_shape, data_format)
    index = as_indices("indices", indices, None, cells)
    order = _reordered(np.maximum(index, 0), spatial, "C", storage_order)
    return np.where(index < 0, -1, planes * cells + order)


def indices_from_onnx(
    indices: Any, input_shape: Sequence[int], storage_order: int = 0, *, data_format: str = "channels_first"
) -> Array:
    """The inverse of :func:`indices_to_onnx`, with the same arguments.

    Examples
    --------
    >>> import numpy as np
    >>> indices_from_onnx(np.array([[[[5]], [[14]]]]), (1, 2, 2, 4)).ravel()
    array([5, 6])
    """
    planes, spatial, cells, every = _planes(indices, input_shape, data_format)
    index = as_indices("indices", indices, None, every * cells)
    inside = index - planes * cells
    _check_plane(index, (inside >= 0) & (inside < cells))
    order = _reordered(np.where(index < 0, 0, inside), spatial, _order(storage_order), 0)
    return np.where(index < 0, -1, order)


def indices_to_tensorflow(
    indices: Any,
    input_shape: Sequence[int],
    include_batch_in_index: bool = False,
    *,
    data_format: str = "channels_last",
) -> Array:
    """Indices of a max pooling in TensorFlow's convention (``tf.nn.max_pool_with_argmax``): flat over (spatial, C).

    Parameters
    ----------
    indices, input_shape
        As for :func:`indices_to_onnx`.
    include_batch_in_index
        Count through the batch too: flat over (N, spatial, C).
    data_format
        Of `indices` and `input_shape`. The numbers are those of (N, spatial, C) in either.

    Examples
    --------
    >>> import numpy as np
    >>> indices_to_tensorflow(np.array([[[[5, 6]]]]), (1, 2, 4, 2)).ravel()
    array([10, 13])
    """
    planes, _, cells, every = _planes(indices, input_shape, data_format)
    index = as_indices("indices", indices, None, cells)
    channels = every // max(input_shape[0], 1)
    _check_flag(include_batch_in_index)
    image = (planes // max(channels, 1)) * include_batch_in_index
    return np.where(index < 0, -1, (image * cells + index) * channels + planes % max(channels, 1))


def indices_from_tensorflow(
    indices: Any,
    input_shape: Sequence[int],
    include_batch_in_index: bool = False,
    *,
    data_format: str = "channels_last",
) -> Array:
    """The inverse of :func:`indices_to_tensorflow`, with the same arguments.

    Examples
    --------
    >>> import numpy as np
    >>> indices_from_tensorflow(np.array([[[[10, 13]]]]), (1, 2, 4, 2)).ravel()
    array([5, 6])
    """
    planes, _, cells, every = _planes(indices, input_shape, data_format)
    channels = max(every // max(input_shape[0], 1), 1)
    _check_flag(include_batch_in_index)
    index = as_indices("indices", indices, None, (every if include_batch_in_index else channels) * cells)
    image = (planes // channels) * include_batch_in_index
    inside = index // channels - image * cells
    _check_plane(index, (inside >= 0) & (inside < cells) & (index % channels == planes % channels))
    return np.where(index < 0, -1, inside)


def check_indices(indices: Any, input_shape: Sequence[int], operator: Any) -> None:
    """Check that each of the indices lies in its window, as those of a max pooling by `operator` do.

    Indices are flat: with another size than that of the array that was pooled, they mean other cells. Those that still lie within
    the plane, and by chance within their window, can't be distinguished from right ones; all others are found.

    Parameters
    ----------
    indices
        As ``operator.forward_with_indices(x)`` gives them; those of ONNX or TensorFlow are converted first, see
        :func:`indices_from_onnx` and :func:`indices_from_tensorflow`. -1 is nowhere, and right everywhere.
    input_shape
        Of the x that they are for.
    operator
        Whose windows they are to lie in, such as ``pooling.MaxPool(3, 2, 1)``: any operator but fractional pooling, which draws
        its windows anew.

    Raises
    ------
    PoolingError
        An index does not lie in its window; the message names the first.

    Examples
    --------
    >>> import numpy as np, pooling
    >>> x = np.array([[0, 0, 0, 0, 0], [0, 9, 0, 0, 8], [0, 0, 0, 0, 0]])
    >>> y, indices = pooling.max_pool(x, (2, 2), return_indices=True)
    >>> pooling.check_indices(indices, x.shape, pooling.MaxPool((2, 2)))
    >>> pooling.check_indices(indices, (2, 4), pooling.MaxPool((2, 2)))
    Traceback (most recent call last):
        ...
    pooling.errors.PoolingError: indices is 6 at (0, 0): in a plane of (2, 4) that is cell (1, 2), outside its window, which has
    cells (0, 0) to (1, 1); pass the input_shape of the array that was pooled, and the operator that pooled it
    """
    plain = as_plain(input_shape)
    if not isinstance(plain, tuple):
        raise PoolingError(f"input_shape={shown(input_shape)}: give the shape of the array that was pooled, a tuple")
    shape = per_axis("input_shape", plain, len(plain), least=0)
    problem = as_problem(operator, shape)
    if problem.drawn:
        raise PoolingError(
            f"operator={shown(operator)} draws its windows anew at each call: check the indices of MaxPool or AdaptiveMaxPool"
        )
    window = problem.window
    n = window.ndim
    first = len(shape) - n - int(getattr(operator, "data_format", "") == "channels_last")
    pooled = (*shape[:first], *window.output_size, *shape[first + n :])
    given = as_plain_array("indices", indices)
    if given.shape == (*shape[:first], *shape[first + n :]) and not getattr(operator, "keepdims", True):
        given = given.reshape(pooled)
    index = as_indices("indices", given, pooled, math.prod(window.input_size))
    tables = [axis.table for axis in window.axes]
    spans = [
        (t[:, 0], t[:, 0] + (t[:, 2] - 1) * axis.step, axis.step) for t, axis in zip(tables, window.axes, strict=True)
    ]
    check_within(index, first, window.input_size, spans, f"{ANOTHER_SHAPE}, and the operator that pooled it")


def check_within(index: Array, first: int, size: Sequence[int], spans: Sequence[Span], remedy: str) -> None:
    """Raise unless each index of a plane of this `size` lies in its window.

    Parameters
    ----------
    index
        Checked to lie within the plane. Its spatial axes begin with axis `first`.
    spans
        Of each spatial axis: for each window its first cell and its last, and from one of its cells to the next.
    """
    cells = np.unravel_index(np.maximum(index, 0), size) if index.size else ()
    wrong = np.zeros(index.shape, bool)
    for i, (cell, span) in enumerate(zip(cells, spans, strict=False)):
        start, last = (np.reshape(ends, (-1,) + (1,) * (index.ndim - first - i - 1)) for ends in span[:2])
        wrong |= (cell < start) | (cell > last) | ((cell - start) % span[2] != 0)
    wrong &= index >= 0
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        window = [tuple(int(ends[o]) for ends in span[:2]) for o, span in zip(at[first:], spans, strict=False)]
        begins, ends = (tuple(bounds) for bounds in zip(*window, strict=True))
        raise PoolingError(
            f"indices is {index[at]} at {at}: in a plane of {tuple(size)} that is cell {tuple(int(c[at]) for c in cells)}, "
            f"outside its window, which has cells {begins} to {ends}; {remedy}"
        )


def _planes(indices: Any, input_shape: Sequence[int], data_format: str) -> tuple[Array, tuple[int, ...], int, int]:
    """The number n * C + c of each index' plane, the spatial shape, its cells, and how many planes there are."""
    check_choice("data_format", data_format, ("channels_first", "channels_last"))
    plain = as_plain(input_shape)
    if not isinstance(plain, tuple):
        raise PoolingError(f"input_shape={shown(input_shape)}: give the shape of the array that was pooled, a tuple")
    shape = per_axis("input_shape", plain, len(plain), least=0)
    c = 1 if data_format == "channels_first" else len(shape) - 1
    given = as_plain_array("indices", indices).shape
    if len(shape) < 3 or len(given) != len(shape) or (given[0], given[c]) != (shape[0], shape[c]):
        raise PoolingError(
            f"input_shape={shape} does not go with indices of shape {given} in {data_format}: give the shape of the array "
            "that was pooled, with a batch and a channel axis"
        )
    spatial = tuple(n for i, n in enumerate(shape) if i not in (0, c))
    n, channel = (np.arange(shape[i], dtype=np.int64) for i in (0, c))
    planes = np.expand_dims(n, tuple(range(1, len(shape)))) * shape[c]
    planes = planes + np.expand_dims(channel, tuple(i for i in range(len(shape)) if i != c))
    return planes, spatial, math.prod(spatial), shape[0] * shape[c]


def _check_flag(include_batch_in_index: Any) -> None:
    if not isinstance(include_batch_in_index, bool | np.bool_):
        raise PoolingError(f"include_batch_in_index={shown(include_batch_in_index)}: it must be True or False")


def _order(storage_order: int) -> str:
    if not isinstance(storage_order, int | np.integer) or storage_order not in (0, 1):
        raise PoolingError(f"storage_order={shown(storage_order)}: it must be 0 (row by row) or 1 (column by column)")
    return "F" if storage_order else "C"


def _reordered(index: Array, spatial: tuple[int, ...], source: Any, storage_order: int) -> Array:
    """Flat indices of a plane counted in another order."""
    target: Any = _order(storage_order)
    if source == target or not index.size:
        return index
    return np.ravel_multi_index(np.unravel_index(index, spatial, source), spatial, order=target)


def _check_plane(index: Array, inside: Array) -> None:
    wrong = (index >= 0) & ~inside
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise PoolingError(
            f"indices is {index[at]} at {at}: that cell lies in another plane than its window; {ANOTHER_SHAPE}, and the "
            "convention that the indices have"
        )
