"""The operators: shapes, what arguments mean, and what the contract says of padding, ties, NaN and divisors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling
from tests.cases import Array


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
        ((2, 1, 4, 4, 4, 4), 2, (2, 1, 2, 2, 2, 2)),
        ((3, 1, 6), [3], (3, 1, 2)),
        ((2, 3, 8, 9), np.array([2, 3]), (2, 3, 4, 3)),
        ((2, 3, 8, 9), np.int64(3), (2, 3, 2, 3)),
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


def test_pick_names_a_backend_that_can() -> None:
    pool = pooling.MaxPool(3, 2, 1, ties="split")
    name = pooling.pick((2, 3, 9, 9), np.float32, pool)
    assert pooling.get_backend(name).why_not((2, 3, 9, 9), np.float32, pool) is None


# What the contract says, each on an array that one can check by eye: (x, the arguments, y, and dx for dy = 1, 10, 100, ...)
inf, nan = np.inf, np.nan
LESSONS: dict[str, tuple[list[float], dict[str, Any], list[float], list[float]]] = {
    "the first of ties": ([1, 3, 3, 2], {"kernel_size": 4}, [3], [0, 1, 0, 0]),
    "the last of ties": ([1, 3, 3, 2], {"kernel_size": 4, "ties": "last"}, [3], [0, 0, 1, 0]),
    "equal shares": ([1, 3, 3, 2], {"kernel_size": 4, "ties": "split"}, [3], [0, 0.5, 0.5, 0]),
    "the mask trick": ([1, 3, 3, 2], {"kernel_size": 4, "ties": "all"}, [3], [0, 1, 1, 0]),
    "overlapping shares": ([5, 5, 5], {"kernel_size": 2, "stride": 1, "ties": "split"}, [5, 5], [0.5, 5.5, 5]),
    "overlapping windows": ([1, 5, 2], {"kernel_size": 2, "stride": 1}, [5, 5], [0, 11, 0]),
    "a gap between windows": ([1, 5, 9, 2, 1, 9], {"kernel_size": 2, "stride": 3}, [5, 2], [0, 1, 0, 10, 0, 0]),
    "a NaN wins": ([1, nan, 9, 2], {"kernel_size": 4}, [nan], [0, 1, 0, 0]),
    "the first NaN": ([inf, nan, nan, 2], {"kernel_size": 4}, [nan], [0, 1, 0, 0]),
    "the first NaN, with last": ([inf, nan, nan, 2], {"kernel_size": 4, "ties": "last"}, [nan], [0, 1, 0, 0]),
    "NaNs do not share": ([inf, nan, nan, 2], {"kernel_size": 4, "ties": "split"}, [nan], [0, 1, 0, 0]),
    "nor take it all each": ([inf, nan, nan, 2], {"kernel_size": 4, "ties": "all"}, [nan], [0, 1, 0, 0]),
    "only -inf": ([-inf, -inf], {"kernel_size": 2}, [-inf], [1, 0]),
    "only -inf, last": ([-inf, -inf], {"kernel_size": 2, "ties": "last"}, [-inf], [0, 1]),
    "inf": ([inf, 1, inf, 2], {"kernel_size": 4}, [inf], [1, 0, 0, 0]),
    "padding is not 0": ([-5, -3], {"kernel_size": 2, "padding": 1}, [-5, -3], [1, 10]),
    "padding is no cell of -inf": ([-inf, 0], {"kernel_size": 2, "padding": 1}, [-inf, 0], [1, 10]),
    "padding alone": ([4], {"kernel_size": 2, "stride": 1, "padding": 2, "dilation": 2}, [4, -inf, 4], [101]),
    "padding alone has no share": ([1, 2, 3], {"kernel_size": 2, "stride": 4, "padding": 4, "dilation": 4, "ties": "all"},
                                   [1, 1], [11, 0, 0]),
    "before and after": ([1, 2, 3], {"kernel_size": 2, "padding": ((0, 1),)}, [2, 3], [0, 1, 10]),
    "same_upper": ([1, 2, 3], {"kernel_size": 2, "padding": "same_upper"}, [2, 3], [0, 1, 10]),
    "same_lower": ([1, 2, 3], {"kernel_size": 2, "padding": "same_lower"}, [1, 3], [1, 0, 10]),
    "valid": ([1, 2, 3], {"kernel_size": 2, "padding": "valid"}, [2], [0, 1, 0]),
    "ceil_mode": ([1, 2, 3], {"kernel_size": 2, "ceil_mode": True}, [2, 3], [0, 1, 10]),
    "no window behind the data": ([1, 2, 3], {"kernel_size": 1, "stride": 2, "ceil_mode": True}, [1, 3], [1, 0, 10]),
    "dilation": ([1, 9, 2, 8, 3], {"kernel_size": 3, "dilation": 2}, [3], [0, 0, 0, 0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("name", pooling.list_backends())
def test_lessons_of_max_pooling(name: str, lesson: str) -> None:
    values, arguments, y, dx = LESSONS[lesson]
    x = np.array([[values]], np.float32)
    pool = pooling.MaxPool(**arguments, backend=name)
    reason = pooling.get_backend(name).why_not(x.shape, x.dtype, pool)
    if reason is not None:
        with pytest.raises(pooling.PoolingError, match="can't do this"):
            pool(x)
        return
    got, saved = pool.forward(x)
    np.testing.assert_array_equal(got.ravel(), np.array(y, np.float32))
    dy = 10.0 ** np.arange(got.size, dtype=np.float32).reshape(got.shape)
    np.testing.assert_array_equal(pool.backward(dy, saved).ravel(), np.array(dx, np.float32))


MEANS: dict[str, tuple[list[float], dict[str, Any], list[float], list[float]]] = {
    "mean": ([1, 3, 5, 9], {"kernel_size": 2}, [2, 7], [0.5, 0.5, 5, 5]),
    "padding counts": ([2, 4], {"kernel_size": 2, "padding": 1}, [1, 2], [0.5, 5]),
    "padding does not": ([2, 4], {"kernel_size": 2, "padding": 1, "count_include_pad": False}, [2, 4], [1, 10]),
    "divisor_override": ([2, 4], {"kernel_size": 2, "padding": 1, "divisor_override": 4}, [0.5, 1], [0.25, 2.5]),
    "what sticks out does not count": ([2, 4, 6], {"kernel_size": 2, "ceil_mode": True}, [3, 6], [0.5, 0.5, 10]),
    "overlapping": ([2, 4, 6], {"kernel_size": 2, "stride": 1}, [3, 5], [0.5, 5.5, 5]),
    "a NaN": ([nan, 1, 2, 4], {"kernel_size": 2}, [nan, 3], [0.5, 0.5, 5, 5]),
    "inf": ([inf, 1, 2, 4], {"kernel_size": 2}, [inf, 3], [0.5, 0.5, 5, 5]),
    "dilation": ([1, 9, 3], {"kernel_size": 2, "dilation": 2}, [2], [0.5, 0, 0.5]),
}


@pytest.mark.parametrize("lesson", MEANS)
@pytest.mark.parametrize("name", [name for name in pooling.list_backends() if "avg" in pooling.get_backend(name).ops])
def test_lessons_of_mean_pooling(name: str, lesson: str) -> None:
    values, arguments, y, dx = MEANS[lesson]
    x = np.array([[values]], np.float32)
    pool = pooling.AvgPool(**arguments, backend=name)
    if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is not None:
        with pytest.raises(pooling.PoolingError, match="can't do this"):
            pool(x)
        return
    got, saved = pool.forward(x)
    np.testing.assert_array_equal(got.ravel(), np.array(y, np.float32))
    dy = 10.0 ** np.arange(got.size, dtype=np.float32).reshape(got.shape)
    np.testing.assert_array_equal(pool.backward(dy, saved).ravel(), np.array(dx, np.float32))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"])
@pytest.mark.parametrize("name", ["reference", "argmax_switches", "strided_slices", "numba_loops"])
def test_windows_of_padding_alone_have_the_lowest_integer(name: str, dtype: str) -> None:
    lowest = False if dtype == "bool" else np.iinfo(dtype).min
    x = np.ones((1, 1, 1), dtype)
    y = pooling.max_pool(x, 2, 2, 4, 4, backend=name)
    assert y.tolist() == [[[1, lowest, 1]]]


def test_the_functions_give_what_the_operators_give() -> None:
    x = image(2, 3, 7, 6)
    np.testing.assert_array_equal(pooling.max_pool(x, 3, 2, 1, 1, True), pooling.MaxPool(3, 2, 1, 1, True)(x))
    choices: tuple[dict[str, Any], ...] = (
        {"count_include_pad": False},
        {"divisor_override": 5},
        {"data_format": "channels_last"},
    )
    for options in choices:
        y = pooling.avg_pool(x, 2, 2, 1, 1, True, **options)
        np.testing.assert_array_equal(y, pooling.AvgPool(2, 2, 1, 1, True, **options)(x))


def test_wrong_answers_of_other_libraries() -> None:
    def pooled(x: Array, **options: Any) -> Array:
        return np.asarray(pooling.max_pool(x, (2, 2), **options))

    x = np.full((1, 2, 2, 4), -7, np.int32)
    assert (pooled(x, data_format="channels_last") == -7).all(), "pytorch#109586 gave 0"
    assert (pooled(-np.ones((3, 3), np.float32), ceil_mode=True) == -1).all(), "block_reduce pads with 0"
    assert np.isnan(pooled(np.array([[1, nan], [2, 3]], np.float32))), "keras#16158 gave -3.4e38"
    y, saved = pooling.MaxPool((2, 2)).forward(np.zeros((4, 4), np.float32))
    assert pooling.MaxPool((2, 2)).backward(np.ones_like(y), saved).sum() == 4, "onnxruntime#7217 paid each tie"


def test_operators_tell_what_they_are() -> None:
    pool = pooling.MaxPool((2, 3), padding=[(0, 1), (1, 1)], ties="last", backend="numba_loops")
    assert eval(repr(pool), {"MaxPool": pooling.MaxPool}).problem((1, 1, 5, 5)) == pool.problem((1, 1, 5, 5))
    assert "divisor_override=3" in repr(pooling.AvgPool(2, divisor_override=3))


def test_saved_names_its_backend() -> None:
    for name in ("strided_slices", "numba_loops"):
        assert pooling.MaxPool(2, backend=name).forward(image())[1].backend == name
    assert pooling.MaxPool(2).forward(image())[1].backend == pooling.pick((2, 3, 6, 7), "float32", pooling.MaxPool(2))


@pytest.mark.parametrize("ties", ["first", "last", "split", "all"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "bool"])
def test_auto_never_changes_the_policy(ties: Any, dtype: str) -> None:
    for arguments in ((2,), (3, 2, 1)):
        for kernel, shape in ((arguments[0], (1, 2, 5, 5)), ((2, 2, 2, 2), (1, 3, 3, 3, 3))):
            pool = pooling.MaxPool(kernel, *arguments[1:], ties=ties)
            name = pooling.pick(shape, dtype, pool)
            assert ties in pooling.get_backend(name).ties
            assert pooling.get_backend(name).why_not(shape, dtype, pool) is None
            assert not pooling.get_backend(name).reference_only


def test_nobody_can_do_what_nobody_does() -> None:
    with pytest.raises(
        pooling.UnsupportedError, match=r"no backend can do this: simd: .*take complex64.*; numba_loops: "
    ):
        pooling.pick((1, 1, 4, 4), np.complex64, pooling.MaxPool(2))


def test_windows_can_not_be_changed_and_layouts_and_backends_can() -> None:
    class Named(pooling.MaxPool):
        def __init__(self, name: str) -> None:
            super().__init__(2)
            self.name = name

    pool = Named("own")
    assert pool.name == "own"
    for name, value in {"stride": 1, "kernel_size": 3, "ties": "last"}.items():
        with pytest.raises(
            AttributeError, match=rf"{name}={value!r}: .* make another one: Named\(\.\.\., {name}={value!r}\)"
        ):
            setattr(pool, name, value)
    x = image(1, 4, 4, 2)
    assert pool(x).shape == (1, 4, 2, 1)
    pool.data_format = "channels_last"
    assert pool(x).shape == (1, 2, 2, 2)
    pool.backend = "strided_slices"
    assert pool.forward(x)[1].backend == "strided_slices"
    for name in ("data_format", "backend"):
        with pytest.raises(pooling.PoolingError, match="NHWC"):
            setattr(pool, name, "NHWC")
