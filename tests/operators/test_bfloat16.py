"""bfloat16, which ml_dtypes brings: pooled in float32, rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 is a dtype of ml_dtypes, which is not installed")

SLICES = "strided_slices"


@pytest.fixture
def x() -> Any:
    values = np.random.default_rng(0).standard_normal((2, 3, 8, 9)).astype(np.float32)
    values[0, 0, 0, :2] = np.nan
    return values.astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    "pool",
    [
        pooling.MaxPool(3, 2, 1, backend=SLICES),
        pooling.MaxPool(3, 2, 1, ties="split", backend=SLICES),
        pooling.AvgPool(3, 2, 1, backend=SLICES),
        pooling.LpPool(3, 3, 2, backend=SLICES),
        pooling.AdaptiveMaxPool((3, 5), backend=SLICES),
        pooling.GlobalAvgPool(backend=SLICES),
        pooling.FractionalMaxPool(2, 5, random_samples=[0.3, 0.6], backend=SLICES),
    ],
    ids=repr,
)
def test_as_float32_rounded(pool: Any, x: Any) -> None:
    y, saved = pool.forward(x)
    exact, kept = pool.forward(x.astype(np.float32))
    assert y.dtype == x.dtype == saved.plan.dtype
    np.testing.assert_array_equal(y.astype(np.float32), exact.astype(x.dtype).astype(np.float32))
    np.testing.assert_array_equal(pool(x).astype(np.float32), y.astype(np.float32))
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    dx = pool.backward(dy, saved)
    assert dx.dtype == x.dtype
    expected = pool.backward(dy.astype(np.float32), kept).astype(x.dtype)
    np.testing.assert_array_equal(dx.astype(np.float32), expected.astype(np.float32))
    out = np.empty_like(y)
    assert pool(x, out=out) is out
    if isinstance(pool, pooling.MaxPool):
        np.testing.assert_array_equal(
            pool.forward_with_indices(x)[1], pool.forward_with_indices(x.astype(np.float32))[1]
        )
    with pytest.raises(pooling.DTypeError, match="dy has dtype float32, but y has bfloat16"):
        pool.backward(dy.astype(np.float32), saved)


def test_auto_and_unpooling(x: Any) -> None:
    assert pooling.pick(x.shape, x.dtype, pooling.MaxPool(2)) == pooling.pick(x.shape, np.float32, pooling.MaxPool(2))
    y, indices = pooling.max_pool(x, 2, return_indices=True, backend=SLICES)
    unpool = pooling.MaxUnpool(2)
    back, saved = unpool.forward(y, indices, x.shape)
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(unpool.backward(back, saved).astype(np.float32), y.astype(np.float32))
