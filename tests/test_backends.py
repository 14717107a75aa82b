"""Every backend gives what the reference gives: maxima and their gradients to the bit, means within a tolerance."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.backend import TIES
from tests.cases import Array, Case, cases, same_bits

CASES = list(cases())
OTHERS = [name for name in pooling.backends() if name != "reference"]


def offered(op: str) -> list[Any]:
    """(case, backend, ties) that the backend does; of the others it must say why not."""
    found = []
    for case in CASES:
        x = case.input()
        for name in OTHERS:
            for ties in TIES if op == "max" else ("first",):
                pool = case.max_pool("reference", ties) if op == "max" else case.avg_pool("reference")
                reason = pooling.backend(name).why_not(x.shape, x.dtype, pool)
                if reason is None:
                    found.append(pytest.param(case, name, ties, id=f"{case}-{name}-{ties}"))
                else:
                    assert reason.strip(), f"{name} refuses {case} without a reason"
    return found


def gradient_for(y: Array) -> Array:
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    dy[np.random.default_rng(2).random(y.shape) < 0.1] = -0.0
    return dy


@functools.cache
def expected(case: Case, ties: Any) -> tuple[Array, Array | None, Array | None]:
    """y, dx and indices as the reference has them."""
    pool = case.max_pool("reference", ties)
    x = case.input()
    y, saved = pool.forward(x)
    dx = pool.backward(gradient_for(y), saved) if x.dtype.kind == "f" else None
    indices = pool.forward_with_indices(x)[1] if ties == "first" else None
    return y, dx, indices


@pytest.mark.parametrize(("case", "name", "ties"), offered("max"))
def test_max(case: Case, name: str, ties: Any) -> None:
    y, dx, indices = expected(case, ties)
    x = case.input()
    before = x.copy()
    pool = case.max_pool(name, ties)
    got, saved = pool.forward(x)
    assert same_bits(got, y)
    assert same_bits(pool(x), y)
    if dx is not None:
        dy = gradient_for(y)
        assert same_bits(pool.backward(dy, saved), dx)
        assert same_bits(pool.backward(dy, saved), dx), "a second backward differs"
    if indices is not None:
        np.testing.assert_array_equal(pool.forward_with_indices(x)[1], indices)
    assert same_bits(x, before), "x was changed"


@pytest.mark.parametrize(
    ("case", "name", "ties"), [p for p in offered("avg") if p.values[0].data in ("normal", "ties")]
)
def test_mean(case: Case, name: str, ties: Any) -> None:
    x = case.input()
    for options in ({}, {"count_include_pad": False}, {"divisor_override": 3}):
        exact = case.avg_pool("reference", **options)
        y, saved = exact.forward(x.astype(np.float64))
        dy = gradient_for(y)
        dx = exact.backward(dy, saved)
        pool = case.avg_pool(name, **options)
        reason = pooling.backend(name).why_not(x.shape, x.dtype, pool)
        if reason is not None:
            assert "divisor_override" in reason or "pad" in reason
            continue
        got, saved = pool.forward(x)
        tolerance = {2: 4e-3, 4: 2e-6, 8: 1e-14}[x.itemsize]
        np.testing.assert_allclose(got, y, rtol=tolerance, atol=tolerance * 8)
        np.testing.assert_allclose(pool.backward(dy.astype(x.dtype), saved), dx, rtol=tolerance, atol=tolerance * 8)


@pytest.mark.parametrize("name", pooling.backends())
@pytest.mark.parametrize("shape", [(0, 3, 6, 6), (2, 0, 6, 6)])
def test_nothing_to_pool(name: str, shape: tuple[int, ...]) -> None:
    pool = pooling.MaxPool(2, ties=pooling.backend(name).ties[0], backend=name)
    y, saved = pool.forward(np.zeros(shape, np.float32))
    assert y.shape == (*shape[:2], 3, 3)
    assert pool.backward(y, saved).shape == shape


@pytest.mark.parametrize("window", [13, 31])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("ties", ["first", "last"])
def test_large_windows(window: int, data_format: Any, ties: Any) -> None:
    """The scan of `simd` against the slices: values that tie a lot, NaN among them, more taps than a byte counts."""
    random = np.random.default_rng(window)
    x = np.round(random.standard_normal((2, 33, 35, 18))).astype(np.float32)
    x[random.random(x.shape) < 0.001] = np.nan
    if data_format == "channels_first":
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    arguments = (window, 1, window // 2)
    results = []
    for name in ("strided_slices", "simd"):
        pool = pooling.MaxPool(*arguments, ties=ties, data_format=data_format, backend=name)
        y, saved = pool.forward(x)
        results.append((y, pool.backward(gradient_for(y), saved)))
    assert same_bits(results[0][0], results[1][0])
    assert same_bits(results[0][1], results[1][1])


@pytest.mark.parametrize("name", ["strided_slices", "numba_loops", "simd"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_bands_and_threads(name: str, data_format: Any) -> None:
    """Planes too large for a buffer, cut into bands and over threads: the same bits with any number of them."""
    random = np.random.default_rng(0)
    x = np.round(random.standard_normal((1, 20, 131, 97)) * 2).astype(np.float32)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for arguments in ((3, 2, 1), (2, 2), (3, 1, 1)):
        pool = pooling.MaxPool(*arguments, data_format=data_format, backend=name)
        exact = pooling.MaxPool(*arguments, data_format=data_format, backend="argmax_switches")
        y, saved = exact.forward(x)
        dx = exact.backward(gradient_for(y), saved)
        try:
            for threads in (1, 2, 3, 5):
                pooling.set_num_threads(threads)
                got, saved = pool.forward(x)
                assert same_bits(got, y)
                assert same_bits(pool.backward(gradient_for(y), saved), dx)
        finally:
            pooling.set_num_threads(None)
