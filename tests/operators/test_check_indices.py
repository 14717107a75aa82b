"""Indices that do not lie in their window: of a larger array than the default, of another window, of another convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling as typed
from tests.cases import Array

pooling: Any = typed  # as users without types call it

LAYOUTS: tuple[Any, ...] = ("channels_first", "channels_last")
SPATIAL = ((7,), (7, 9), (5, 4, 6))
WINDOWS: dict[str, tuple[Any, ...]] = {
    "side by side": (2,),
    "overlapping, padded": (3, 2, 1),
    "dilated": (2, 1, 0, 2),
    "dilated, padded": (3, 2, 2, 2),
    "one-sided padding": (3, 2, "same_upper"),
    "partial": (3, 2, 0, 1, True),
    "padding alone": (2, 3, 3, 4),
}


def image(spatial: tuple[int, ...], data_format: str) -> Array:
    x = np.random.default_rng(0).standard_normal((2, 3, *spatial))
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if data_format == "channels_last" else x


def cells_of(x: Array, pool: Any) -> Array:
    """By another way than the code's: which cells each output reads, as a mask (outputs, cells) of one plane."""
    spatial = pool.problem(x.shape).window.input_size
    plane = np.arange(float(np.prod(spatial))).reshape(1, 1, *spatial)
    plain = pooling.AvgPool(
        pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, divisor_override=1
    )
    _, saved = plain.forward(plane)
    rows = []
    for output in range(np.prod(saved.plan.y_shape)):
        dy = np.zeros(saved.plan.y_shape)
        dy.flat[output] = 1
        rows.append(plain.backward(dy, saved).ravel() != 0)
    return np.array(rows)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("spatial", SPATIAL)
def test_an_index_is_right_exactly_in_its_window(spatial: tuple[int, ...], data_format: Any, window: str) -> None:
    x = image(spatial, data_format)
    pool = pooling.MaxPool(*WINDOWS[window], data_format=data_format, backend="strided_slices")
    _, indices = pool.forward_with_indices(x)
    pooling.check_indices(indices, x.shape, pool)
    pooling.check_indices(np.full_like(indices, -1), x.shape, pool)
    allowed = cells_of(image(spatial, "channels_first"), pooling.MaxPool(*WINDOWS[window]))
    outputs = allowed.shape[0]
    for output in {0, outputs - 1}:
        for cell in range(allowed.shape[1]):
            other = indices.copy()
            plane = other[1, ..., 2] if data_format == "channels_last" else other[1, 2]
            plane.flat[output] = cell
            if allowed[output, cell]:
                pooling.check_indices(other, x.shape, pool)
            else:
                with pytest.raises(
                    pooling.PoolingError, match=rf"indices is {cell} at .* outside its window, which has"
                ):
                    pooling.check_indices(other, x.shape, pool)


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("spatial", SPATIAL[1:])
@pytest.mark.parametrize(
    "pool", [pooling.AdaptiveMaxPool(3), pooling.GlobalMaxPool(), pooling.GlobalMaxPool(keepdims=False)], ids=repr
)
def test_adaptive_and_global_windows(pool: Any, spatial: tuple[int, ...], data_format: Any) -> None:
    x = image(spatial, data_format)
    pool.data_format = data_format
    _, indices = pool.forward_with_indices(x)
    pooling.check_indices(indices, x.shape, pool)
    if isinstance(pool, pooling.AdaptiveMaxPool):
        with pytest.raises(pooling.PoolingError, match="outside its window"):
            pooling.check_indices(indices[:, ::-1, ::-1], x.shape, pool)


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("spatial", SPATIAL[1:])
@pytest.mark.parametrize("window", ["side by side", "overlapping, padded", "dilated, padded", "partial"])
def test_every_convention(window: str, spatial: tuple[int, ...], data_format: Any) -> None:
    x = image(spatial, data_format)
    pool = pooling.MaxPool(*WINDOWS[window], data_format=data_format, backend="strided_slices")
    _, indices = pool.forward_with_indices(x)
    for there, back, options in (
        (pooling.indices_to_onnx, pooling.indices_from_onnx, (0,)),
        (pooling.indices_to_onnx, pooling.indices_from_onnx, (1,)),
        (pooling.indices_to_tensorflow, pooling.indices_from_tensorflow, (False,)),
        (pooling.indices_to_tensorflow, pooling.indices_from_tensorflow, (True,)),
    ):
        theirs = there(indices, x.shape, *options, data_format=data_format)
        pooling.check_indices(back(theirs, x.shape, *options, data_format=data_format), x.shape, pool)
        with pytest.raises(pooling.PoolingError, match="indices is "):
            pooling.check_indices(theirs, x.shape, pool)
    columns = pooling.indices_to_onnx(indices, x.shape, 1, data_format=data_format)
    with pytest.raises(pooling.PoolingError, match="outside its window"):  # counted column by column, read row by row
        pooling.check_indices(pooling.indices_from_onnx(columns, x.shape, 0, data_format=data_format), x.shape, pool)


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("spatial", [(7, 9), (5, 7, 6)])
@pytest.mark.parametrize("window", [(2,), (3, 2), (3, 2, 1), (2, 3)])
def test_unpooling_finds_that_the_default_size_is_another(spatial: Any, data_format: Any, window: Any) -> None:
    """In PyTorch a maximum is put elsewhere in silence wherever its index happens to fit."""
    x = image(spatial, data_format)
    y, indices = pooling.max_pool(x, *window, data_format=data_format, return_indices=True)
    right = pooling.max_unpool(y, indices, *window, output_size=x.shape, data_format=data_format)
    checked = pooling.max_unpool(y, indices, *window, output_size=x.shape, data_format=data_format, check=True)
    np.testing.assert_array_equal(right, checked)
    default = pooling.max_unpool(np.zeros_like(y), np.zeros_like(indices), *window, data_format=data_format).shape
    if default == x.shape:
        pooling.max_unpool(y, indices, *window, data_format=data_format, check=True)
        return
    small = np.minimum(indices, np.prod(default) // 6 - 1)  # of 2 images of 3 channels
    with pytest.raises(pooling.PoolingError, match=r"is the default size: pass output_size=x\.shape of the array that"):
        pooling.max_unpool(y, small, *window, data_format=data_format, check=True)
    assert pooling.max_unpool(y, small, *window, data_format=data_format).shape == default, "in silence"


def test_an_operator_checks_too() -> None:
    x = image((7, 9), "channels_first")
    y, indices = pooling.max_pool(x, 2, return_indices=True)
    unpool = pooling.MaxUnpool(2)
    for call in (unpool, unpool.forward):
        with pytest.raises(pooling.PoolingError, match=r"is the default size: pass output_size=x\.shape"):
            call(y, indices, check=True)
        call(y, indices, x.shape, check=True)
    for size in ((6, 8), (7, 8), (5, 7)):
        with pytest.raises(pooling.PoolingError, match=r"; pass output_size=x\.shape of the array that was pooled; if"):
            unpool(y, indices, size, check=True)
    nothing = np.zeros((0, 3, 2, 2))
    assert unpool(nothing, nothing.astype(int), check=True).shape == (0, 3, 4, 4)


def test_partial_windows_and_padding_alone() -> None:
    x = image((5, 7), "channels_first")
    y, indices = pooling.max_pool(x, 2, ceil_mode=True, return_indices=True)
    pooling.max_unpool(y, indices, 2, output_size=(5, 7), check=True)
    x = x[..., :1, :1]
    y, indices = pooling.max_pool(x, 2, 2, 4, 4, return_indices=True)
    assert (indices == -1).any()
    pooling.check_indices(indices, x.shape, pooling.MaxPool(2, 2, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"check": 1}, "check=1: it must be True or False"),
        (
            {"check": True, "kernel_size": None, "output_size": (4, 4)},
            "check=True: without a kernel_size .* give the kern",
        ),
    ],
)
def test_wrong_arguments_of_unpooling(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"y": np.ones((1, 1, 2, 2)), "indices": np.zeros((1, 1, 2, 2), int), "kernel_size": 2}
    with pytest.raises(pooling.PoolingError, match=f"^{message}"):
        pooling.max_unpool(**given | arguments)


def test_wrong_arguments() -> None:
    indices = np.zeros((1, 1, 2, 2), int)
    pool = pooling.MaxPool(2)
    wrong: Any
    for wrong in (4, None, "1144"):
        with pytest.raises(pooling.PoolingError, match=r"input_shape=.*: give the shape of the array that was pooled"):
            pooling.check_indices(indices, wrong, pool)
    for wrong in (None, "max", pooling.MaxPool):
        with pytest.raises(pooling.PoolingError, match=r"operator=.* is none: pass one, such as pooling\.MaxPool"):
            pooling.check_indices(indices, (1, 1, 4, 4), wrong)
    with pytest.raises(
        pooling.PoolingError, match=r"operator=FractionalMaxPool.* draws its windows anew .*: check the"
    ):
        pooling.check_indices(indices, (1, 1, 4, 4), pooling.FractionalMaxPool(2, 2))
    with pytest.raises(
        pooling.PoolingError, match=r"indices has shape \(1, 1, 2, 2\): it must have .*\(1, 1, 3, 3\); pass"
    ):
        pooling.check_indices(indices, (1, 1, 6, 6), pool)
    with pytest.raises(pooling.PoolingError, match=r"indices is 16 at .* from 0 to 15, .*; pass the input_shape of"):
        pooling.check_indices(indices + 16, (1, 1, 4, 4), pool)
    with pytest.raises(pooling.DTypeError, match="indices has dtype float64: pass integers"):
        pooling.check_indices(indices * 1.0, (1, 1, 4, 4), pool)
