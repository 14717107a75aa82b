"""Fractional max pooling: where its windows lie, planes that differ in theirs, and what it draws."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

import pooling
from tests.cases import Array, same_bits

NAMES = ("reference", "strided_slices", "numba_loops", "simd")


def starts(u: float, size: int, out: int, kernel: int) -> list[int]:
    """PyTorch's sequence, in plain Python."""
    alpha = (size - kernel) / max(out - 1, 1)
    return [int((i + u) * alpha) - int(u * alpha) for i in range(out - 1)] + [size - kernel]


def pooled(plane: Array, kernels: Any, outs: Any, sample: Any) -> tuple[Array, Array]:
    along = [starts(float(u), n, o, k) for u, n, o, k in zip(sample, plane.shape, outs, kernels, strict=True)]
    y, indices = np.empty(outs, plane.dtype), np.empty(outs, np.int64)
    numbers = np.arange(plane.size).reshape(plane.shape)
    for at in itertools.product(*map(range, outs)):
        box = tuple(slice(along[i][o], along[i][o] + kernels[i]) for i, o in enumerate(at))
        winner = plane[box].argmax()
        y[at], indices[at] = plane[box].ravel()[winner], numbers[box].ravel()[winner]
    return y, indices


WINDOWS: list[tuple[Any, Any]] = [
    ((2, 2, 2), (5, 4, 3)),
    ((3, 3, 3), (1, 4, 2)),
    ((2, 3, 1), (4, 3, 6)),
    ((1, 1, 1), (9, 8, 6)),
    ((2, 2, 2), (8, 1, 5)),
]


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_windows_lie_where_the_samples_say(spatial: int, data_format: Any, window: int) -> None:
    kernels, outs = (entries[:spatial] for entries in WINDOWS[window])
    rng = np.random.default_rng(window)
    x = rng.standard_normal((2, 3, *(9, 8, 6)[:spatial]))
    samples = rng.random((2, 3, spatial))
    order = samples[..., ::-1] if spatial == 2 else samples  # as PyTorch has them
    expected = [[pooled(x[n, c], kernels, outs, order[n, c]) for c in range(3)] for n in range(2)]
    y, indices = (np.array([[planes[i] for planes in row] for row in expected]) for i in (0, 1))
    dx = np.zeros((2, 3, x[0, 0].size))
    for n, c in np.ndindex(2, 3):
        np.add.at(dx[n, c], indices[n, c].ravel(), np.arange(indices[n, c].size))
    dy = np.broadcast_to(np.arange(indices[0, 0].size, dtype=float).reshape(outs), y.shape)

    def turn(array: Array) -> Array:
        return np.moveaxis(array, 1, -1) if data_format == "channels_last" else array

    for name in NAMES if spatial == 2 and window < 2 else NAMES[:3]:
        pool = pooling.FractionalMaxPool(kernels, outs, random_samples=samples, data_format=data_format, backend=name)
        got, saved = pool.forward(turn(x))
        assert same_bits(got, np.ascontiguousarray(turn(y))), name
        both = pool.forward_with_indices(turn(x))
        np.testing.assert_array_equal(both[0], got)
        np.testing.assert_array_equal(both[1], turn(indices), err_msg=name)
        np.testing.assert_array_equal(pool.backward(turn(dy), saved), turn(dx.reshape(x.shape)), err_msg=name)
        np.testing.assert_array_equal(pool(turn(x)), got)


def test_one_sample_for_all() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    each = np.broadcast_to(np.array([0.3, 0.8]), (2, 3, 2))
    y = pooling.fractional_max_pool(x, 2, 5, random_samples=each)
    assert same_bits(pooling.fractional_max_pool(x, 2, 5, random_samples=[0.3, 0.8]), y)
    assert same_bits(pooling.fractional_max_pool(x[0], (2, 2), 5, random_samples=each[0]), y[0])
    pool = pooling.FractionalMaxPool(2, 5, random_samples=[0.3, 0.8], data_format="channels_last")
    assert same_bits(np.ascontiguousarray(np.moveaxis(pool(np.moveaxis(x, 1, -1)), -1, 1)), y)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"output_size": 5}, (5, 5)),
        ({"output_size": (5, 3)}, (5, 3)),
        ({"output_size": (0, 3)}, (0, 3)),
        ({"output_ratio": 0.5}, (5, 4)),
        ({"output_ratio": (0.75, 0.5)}, (8, 4)),
        ({"output_ratio": 0.09}, (0, 0)),
    ],
)
def test_sizes(options: dict[str, Any], expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 11, 9))
    pool = pooling.FractionalMaxPool(2, rng=0, **options)
    y, saved = pool.forward(x)
    assert y.shape == (2, 3, *expected)
    assert pool.backward(np.ones_like(y), saved).sum() == y.size


def test_what_is_drawn() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 17, 17))
    pool = pooling.FractionalMaxPool(2, 11, rng=7)
    first, second = pool(x), pool(x)
    assert not np.array_equal(first, second), "each pass draws anew"
    again = pooling.FractionalMaxPool(2, 11, rng=np.random.default_rng(7))
    assert same_bits(again(x), first)
    assert same_bits(pooling.fractional_max_pool(x, 2, 11, rng=7), first)
    drawn = np.random.default_rng(7).random((6, 2)).reshape(2, 3, 2)
    assert same_bits(pooling.fractional_max_pool(x, 2, 11, random_samples=drawn), first)
    assert not np.array_equal(pooling.fractional_max_pool(x, 2, 11), pooling.fractional_max_pool(x, 2, 11))


@pytest.mark.parametrize("ties", ["first", "last", "split"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_gradients(ties: Any, data_format: Any) -> None:
    samples = np.random.default_rng(1).random((2, 3, 2))
    x = np.round(np.random.default_rng(0).standard_normal((2, 3, 9, 8)))
    x = x if data_format == "channels_first" else np.moveaxis(x, 1, -1)
    pool = pooling.FractionalMaxPool(3, 4, random_samples=samples, ties=ties, data_format=data_format)
    pooling.gradcheck(pool, x)
    assert pool.forward(x)[1].backend == "numba_loops"


def test_integers_and_nothing() -> None:
    x = np.arange(2 * 3 * 9 * 9, dtype=np.int16).reshape(2, 3, 9, 9)
    y, indices = pooling.fractional_max_pool(x, 2, 4, rng=0, return_indices=True)
    assert y.dtype == np.int16
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 3, -1), indices.reshape(2, 3, -1), 2).reshape(y.shape), y
    )
    assert pooling.fractional_max_pool(np.zeros((0, 3, 9, 9)), 2, 4).shape == (0, 3, 4, 4)
    out = np.empty((2, 3, 4, 4), np.int16)
    assert pooling.fractional_max_pool(x, 2, 4, rng=0, out=out) is out
    np.testing.assert_array_equal(out, y)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no size": ({"output_size": None}, r"output_size=None, output_ratio=None: give one of them"),
    "two sizes": ({"output_ratio": 0.5}, r"output_size=3, output_ratio=0\.5: give one of them, and only one"),
    "ratio 1": ({"output_size": None, "output_ratio": 1.0}, r"output_ratio=1\.0: 1\.0 is not between 0 and 1"),
    "ratio 0": ({"output_size": None, "output_ratio": (0.5, 0)}, r"output_ratio=\(0\.5, 0\): 0 is not between"),
    "ratios": (
        {"output_size": None, "output_ratio": (0.5,) * 3, "kernel_size": (2, 2)},
        r"output_ratio=.* has 3 entries",
    ),
    "kernel 0": ({"kernel_size": 0}, r"kernel_size=0: 0 is too small"),
    "negative": ({"output_size": -1}, r"output_size=-1: -1 is too small"),
    "float": ({"output_size": 2.5}, r"output_size=2\.5: 2\.5 is not an int"),
    "three sizes": ({"output_size": (2, 2, 2), "kernel_size": (2, 2)}, r"output_size=\(2, 2, 2\) has 3 entries"),
    "too much": ({"kernel_size": 4, "output_size": 7}, r"kernel_size=4: 7 windows of 4 cells need 10 in dimension 0"),
    "samples of 3": ({"random_samples": np.ones((2, 3, 3))}, r"random_samples has shape \(2, 3, 3\): x of shape"),
    "too few": ({"random_samples": np.ones((1, 3, 2))}, r"random_samples has shape \(1, 3, 2\).*needs \(6, 2\)"),
    "above 1": (
        {"random_samples": np.full((2, 3, 2), 1.5)},
        r"random_samples=.*: give an array of numbers from 0 to 1",
    ),
    "NaN": ({"random_samples": np.full((2, 3, 2), np.nan)}, r"random_samples=.*: give an array of numbers from 0 to 1"),
    "ints": ({"random_samples": np.zeros((2, 3, 2), int)}, r"random_samples has dtype int64: give floats"),
    "uneven": ({"random_samples": [[0.5], [0.5, 0.5]]}, r"random_samples is no array"),
    "ratio too large": (
        {"output_size": None, "output_ratio": 10**400},
        r"output_ratio=10+\.\.\. \(401 characters\): 10+\.\.\. .* is not between 0 and 1",
    ),
    "rng": ({"rng": "random"}, r"rng='random': give a numpy\.random\.Generator, or a seed"),
    "ties": ({"ties": "any"}, r"ties='any': it must be one of"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    options, message = WRONG[name]
    with pytest.raises(pooling.PoolingError, match=f"^{message}"):
        pooling.FractionalMaxPool(**{"kernel_size": 2, "output_size": 3} | options)(np.zeros((2, 3, 9, 9)))


def test_saved_state_of_windows_that_were_not_drawn() -> None:
    """Where what is drawn happens to be a plain window, what was kept still has another form."""
    drawn = pooling.FractionalMaxPool(2, 4, random_samples=[0.5, 0.5], backend="numba_loops")
    pool = pooling.MaxPool(2, backend="numba_loops")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    assert drawn.problem(x.shape).window == pool.problem(x.shape).window
    for one, other in ((drawn, pool), (pool, drawn)):
        y, saved = one.forward(x)
        with pytest.raises(pooling.PoolingError, match="saved comes from another operator's forward pass"):
            other.backward(y, saved)


@pytest.mark.parametrize("samples", [None, [0.3, 0.6]], ids=["groups", "one"])
def test_what_groups_kept(samples: Any) -> None:
    """out= over what backward reads is an error, and any order of what was kept is as good, in groups too."""
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 8, 8)).astype(np.float32)
    pool = pooling.FractionalMaxPool(2, 4, random_samples=samples, rng=0, ties="all", backend="numba_loops")
    y, saved = pool.forward(x)
    dx = pool.backward(y, saved)
    groups = tuple(g._replace(kept=tuple(map(np.asfortranarray, g.kept))) for g in saved.kept)  # type: ignore[attr-defined]
    assert same_bits(pool.backward(y, dataclasses.replace(saved, kept=groups)), dx)
    if samples is not None:  # with several groups, what they keep are copies
        with pytest.raises(pooling.PoolingError, match="out overlaps"):
            pool.backward(y.copy(), saved, out=x)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_gradients_of_windows_that_are_drawn(data_format: Any) -> None:
    """Differences between two forward passes mean nothing where each draws its own windows: checking draws once."""
    x = np.random.default_rng(0).standard_normal((2, 6, 7, 3))
    pool = pooling.FractionalMaxPool(2, output_ratio=0.6, rng=0, data_format=data_format, backend="numba_loops")
    before = pool.rng.bit_generator.state
    pooling.gradcheck(pool, x)
    assert pool.rng.bit_generator.state == before
    assert pool.random_samples is None
    np.testing.assert_array_equal(pool.settled(x.shape)(x), pool(x))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_auto_takes_what_pick_says(dtype: str) -> None:
    """Windows drawn for each plane are no layer that is tuned: the backend with the least to prepare does them."""
    pool = pooling.FractionalMaxPool(2, 3, rng=0)
    shape = (2, 2, 8, 8)
    assert pool.forward(np.ones(shape, dtype))[1].backend == pooling.pick(shape, dtype, pool)
    assert pooling.pick(shape, "float32", pool) == "numba_loops"
