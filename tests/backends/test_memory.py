"""Memory: what is read, what is written, and what belongs to whom."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import pooling
from pooling import PoolingError
from tests.cases import Array, gradient_for, same_bits

SHAPE = (4, 6, 8, 10)
OPERATORS: dict[str, Any] = {
    "max tiles": lambda name: pooling.MaxPool(2, ties=pooling.get_backend(name).ties[0], backend=name),
    "max overlapping": lambda name: pooling.MaxPool(3, 2, 1, ties=pooling.get_backend(name).ties[0], backend=name),
    "avg tiles": lambda name: pooling.AvgPool(2, backend=name),
    "avg overlapping": lambda name: pooling.AvgPool(3, 2, 1, backend=name),
}


def image(dtype: Any = np.float32, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def unaligned(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    array = raw[1:].view(x.dtype).reshape(x.shape)
    array[...] = x
    assert not array.flags.aligned
    return array


def frozen(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


class Tagged(np.ndarray[Any, Any]):
    """A subclass as libraries make them."""


KINDS: dict[str, Any] = {
    "Fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "backwards": lambda x: x[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1],
    "strided": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "a part": lambda x: np.pad(x, 3)[3:-3, 3:-3, 3:-3, 3:-3],
    "unaligned": unaligned,
    "read-only": frozen,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "a subclass": lambda x: x.view(Tagged),
}


def operators() -> list[Any]:
    found = []
    for (kind, make), name in itertools.product(OPERATORS.items(), pooling.list_backends()):
        pool = make(name)
        if pooling.get_backend(name).why_not(SHAPE, "float32", pool) is None:
            found.append(pytest.param(pool, id=f"{name}-{kind}"))
    assert len(found) > 20
    return found


@pytest.mark.parametrize("pool", operators())
def test_arrays_of_all_kinds(pool: Any) -> None:
    """pytorch#197888 read arrays that are not contiguous as if they were."""
    x = image()
    y, saved = pool.forward(x)
    dy = gradient_for(y)
    dx = pool.backward(dy, saved)
    for kind, made in KINDS.items():
        odd = made(x)
        got, saved = pool.forward(odd)
        assert type(got) is np.ndarray, kind
        assert same_bits(got, y), kind
        assert np.array_equal(odd, x), f"{kind}: x was changed"
        odd = made(dy)
        got = pool.backward(odd, saved)
        assert same_bits(got, dx), kind
        assert np.array_equal(odd, dy), f"{kind}: dy was changed"
    assert same_bits(pool(np.broadcast_to(x[:1], SHAPE)), np.broadcast_to(y[:1], y.shape).copy())
    dx = pool.backward(np.broadcast_to(dy.dtype.type(1), y.shape), saved)
    assert same_bits(dx, pool.backward(np.ones_like(y), saved))


@pytest.mark.parametrize("pool", operators())
def test_out_is_filled_and_returned(pool: Any) -> None:
    x = image()
    y, saved = pool.forward(x)
    dx = pool.backward(y, saved)
    for fill in (np.nan, 7):
        out = np.full_like(y, fill)
        assert pool(x, out=out) is out
        assert same_bits(out, y)
        out = np.full_like(y, fill)
        again, saved = pool.forward(x, out=out)
        assert again is out
        assert same_bits(out, y)
        gradient = np.full_like(x, fill)
        assert pool.backward(y, saved, out=gradient) is gradient
        assert same_bits(gradient, dx)


def test_lists_are_arrays_too() -> None:
    x = image(np.float64)
    assert same_bits(
        pooling.max_pool(x.tolist(), 2, backend="strided_slices"), pooling.max_pool(x, 2, backend="reference")
    )
    y, saved = pooling.AvgPool((2,), backend="strided_slices").forward([1.0, 3.0, 5.0, 9.0])
    assert y.tolist() == [2, 7]
    assert pooling.AvgPool((2,), backend="strided_slices").backward([2.0, 4.0], saved).tolist() == [1, 1, 2, 2]


def test_a_window_of_one_cell_is_a_copy() -> None:
    x = image()
    for pool in (pooling.MaxPool(1), pooling.AvgPool(1)):
        y, saved = pool.forward(x)
        assert not np.may_share_memory(x, y)
        assert not np.may_share_memory(pool.backward(y, saved), y)


@pytest.mark.parametrize("name", pooling.list_backends())
def test_who_keeps_x_says_so(name: str) -> None:
    """And the others don't: x and y may be overwritten after forward."""
    backend = pooling.get_backend(name)
    assert set(backend.keeps_x) <= set(backend.ties)
    x = np.round(image())
    for ties in backend.ties:
        pool = pooling.MaxPool(2, ties=ties, backend=name)
        y, saved = pool.forward(x)
        shared = any(np.may_share_memory(kept, array) for kept in saved.kept for array in (x, y))
        assert shared == (ties in backend.keeps_x), ties


def test_outs_that_cannot_be_filled_are_refused() -> None:
    x = image()
    pool = pooling.MaxPool(2)
    y, saved = pool.forward(x)
    read_only = frozen(y)
    wrong: list[tuple[Any, str]] = [
        (np.empty((1, 1), np.float32), r"out has shape \(1, 1\).*\(4, 6, 4, 5\)"),
        (np.empty(y.shape, np.float64), "out has .* float64.*float32"),
        (np.asfortranarray(y), "out must be C-contiguous.*np.empty"),
        (np.repeat(y, 2, axis=3)[..., ::2], "out must be C-contiguous"),
        (unaligned(y), "out must be .*aligned"),
        (read_only, "out must be .*writeable"),
        ([], "out is list"),
        (np.broadcast_to(y[:1], y.shape), "out must be"),
        (as_strided(y, y.shape, (0, *y.strides[1:])), "out must be C-contiguous"),
    ]
    for out, message in wrong:
        for call in (pool.__call__, pool.forward, pool.forward_with_indices):
            with pytest.raises(PoolingError, match=message):
                call(x, out=out)
    with pytest.raises(PoolingError, match="out has shape"):
        pool.backward(y, saved, out=np.empty_like(y))
    with pytest.raises(PoolingError, match="C-contiguous"):
        pool.backward(y, saved, out=np.asfortranarray(x))
    assert same_bits(read_only, y)


def test_out_beside_x_in_one_array_is_fine() -> None:
    raw = np.zeros(2000, np.float32)
    x, out = raw[:1600].reshape(1, 1, 40, 40), raw[1600:].reshape(1, 1, 20, 20)
    x[...] = image(shape=x.shape)
    assert same_bits(pooling.max_pool(x, 2, out=out), pooling.max_pool(x, 2))


def test_ever_new_shapes_do_not_fill_memory() -> None:
    pool = pooling.MaxPool(2, backend="strided_slices")
    for n in range(2, 400):
        pool(np.zeros((1, 1, n), np.float32))
    assert len(pool._plans) <= 128
