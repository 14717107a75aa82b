"""Pooling with a window that slides: max, average, and Lp."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from pooling.errors import PoolingError, shown
from pooling.geometry.problem import Ties
from pooling.geometry.window import LARGEST, IntOrSeq, Padding, as_int
from pooling.operators.base import DataFormat, MaxOperator, Operator
from pooling.operators.window_specs import Sliding


class MaxPool(MaxOperator):
    """Max pooling over any number of spatial dimensions.

    Parameters
    ----------
    kernel_size
        An int, or one per spatial dimension. As many spatial dimensions as it has entries; an int means x.ndim - 2.
        Of any argument a sequence of one entry is for all dimensions, as in PyTorch: ``MaxPool(2, padding=(1,))``. A kernel_size
        of one entry means one dimension, unless another argument has more entries: ``MaxPool((2,), stride=(2, 1))`` has two.
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
        Which cell gets the gradient when a window's maximum occurs more than once: "first" or "last" in row-major order,
        "split" (each an equal share) or "all" (each the whole; not a subgradient).
    data_format
        "channels_first" (the spatial axes are the last) or "channels_last" (they come before the last). All other axes
        are batch.
    backend
        A name from :func:`pooling.list_backends`, or "auto".

    Notes
    -----
    A NaN wins its window, and its first NaN takes the whole gradient under every policy; PyTorch's index is that of the last.
    A window of padding alone gives the dtype's lowest value and no gradient.

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
        rule = Sliding.of(kernel_size, stride, padding, dilation, ceil_mode)
        super().__init__(rule, data_format, backend, ties=ties)


class AvgPool(Operator):
    """Average pooling over any number of spatial dimensions; arguments as for :class:`MaxPool`, and:

    Parameters
    ----------
    count_include_pad
        Divide by the number of cells of the padded input under the window, instead of by that of the real ones.
    divisor_override
        Divide by this int, not 0, instead of by any count.

    Notes
    -----
    Means, and their gradients, are off by at most 64 units in the last place of the largest number, whatever the window; in
    float64, by a unit for every four cells if that is more. Where all cells fit, so does their mean, though their sum may not:
    four times 3e38 have the mean 3e38 in float32. PyTorch's is inf.

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
            divisor_override = as_int("divisor_override", divisor_override, divisor_override, least=-LARGEST)
            if divisor_override == 0:
                raise PoolingError("divisor_override=0: nothing can be divided by it; give another int, or None")
        count_include_pad = as_bool("count_include_pad", count_include_pad)
        rule = Sliding.of(kernel_size, stride, padding, dilation, ceil_mode)
        divide: dict[str, Any] = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
        super().__init__(rule, data_format, backend, **divide)


class LpPool(Operator):
    """Pooling by the Lp norm, ``(sum |x| ** p) ** (1 / p)``, over any number of spatial dimensions.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, data_format, backend
        As for :class:`MaxPool`. Padding adds nothing.
    p
        A number above 0; inf is the largest magnitude.
    signed
        Sum ``x ** p`` instead of ``|x| ** p``. PyTorch does; ONNX takes magnitudes. They differ where x is negative, unless p
        is an even number: a negative sum has no root, and gives NaN.
    scale_partial
        In ceil_mode, weigh the sum of a window that sticks out as if it had all its cells. PyTorch does, as its sum is a mean
        times the window's size; ONNX Runtime adds what is there. PyTorch's numbers are those of ``signed=True,
        scale_partial=True``.

    Notes
    -----
    Powers are summed in float64. The gradient is 0 where there is none: in windows whose norm is 0, and, with p < 1, at zeros.
    `x` and `y` are read again in backward.

    Examples
    --------
    >>> import numpy as np
    >>> pool = LpPool((2, 2))
    >>> y, saved = pool.forward(np.array([[3, 0, 0, 0], [0, -4, 0, 0]], np.float32))
    >>> y
    array([[5., 0.]], dtype=float32)
    >>> pool.backward(np.array([[10, 10]], np.float32), saved)
    array([[ 6.,  0.,  0.,  0.],
           [ 0., -8.,  0.,  0.]], dtype=float32)
    """

    op = "lp"

    def __init__(
        self,
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
    ) -> None:
        rule = Sliding.of(kernel_size, stride, padding, dilation, ceil_mode)
        norm: dict[str, Any] = {"signed": as_bool("signed", signed), "p": as_power(p)}
        super().__init__(rule, data_format, backend, **norm, scale_partial=as_bool("scale_partial", scale_partial))


def as_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise PoolingError(f"{name}={shown(value)}: it must be True or False")
    return bool(value)


def as_power(p: Any) -> float:
    """`p` as a float above 0."""
    if isinstance(p, bool | np.bool_) or not isinstance(p, Real):
        raise PoolingError(f"p={shown(p)}: it must be a number above 0, or math.inf")
    try:
        power = float(p)
    except OverflowError:
        raise PoolingError(
            f"p={shown(p)}: it is above the largest float; give math.inf for the largest magnitude"
        ) from None
    if not power > 0:
        raise PoolingError(
            f"p={shown(p)}: a norm has a power above 0; give such a number, math.inf for the largest magnitude"
        )
    return power
