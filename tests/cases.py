"""The cases that every backend is held to: windows, layouts, dtypes and data, each id readable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling
from pooling.operators import DataFormat

Array = NDArray[Any]

SIZES = (7, 6, 5)
"""Spatial sizes: odd and even, and none a multiple of a vector."""

WINDOWS: dict[str, tuple[Any, ...]] = {
    "k2s2": (2,),
    "k3s2p1": (3, 2, 1),
    "k3s1p1": (3, 1, 1),
    "k3s2ceil": (3, 2, 0, 1, True),
    "k2s3d2": (2, 3, 0, 2),
    "k3s2p2d2ceil": (3, 2, 2, 2, True),
    "k2s2p1ceil": (2, 2, 1, 1, True),
    "k4s2same": (4, 2, "same_upper"),
    "k1s2": (1, 2),
    "k5s1p2": (5, 1, 2),
}

DATA = ("normal", "ties", "nan", "zeros")


@dataclass(frozen=True)
class Case:
    """An input and a window."""

    window: str
    ndim: int
    data_format: DataFormat
    dtype: str
    data: str
    channels: int = 3

    def __str__(self) -> str:
        layout = "last" if self.data_format == "channels_last" else "first"
        return f"{self.window}-{self.ndim}d-{layout}{self.channels}-{self.dtype}-{self.data}"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return WINDOWS[self.window]

    def input(self) -> Array:
        spatial = SIZES[: self.ndim]
        shape = (2, *spatial, self.channels) if self.data_format == "channels_last" else (2, self.channels, *spatial)
        random = np.random.default_rng(len(str(self)))
        x = random.standard_normal(shape) * 3
        if self.data == "ties":
            x = np.round(x / 3)
        elif self.data == "nan":
            x[random.random(shape) < 0.2] = np.nan
            x[random.random(shape) < 0.1] = np.inf
            x[random.random(shape) < 0.2] = -np.inf
        elif self.data == "zeros":
            x = np.where(random.random(shape) < 0.5, 0.0, -0.0)
        return (np.abs(x) if np.dtype(self.dtype).kind in "ub" else x).astype(self.dtype)

    def max_pool(self, backend: str, ties: Any = "first") -> pooling.MaxPool:
        return pooling.MaxPool(*self.arguments, ties=ties, data_format=self.data_format, backend=backend)

    def avg_pool(self, backend: str, **options: Any) -> pooling.AvgPool:
        return pooling.AvgPool(*self.arguments, data_format=self.data_format, backend=backend, **options)


def cases() -> Iterator[Case]:
    """Every window with every data in 2-D float32, and each other property with some windows: `simd` compiles for each pair."""
    extras = (
        ("channels_last", 2, 19),
        ("channels_last", 2, 3),
        ("channels_first", 1, 17),
        ("channels_last", 3, 20),
        ("channels_first", 3, 5),
    )
    for i, window in enumerate(WINDOWS):
        for data in DATA:
            yield Case(window, 2, "channels_first", "float32", data)
        layout, ndim, channels = extras[i % 5]
        yield Case(window, ndim, layout, "float32", DATA[i % 4], channels)  # type: ignore[arg-type]
    for layout, ndim, channels in extras:
        yield Case("k2s2", ndim, layout, "float32", "ties", channels)  # type: ignore[arg-type]
        yield Case("k3s2p1", ndim, layout, "float32", "nan", channels)  # type: ignore[arg-type]
    for dtype in (
        "float64",
        "float16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ):
        yield Case("k2s2", 2, "channels_last", dtype, "ties", channels=18)
    for dtype in ("float64", "float16"):
        yield Case("k3s1p1", 2, "channels_first", dtype, "nan")
    for dtype in ("int8", "uint64", "bool"):
        yield Case("k3s2ceil", 2, "channels_first", dtype, "ties")


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the bit, but for NaNs, of which there are many."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    unsigned = f"u{a.dtype.itemsize}"
    return bool(((a.view(unsigned) == b.view(unsigned)) | (np.isnan(a) & np.isnan(b))).all())
