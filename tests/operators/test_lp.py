"""Lp pooling: norms by definition, in every backend that has them, and whose numbers are whose."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooling
from tests.backends.test_backends_property import each, fits, problems, steady, the_same
from tests.cases import Array, gradient_for
from tests.geometry.test_regions import COVERING

NAMES = [name for name in pooling.list_backends() if "lp" in pooling.get_backend(name).ops]
POWERS = (0.5, 1, 1.5, 2, 3, 4.25, math.inf)


def test_who_has_norms() -> None:
    assert {"reference", "strided_slices", "numba_loops"} <= set(NAMES)
    for name in set(pooling.list_backends()) - set(NAMES):
        assert "no lp pooling" in str(pooling.get_backend(name).why_not((1, 1, 4, 4), "float32", pooling.LpPool(2)))
    for dtype in ("float16", "float32", "float64"):
        assert pooling.pick((1, 1, 4, 4), dtype, pooling.LpPool(2)) in NAMES
        assert pooling.pick((1, 1, 4, 4, 4, 4), dtype, pooling.LpPool((2,) * 4)) in NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", POWERS)
def test_norms_by_definition(name: str, p: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 9)).astype(np.float32)
    y = pooling.lp_pool(x, (2, 3), p, backend=name)
    boxes = np.abs(x.reshape(2, 3, 3, 2, 3, 3).astype(np.float64))
    expected = boxes.max((3, 5)) if p == math.inf else (boxes**p).sum((3, 5)) ** (1 / p)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert y.dtype == np.float32
    whole = pooling.global_lp_pool(x, p, backend=name, keepdims=False)
    flat = np.abs(x.reshape(2, 3, -1).astype(np.float64))
    np.testing.assert_allclose(whole, flat.max(-1) if p == math.inf else (flat**p).sum(-1) ** (1 / p), rtol=1e-6)


LESSONS: dict[str, tuple[list[float], dict[str, Any], list[float], list[float]]] = {
    "3, 4, 5": ([3, -4, 0, 0], {}, [5, 0], [0.6, -0.8, 0, 0]),
    "sum of magnitudes": ([3, -4, 0, 2], {"p": 1}, [7, 2], [1, -1, 0, 10]),
    "signed sum": ([3, -4, 0, 2], {"p": 1, "signed": True}, [-1, 2], [1, 1, 10, 10]),
    "largest magnitude": ([3, -4, 2, -2], {"p": math.inf}, [4, 2], [0, -1, 10, 0]),
    "a negative sum has no root": ([1, -2, 2, 0], {"p": 3, "signed": True}, [math.nan, 2], [math.nan, math.nan, 10, 0]),
    "padding adds nothing": ([3, -4, 5], {"padding": 1}, [3, math.sqrt(41)], [1, -40 / math.sqrt(41), 50 / math.sqrt(41)]),
    "a partial window": ([3, 4, 6], {"ceil_mode": True}, [5, 6], [0.6, 0.8, 10]),
    "scaled up": ([3, 4, 6], {"ceil_mode": True, "scale_partial": True, "p": 1}, [7, 12], [1, 1, 20]),
    "dilation": ([3, 9, 4], {"dilation": 2}, [5], [0.6, 0, 0.8]),
    "below 1": ([4, 9, 0, 1], {"p": 0.5}, [25, 1], [2.5, 5 / 3, 0, 10]),
    "padding alone": ([4], {"stride": 1, "padding": 2, "dilation": 2}, [4, 0, 4], [101]),
    "padding alone has no magnitude": ([-4], {"stride": 1, "padding": 2, "dilation": 2, "p": math.inf}, [4, 0, 4], [-101]),
    "a zero beside a NaN": ([math.nan, 0, 3, 4], {"p": 3}, [math.nan, 91 ** (1 / 3)], [math.nan, math.nan]),
    "a NaN": ([math.nan, 1, 3, 4], {}, [math.nan, 5], [math.nan, math.nan, 6, 8]),
    "inf": ([math.inf, 1, -3, 4], {"p": 1}, [math.inf, 7], [1, 1, -10, 10]),
}  # fmt: skip


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lessons(name: str, lesson: str, dtype: Any) -> None:
    values, options, y, dx = LESSONS[lesson]
    pool = pooling.LpPool(2, **options, backend=name)
    got, saved = pool.forward(np.array([[values]], dtype))
    np.testing.assert_allclose(got.ravel(), y, rtol=1e-6)
    back = pool.backward(10.0 ** np.arange(got.size, dtype=dtype).reshape(got.shape), saved)
    np.testing.assert_allclose(back.ravel()[: len(dx)], dx, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("signed", [False, True])
def test_the_gradient_at_zero_is_zero(name: str, p: float, signed: bool) -> None:
    x = np.zeros((1, 2, 4, 4), np.float32)
    x[0, 1, 0, 0] = 2
    pool = pooling.LpPool(2, p, signed=signed, backend=name)
    y, saved = pool.forward(x)
    dx = pool.backward(np.ones_like(y), saved)
    assert np.isfinite(dx).all()
    assert (dx[0, 0] == 0).all()
    assert dx[0, 1, 0, 0] == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "numba_loops"])
def test_float16_is_summed_in_more(name: str) -> None:
    x = np.full((1, 1, 64, 64), 6, np.float16)  # 36 * 4096 is beyond float16, the norm isn't
    pool = pooling.LpPool(64, backend=name)
    y, saved = pool.forward(x)
    assert y.dtype == np.float16
    assert y == 384
    np.testing.assert_allclose(pool.backward(y, saved), 6.0)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str, p: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 2, 5, 6))
    pools = [
        pooling.LpPool(2, p, backend=name),
        pooling.LpPool(3, p, 2, 1, ceil_mode=True, scale_partial=True, backend=name),
        pooling.GlobalLpPool(p, backend=name),
    ]
    for pool in pools:
        pooling.gradcheck(pool, x)
        assert eval(repr(pool), vars(pooling) | {"inf": math.inf}).problem(x.shape) == pool.problem(x.shape)
    pooling.gradcheck(pooling.LpPool(3, p, 2, signed=True, backend=name), np.abs(x) + 0.5)


def test_gradients_at_ties() -> None:
    pooling.gradcheck(pooling.LpPool(2, math.inf), np.ones((1, 1, 4, 4)))
    pooling.gradcheck(pooling.LpPool(2, 1), np.round(np.random.default_rng(0).standard_normal((1, 2, 4, 4))))


def agree(x: Array, window: tuple[Any, ...], options: dict[str, Any], names: list[str], p: float) -> None:
    exact = pooling.LpPool(window[0], p, *window[1:], backend="reference", **options)
    if not fits(exact, x):
        return
    if x.dtype == np.float16:  # rounded once, at the end
        exact_x, tolerance = x.astype(np.float64), 2e-3
    else:
        exact_x, tolerance = x.astype(np.float64), 1e-5 if x.itemsize == 4 else 1e-12
    y, saved = exact.forward(exact_x)
    dx = exact.backward(gradient_for(y), saved)
    for name in names:
        pool = pooling.LpPool(window[0], p, *window[1:], backend=name, **options)
        if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
            got, saved = pool.forward(x)
            np.testing.assert_allclose(got, y, tolerance, 4 * tolerance, err_msg=name)
            back = pool.backward(gradient_for(y).astype(x.dtype), saved)
            np.testing.assert_allclose(back, dx, 20 * tolerance, 100 * tolerance, err_msg=name)


@steady
@given(
    problems(("float16", "float32", "float64"), each(1, 3), each(1, 3), st.integers(1, 4)),
    st.sampled_from([1.0, 1.5, 2.0, 3.0, math.inf]),
    st.booleans(),
)
def test_numpy_backends_agree(problem: Any, p: float, scale: bool) -> None:
    x, window, data_format = problem
    x = np.where(np.abs(x) <= 2.5, x, x.dtype.type(0.5))
    agree(x, window, {"data_format": data_format, "scale_partial": scale}, ["reference", "strided_slices"], p)


@steady
@given(problems(("float32",), the_same(1, 3), the_same(1, 2), st.just(2)), st.sampled_from([1.0, 2.0, 3.0, math.inf]))
def test_compiled_backends_agree(problem: Any, p: float) -> None:
    x, window, data_format = problem
    x = np.where(np.abs(x) <= 2.5, x, x.dtype.type(0.5))
    agree(x, window, {"data_format": data_format}, [n for n in NAMES if n in COVERING and n != "strided_slices"], p)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "0": ({"p": 0}, r"p=0: a norm has a power above 0"),
    "negative": ({"p": -2.0}, r"p=-2\.0: a norm has a power above 0"),
    "NaN": ({"p": math.nan}, r"p=nan: a norm has a power above 0"),
    "-inf": ({"p": -math.inf}, r"p=-inf: a norm has a power above 0"),
    "word": ({"p": "2"}, r"p='2': it must be a number above 0, or math\.inf"),
    "too large": ({"p": 10**400}, r"p=10+.* it is above the largest float"),
    "bool": ({"p": True}, r"p=True: it must be a number"),
    "None": ({"p": None}, r"p=None: it must be a number"),
    "signed": ({"signed": 1}, r"signed=1: it must be True or False"),
    "scale": ({"scale_partial": None}, r"scale_partial=None: it must be True or False"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    options, message = WRONG[name]
    with pytest.raises(pooling.PoolingError, match=f"^{message}"):
        pooling.LpPool(2, **options)
    with pytest.raises(pooling.PoolingError, match=f"^{message}"):
        pooling.lp_pool(np.zeros((1, 1, 4, 4)), 2, **options)


def test_integers_have_no_norm() -> None:
    with pytest.raises(pooling.DTypeError, match=r"x has dtype int32: a norm of it would be rounded; pass x\.astype"):
        pooling.lp_pool(np.zeros((1, 1, 4, 4), np.int32), 2)


@pytest.mark.parametrize("p", [2, math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_operators_and_what_they_saved_are_pickled(name: str, p: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    pool = pooling.LpPool(2, p, backend=name)
    y, saved = pool.forward(x)
    ways: tuple[Callable[[Any], Any], ...] = (copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)))
    for how in ways:
        np.testing.assert_array_equal(how(pool).backward(y, how(saved)), pool.backward(y, saved))


@pytest.mark.parametrize("name", NAMES)
def test_signaling_nans(name: str) -> None:
    """NumPy warns of them, and here a warning is an error."""
    x = np.array([[[0x7FA00000, 0x3F800000, 0, 0]]], np.uint32).view(np.float32)
    pool = pooling.LpPool(2, math.inf, backend=name)
    y, saved = pool.forward(x)
    np.testing.assert_array_equal(y, [[[math.nan, 0]]])
    np.testing.assert_array_equal(pool.backward(np.ones_like(y), saved), [[[math.nan, 0, 0, 0]]])
