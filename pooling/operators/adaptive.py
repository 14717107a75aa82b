"""Pooling to an output of a given size, or of one cell: adaptive and global."""

from __future__ import annotations

from pooling.geometry.problem import Ties
from pooling.operators.base import DataFormat, MaxOperator, Operator
from pooling.operators.sliding import as_bool, as_power
from pooling.operators.window_specs import Adaptive, OutputSize, Whole


class AdaptiveMaxPool(MaxOperator):
    """Max pooling to an output of a given size, from any input.

    Output ``i`` of ``out`` reads the cells from ``floor(i * size / out)`` to ``ceil((i + 1) * size / out)`` of ``size``, as in
    PyTorch: regions that cover everything, and share cells where `out` does not divide the size.

    Parameters
    ----------
    output_size
        An int, or one per spatial dimension; None keeps the input's size. As many spatial dimensions as it has entries; an
        int or None alone means x.ndim - 2. It may be larger than the input.
    ties, data_format, backend
        As for :class:`MaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> pool = AdaptiveMaxPool((3,))
    >>> y, saved = pool.forward(np.array([1, 5, 2, 4, 3], np.float32))
    >>> y
    array([5., 5., 4.], dtype=float32)
    >>> pool.backward(np.array([1, 10, 100], np.float32), saved)
    array([  0.,  11.,   0., 100.,   0.], dtype=float32)
    """

    def __init__(
        self,
        output_size: OutputSize,
        *,
        ties: Ties = "first",
        data_format: DataFormat = "channels_first",
        backend: str = "auto",
    ) -> None:
        super().__init__(Adaptive.of(output_size), data_format, backend, ties=ties)


class AdaptiveAvgPool(Operator):
    """Average pooling to an output of a given size, from any input; arguments as for :class:`AdaptiveMaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> AdaptiveAvgPool((3,))(np.array([1, 5, 2, 4, 3], np.float32))
    array([3.       , 3.6666667, 3.5      ], dtype=float32)
    """

    op = "avg"

    def __init__(
        self, output_size: OutputSize, *, data_format: DataFormat = "channels_first", backend: str = "auto"
    ) -> None:
        super().__init__(Adaptive.of(output_size), data_format, backend)


class GlobalMaxPool(MaxOperator):
    """The maximum over all spatial dimensions: all of x but two, the batch and the channels.

    Parameters
    ----------
    keepdims
        Whether the output keeps the spatial dimensions, of size 1, as in ONNX; Keras drops them by default.
    ties, data_format, backend
        As for :class:`MaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> GlobalMaxPool()(np.array([[[1, 5, 2]]], np.float32))
    array([[[5.]]], dtype=float32)
    """

    def __init__(
        self,
        *,
        keepdims: bool = True,
        ties: Ties = "first",
        data_format: DataFormat = "channels_first",
        backend: str = "auto",
    ) -> None:
        super().__init__(Whole(as_bool("keepdims", keepdims)), data_format, backend, ties=ties)


class GlobalAvgPool(Operator):
    """The mean over all spatial dimensions; arguments as for :class:`GlobalMaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> GlobalAvgPool(keepdims=False)(np.array([[[1, 5, 3]]], np.float32))
    array([[3.]], dtype=float32)
    """

    op = "avg"

    def __init__(
        self, *, keepdims: bool = True, data_format: DataFormat = "channels_first", backend: str = "auto"
    ) -> None:
        super().__init__(Whole(as_bool("keepdims", keepdims)), data_format, backend)


class GlobalLpPool(Operator):
    """The Lp norm over all spatial dimensions; arguments as for :class:`LpPool` and :class:`GlobalMaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> GlobalLpPool()(np.array([[[3, 0, -4]]], np.float32))
    array([[[5.]]], dtype=float32)
    """

    op = "lp"

    def __init__(
        self,
        p: float = 2.0,
        *,
        signed: bool = False,
        keepdims: bool = True,
        data_format: DataFormat = "channels_first",
        backend: str = "auto",
    ) -> None:
        rule = Whole(as_bool("keepdims", keepdims))
        super().__init__(rule, data_format, backend, p=as_power(p), signed=as_bool("signed", signed))
