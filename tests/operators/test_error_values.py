"""Whatever a value is, the message about it is one line, of bounded length, and names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pooling as typed
from pooling.errors import PoolingError
from tests.operators.test_error_rule import LONGEST

pooling: Any = typed  # wrong arguments are what this is about
X = np.ones((1, 1, 4, 4), np.float32)


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


HOSTILE: list[Any] = [
    10**5000,
    -(10**5000),
    "a" * 100_000,
    b"a" * 1000,
    np.ones((20, 20)),
    np.array(2.5),
    Unspeakable(),
]
HOSTILE += ["\ud800\x1b[31m\n", {1: 2}, np.ma.masked]
ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "backend": lambda value: pooling.get_backend(value),
    "backend of an operator": lambda value: pooling.MaxPool(2, backend=value),
    "backend of a function": lambda value: pooling.max_pool(X, 2, backend=value),
    "backend that is set": lambda value: setattr(pooling.MaxPool(2), "backend", value),
    "operator": lambda value: pooling.gradcheck(value, X),
    "operator of pick": lambda value: pooling.pick(X.shape, "f4", value),
    "cells": lambda value: pooling.gradcheck(
        pooling.MaxPool(2), X, cells=-abs(value) if isinstance(value, int) else value
    ),
    "kernel_size": lambda value: pooling.MaxPool(value),
    "stride": lambda value: pooling.AvgPool(2, value),
    "padding": lambda value: pooling.LpPool(2, padding=value),
    "dilation": lambda value: pooling.MaxPool(2, dilation=value),
    "ceil_mode": lambda value: pooling.MaxPool(2, ceil_mode=value),
    "ties": lambda value: pooling.MaxPool(2, ties=value),
    "data_format": lambda value: pooling.MaxPool(2, data_format=value),
    "output_size": lambda value: pooling.AdaptiveMaxPool(value),
    "output_size of an unpooling": lambda value: pooling.max_unpool(X, X.astype(int), 2, output_size=value),
    "kernel_size of an unpooling": lambda value: pooling.MaxUnpool(value),
    "stride of an unpooling": lambda value: pooling.MaxUnpool(2, value),
    "shape": lambda value: pooling.get_backend("simd").why_not(value, "f4", pooling.MaxPool(2)),
    "shape of pick": lambda value: pooling.pick(value, "f4", pooling.MaxPool(2)),
    "direction": lambda value: pooling.pick(X.shape, "f4", pooling.MaxPool(2), value),
    "explain": lambda value: pooling.pick(X.shape, "f4", pooling.MaxPool(2), explain=value),
    "workloads": lambda value: pooling.tune(value),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("value", HOSTILE, ids=[f"{i}-{type(value).__name__}" for i, value in enumerate(HOSTILE)])
def test_a_message_is_one_line_whatever_the_value(argument: str, value: Any) -> None:
    with pytest.raises(PoolingError, match=f"\\b{argument.split(maxsplit=1)[0]}\\b") as caught:
        ARGUMENTS[argument](value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= LONGEST


class Two:
    """A foreign number type: it implements ``__index__`` and nothing else."""

    def __index__(self) -> int:
        return 2


class Broken:
    def __index__(self) -> int:
        raise RuntimeError("no")


def test_what_stands_for_an_int_is_one() -> None:
    pool = pooling.MaxPool(Two(), (Two(), Two()), padding=((0, Two()), 1), dilation=[Two()])
    assert pool == pooling.MaxPool(2, (2, 2), padding=((0, 2), 1), dilation=(2,))
    assert hash(pool) == hash(pooling.MaxPool(2, (2, 2), padding=((0, 2), 1), dilation=(2,)))
    assert repr(pooling.MaxPool(Two())) == "MaxPool(kernel_size=2)"
    assert pooling.AdaptiveMaxPool(Two()) == pooling.AdaptiveMaxPool(2)
    assert pooling.MaxUnpool(Two()) == pooling.MaxUnpool(2)
    np.testing.assert_array_equal(pooling.max_pool(X, Two()), pooling.max_pool(X, 2))
    with pytest.raises(PoolingError, match=r"kernel_size=.*is not an int; give one"):
        pooling.MaxPool(True)
    with pytest.raises(PoolingError, match=r"kernel_size=.*is not an int; give one"):
        pooling.MaxPool(Broken())


@pytest.mark.parametrize("masked", [np.ma.masked, np.ma.array(2, mask=True), np.ma.array([2, 2], mask=[False, True])])
def test_what_is_masked_is_not_an_argument_left_out(masked: Any) -> None:
    """``stride=np.ma.masked`` was None, and so the kernel's size."""
    with pytest.raises(PoolingError, match=r"stride=.*is not an int; give one"):
        pooling.MaxPool((2, 2), stride=masked)
    with pytest.raises(PoolingError, match=r"output_size=.*is not an int; give one"):
        pooling.adaptive_max_pool(X, masked)
    assert pooling.MaxPool(2, stride=np.ma.array([1, 2])) == pooling.MaxPool(2, stride=(1, 2))
