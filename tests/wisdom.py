"""Help for the tuner's tests: a store of their own, few and cheap backends, and records out of nothing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pooling
from pooling.backends.registry import REGISTRY
from pooling.tuning.candidates import source_of
from pooling.tuning.layer import facts
from pooling.tuning.store import store
from pooling.tuning.wisdom import Measured, Record

CHEAP = ("reference", "repeat_mask", "argmax_switches", "strided_reshape", "strided_slices")
"""Backends that compile nothing."""

SHAPE = (4, 3, 12, 12)


@contextlib.contextmanager
def store_in(path: Path | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the process have this file as its store, and nothing in memory; afterwards as before."""
    with monkeypatch.context() as patch:
        patch.delenv("POOLING_FROZEN", raising=False)
        patch.setenv("POOLING_WISDOM", str(path))
        patch.setattr(store, "memory_only", False)
        store.reload()
        yield path or Path()
    store.reload()


def only(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all other backends out of the registry."""
    for name in set(REGISTRY) - set(names):
        monkeypatch.delitem(REGISTRY, name)


def key(shape: Any = SHAPE, operator: Any = None, **options: Any) -> str:
    return facts(shape, "float32", operator or pooling.MaxPool(2), **options).key


def made_up(us: dict[str, float], choice: str | None = None, measured: str = "2026-01-01T00:00:00+00:00") -> Record:
    """A record in which these backends, as they are, took so many microseconds."""
    candidates = {
        name: Measured(source_of(REGISTRY[name]), measured, time, time * 0.99, time * 1.01, 9)
        for name, time in us.items()
    }
    return Record(choice or min(us, key=us.__getitem__), "made up", candidates)


def wrong_forward(name: str) -> Any:
    """The backend with a forward pass whose last result is off by one."""
    honest = REGISTRY[name]

    def changed(run: Any) -> Any:
        def forward(x: Any, problem: Any, y: Any, training: bool) -> Any:
            kept = run.forward(x, problem, y, training)
            y.reshape(-1)[-1] += 1
            return kept

        return dataclasses.replace(run, forward=forward)

    return dataclasses.replace(honest, ops={op: changed(run) for op, run in honest.ops.items()})
