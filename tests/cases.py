"""The cases that every backend is held to: windows, layouts, dtypes and data, each id readable."""

from __future__ import annotations

import functools
import itertools
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling
from pooling.operators.base import DataFormat

Array = NDArray[Any]

WINDOWS: dict[str, tuple[Any, ...]] = {
    "k2s2": (2,),
    "k3s2p1": (3, 2, 1),
    "k3s1p1": (3, 1, 1),
    "k3s2ceil": (3, 2, 0, 1, True),
    "k2s3d2": (2, 3, 0, 2),
    "k3s2p2d2ceil": (3, 2, 2, 2, True),
    "k2s2p1ceil": (2, 2, 1, 1, True),
    "k3s2valid": (3, 2, "valid"),
    "k4s2upper": (4, 2, "same_upper"),
    "k4s2lower": (4, 2, "same_lower"),
    "k1s2": (1, 2),
    "k5s1p2": (5, 1, 2),
    "k3s3pairs": (3, 3, ((0, 2), (2, 1), (1, 1), (2, 0))),
    "k2s3p8d8": (2, 3, 8, 8),  # where the input is shorter than 7, a window holds padding alone
    "oblong": ((3, 2, 4, 2), (2, 3, 1, 2), ((1, 0), (0, 1), (2, 1), (1, 1)), (1, 2, 1, 1), True),
}
"""Arguments of the operators; of a tuple the first entries, as many as there are spatial dimensions."""

LAYOUTS: dict[str, tuple[DataFormat, tuple[int, ...]]] = {
    "1d-first": ("channels_first", (2, 17, 7)),
    "1d-last": ("channels_last", (2, 7, 19)),
    "2d-first": ("channels_first", (2, 5, 7, 6)),
    "2d-few-last": ("channels_last", (2, 7, 6, 3)),
    "2d-last": ("channels_last", (2, 7, 6, 19)),
    "3d-first": ("channels_first", (1, 9, 5, 4, 6)),
    "3d-few-last": ("channels_last", (2, 5, 4, 6, 3)),
    "3d-last": ("channels_last", (1, 5, 4, 6, 18)),
    "4d-first": ("channels_first", (1, 1, 3, 4, 4, 3)),
    "4d-last": ("channels_last", (1, 3, 4, 4, 3, 2)),
}
"""Formats and shapes: no count of planes, channels or cells is a multiple of a vector's lanes."""

FLOATS = ("float32", "float64", "float16")
OTHERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
DTYPES = FLOATS + OTHERS

DATA = ("normal", "ties", "nan", "zeros", "low", "equal")
"""Any values; few different ones; NaN and infinities; zeros of both signs; mostly the lowest value; only one value."""


@dataclass(frozen=True)
class Case:
    """An input and a window."""

    window: str
    layout: str
    dtype: str
    data: str

    def __str__(self) -> str:
        return f"{self.window}-{self.layout}-{self.dtype}-{self.data}"

    @property
    def ndim(self) -> int:
        return len(self.shape) - 2

    @property
    def shape(self) -> tuple[int, ...]:
        return LAYOUTS[self.layout][1]

    @property
    def data_format(self) -> DataFormat:
        return LAYOUTS[self.layout][0]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return tuple(a[: self.ndim] if isinstance(a, tuple) else a for a in WINDOWS[self.window])

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def input(self) -> Array:
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return some_floats(rng, self.shape, self.data).astype(dtype)
        least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if self.data == "equal":
            return np.full(self.shape, most, dtype)
        x = rng.integers(least, most, self.shape, dtype="u1" if dtype.kind == "b" else dtype, endpoint=True)
        if self.data == "ties":
            x %= 3
        if self.data == "low":
            x[rng.random(self.shape) < 0.8] = least
        return x.astype(dtype)

    def max_pool(self, backend: str, ties: Any = "first") -> pooling.MaxPool:
        return pooling.MaxPool(*self.arguments, ties=ties, data_format=self.data_format, backend=backend)

    def avg_pool(self, backend: str, **options: Any) -> pooling.AvgPool:
        return pooling.AvgPool(*self.arguments, data_format=self.data_format, backend=backend, **options)


def some_floats(rng: np.random.Generator, shape: tuple[int, ...], data: str) -> Array:
    if data == "equal":
        return np.full(shape, -1.5)
    x = rng.standard_normal(shape) * 3
    if data == "ties":
        x = np.round(x / 3)
    elif data == "nan":
        x[rng.random(shape) < 0.2] = np.nan
        x[rng.random(shape) < 0.1] = np.inf
        x[rng.random(shape) < 0.2] = -np.inf
    elif data == "zeros":
        x = np.where(rng.random(shape) < 0.5, 0.0, -0.0)
    elif data == "low":
        x[rng.random(shape) < 0.8] = -np.inf
    return x


def sensible(window: str, layout: str, dtype: str, data: str) -> bool:
    """Only floats have NaN and a second zero."""
    return dtype in FLOATS or data not in ("nan", "zeros")


@functools.cache
def cases() -> tuple[Case, ...]:
    """For every backend: all windows with some data in 2-D float32, and every other property with some windows.

    `simd` compiles for each pair of window and dtype, and anew for each layout, for seconds: here are the pairs it gets.
    """
    found: list[tuple[str, str, str, str]] = []
    turn = itertools.cycle(("1d-first", "2d-last", "3d-first", "2d-few-last", "3d-last", "1d-last", "3d-few-last"))
    for i, window in enumerate(WINDOWS):
        found += [(window, "2d-first", "float32", DATA[(i + j) % len(DATA)]) for j in range(3)]
        if window != "k5s1p2":  # a fifth kernel in a fifth layout teaches nothing new
            found.append((window, next(turn), "float32", DATA[(i + 3) % len(DATA)]))
    found += [("k2s2", layout, "float32", "ties") for layout in LAYOUTS]
    found += [("k3s2p1", layout, "float32", "nan") for layout in LAYOUTS]
    found += [("k2s2", "2d-last", dtype, "normal") for dtype in DTYPES]
    found += [("k3s1p1", "2d-first", dtype, "nan") for dtype in FLOATS]
    found += [("k3s2ceil", "2d-first", dtype, "low") for dtype in ("int8", "uint64")]
    return tuple(Case(*values) for values in dict.fromkeys(found))


@functools.cache
def pairs() -> tuple[Case, ...]:
    """For every backend but `simd`: any two values of window, layout, dtype and data meet in one case."""
    factors: tuple[Sequence[str], ...] = (tuple(WINDOWS), tuple(LAYOUTS), DTYPES, DATA)
    rng = random.Random(0)
    open_pairs = {
        pair: None  # a dict, because it keeps its order
        for i, j in itertools.combinations(range(4), 2)
        for pair in itertools.product(((i, a) for a in factors[i]), ((j, b) for b in factors[j]))
        if (i, j) != (2, 3) or sensible("", "", pair[0][1], pair[1][1])
    }
    found = []
    while open_pairs:
        wanted = dict(next(iter(open_pairs)))
        tries = [[wanted.get(i) or rng.choice(values) for i, values in enumerate(factors)] for _ in range(40)]
        best = max((t for t in tries if sensible(*t)), key=lambda t: sum(p in open_pairs for p in pairs_in(t)))
        for pair in pairs_in(best):
            open_pairs.pop(pair, None)
        found.append(Case(*best))
    return tuple(found)


def pairs_in(values: Sequence[str]) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    yield from itertools.combinations(enumerate(values), 2)


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the bit, but for NaNs, of which there are many."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    unsigned = f"u{a.dtype.itemsize}"
    equal = np.ascontiguousarray(a).view(unsigned) == np.ascontiguousarray(b).view(unsigned)
    return bool((equal | (np.isnan(a) & np.isnan(b))).all())


def gradient_for(y: Array) -> Array:
    """Some dy, zeros of both signs among it."""
    rng = np.random.default_rng(1)
    dy = rng.standard_normal(y.shape).astype(y.dtype)
    dy[rng.random(y.shape) < 0.1] = -0.0
    dy[rng.random(y.shape) < 0.1] = 0.0
    return dy


def data(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Ties, NaNs and infinities."""
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal(shape) * 2)
    if np.dtype(dtype).kind == "f":
        x[rng.random(shape) < 0.02] = np.nan
        x[rng.random(shape) < 0.2] = -np.inf
        x[rng.random(shape) < 0.05] = -0.0
    return x.astype(dtype)
