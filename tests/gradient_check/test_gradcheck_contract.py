"""gradcheck on operators that break the rules of the pair, and on inputs and dtypes of all kinds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.gradient_check import Checked
from tests.wrong import RANDOM, TIED, WRONG, Array, Spoiled, X, avg_pool, max_pool, message


class Stale:
    """Answers with the dx of the call before."""

    def __init__(self) -> None:
        self.last: Array = np.zeros_like(X)

    def forward(self, x: Array) -> tuple[Array, Any]:
        return max_pool(2).forward(x)

    def backward(self, dy: Array, saved: Any) -> Array:
        self.last, before = max_pool(2).backward(dy, saved), self.last
        return before


class Accumulating(Stale):
    """Adds to a dx that nobody clears."""

    def backward(self, dy: Array, saved: Any) -> Array:
        self.last = self.last + max_pool(2).backward(dy, saved)
        return self.last


class Stateful(Stale):
    """Keeps in itself what belongs into saved."""

    def forward(self, x: Array) -> tuple[Array, Any]:
        y, self.saved = max_pool(2).forward(x)
        return y, None

    def backward(self, dy: Array, saved: Any) -> Array:
        return max_pool(2).backward(dy, self.saved)


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (Stale(), "backward of the same dy and saved, a second time: the gradient at cell"),
        (Accumulating(), "backward of the same dy and saved, a second time: the gradient at cell"),
        (Stateful(), "after forward of another x (saved has to carry what it needs): the gradient at cell"),
    ],
)
def test_state_is_refused(operator: Any, says: str) -> None:
    assert says in message(operator)


class Faulty:
    """Max pooling with one of its two methods replaced."""

    def __init__(self, forward: Any = None, backward: Any = None) -> None:
        pool = max_pool(2)
        self.forward = forward or pool.forward
        self.backward = backward or pool.backward


def scaled_in_place(x: Array) -> Any:
    x *= 2
    return max_pool(2).forward(x)


def random_forward(x: Array) -> Any:
    y, saved = max_pool(2).forward(x)
    return y + RANDOM.random(y.shape), saved


def clears_dy(dy: Array, saved: Any) -> Array:
    dx = max_pool(2).backward(dy, saved)
    dy[:] = 0
    return dx


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (Faulty(forward=scaled_in_place), "forward changed x, at (0, 0, 0, 0): it must leave its inputs alone"),
        (Faulty(forward=random_forward), "forward of the same x gave "),
        (Faulty(backward=clears_dy), "backward changed dy, at (0, 0, 0, 0): it must leave its inputs alone"),
        (Faulty(backward=lambda dy, saved: dy), "dx has shape (2, 2, 3, 3), expected (2, 2, 6, 6), that of x"),
        (Faulty(backward=lambda dy, saved: None), "dx has shape (), expected (2, 2, 6, 6)"),
        (Faulty(backward=lambda dy, saved: np.zeros(X.shape, np.float32)), "dx has dtype float32, expected float64"),
        (Faulty(backward=lambda dy, saved: np.full(X.shape, np.nan)), "at cell (0, 0, 0, 0) is nan, expected a finite"),
        (
            Faulty(forward=lambda x: (x[..., ::2, ::2].astype(np.float32), 0)),
            "forward made y of dtype float32 from x of",
        ),
        (Faulty(forward=lambda x: (np.full((2, 2, 3, 3), np.nan), 0)), "y is nan at output (0, 0, 0, 0)"),
    ],
)
def test_a_broken_contract_is_named(operator: Any, says: str) -> None:
    assert says in message(operator)


def test_backward_that_changes_x() -> None:
    class Changing:
        def forward(self, x: Array) -> Any:
            return x.copy(), x

        def backward(self, dy: Array, x: Array) -> Array:
            x[0, 0, 1, 2] = 9
            return dy.copy()

    assert "backward changed x, at (0, 0, 1, 2)" in message(Changing())


class ReluOfMax:
    """A maximum in which a zero takes part, as in block_reduce's last windows."""

    def forward(self, x: Array) -> Any:
        y, saved = max_pool(2).forward(x)
        return np.maximum(y, 0), (y, saved)

    def backward(self, dy: Array, saved: Any) -> Array:
        return max_pool(2).backward(dy * (saved[0] > 0), saved[1])


def test_zero_padding_shows_by_a_shift() -> None:
    padded = ReluOfMax()
    pooling.gradcheck(padded, X)
    said = message(padded, X, shifts=True)
    assert re.match(
        r"pooling x[+-]\d+ must give y[+-]\d+, but at output \(\d, \d, \d, \d\) it gives .*, expected ", said
    )
    pooling.gradcheck(avg_pool(2), X, shifts=True)
    with pytest.raises(pooling.GradientError, match="padding by a number"):
        pooling.gradcheck(avg_pool(3, padding=1), X, shifts=True)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.array([[1.0, np.nan]]), "x holds NaN or infinity"),
        (np.array([[1.0, -np.inf]]), "x holds NaN or infinity"),
        (np.array([[1j, 2]]), "x has dtype complex128"),
        (np.array([["a", "b"]]), "x has dtype <U1"),
        (np.array([[1e300, 2.0]]), "the largest number in x is 1e\\+300: .* scale x"),
        (np.array([[1e-300, 0.0]]), "the largest number in x is 1e-300: .* scale x"),
    ],
)
def test_x_that_cannot_be_checked_is_a_value_error(x: Array, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        pooling.gradcheck(max_pool((1,)), x)
    assert not isinstance(caught.value, pooling.GradientError)


def test_an_operator_without_the_pair_and_wrong_numbers_are_named() -> None:
    with pytest.raises(
        pooling.PoolingError, match=r"forward returned ndarray: it has to return the tuple \(y, saved\)"
    ):
        pooling.gradcheck(Faulty(forward=lambda x: x), X)
    for wrong in ({"cells": 0}, {"cells": 1.5}, {"directions": None}, {"seed": -1}):
        with pytest.raises(pooling.PoolingError, match="=".join(map(str, *wrong.items()))):
            pooling.gradcheck(max_pool(2), X, **wrong)
    with pytest.raises(pooling.PoolingError, match=r"x is no array: .*lists of equal lengths"):
        pooling.gradcheck(max_pool(2), [[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.float16, np.float32])
def test_other_real_dtypes_are_checked_as_float64(dtype: Any) -> None:
    assert pooling.gradcheck(max_pool(2), np.abs(TIED).astype(dtype)).dtype == "float64"


def test_lists_and_odd_layouts_of_x() -> None:
    assert pooling.gradcheck(max_pool((2,)), [[3, 1, 4, 1, 5, 9]]).cells == 6
    pooling.gradcheck(max_pool(2), np.asfortranarray(X))
    pooling.gradcheck(max_pool(2), X[:, :, ::-1, ::-1])


def test_an_empty_x_passes() -> None:
    assert pooling.gradcheck(max_pool(2), np.zeros((0, 2, 4, 4))) == Checked(0, 0, 0, 0, 0, "float64")


def test_windows_of_padding_alone_get_nothing_and_pay_nothing() -> None:
    x = np.array([[3.0, 1, 2]])
    pool = max_pool((2,), 2, ((2, 0),), dilation=2)
    y, _ = pool.forward(x)
    pooling.gradcheck(pool, x)
    lone = max_pool((2,), 3, ((1, 0),))
    pooling.gradcheck(lone, x)
    assert np.isfinite(y).any()


class OnlyFloat32:
    """A pooling that knows one dtype, as kernels in C do."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = np.float32(factor)

    def forward(self, x: Array) -> tuple[Array, Any]:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return avg_pool(2).forward(x)

    def backward(self, dy: Array, saved: Any) -> Array:
        return self.factor * avg_pool(2).backward(dy, saved)


def test_an_operator_that_refuses_float64_is_checked_in_float32() -> None:
    for x in (X, TIED):
        assert pooling.gradcheck(OnlyFloat32(), x.astype(np.float32)).dtype == "float32"
        assert "expected" in message(OnlyFloat32(1.05), x.astype(np.float32))
    with pytest.raises(TypeError, match="float32 only"):
        pooling.gradcheck(OnlyFloat32(), X)


def test_large_inputs_are_sampled_and_say_how_much() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 32, 32))
    found = pooling.gradcheck(max_pool(2), x, cells=40, directions=3)
    assert found == Checked(40, 8192, 40, 2048, 5, "float64")


def test_the_seed_decides() -> None:
    spoiled = Spoiled(WRONG["scaled"])
    assert message(spoiled, seed=1) == message(spoiled, seed=1)
    assert message(spoiled, seed=1) != message(spoiled, seed=2)


def test_x_is_left_alone() -> None:
    x = X.copy()
    pooling.gradcheck(max_pool(2), x)
    assert np.array_equal(x, X)
