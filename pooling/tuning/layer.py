"""What is to be pooled, as far as its speed depends on it; and which neighbours share a record.

A record is found by its key, which is spelled from the problem itself, field by field, so that an op, or an argument, that is
new makes new keys and leaves the old ones alone. Sizes are spelled as buckets, each up to a power of two: two neighbours
share a record when all but their sizes is the same, each of their spatial sizes, and the number of their channels in
channels_last, lies in the same bucket, and their inputs have about as many bytes, in buckets each four times as large as
the one before. So a new batch size, or the short batch at the end of an epoch, is nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from pooling.backends.base import Describes, as_dtype, as_problem
from pooling.dtypes import computed_in
from pooling.errors import PoolingError, shown
from pooling.geometry.problem import Problem
from pooling.geometry.window import as_int, is_many
from pooling.parallel.pool import get_num_threads
from pooling.runtime.cached_property import cached_property

Direction = Literal["training", "inference"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
"""A forward pass that keeps what backward needs, with that backward pass; or a forward pass alone."""

MOST_BYTES = 1 << 63
"""Bytes of an array that any machine can address; with more of them, expected times would leave the floats."""

LONG = 40
"""Characters beyond which an argument is not spelled out in a key."""


@dataclass(frozen=True)
class Facts:
    """What the choice of a backend may depend on: the problem, and the arrays as every backend sees them.

    Arrays reach backends C-contiguous, of shape ``(outer, *spatial, inner)``; one that was not is copied first, which costs
    every backend the same.
    """

    problem: Problem
    outer: int
    inner: int
    dtype: np.dtype[Any]
    direction: Direction
    threads: int

    @cached_property
    def cells(self) -> int:
        """Elements of x."""
        return self.outer * math.prod(self.problem.window.input_size) * self.inner

    @cached_property
    def outputs(self) -> int:
        """Elements of y."""
        return self.outer * math.prod(self.problem.window.output_size) * self.inner

    @property
    def nbytes(self) -> int:
        """Of x."""
        return self.cells * self.dtype.itemsize

    @cached_property
    def family(self) -> str:
        """The key, but for the array's bytes."""
        layout = "channels_first" if self.inner == 1 else f"channels_last<={bucket(self.inner)}"
        # Whatever backends get is contiguous; should that change, today's records are about something else.
        words = [
            self.direction,
            *_spelled(self.problem),
            str(self.dtype),
            layout,
            "contiguous",
            f"threads={self.threads}",
        ]
        return " ".join(words)

    @cached_property
    def size(self) -> int:
        """The key's last part: x has at most 4 to the power of this bytes, and more than a quarter of that."""
        return -(-max(self.nbytes - 1, 0).bit_length() // 2)

    @property
    def key(self) -> str:
        return f"{self.family} bytes<=4^{self.size}"


@dataclass(frozen=True)
class Layer:
    """A pooling layer as :func:`pooling.tune` takes it.

    Parameters
    ----------
    shape, dtype
        Of its input.
    operator
        The operator, such as ``pooling.MaxPool(2)``; its own choice of a backend does not matter here.
    direction
        "training" or "inference".
    count
        How often it is called: what is called more is measured first.

    Examples
    --------
    >>> import pooling
    >>> Layer((64, 32, 496), "float32", pooling.MaxPool(4)).facts(threads=2).key
    'training max [size<=512 kernel=4 stride=4] float32 channels_first contiguous threads=2 bytes<=4^11'
    """

    shape: Sequence[int]
    dtype: DTypeLike
    operator: Describes | Problem
    direction: Direction = "training"
    count: int = 1

    def facts(self, threads: int | None = None) -> Facts:
        """What its speed depends on; PoolingError when the operator can't be applied to such arrays."""
        return facts(self.shape, self.dtype, self.operator, self.direction, threads)


def facts(
    shape: Sequence[int],
    dtype: DTypeLike,
    operator: Describes | Problem,
    direction: Direction = "training",
    threads: int | None = None,
) -> Facts:
    """The facts about `operator` on an input of this shape and dtype.

    Raises
    ------
    PoolingError
        An argument is wrong, or the operator can't be applied to such arrays.
    """
    if not isinstance(direction, str) or direction not in DIRECTIONS:
        raise PoolingError(f"direction={shown(direction)}: it must be one of {', '.join(map(repr, DIRECTIONS))}")
    if not is_many(shape):
        raise PoolingError(f"shape={shown(shape)}: give the input's shape, such as (64, 20, 24, 24)")
    sizes = tuple(as_int("shape", size, shape, least=0) for size in shape)
    element = computed_in(as_dtype(dtype))
    if math.prod(sizes) * element.itemsize >= MOST_BYTES:
        raise PoolingError(f"shape={shown(shape)}: no memory holds an array of so many bytes; give a smaller shape")
    threads = get_num_threads() if threads is None else as_int("threads", threads, threads, least=1)
    problem = as_problem(operator, sizes)
    if isinstance(operator, Problem):
        channels_last = _channels_last(sizes, problem)
    else:
        channels_last = operator.data_format == "channels_last"
    n = problem.window.ndim
    first = len(sizes) - n - channels_last
    outer, inner = math.prod(sizes[:first]), math.prod(sizes[first + n :])
    return Facts(problem, outer, inner, element, direction, threads)


def _channels_last(shape: tuple[int, ...], problem: Problem) -> bool:
    """Whether the problem's spatial axes come before the last one, and are not the last."""
    spatial = problem.window.input_size
    n = len(spatial)
    if shape[-n:] != spatial and shape[-n - 1 : -1] != spatial:
        raise PoolingError(
            f"shape={shown(shape)}: neither its last {n} axes nor those before the last are {spatial}, as the problem's; give a "
            "shape that has them"
        )
    return shape[-n:] != spatial


def bucket(n: int) -> int:
    """The power of two that `n` is not above.

    Examples
    --------
    >>> [bucket(n) for n in (1, 2, 3, 24, 32, 33)]
    [1, 2, 4, 32, 32, 64]
    """
    return 1 << max(n - 1, 0).bit_length()


def _spelled(value: Any) -> list[str]:
    """The fields of a problem, a window or an axis that are not what they are by default; sizes as buckets."""
    words = []
    for field in fields(value):
        entry = getattr(value, field.name)
        if not field.repr:  # no part of what is computed
            continue
        if field.default is not MISSING and entry == field.default:
            continue
        if is_dataclass(entry):
            words.append(f"[{' '.join(_spelled(entry))}]")
        elif isinstance(entry, tuple) and all(map(is_dataclass, entry)):
            words.append(" x ".join(" ".join(_spelled(one)) for one in entry))
        elif field.name == "size" and isinstance(entry, int):
            words.append(f"size<={bucket(entry)}")
        else:
            words.append(str(entry) if field.name == "op" else f"{field.name}={_short(str(entry))}")
    return words


def _short(text: str) -> str:
    """A value in one word; a long one, such as a list of regions, as a digest."""
    if len(text) > LONG:
        import hashlib

        return hashlib.sha256(text.encode()).hexdigest()[:12]
    return text.replace(" ", "")
