"""Indices: int64, flat within one spatial plane of the unpadded input; -1 where a window holds padding alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.geometry.window import Window
from tests.cases import Array, Case, cases

NAMES = [name for name in pooling.list_backends() if "first" in pooling.get_backend(name).ties]


def walked(x: Array, window: Window, ties: str) -> Array:
    """By definition, plane by plane and window by window; `x` is (planes, *spatial)."""
    found = np.full((len(x), *window.output_size), -1, np.int64)
    for plane, out in itertools.product(range(len(x)), itertools.product(*map(range, window.output_size))):
        along = [
            [o * axis.stride + k * axis.dilation - axis.before for k in range(axis.kernel)]
            for axis, o in zip(window.affine, out, strict=True)
        ]
        best: Any = None
        for cell in itertools.product(*along):
            if all(0 <= c < axis.size for c, axis in zip(cell, window.axes, strict=True)):
                value = x[(plane, *cell)]
                nan = np.isnan(value)
                better = best is None or (nan and not np.isnan(best)) or value > best
                if better or (ties == "last" and value == best):
                    best = value
                    found[(plane, *out)] = np.ravel_multi_index(cell, window.input_size)
    return found


@pytest.mark.parametrize(
    ("case", "ties"),
    [
        pytest.param(case, ties, id=f"{case}-{ties}")
        for case in cases()
        for ties in ("first", "last")
        if case.dtype == "float32" and (ties == "first" or case.ndim == 2)
    ],
)
def test_indices_are_the_winners(case: Case, ties: Any) -> None:
    x = case.input()
    window = case.max_pool("reference").problem(x.shape).window
    axis = -1 if case.data_format == "channels_last" else 1
    planes = np.moveaxis(x, axis, 1).reshape(-1, *window.input_size)
    expected = np.moveaxis(
        walked(planes, window, ties).reshape(*np.moveaxis(x, axis, 1).shape[:2], *window.output_size), 1, axis
    )
    asked = 0
    for name in ("reference", *NAMES):
        pool = case.max_pool(name, ties)
        if ties in pooling.get_backend(name).ties and pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
            y, indices = pool.forward_with_indices(x)
            assert indices.dtype == np.int64
            np.testing.assert_array_equal(indices, expected, err_msg=name)
            np.testing.assert_array_equal(y, pool(x))
            asked += 1
    assert asked >= 3


@pytest.mark.parametrize("name", pooling.list_backends())
def test_values_lie_where_the_indices_point(name: str) -> None:
    """Backends that keep no switches too: theirs are found by comparing."""
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(np.float32)
    pool = pooling.MaxPool(2, ties=pooling.get_backend(name).ties[0], backend=name)
    y, indices = pool.forward_with_indices(x)
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 3, -1), indices.reshape(2, 3, -1), 2), y.reshape(2, 3, -1)
    )


@pytest.mark.parametrize("name", pooling.list_backends())
@pytest.mark.parametrize("ties", ["split", "all"])
def test_where_several_are_paid_the_first_is_told(name: str, ties: Any) -> None:
    if ties in pooling.get_backend(name).ties:
        x = np.round(np.random.default_rng(0).standard_normal((2, 3, 6, 8))).astype(np.float32)
        x[0, 0, 0, :2] = np.nan
        expected = pooling.max_pool(x, 2, return_indices=True, backend="reference")[1]
        _, indices = pooling.MaxPool(2, ties=ties, backend=name).forward_with_indices(x)
        np.testing.assert_array_equal(indices, expected)


def test_padding_does_not_count() -> None:
    x = np.array([[5.0, 1.0], [2.0, 3.0]], np.float32)
    assert pooling.max_pool(x, (2, 2), 1, 1, return_indices=True)[1].tolist() == [[0, 0, 1], [0, 0, 3], [2, 3, 3]]


def test_nobody_has_an_index() -> None:
    x = np.array([[[-np.inf, -np.inf, -np.inf, -np.inf, -np.inf]]], np.float32)
    y, indices = pooling.max_pool(x, 2, 3, 8, 8, return_indices=True)
    assert indices.ravel().tolist() == [0, 3, -1, 1, 4]
    assert (y == -np.inf).all()


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_ties_and_nans_take_the_first(data_format: Any) -> None:
    rows = np.array([[1, 1, 2, 2], [np.nan, 1, np.nan, np.nan], [0.0, -0.0, -0.0, 0.0]], np.float32)
    x = rows[None] if data_format == "channels_first" else rows.T[None]
    y, indices = pooling.max_pool(x, (4,), data_format=data_format, return_indices=True)
    assert indices.ravel().tolist() == [2, 0, 0]
    assert np.signbit(y.ravel()[2]) == np.False_


def test_integers_and_booleans_have_indices() -> None:
    for dtype in ("int8", "uint8", "int64", "uint64", "bool"):
        x = np.array([[0, 1, 1, 0]], dtype)
        y, indices = pooling.max_pool(x, (2,), return_indices=True, backend="strided_slices")
        assert y.dtype == dtype
        assert y.tolist() == [[1, 1]]
        assert indices.tolist() == [[1, 2]]


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 0, 4, 4)])
def test_indices_of_nothing(shape: tuple[int, ...]) -> None:
    y, indices = pooling.max_pool(np.zeros(shape, np.float32), 2, return_indices=True)
    assert y.shape == indices.shape == (*shape[:2], 2, 2)
    assert indices.dtype == np.int64


def test_out_is_filled() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    out = np.zeros((1, 2, 2), np.float32)
    y, indices = pooling.max_pool(x, (2, 2), return_indices=True, out=out)
    assert y is out
    np.testing.assert_array_equal(indices, out)
