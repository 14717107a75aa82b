"""Pooling in one line, with no state kept: for inference, and for trying things out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pooling.geometry.problem import Array
from pooling.geometry.window import IntOrSeq, Padding
from pooling.operators.adaptive import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalLpPool, GlobalMaxPool
from pooling.operators.base import DataFormat
from pooling.operators.fractional import FractionalMaxPool, Ratio
from pooling.operators.sliding import AvgPool, LpPool, MaxPool
from pooling.operators.unpool import MaxUnpool
from pooling.operators.validation import as_plain
from pooling.operators.window_specs import OutputSize

if TYPE_CHECKING:
    from numpy.random import Generator  # NumPy loads it when it is used


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
    pool: MaxPool = _operator(MaxPool, *window, data_format=data_format, backend=backend)
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
    divide = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
    pool: AvgPool = _operator(AvgPool, *window, data_format=data_format, backend=backend, **divide)
    return pool(x, out=out)


def lp_pool(
    x: Any,
    kernel_size: IntOrSeq,
    p: float = 2.0,
    stride: IntOrSeq | None = None,
    padding: Padding = 0,
    dilation: IntOrSeq = 1,
    ceil_mode: bool = False,
    *,
    signed: bool = False,
    scale_partial: bool = False,
    data_format: DataFormat = "channels_first",
    backend: str = "auto",
    out: Array | None = None,
) -> Array:
    """Pooling of `x` by the Lp norm in one line; arguments as for :class:`LpPool`.

    Examples
    --------
    >>> import numpy as np
    >>> lp_pool(np.array([[3, 0], [0, -4]], np.float32), (2, 2))
    array([[5.]], dtype=float32)
    """
    window = (kernel_size, p, stride, padding, dilation, ceil_mode)
    norm = {"signed": signed, "scale_partial": scale_partial}
    pool: LpPool = _operator(LpPool, *window, data_format=data_format, backend=backend, **norm)
    return pool(x, out=out)


def global_max_pool(
    x: Any,
    *,
    keepdims: bool = True,
    data_format: DataFormat = "channels_first",
    return_indices: bool = False,
    backend: str = "auto",
    out: Array | None = None,
) -> Any:
    """The maximum over all spatial dimensions of `x`; arguments as for :class:`GlobalMaxPool`, results as of :func:`max_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool(np.array([[[1, 5, 2]]]), return_indices=True)
    (array([[[5]]]), array([[[1]]]))
    """
    pool: GlobalMaxPool = _operator(GlobalMaxPool, keepdims=keepdims, data_format=data_format, backend=backend)
    return pool.forward_with_indices(x, out=out) if return_indices else pool(x, out=out)


def global_avg_pool(
    x: Any,
    *,
    keepdims: bool = True,
    data_format: DataFormat = "channels_first",
    backend: str = "auto",
    out: Array | None = None,
) -> Array:
    """The mean over all spatial dimensions of `x`; arguments as for :class:`GlobalAvgPool`.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool(np.ones((1, 3, 5, 5), np.float32)).shape
    (1, 3, 1, 1)
    """
    pool: GlobalAvgPool = _operator(GlobalAvgPool, keepdims=keepdims, data_format=data_format, backend=backend)
    return pool(x, out=out)


def global_lp_pool(
    x: Any,
    p: float = 2.0,
    *,
    signed: bool = False,
    keepdims: bool = True,
    data_format: DataFormat = "channels_first",
    backend: str = "auto",
    out: Array | None = None,
) -> Array:
    """The Lp norm over all spatial dimensions of `x`; arguments as for :class:`GlobalLpPool`.

    Examples
    --------
    >>> import numpy as np
    >>> global_lp_pool(np.array([[[3, 0, -4]]], np.float32), 1)
    array([[[7.]]], dtype=float32)
    """
    given: dict[str, Any] = {"keepdims": keepdims, "data_format": data_format, "backend": backend}
    pool: GlobalLpPool = _operator(GlobalLpPool, p, signed=signed, **given)
    return pool(x, out=out)


def adaptive_max_pool(
    x: Any,
    output_size: OutputSize,
    *,
    data_format: DataFormat = "channels_first",
    return_indices: bool = False,
    backend: str = "auto",
    out: Array | None = None,
) -> Any:
    """Max pooling of `x` to a given size; arguments as for :class:`AdaptiveMaxPool`, results as of :func:`max_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool(np.array([1, 5, 2, 4, 3]), (3,), return_indices=True)
    (array([5, 5, 4]), array([1, 1, 3]))
    """
    pool: AdaptiveMaxPool = _operator(AdaptiveMaxPool, output_size, data_format=data_format, backend=backend)
    return pool.forward_with_indices(x, out=out) if return_indices else pool(x, out=out)


def adaptive_avg_pool(
    x: Any,
    output_size: OutputSize,
    *,
    data_format: DataFormat = "channels_first",
    backend: str = "auto",
    out: Array | None = None,
) -> Array:
    """Average pooling of `x` to a given size; arguments as for :class:`AdaptiveAvgPool`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool(np.ones((1, 3, 7, 9), np.float32), (None, 4)).shape
    (1, 3, 7, 4)
    """
    pool: AdaptiveAvgPool = _operator(AdaptiveAvgPool, output_size, data_format=data_format, backend=backend)
    return pool(x, out=out)


def fractional_max_pool(
    x: Any,
    kernel_size: IntOrSeq,
    output_size: IntOrSeq | None = None,
    output_ratio: Ratio | None = None,
    random_samples: Any = None,
    rng: Generator | int | None = None,
    *,
    data_format: DataFormat = "channels_first",
    return_indices: bool = False,
    backend: str = "auto",
    out: Array | None = None,
) -> Any:
    """Fractional max pooling of `x`; arguments as for :class:`FractionalMaxPool`, results as of :func:`max_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).random((1, 3, 32, 32))
    >>> fractional_max_pool(x, 2, output_ratio=0.7, rng=0).shape
    (1, 3, 22, 22)
    """
    size = (kernel_size, output_size, output_ratio, random_samples, rng)
    pool = FractionalMaxPool(*size, data_format=data_format, backend=backend)
    return pool.forward_with_indices(x, out=out) if return_indices else pool(x, out=out)


def max_unpool(
    y: Any,
    indices: Any,
    kernel_size: IntOrSeq | None = None,
    stride: IntOrSeq | None = None,
    padding: IntOrSeq = 0,
    output_size: Sequence[int] | None = None,
    *,
    data_format: DataFormat = "channels_first",
    out: Array | None = None,
    check: bool = False,
) -> Array:
    """Values back to where the maxima lay, and zeros everywhere else; arguments as for :class:`MaxUnpool` and its ``forward``.

    Without an `output_size` that of the smallest array that pools to y is taken. Indices are flat, so that those of a larger
    array then mean other cells: in silence, as in PyTorch, where they happen to fit. `check` finds those outside their window.

    Examples
    --------
    >>> import numpy as np
    >>> y, indices = max_pool(np.array([1, 5, 8, 3, 2]), (2,), return_indices=True)
    >>> max_unpool(y, indices, output_size=(5,))
    array([0, 5, 8, 0, 0])

    A maximum elsewhere, as the array that was pooled was larger:

    >>> x = np.array([[0, 0, 0, 0, 0], [0, 9, 0, 0, 0], [0, 0, 0, 0, 0]])
    >>> y, indices = max_pool(x, (2, 2), return_indices=True)
    >>> max_unpool(y, indices, (2, 2))
    array([[0, 0, 0, 0],
           [0, 0, 9, 0]])
    >>> max_unpool(y, indices, (2, 2), check=True)
    Traceback (most recent call last):
        ...
    pooling.errors.PoolingError: indices is 6 at (0, 0): in a plane of (2, 4) that is cell (1, 2), outside its window, which has
    cells (0, 0) to (1, 1); (2, 4) is the default size: pass output_size=x.shape of the array that was pooled; if its
    windows were dilated, leave out kernel_size, stride and padding and pass its spatial size as output_size
    >>> max_unpool(y, indices, (2, 2), output_size=x.shape, check=True)
    array([[0, 0, 0, 0, 0],
           [0, 9, 0, 0, 0],
           [0, 0, 0, 0, 0]])
    """
    unpool = MaxUnpool(kernel_size, stride, padding, data_format=data_format)
    return unpool(y, indices, output_size, out=out, check=check)


SCALARS = {int, float, bool, str, type(None)}
ENTRIES = {int, type(None)}


def _operator(cls: Any, *arguments: Any, **options: Any) -> Any:
    """The operator of these arguments, the same one for equal arguments, so that the functions share its plans."""
    if SCALARS.issuperset(map(type, arguments)) and SCALARS.issuperset(map(type, options.values())):
        return _remembered(cls, *arguments, **options)
    if not all(map(_plain, arguments)):
        arguments = tuple(map(as_plain, arguments))  # lists and arrays
    if all(map(_plain, arguments)) and all(map(_plain, options.values())):
        return _remembered(cls, *arguments, **options)
    return cls(*arguments, **options)  # and if an argument is wrong, it says so


def _plain(value: Any) -> bool:
    """Whether equal values mean the same: not 2.0 and 2, or True and 1, which a memory would take for each other."""
    if type(value) is tuple:
        return ENTRIES.issuperset(map(type, value)) or all(type(e) is tuple and _plain(e) for e in value)
    return type(value) in SCALARS


@lru_cache(maxsize=256, typed=True)
def _remembered(cls: Any, *arguments: Any, **options: Any) -> Any:
    return cls(*arguments, **options)
