"""The gradient-check matrix: every backend and tie policy at every kind of window, and the exhibits; ties on an example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling
from bench.experiments.exhibits import EXHIBITS
from bench.schema.results import TieExample, Verdict
from pooling.geometry.problem import TIES
from pooling.operators.base import DataFormat

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A column of the matrix: a window on a small input."""

    name: str
    shape: tuple[int, ...]
    arguments: tuple[Any, ...]
    ties: bool = False
    data_format: DataFormat = "channels_first"

    def input(self) -> Array:
        x = np.random.default_rng(0).standard_normal(self.shape)
        return np.maximum(np.round(2 * x), 0) if self.ties else x


CASES = (
    Case("2×2", (1, 2, 6, 6), (2,)),
    Case("2×2, ties", (1, 2, 6, 6), (2,), ties=True),
    Case("odd size", (1, 2, 5, 7), (2,)),
    Case("odd size, ceil", (1, 2, 5, 7), (2, 2, 0, 1, True)),
    Case("3×3 stride 2", (1, 2, 7, 7), (3, 2)),
    Case("3×3 stride 2, ties", (1, 2, 7, 7), (3, 2), ties=True),
    Case("padded", (1, 2, 6, 6), (3, 2, 1)),
    Case("dilated", (1, 2, 8, 8), (2, 1, 1, 2)),
    Case("channels last", (1, 6, 6, 3), (3, 1, 1), data_format="channels_last"),
    Case("1-D", (1, 2, 16), (4,)),
    Case("3-D", (1, 1, 4, 4, 4), (2,)),
)


def verdicts(cases: int | None = None) -> Iterator[Verdict]:
    """What gradcheck says to every backend under each of its tie policies, to its mean, and to the exhibits.

    `cases` limits the columns to the first so many.
    """
    for backend in pooling.REGISTRY.values():
        for ties in backend.ties:
            for case in CASES[:cases]:
                pool = pooling.MaxPool(*case.arguments, ties=ties, data_format=case.data_format, backend=backend.name)
                yield verdict(backend, f"{backend.name} · {ties}", pool, case)
        if "avg" in backend.ops:
            for case in CASES[:cases]:
                mean = pooling.AvgPool(*case.arguments, data_format=case.data_format, backend=backend.name)
                yield verdict(backend, f"{backend.name} · mean", mean, case)
    for exhibit in EXHIBITS:
        outcome, message = said(exhibit.operator(), exhibit.example())
        yield Verdict(exhibit.name, "its example", outcome, message, exhibit=True, explanation=exhibit.mistake)


def verdict(backend: pooling.Backend, subject: str, pool: Any, case: Case) -> Verdict:
    x = case.input()
    reason = backend.why_not(x.shape, x.dtype, pool)
    if reason is not None:
        return Verdict(subject, case.name, "not offered", reason)
    outcome, message = said(pool, x)
    return Verdict(subject, case.name, outcome, message)


def said(operator: Any, x: Array) -> tuple[Any, str]:
    try:
        pooling.gradcheck(operator, x, cells=60, directions=3)
    except pooling.GradientError as error:
        return "refused", str(error)
    return "right", ""


def tie_examples() -> Iterator[TieExample]:
    """Each policy's gradient on a 4 x 4 input in which two windows tie."""
    x = np.array([[[[5, 1, 0, 0], [2, 5, 0, 0], [1, 3, 4, 2], [0, 2, 4, 4]]]], np.float32)
    dy = np.array([[[[1, 2], [3, 6]]]], np.float32)
    for ties in TIES:
        pool = pooling.MaxPool(2, ties=ties, backend="reference")
        y, saved = pool.forward(x)
        dx = pool.backward(dy, saved)
        yield TieExample(ties, "reference", 2, *(a[0, 0].tolist() for a in (x, y, dy, dx)))
