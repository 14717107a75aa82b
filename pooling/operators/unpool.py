"""Max unpooling: values back to where the maxima lay, and zeros everywhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pooling.dtypes import computed_in
from pooling.errors import DTypeError, PoolingError, shown
from pooling.geometry.problem import Array
from pooling.geometry.window import IntOrSeq, as_int, for_all, per_axis
from pooling.operators.base import DATA_FORMATS, DataFormat
from pooling.operators.indices import as_indices, check_within
from pooling.operators.sliding import as_bool
from pooling.operators.validation import as_array, as_plain, check_choice, check_out
from pooling.operators.window_specs import dimensions_of, entries_of, for_others
from pooling.runtime.buffer_pool import empty

_REMEDY = "pass output_size=x.shape of the array that was pooled"
_DILATED = (
    "if its windows were dilated, leave out kernel_size, stride and padding and pass its spatial size as output_size"
)


@dataclass(frozen=True, slots=True, eq=False)
class Unpooled:
    """What the backward pass of an unpooling needs: the shapes, and for each value its place in the flattened result."""

    y_shape: tuple[int, ...]
    x_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    places: Array
    of: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """For every protocol of pickle: the old ones can't pickle slots."""
        return Unpooled, (self.y_shape, self.x_shape, self.dtype, self.places, self.of)


class MaxUnpool:
    """Max unpooling over any number of spatial dimensions: the partial inverse of max pooling, as in PyTorch.

    Parameters
    ----------
    kernel_size, stride, padding
        Of the pooling that gave the indices: the result has ``(out - 1) * stride - 2 * padding + kernel_size`` cells. An int, or
        one per spatial dimension, of which `kernel_size` says how many, as for :class:`MaxPool`. A sequence of one entry is for
        all dimensions: for one, if no argument has more, nor the output_size of a call. Without `kernel_size` the size is given
        at each call.
    data_format
        As for :class:`MaxPool`.

    Notes
    -----
    Where windows overlap, several values may have one place; they are equal if they come from a pooling. Else the last in
    row-major order stays, and the backward pass hands each of them the gradient, as PyTorch does.

    Indices are flat, and several sizes pool to the same: without an output_size, an index of a larger array means another cell
    wherever it happens to fit, and in PyTorch, too, the maximum is put there in silence. ``check=True`` finds indices that don't
    lie in their window, which most of them then don't; for dilated and other windows there is :func:`pooling.check_indices`.
    Pass ``output_size=x.shape`` of the x that was pooled to be sure.

    Examples
    --------
    >>> import numpy as np
    >>> unpool = MaxUnpool((2,))
    >>> x, saved = unpool.forward(np.array([5, 8], np.float32), np.array([1, 2]))
    >>> x
    array([0., 5., 8., 0.], dtype=float32)
    >>> unpool.backward(np.array([1, 2, 3, 4], np.float32), saved)
    array([2., 3.], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: IntOrSeq | None = None,
        stride: IntOrSeq | None = None,
        padding: IntOrSeq = 0,
        *,
        data_format: DataFormat = "channels_first",
    ) -> None:
        check_choice("data_format", data_format, DATA_FORMATS)
        self.kernel_size = as_plain(kernel_size)
        self.stride = as_plain(stride)
        self.padding = as_plain(padding)
        self.data_format = data_format
        counts = dimensions_of(self, ("kernel_size", "stride", "padding"))
        self.kernel_size = for_others(self.kernel_size, counts)
        self._window(entries_of("kernel_size", self.kernel_size) or max(counts, default=1))

    def __eq__(self, other: object) -> bool:
        """Whether the other does the same: one with equal arguments, in any process."""
        return vars(self) == vars(other) if isinstance(other, MaxUnpool) else NotImplemented

    def __hash__(self) -> int:
        return hash(MaxUnpool)  # the arguments may be changed

    def __repr__(self) -> str:
        names = ("kernel_size", "stride", "padding", "data_format")
        return f"MaxUnpool({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def _window(self, n: int) -> tuple[Any, ...]:
        """Kernel, stride and padding of each of `n` dimensions; no kernel and no stride where none are given."""
        kernels = None if self.kernel_size is None else per_axis("kernel_size", self.kernel_size, n, least=1)
        strides = kernels if self.stride is None else per_axis("stride", self.stride, n, least=1)
        return kernels, strides, per_axis("padding", self.padding, n, least=0)

    def _default_size(self, outputs: Sequence[int]) -> list[tuple[int, int]]:
        """Per dimension the size that a pooling to so many outputs has, if nothing is left over, and its stride."""
        sizes = zip(outputs, *self._window(len(outputs)), strict=True)
        return [((out - 1) * s - 2 * pad + k, s) for out, k, s, pad in sizes]

    def _shape(self, shape: tuple[int, ...], output_size: Sequence[int] | None) -> tuple[tuple[int, ...], int, int]:
        """Shape of the result, and between which of its axes the spatial ones lie."""
        trailing = int(self.data_format == "channels_last")
        wanted = None if output_size is None else as_plain(output_size)
        if wanted is not None and not isinstance(wanted, tuple):
            raise PoolingError(f"output_size={shown(output_size)}: give a tuple, one entry per spatial dimension")
        n = len(shape) - 2
        if isinstance(self.kernel_size, tuple):
            n = len(self.kernel_size)
            if n == 1 and wanted is not None and len(wanted) not in (1, len(shape)):
                n = len(wanted)  # a single entry is for all dimensions
        elif wanted is not None and (len(wanted) != len(shape) or len(shape) < 3):
            n = max([len(wanted), *dimensions_of(self, ("stride", "padding"))]) if len(wanted) == 1 else len(wanted)
        first = len(shape) - n - trailing
        if n < 1 or first < 0:
            raise PoolingError(
                f"y has {len(shape)} dimensions, which does not go with {shown(self)}, output_size={shown(output_size)}: give "
                "y a batch and a channel axis, or kernel_size an entry for each spatial dimension"
            )
        if wanted is not None and len(wanted) == len(shape) > n:  # all of the shape, as PyTorch allows
            wanted = wanted[first : first + n]
        if wanted is not None:
            wanted = for_all(wanted, n)
            if len(wanted) != n:
                raise PoolingError(
                    f"output_size={shown(output_size)} has {len(wanted)} entries: give {n} or {len(shape)}"
                )
            wanted = tuple(as_int("output_size", entry, output_size, least=1) for entry in wanted)
        if self.kernel_size is None:
            if wanted is None:
                raise PoolingError("output_size=None: without a kernel_size, say how large the result shall be")
        else:
            default = self._default_size(shape[first : first + n])
            if wanted is None:
                wanted = tuple(size for size, _ in default)
                if min(wanted) < 1:
                    raise PoolingError(
                        f"padding={shown(self.padding)} leaves a size of {wanted}: give less, or an output_size"
                    )
            for i, ((size, stride), entry) in enumerate(zip(default, wanted, strict=True)):
                if not size - stride < entry < size + stride:
                    raise PoolingError(
                        f"output_size={shown(output_size)}: {entry} in dimension {i} is no size that {shown(self)} pools to "
                        f"{shape[first + i]}; it must be from {max(size - stride + 1, 1)} to {size + stride - 1}; {_DILATED}"
                    )
        return (*shape[:first], *wanted, *shape[first + n :]), first, n

    def forward(
        self,
        y: Any,
        indices: Any,
        output_size: Sequence[int] | None = None,
        *,
        out: Array | None = None,
        check: bool = False,
    ) -> tuple[Array, Unpooled]:
        """Put the values of `y` where `indices` say.

        Parameters
        ----------
        y
            Array of this operator's layout.
        indices
            As max pooling returns them: integers of y's shape, flat within one spatial plane of the result; -1 is nowhere.
        output_size
            Spatial size of the result, or its whole shape, where several sizes pool to that of `y`. Without it the smallest that
            pools without a remainder is taken; an index of a larger array then means another cell, see the notes.
        out
            Array to fill instead of a new one.
        check
            Whether each index has to lie in its window of `kernel_size`, `stride` and `padding`.

        Returns
        -------
        x, saved
            The unpooled array, of y's dtype, and what to hand to :meth:`backward`.
        """
        given = y
        y = as_array("y", given)
        shape, first, n = self._shape(y.shape, output_size)
        cells, inner = math.prod(shape[first : first + n]), math.prod(shape[first + n :])
        outer, inside = math.prod(shape[:first]), math.prod(y.shape[first : first + n])
        taken = shape[first : first + n]
        remedy = _REMEDY if output_size is not None else f"{taken} is the default size: {_REMEDY}"
        remedy = remedy if self.kernel_size is None else f"{remedy}; {_DILATED}"
        flat = as_indices("indices", indices, y.shape, cells, remedy)
        if as_bool("check", check):
            self._check(flat, first, taken, remedy)
        flat = flat.reshape(outer, inside, inner)
        planes = np.arange(len(flat), dtype=np.int64)[:, None, None]
        places = (planes * cells + flat) * inner + np.arange(inner, dtype=np.int64)
        places[flat < 0] = -1
        places = places.reshape(-1)
        x = empty(shape, y.dtype) if out is None else check_out(out, shape, y.dtype, y, given, indices)
        x.fill(0)
        real = places >= 0
        x.reshape(-1)[places[real]] = y.reshape(-1)[real]
        return x, Unpooled(y.shape, shape, y.dtype, places, (self.data_format, *self._window(n)))

    def _check(self, index: Array, first: int, size: tuple[int, ...], remedy: str) -> None:
        """Raise unless each index lies in its window. A plane of any size that is allowed may have a last, partial window."""
        kernels, strides, pads = self._window(len(size))
        if kernels is None:
            raise PoolingError(
                "check=True: without a kernel_size there are no windows to check; give the kernel_size of the pooling, or call "
                "pooling.check_indices"
            )
        outputs = index.shape[first : first + len(size)]
        starts = [np.arange(out) * s - pad for out, s, pad in zip(outputs, strides, pads, strict=True)]
        spans = [(start, start + k - 1, 1) for start, k in zip(starts, kernels, strict=True)]
        check_within(index, first, size, spans, remedy)

    def __call__(
        self,
        y: Any,
        indices: Any,
        output_size: Sequence[int] | None = None,
        *,
        out: Array | None = None,
        check: bool = False,
    ) -> Array:
        """:meth:`forward` without what a backward pass would need."""
        return self.forward(y, indices, output_size, out=out, check=check)[0]

    def backward(self, dx: Any, saved: Unpooled, *, out: Array | None = None) -> Array:
        """Gradient with respect to `y`, given the gradient `dx` with respect to the unpooled array."""
        if not isinstance(saved, Unpooled):
            kind = type(saved).__name__
            raise PoolingError(
                f"saved is of type {kind}: pass what this operator's forward returned as its second value"
            )
        n = len(saved.of[-1])
        own = entries_of("kernel_size", self.kernel_size) in (None, 1, n)  # one may be for all, if output_size said so
        if not own or saved.of != (self.data_format, *self._window(n)):
            raise PoolingError(
                f"saved comes from another operator's forward pass (data_format, kernel_size, stride, padding: {saved.of}), "
                f"not from {shown(self)}: call backward of the operator whose forward gave it"
            )
        if computed_in(saved.dtype).kind != "f":
            raise DTypeError(f"y had dtype {saved.dtype}, which has no gradient: unpool y.astype(np.float32) to train")
        given = dx
        dx = as_array("dx", given)
        if dx.shape != saved.x_shape:
            raise PoolingError(
                f"dx has shape {dx.shape}, but the result of this forward pass has {saved.x_shape}: pass that result's gradient"
            )
        if dx.dtype != saved.dtype:
            raise DTypeError(f"dx has dtype {dx.dtype}, but y has {saved.dtype}: pass dx.astype('{saved.dtype}')")
        dy = empty(saved.y_shape, dx.dtype) if out is None else check_out(out, saved.y_shape, dx.dtype, dx, given)
        if dx.size:
            dy.reshape(-1)[...] = dx.reshape(-1)[saved.places]
            dy.reshape(-1)[saved.places < 0] = 0
        else:
            dy.fill(0)
        return dy
