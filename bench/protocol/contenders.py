"""Who takes part: something with a name that pools, and how to call it on given arrays.

The backends of the registry are contenders; so is anything else for which a ``bind`` can be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling
from bench.schema.results import Entrant, Kind
from bench.schema.workloads import Direction, Workload
from pooling.backends.base import Backend
from pooling.geometry.problem import Ties

Array = NDArray[Any]

CUSTOMARY: tuple[Ties, ...] = ("first", "all", "split", "last")
"""A backend competes with the first of these policies it has: frameworks' own, else what the mask trick is used with."""


LINE = 64
"""Bytes of a cache line."""


@dataclass(frozen=True)
class Arrays:
    """What a contender computes from, and where it leaves its results. All contenders of a workload share them."""

    x: Array
    dy: Array
    y: Array
    dx: Array

    @classmethod
    def of(cls, workload: Workload) -> Arrays:
        # Means are proven on values that show how exact a sum is; ties, which "relu" is for, mean nothing to them.
        values = "level" if workload.op == "avg" and workload.values == "relu" else workload.values
        x, dy = placed(workload.input(values)), placed(workload.gradient())
        return cls(x, dy, placed(np.empty_like(dy)), placed(np.empty_like(x)))


def placed(array: Array) -> Array:
    """A copy that begins with a cache line, where every library that competes here puts what it allocates itself."""
    raw = np.empty(array.nbytes + LINE, np.uint8)
    skip = -raw.ctypes.data % LINE
    copy = raw[skip : skip + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


Calls = Mapping[Direction, Callable[[], object]]
"""What to time, by direction; those that only infer offer "forward" alone.

A call leaves its results in `y` and `dx` of the arrays. That of a contender that does not reuse outputs returns them instead, as
NumPy arrays: y, dx, or for "step" both.
"""


@dataclass(frozen=True)
class Contender:
    """One way to pool.

    Parameters
    ----------
    name, kind, note
        What it is.
    ties
        Policy with which it competes in max pooling.
    why_not
        The reason why it can't do a workload, or None.
    bind
        Its calls on given arrays. Everything that happens once a model and not once a call may happen here.
    exact
        Whether its max pooling owes the same bits as the other backends; otherwise, as averages, it owes a tolerance.
    reuses_outputs
        Whether its calls write to the arrays they are given.
    reference_only
        Whether nobody expects speed from it.
    setup_s
        About how many seconds its proofs take at a workload; most of it is compiling.
    """

    name: str
    kind: Kind
    note: str
    ties: Ties
    why_not: Callable[[Workload], str | None]
    bind: Callable[[Workload, Arrays], Calls]
    exact: bool = True
    reuses_outputs: bool = True
    reference_only: bool = False
    setup_s: float = 0.1

    def entrant(self) -> Entrant:
        return Entrant(self.name, self.kind, self.note, self.ties, self.reference_only)


def customary_ties(backend: Backend) -> Ties:
    """The tie policy with which a backend competes."""
    return next((ties for ties in CUSTOMARY if ties in backend.ties), "first")


def of_backend(backend: Backend) -> Contender:
    """A backend of the registry, called the way users call it, with ``out=``."""
    ties = customary_ties(backend)

    def why_not(workload: Workload) -> str | None:
        return backend.why_not(workload.array_shape, workload.dtype, workload.operator(ties=ties))

    def bind(workload: Workload, arrays: Arrays) -> Calls:
        pool = workload.operator(backend.name, ties)
        x, dy, y, dx = arrays.x, arrays.dy, arrays.y, arrays.dx
        inner = x.shape[-1] if pool.data_format == "channels_last" else 1
        backend.specialize(pool.problem(x.shape), inner, x.dtype)
        _, saved = pool.forward(x, out=y)

        def step() -> None:
            _, saved = pool.forward(x, out=y)
            pool.backward(dy, saved, out=dx)

        return {
            "forward": lambda: pool(x, out=y),
            "forward_train": lambda: pool.forward(x, out=y),
            "backward": lambda: pool.backward(dy, saved, out=dx),
            "step": step,
        }

    return Contender(backend.name, "backend", backend.note, ties, why_not, bind, reference_only=backend.reference_only)


def backends() -> tuple[Contender, ...]:
    """Every backend of the registry, in its order."""
    return tuple(of_backend(backend) for backend in pooling.REGISTRY.values())
