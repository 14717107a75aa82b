"""A sequence of one entry is for all dimensions, as in PyTorch; where no argument has more entries there is one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling as typed
from pooling.geometry.window import Window

pooling: Any = typed  # arguments of any kind are tried

SPATIAL = (7, 8, 6)
SINGLES: tuple[Any, ...] = ((1,), [1], np.array([1]), range(1, 2))
SLIDING: list[Any] = [pooling.MaxPool, pooling.AvgPool, pooling.LpPool]
ROUTES: list[Any] = [pooling.max_pool, pooling.avg_pool, pooling.lp_pool]


def image(n: int, data_format: str = "channels_first") -> Any:
    x = np.random.default_rng(0).standard_normal((2, 3, *SPATIAL[:n]))
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if data_format == "channels_last" else x


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("argument", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("kind", SLIDING)
def test_windows_that_slide(kind: Any, argument: str, data_format: Any, n: int) -> None:
    """``MaxPool(2, padding=(1,))`` over two dimensions was refused, and PyTorch takes ``MaxPool2d(2, padding=(1,))``."""
    x = image(n, data_format)
    options = {"data_format": data_format, "backend": "strided_slices"}  # "auto" may take another one for inference
    for kernel in (3, (3,) * n):
        expected, saved = kind(kernel, **options, **{argument: 1}).forward(x)
        for single in SINGLES:
            pool = kind(kernel, **options, **{argument: single})
            np.testing.assert_array_equal(pool(x), expected)
            np.testing.assert_array_equal(pool.backward(expected, saved), pool.backward(expected, pool.forward(x)[1]))
            route = ROUTES[SLIDING.index(kind)]
            np.testing.assert_array_equal(route(x, kernel, **options, **{argument: single}), expected)


def test_one_pair_of_padding_is_for_all() -> None:
    x = image(2)
    np.testing.assert_array_equal(pooling.max_pool(x, 3, 2, ((1, 0),)), pooling.max_pool(x, 3, 2, ((1, 0), (1, 0))))
    np.testing.assert_array_equal(
        pooling.max_pool(x, (3, 3), padding=[[0, 2]]), pooling.max_pool(x, (3, 3), padding=[[0, 2], [0, 2]])
    )
    with pytest.raises(pooling.PoolingError, match=r"padding=\(1, 0, 1\) has 3 entries"):
        pooling.max_pool(x, 3, padding=(1, 0, 1))
    np.testing.assert_array_equal(
        pooling.max_pool(x, (3,), padding=(1, 0)), pooling.max_pool(x, (3, 3), padding=(1, 0))
    )
    with pytest.raises(pooling.PoolingError, match=r"padding=\(1, 0\) has 2 entries: give an int, or 3 ints"):
        pooling.max_pool(x, (3,), (1, 1, 1), padding=(1, 0))


def test_a_kernel_of_one_entry_is_one_dimension() -> None:
    """The contract: as many spatial dimensions as kernel_size has entries."""
    x = image(2)
    assert pooling.max_pool(x, (2,), (2,), (1,), (1,)).shape == (2, 3, 7, 5)
    assert pooling.AvgPool([2])(x).shape == (2, 3, 7, 4)
    assert pooling.adaptive_max_pool(x, (3,)).shape == (2, 3, 7, 3)
    assert Window.over((7, 8), (2,)) == Window.over((7, 8), 2), "where the size is told it is for all"


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("argument", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("kind", SLIDING)
def test_a_kernel_of_one_entry_is_for_as_many_dimensions_as_others_have(kind: Any, argument: str, n: int) -> None:
    """``MaxPool((2,), stride=(2, 2))`` was refused."""
    x = image(n)
    options = {argument: (2, 1, 1)[:n]}
    pool, same = kind((3,), **options), kind((3,) * n, **options)
    assert pool == same
    assert hash(pool) == hash(same)
    assert eval(repr(pool), {kind.__name__: kind}) == pool
    y, saved = pool.forward(x)
    np.testing.assert_array_equal(y, same(x))
    np.testing.assert_array_equal(pool.backward(y, saved), same.backward(y, same.forward(x)[1]))
    for single in ([3], np.array([3])):
        np.testing.assert_array_equal(ROUTES[SLIDING.index(kind)](x, single, **options), y)
    pairs = kind((3,), padding=((1, 0),) * n)
    np.testing.assert_array_equal(pairs(x), kind(3, padding=((1, 0),) * n)(x))


def test_several_and_single_entries_together() -> None:
    x = image(2)
    expected = pooling.max_pool(x, 3, (2, 1), 1, 1)
    np.testing.assert_array_equal(pooling.max_pool(x, 3, (2, 1), (1,), (1,)), expected)
    np.testing.assert_array_equal(pooling.max_pool(x, (3, 3), (2, 1), [1], [1]), expected)
    np.testing.assert_array_equal(pooling.MaxPool(3, (2,), (1, 1))(x), pooling.max_pool(x, 3, 2, 1))
    for first, second in (((1,), (1, 1, 1)), ((1, 1), (1, 1, 1))):
        with pytest.raises(pooling.PoolingError, match=r"has . entries: give"):
            pooling.MaxPool(3, stride=first, padding=second)(x)


@pytest.mark.parametrize("sizes", [{"output_size": 3}, {"output_ratio": 0.5}])
def test_fractional(sizes: dict[str, Any]) -> None:
    x = image(2)
    options: dict[str, Any] = {"random_samples": [0.25, 0.75]}
    expected = pooling.fractional_max_pool(x, (2, 2), **sizes, **options)
    ((name, value),) = sizes.items()
    for single in ((value,), [value], np.array([value])):
        np.testing.assert_array_equal(pooling.fractional_max_pool(x, (2, 2), **{name: single}, **options), expected)
    assert pooling.FractionalMaxPool(2, **{name: (value,)}, random_samples=[0.5])(x).ndim == 4
    assert pooling.FractionalMaxPool((2,), **sizes, random_samples=[0.5])(x).shape[2] == 7, "over the last axis alone"
    for kernel in (2, (2,), [2]):
        several = pooling.fractional_max_pool(x, kernel, **{name: (value, value)}, **options)
        np.testing.assert_array_equal(several, expected)
    both = pooling.FractionalMaxPool((2,), **{name: (value, value)}, **options)
    assert both.kernel_size == (2, 2)
    np.testing.assert_array_equal(both(x), expected)
    with pytest.raises(pooling.PoolingError, match=rf"{name}=.* has 2 entries"):
        pooling.FractionalMaxPool((2, 2, 2), **{name: (value, value)})


def test_unpooling() -> None:
    x = image(2)[:, :, :6]
    y, indices = pooling.max_pool(x, 2, return_indices=True)
    expected = pooling.max_unpool(y, indices, 2)
    for kernel in (2, (2, 2)):
        for single in ((2,), [2], np.array([2])):
            np.testing.assert_array_equal(pooling.max_unpool(y, indices, kernel, single), expected)
        np.testing.assert_array_equal(pooling.max_unpool(y, indices, kernel, (2, 2), (0,)), expected)
        np.testing.assert_array_equal(pooling.max_unpool(y, indices, kernel, (2,), (0, 0)), expected)
    square: Any = pooling.max_pool(x[..., :6], 2, return_indices=True)
    unpool = pooling.MaxUnpool((2, 2))
    np.testing.assert_array_equal(unpool(*square, (6,)), unpool(*square, (6, 6)))
    for arguments in (((2,), (2, 2)), ((2,), None, (0, 0)), ([2], (2,), (0, 0))):
        assert pooling.MaxUnpool(*arguments).kernel_size == (2, 2)
        np.testing.assert_array_equal(pooling.max_unpool(y, indices, *arguments), expected)
    np.testing.assert_array_equal(pooling.max_unpool(y, indices, (2,), output_size=(6, 8)), expected)
    np.testing.assert_array_equal(pooling.max_unpool(*square, 2, (2, 2), output_size=(6,)), unpool(*square, (6, 6)))
    told = pooling.MaxUnpool((2,))
    back, saved = told.forward(y, indices, (6, 8))
    np.testing.assert_array_equal(told.backward(back, saved), y)
    row, along = pooling.max_pool(x, (2,), return_indices=True)
    np.testing.assert_array_equal(told(row, along, x.shape), told(row, along), "the whole shape is no spatial size")
    with pytest.raises(pooling.PoolingError, match="saved comes from another operator's forward pass"):
        pooling.MaxUnpool((3,)).backward(back, saved)


def test_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = image(2).astype(np.float32)
    theirs = torch.nn.functional.max_pool2d(torch.tensor(x), (3,), (2,), (1,), (1,))
    np.testing.assert_array_equal(pooling.max_pool(x, 3, (2,), (1,), (1,)), theirs.numpy())
