"""Rows pooled as they lie, and the vocabulary they need: long rows, which the other tests' small arrays don't have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling
from pooling.runtime.jit import kernel
from pooling.runtime.numba_api import config
from pooling.simd.kernels.rows import plan as rowplan
from pooling.simd.kernels.rows.plan import rows_fit
from pooling.simd.plan.geometry import forward_program
from pooling.simd.vector.interleave import (
    edges,
    load_taps,
    load_taps_within,
    picked,
    repeated,
    replaced,
    store_interleaved,
)
from pooling.simd.vector.ops import store
from tests.cases import data, gradient_for, same_bits

N, STRIDE, TAPS, DILATION = 4, 1, 1, 1

LONG: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "vectors fill the row": ((2, 3, 8, 32), {"kernel_size": 2}),
    "the last vector overlaps the one before": ((1, 5, 9, 47), {"kernel_size": 3, "stride": 2}),
    "a vector longer than the row, and a cell left over": ((3, 4, 7, 25), {"kernel_size": 2}),
    "margins, and windows cut short above": ((2, 3, 10, 56), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "stride 1": ((2, 2, 6, 40), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "stride 3, windows apart": ((2, 2, 9, 50), {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
    "margins, and a vector longer than the row": ((2, 3, 6, 25), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "windows stick out at the end alone": ((2, 2, 7, 85), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "dilated": ((1, 3, 12, 60), {"kernel_size": (2, 3), "stride": 2, "dilation": 2, "padding": (0, 2)}),
    "one dimension": ((2, 3, 70), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "three": ((2, 2, 5, 6, 30), {"kernel_size": 2, "stride": (1, 2, 2), "padding": (1, 0, 0)}),
}


def load_and_store(x: Any, y: Any, i: int) -> None:
    cells = load_taps(x, i, N, STRIDE, TAPS, DILATION)
    for k in range(TAPS):
        store(y, k * N, picked(cells, k))


def load_within_and_store(x: Any, y: Any, i: int) -> None:
    cells = load_taps_within(x, i, N, STRIDE, TAPS, DILATION, i, len(x), edges(x, N, 0))
    for k in range(TAPS):
        store(y, k * N, picked(cells, k))


def interleave(x: Any, y: Any, i: int) -> None:
    cells = load_taps(x, i, N, 1, STRIDE, N)
    vectors = repeated(picked(cells, 0), STRIDE)
    for k in range(STRIDE):
        vectors = replaced(vectors, k, picked(cells, k))
    store_interleaved(y, 0, vectors, 0)


@pytest.mark.parametrize(
    ("stride", "taps", "dilation"), [(1, 3, 1), (2, 2, 1), (2, 3, 1), (3, 5, 1), (4, 4, 1), (2, 3, 2)]
)
def test_what_windows_side_by_side_have_under_each_tap(stride: int, taps: int, dilation: int) -> None:
    n = 8
    x = np.arange(3 + (taps - 1) * dilation + (n - 1) * stride + 1, dtype=np.float32)  # ends with the last cell
    y = np.zeros(taps * n, np.float32)
    kernel(load_and_store).bind(N=n, STRIDE=stride, TAPS=taps, DILATION=dilation)(x, y, 3)
    for k in range(taps):
        assert y[k * n : (k + 1) * n].tolist() == x[3 + k * dilation :: stride][:n].tolist()


@pytest.mark.parametrize(("stride", "taps", "dilation"), [(1, 3, 1), (2, 2, 1), (2, 3, 1), (3, 5, 1), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_what_lies_outside_of_a_row_is_an_edge(stride: int, taps: int, dilation: int, dtype: Any) -> None:
    n, size, before = 8, 13, 3
    x: Any = np.arange(1, size + 1).astype(dtype)
    y: Any = np.zeros(taps * n, dtype)
    row = np.concatenate([np.zeros(before, dtype), x, np.zeros(99, dtype)])
    for first in (0, 2):  # the first windows of the row, and the last
        kernel(load_within_and_store).bind(N=n, STRIDE=stride, TAPS=taps, DILATION=dilation)(
            x, y, first * stride - before
        )
        for k in range(taps):
            assert y[k * n : (k + 1) * n].tolist() == row[first * stride + k * dilation :: stride][:n].tolist()


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_interleaving_is_the_way_back(stride: int) -> None:
    x, y = np.arange(2 + 4 * stride, dtype=np.int16), np.zeros(4 * stride, np.int16)
    kernel(interleave).bind(N=4, STRIDE=stride)(x, y, 2)
    assert y.tolist() == x[2:].reshape(stride, 4).T.reshape(-1).tolist()


# The other windows differ in nothing that walking back touches.
BACK = ("margins, and windows cut short above", "margins, and a vector longer than the row", "stride 1")


@pytest.mark.parametrize(("name", "ties"), [(name, "first") for name in LONG] + [(name, "last") for name in BACK])
def test_long_rows(name: str, ties: Any) -> None:
    shape, arguments = LONG[name]
    exact = pooling.MaxPool(**arguments, ties=ties, backend="reference")
    assert config.CPU_NAME == "generic" or rows_fit(exact.problem(shape), np.dtype(np.float32))
    x = data(shape, "float32")
    y, kept = exact.forward(x)
    pool = pooling.MaxPool(**arguments, ties=ties, backend="simd")
    got, saved = pool.forward(x)
    assert same_bits(got, y)
    assert same_bits(pool(x), y)
    assert same_bits(pool.backward(gradient_for(y), saved), exact.backward(gradient_for(y), kept))
    assert np.array_equal(pool.forward_with_indices(x)[1], exact.forward_with_indices(x)[1])


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("name", ["the last vector overlaps the one before", "margins, and windows cut short above"])
def test_long_rows_of_means(name: str, count: bool) -> None:
    shape, arguments = LONG[name]
    x = np.random.default_rng(0).standard_normal(shape)
    exact = pooling.AvgPool(**arguments, count_include_pad=count, backend="reference")
    pool = pooling.AvgPool(**arguments, count_include_pad=count, backend="simd")
    (y, kept), (got, saved) = exact.forward(x), pool.forward(x)
    np.testing.assert_allclose(got, y, rtol=1e-13, atol=1e-13)
    dy = gradient_for(y)
    np.testing.assert_allclose(pool.backward(dy, saved), exact.backward(dy, kept), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("op", [pooling.MaxPool, pooling.AvgPool])
def test_rows_with_margins_where_there_are_no_masks(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowplan, "has_masks", lambda: False)
    x = data((3, 5, 10, 96), "float32")  # a plan is made for so many planes once
    exact, pool = (op(3, 2, 1, backend=name) for name in ("reference", "simd"))
    (y, kept), (got, saved) = exact.forward(x), pool.forward(x)
    dy = gradient_for(y)
    np.testing.assert_allclose(got, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pool.backward(dy, saved), exact.backward(dy, kept), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", ["int8", "uint64", "float64", "bool"])
def test_long_rows_of_other_dtypes(dtype: str, padding: int) -> None:
    x = data((2, 3, 8, 80), dtype)
    simd, reference = (pooling.max_pool(x, 2, padding=padding, backend=name) for name in ("simd", "reference"))
    assert same_bits(simd, reference)


def test_nothing_is_read_or_written_beyond_the_arrays() -> None:
    """A row that is overrun, and the last of all, which must not be: what lies behind y and dx stays as it is."""
    x = data((2, 3, 6, 26), "float32")
    pool = pooling.MaxPool(2, backend="simd")
    around = np.full(x.size + 64, 7, np.float32)
    y = around[: x.size // 4].reshape(2, 3, 3, 13)
    saved = pool.forward(x, out=y)[1]
    assert (around[y.size :] == 7).all()
    dy = y.copy()
    around.fill(7)
    dx = around[: x.size].reshape(x.shape)
    pool.backward(dy, saved, out=dx)
    assert (around[x.size :] == 7).all()


def test_a_band_without_a_cell() -> None:
    """Windows that all lie beside the plane: a row was copied all the same, where there was no room for it."""
    x = data((2, 1, 1, 64))
    before = x.copy()
    window: dict[str, Any] = {"padding": ((4, 5), (1, 1)), "dilation": (5, 1), "ties": "last"}
    y, loops = (pooling.MaxPool((2, 3), (3, 2), backend=name, **window)(x) for name in ("simd", "numba_loops"))
    assert same_bits(y, loops)
    assert same_bits(x, before)


def test_short_rows_and_many_taps_are_turned_into_lanes() -> None:
    for shape, arguments in (((4, 4, 4, 4), (2,)), ((2, 2, 40, 40), (13, 1, 6)), ((2, 2, 20, 20), (3, 1, 1))):
        problem = pooling.MaxPool(*arguments).problem(shape)
        assert not rows_fit(problem, np.dtype(np.float32))
        assert forward_program(problem, np.dtype(np.float32)).out[2] > 0
