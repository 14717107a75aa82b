"""The operators: shapes, arguments, arrays of all kinds, and errors that name the argument, the value and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling
from pooling import PoolingError


def image(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(0).standard_normal(shape or (2, 3, 6, 7)).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "kernel", "expected"),
    [
        ((2, 3, 8), 2, (2, 3, 4)),
        ((2, 3, 8, 9), 2, (2, 3, 4, 4)),
        ((2, 3, 4, 8, 9), 2, (2, 3, 2, 4, 4)),
        ((3, 8, 9), (2, 2), (3, 4, 4)),
        ((8, 9), (2, 2), (4, 4)),
        ((8,), (2,), (4,)),
        ((5, 2, 3, 8, 9), (2, 3), (5, 2, 3, 4, 3)),
        ((2, 1, 4, 4, 4, 4), (2, 2, 2, 2), (2, 1, 2, 2, 2, 2)),
    ],
)
def test_any_number_of_dimensions(shape: tuple[int, ...], kernel: Any, expected: tuple[int, ...]) -> None:
    x = image(*shape)
    pool = pooling.MaxPool(kernel)
    y, saved = pool.forward(x)
    assert y.shape == expected
    assert pool.backward(np.ones_like(y), saved).sum() == y.size


def test_channels_last_pools_over_the_axes_before_the_last() -> None:
    x = image(2, 6, 7, 3)
    y = pooling.max_pool(x, 2, data_format="channels_last")
    assert y.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(np.moveaxis(y, -1, 1), pooling.max_pool(np.moveaxis(x, -1, 1), 2))
    assert pooling.max_pool(x[0], (2, 2), data_format="channels_last").shape == (3, 3, 3)


def test_padding_never_wins() -> None:
    x = -np.ones((1, 1, 4, 4), np.float32)
    assert (pooling.max_pool(x, 3, 2, 1) == -1).all()


def test_windows_of_padding_alone() -> None:
    x = np.ones((1, 1, 2), np.float32)
    pool = pooling.MaxPool(2, 1, 3, 3)  # its cells are 3 apart
    y, saved = pool.forward(x)
    reference = pooling.MaxPool(2, 1, 3, 3, backend="reference")
    np.testing.assert_array_equal(y, reference(x))
    assert pool.backward(np.ones_like(y), saved).sum() == np.isfinite(y).sum()


def test_spelled_paddings() -> None:
    x = image(1, 1, 5, 6)
    assert pooling.max_pool(x, 2, 2, "valid").shape == (1, 1, 2, 3)
    assert pooling.max_pool(x, 2, 2, "same_upper").shape == (1, 1, 3, 3)
    upper = pooling.max_pool(x, 2, 2, [(0, 1), (0, 0)])
    np.testing.assert_array_equal(upper, pooling.max_pool(x, 2, 2, "same_upper"))
    lower = pooling.max_pool(x, 2, 2, [(1, 0), (0, 0)])
    np.testing.assert_array_equal(lower, pooling.max_pool(x, 2, 2, "same_lower"))


def test_indices_point_at_the_maxima() -> None:
    x = image(2, 3, 6, 7)
    y, indices = pooling.max_pool(x, 3, 2, 1, return_indices=True)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 3, -1), indices.reshape(2, 3, -1), 2), y.reshape(2, 3, -1)
    )


@pytest.mark.parametrize("backend", ["strided_slices", "numba_loops", "simd"])
def test_arrays_of_all_kinds(backend: str) -> None:
    x = image(4, 6, 8, 10)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    kinds = {
        "Fortran": np.asfortranarray(x),
        "backwards": x[:, :, ::-1, ::-1][:, :, ::-1, ::-1],
        "strided": np.repeat(x, 2, axis=3)[..., ::2],
        "unaligned": unaligned,
        "read-only": frozen,
        "other bytes": x.astype(">f4"),
        "a list": x.tolist(),
    }
    pool = pooling.MaxPool(2, backend=backend)
    y, saved = pool.forward(x)
    dx = pool.backward(y, saved)
    for name, kind in kinds.items():
        got, saved = pool.forward(kind)
        np.testing.assert_array_equal(got, y, err_msg=name)
        gradient = got.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0)
        if got.dtype == np.float32:
            np.testing.assert_array_equal(pool.backward(gradient, saved), dx, err_msg=name)
    broadcast = np.broadcast_to(x[:1], x.shape)
    np.testing.assert_array_equal(pool(broadcast)[2], y[0])


def test_out_is_filled_and_returned() -> None:
    x = image()
    pool = pooling.MaxPool(2)
    out = np.full((2, 3, 3, 3), np.nan, np.float32)
    y, saved = pool.forward(x, out=out)
    assert y is out
    assert np.isfinite(out).all()
    dx = np.full_like(x, np.nan)
    assert pool.backward(y, saved, out=dx) is dx
    assert dx.sum() == pytest.approx(y.sum(), rel=1e-5)


def test_results_are_not_views_of_arguments() -> None:
    x = image()
    y, saved = pooling.MaxPool(1).forward(x)
    assert not np.may_share_memory(x, y)
    assert not np.may_share_memory(pooling.MaxPool(1).backward(y, saved), y)


WRONG_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "zero kernel": ({"kernel_size": 0}, r"kernel_size.*0"),
    "negative kernel": ({"kernel_size": -2}, r"kernel_size.*-2"),
    "float kernel": ({"kernel_size": 2.5}, r"kernel_size.*2\.5"),
    "bool kernel": ({"kernel_size": True}, r"kernel_size.*True"),
    "empty kernel": ({"kernel_size": ()}, r"kernel_size.*\(\)"),
    "zero stride": ({"kernel_size": 2, "stride": 0}, r"stride.*0"),
    "lengths": ({"kernel_size": (2, 2), "stride": (2, 2, 2)}, r"stride.*3"),
    "negative padding": ({"kernel_size": 2, "padding": -1}, r"padding.*-1"),
    "too much padding": ({"kernel_size": 2, "padding": 2}, r"padding.*2"),
    "unknown padding": ({"kernel_size": 2, "padding": "full"}, r"padding.*full.*same_upper"),
    "zero dilation": ({"kernel_size": 2, "dilation": 0}, r"dilation.*0"),
    "ceil_mode": ({"kernel_size": 2, "ceil_mode": 1}, r"ceil_mode.*1"),
    "data_format": ({"kernel_size": 2, "data_format": "NHWC"}, r"data_format.*NHWC.*channels_last"),
    "ties": ({"kernel_size": 2, "ties": "any"}, r"ties.*any.*first"),
    "backend": ({"kernel_size": 2, "backend": "strided_slice"}, r"strided_slice.*strided_slices"),
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_wrong_arguments_are_named(name: str) -> None:
    arguments, message = WRONG_ARGUMENTS[name]
    with pytest.raises(PoolingError, match=message):
        pooling.MaxPool(**arguments)


def test_wrong_inputs_are_named() -> None:
    x = image()
    with pytest.raises(PoolingError, match=r"dimensions"):
        pooling.max_pool(image(5, 5), 2)
    with pytest.raises(PoolingError, match=r"kernel_size 9.*spans 9.*smaller window or more padding"):
        pooling.max_pool(x, 9)
    with pytest.raises(pooling.DTypeError, match=r"complex64.*astype"):
        pooling.max_pool(x.astype(np.complex64), 2)
    with pytest.raises(pooling.DTypeError, match="object"):
        pooling.max_pool(x.astype(object), 2)
    with pytest.raises(pooling.DTypeError, match="<U"):
        pooling.max_pool(np.full((1, 1, 4, 4), "a"), 2)
    with pytest.raises(pooling.DTypeError, match="masked"):
        pooling.max_pool(np.ma.masked_array(x), 2)
    with pytest.raises(pooling.DTypeError, match=r"int32.*astype\(np\.float32\)"):
        pooling.avg_pool(np.ones((1, 1, 4, 4), np.int32), 2)
    with pytest.raises(PoolingError, match=r"divisor_override"):
        pooling.AvgPool(2, divisor_override=0)
    with pytest.raises(pooling.UnknownBackendError, match="fast"):
        pooling.backend("fast")
    with pytest.raises(pooling.UnsupportedError, match=r"overlap"):
        pooling.MaxPool(3, 1, backend="strided_reshape")(x)


def test_wrong_gradients_are_refused() -> None:
    pool = pooling.MaxPool(2)
    y, saved = pool.forward(image())
    with pytest.raises(PoolingError, match=r"dy has shape \(1,\)"):
        pool.backward(np.ones(1, np.float32), saved)
    with pytest.raises(pooling.DTypeError, match=r"float64.*float32"):
        pool.backward(y.astype(np.float64), saved)
    with pytest.raises(PoolingError, match="another operator"):
        pooling.MaxPool(3).backward(y, saved)
    with pytest.raises(PoolingError, match="saved"):
        pool.backward(y, None)  # type: ignore[arg-type]
    whole, of_integers = pool.forward(np.ones((1, 1, 4, 4), np.int32))
    with pytest.raises(pooling.DTypeError, match="no gradient"):
        pool.backward(whole, of_integers)


def test_wrong_outs_are_refused() -> None:
    x = image()
    pool = pooling.MaxPool(2)
    with pytest.raises(PoolingError, match="shape"):
        pool(x, out=np.empty((1, 1), np.float32))
    with pytest.raises(PoolingError, match="overlaps"):
        pooling.MaxPool(1)(x, out=x)
    with pytest.raises(PoolingError, match="C-contiguous"):
        pool(x, out=np.empty((3, 3, 3, 2), np.float32).T)
    with pytest.raises(PoolingError, match="list"):
        pool(x, out=[])  # type: ignore[arg-type]


def test_pick_names_a_backend_that_can() -> None:
    pool = pooling.MaxPool(3, 2, 1, ties="split")
    name = pooling.pick((2, 3, 9, 9), np.float32, pool)
    assert pooling.backend(name).why_not((2, 3, 9, 9), np.float32, pool) is None
