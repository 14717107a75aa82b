"""Max unpooling, and indices in the conventions of ONNX and TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import pooling
from tests.cases import Array

LAYOUTS: tuple[Any, ...] = ("channels_first", "channels_last")


def pooled(shape: tuple[int, ...], data_format: Any, *window: Any) -> tuple[Array, Array, Array]:
    """x in this layout, of (N, C, spatial), its maxima and their indices."""
    x = np.random.default_rng(0).standard_normal(shape)
    if data_format == "channels_last":
        x = np.moveaxis(x, 1, -1)
    options: Any = {"data_format": data_format, "return_indices": True, "backend": "strided_slices"}
    y, indices = pooling.max_pool(x, *window, **options)
    return x, y, indices


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("spatial", [(6,), (6, 9), (4, 6, 3)])
@pytest.mark.parametrize("window", [(2,), (3, 2, 1), (2, 3), (3, 1)])
def test_pooling_again_gives_the_maxima_back(data_format: Any, spatial: tuple[int, ...], window: Any) -> None:
    x, y, indices = pooled((2, 3, *spatial), data_format, *window)
    size = x.shape[1:-1] if data_format == "channels_last" else x.shape[2:]
    unpooled = pooling.max_unpool(y, indices, output_size=size, data_format=data_format)
    assert unpooled.shape == x.shape
    kept = unpooled != 0
    np.testing.assert_array_equal(unpooled[kept], x[kept])
    assert kept.sum() == sum(len(np.unique(plane)) for plane in planes(indices, data_format))
    np.testing.assert_array_equal(
        pooling.max_unpool(y, indices, output_size=x.shape, data_format=data_format), unpooled
    )


def planes(array: Array, data_format: Any) -> Array:
    if data_format == "channels_last":
        array = np.moveaxis(array, -1, 1)
    return array.reshape(array.shape[0] * array.shape[1], -1)


@pytest.mark.parametrize("data_format", LAYOUTS)
def test_gradients(data_format: Any) -> None:
    x, y, indices = pooled((2, 3, 6, 4), data_format, 2)
    unpool = pooling.MaxUnpool(2, data_format=data_format)
    pooling.gradcheck(unpool, y, arguments=(indices,))
    back, saved = unpool.forward(y, indices)
    pool = pooling.MaxPool(2, data_format=data_format, backend="strided_slices")
    np.testing.assert_array_equal(pool.backward(y, pool.forward(x)[1]), back)  # the transposed of one another
    np.testing.assert_array_equal(unpool.backward(x, saved), y)


@pytest.mark.parametrize(
    ("outputs", "arguments", "expected"),
    [
        ((2, 2), {"kernel_size": 2}, (4, 4)),
        ((2, 2), {"kernel_size": 3, "stride": 2}, (5, 5)),
        ((2, 2), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}, (3, 3)),
        ((2, 2), {"kernel_size": 2, "output_size": (5, 5)}, (5, 5)),
        ((2, 2), {"kernel_size": 2, "output_size": (1, 3, 3, 5)}, (3, 5)),
        ((2, 2), {"output_size": [7, 9]}, (7, 9)),
        ((2, 2), {"output_size": np.array([7, 9])}, (7, 9)),
    ],
)
def test_sizes(outputs: tuple[int, ...], arguments: dict[str, Any], expected: tuple[int, ...]) -> None:
    y = np.arange(1.0, 13).reshape(1, 3, 2, 2)
    indices = np.broadcast_to(np.array([[0, 1], [2, 3]]), y.shape)
    x = pooling.max_unpool(y, indices, **arguments)
    assert x.shape == (1, 3, *expected)
    np.testing.assert_array_equal(x.reshape(3, -1)[:, :4], y.reshape(3, 4))


def test_places() -> None:
    y = np.array([[5, 7, 6]], np.int16)
    unpool = pooling.MaxUnpool((2,))
    x, saved = unpool.forward(y, np.array([[3, -1, 0]], np.int32))
    assert x.dtype == np.int16
    assert x.tolist() == [[6, 0, 0, 5, 0, 0]], "-1 is nowhere"
    with pytest.raises(pooling.DTypeError, match="y had dtype int16, which has no gradient"):
        unpool.backward(x, saved)
    x, saved = unpool.forward(y.astype(np.float32), np.array([[3, -1, 0]]))
    assert unpool.backward(np.arange(6, dtype=np.float32)[None], saved).tolist() == [[3, 0, 0]]
    out = np.full((1, 6), 9, np.float32)
    assert pooling.max_unpool(y.astype(np.float32), [[3, -1, 0]], (2,), out=out) is out
    assert out.tolist() == [[6, 0, 0, 5, 0, 0]]
    assert pooling.max_unpool([[1.0, 2.0, 3.0]], [[4, 4, 4]], (2,)).tolist() == [[0, 0, 0, 0, 3, 0]], "the last stays"
    for batch, channels in ((0, 1), (3, 0), (0, 0)):
        for layout in LAYOUTS:
            last = layout == "channels_last"
            shape, larger = ((batch, n, n, channels) if last else (batch, channels, n, n) for n in (2, 4))
            unpool = pooling.MaxUnpool(2, data_format=layout)
            nobody, kept = unpool.forward(np.zeros(shape), np.zeros(shape, int))
            assert nobody.shape == larger
            assert unpool.backward(nobody, kept).shape == shape
    nothing = pooling.max_unpool(np.zeros((2, 3, 0, 4)), np.zeros((2, 3, 0, 4), int), output_size=(2, 2))
    assert nothing.tolist() == np.zeros((2, 3, 2, 2)).tolist()


Y = np.ones((1, 1, 2, 2))
PLACES = np.array([[[[0, 1], [2, 3]]]])
CALL: dict[str, Any] = {"y": Y, "indices": PLACES, "kernel_size": 2}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "beyond the end": ({"indices": PLACES + 13}, r"indices is 16 at \(0, 0, 1, 1\): it must be from 0 to 15, or -1"),
    "negative": ({"indices": PLACES - 2}, r"indices is -2 at \(0, 0, 0, 0\)"),
    "floats": ({"indices": PLACES * 1.0}, r"indices has dtype float64: pass integers"),
    "another shape": (
        {"indices": PLACES[..., :1]},
        r"indices has shape \(1, 1, 2, 1\): it must have that of the values",
    ),
    "too large": ({"output_size": (6, 5)}, r"output_size=\(6, 5\): 6 in dimension 0 is no size .* from 3 to 5"),
    "too small": ({"output_size": (3, 2)}, r"output_size=\(3, 2\): 2 in dimension 1 is no size"),
    "of three": ({"output_size": (4, 4, 4)}, r"output_size=\(4, 4, 4\): 4 in dimension 0 is no size"),
    "an int": ({"output_size": 4}, r"output_size=4: give a tuple"),
    "empty": ({"output_size": (4, 0), "kernel_size": None}, r"output_size=\(4, 0\): 0 is too small"),
    "no size": ({"kernel_size": None}, r"output_size=None: without a kernel_size, say how large"),
    "kernel 0": ({"kernel_size": 0}, r"kernel_size=0: 0 is too small"),
    "stride 0": ({"stride": 0}, r"stride=0: 0 is too small"),
    "negative padding": ({"padding": -1}, r"padding=-1: -1 is too small"),
    "all padding": ({"padding": 2}, r"padding=2 leaves a size of \(0, 0\)"),
    "data_format": ({"data_format": "NCHW"}, r"data_format='NCHW': it must be one of"),
    "uneven": ({"indices": [[0], [1, 2]]}, r"indices is no array: .* lists of equal lengths"),
    "masked": ({"indices": np.ma.masked_equal(PLACES, 0)}, r"indices is a masked array"),
    "a stride alone": ({"kernel_size": None, "stride": -1, "output_size": (4, 4)}, r"stride=-1: -1 is too small"),
    "three strides": ({"stride": (2, 2, 2)}, r"stride=\(2, 2, 2\) has 3 entries"),
    "no batch": ({"y": np.ones(2), "indices": np.arange(2)}, r"y has 1 dimensions, which does not go with"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(pooling.PoolingError, match=f"^(?:{message})"):
        pooling.max_unpool(**CALL | arguments)


def test_wrong_gradients() -> None:
    unpool = pooling.MaxUnpool(2)
    x, saved = unpool.forward(Y, PLACES)
    with pytest.raises(pooling.PoolingError, match=r"dx has shape \(4, 4\), but the result .* has \(1, 1, 4, 4\)"):
        unpool.backward(x[0, 0], saved)
    with pytest.raises(pooling.DTypeError, match=r"dx has dtype float32, but y has float64"):
        unpool.backward(x.astype(np.float32), saved)
    with pytest.raises(pooling.PoolingError, match="saved is of type NoneType"):
        unpool.backward(x, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("spatial", [(7,), (7, 6), (5, 4, 6)])
def test_indices_point_at_the_maxima_in_every_convention(data_format: Any, spatial: tuple[int, ...]) -> None:
    x, y, indices = pooled((2, 3, *spatial), data_format, 3, 2, 1)
    first = x if data_format == "channels_first" else np.moveaxis(x, -1, 1)
    last = np.moveaxis(first, 1, -1)
    for order in (0, 1):
        onnx = pooling.indices_to_onnx(indices, x.shape, order, data_format=data_format)
        assert onnx.dtype == np.int64
        turned = first if order == 0 else np.moveaxis(first.transpose(0, 1, *range(first.ndim - 1, 1, -1)), 1, 1)
        np.testing.assert_array_equal(turned.reshape(-1)[onnx], y)
        back = pooling.indices_from_onnx(onnx, x.shape, order, data_format=data_format)
        np.testing.assert_array_equal(back, indices)
    whole = pooling.indices_to_tensorflow(indices, x.shape, True, data_format=data_format)
    np.testing.assert_array_equal(last.reshape(-1)[whole], y)
    each = pooling.indices_to_tensorflow(indices, x.shape, data_format=data_format)
    for image in (0, 1):
        np.testing.assert_array_equal(last[image].reshape(-1)[each[image]], y[image])
    for flat, batch in ((whole, True), (each, False)):
        back = pooling.indices_from_tensorflow(flat, x.shape, batch, data_format=data_format)
        np.testing.assert_array_equal(back, indices)


def test_nobodys_index_stays() -> None:
    x = np.zeros((1, 1, 1))
    indices = pooling.max_pool(x, 2, 2, 4, 4, return_indices=True)[1]
    assert indices.ravel().tolist() == [0, -1, 0]
    assert pooling.indices_to_onnx(indices, x.shape).ravel().tolist() == [0, -1, 0]
    assert pooling.indices_from_onnx(indices, x.shape).ravel().tolist() == [0, -1, 0]
    assert pooling.indices_to_tensorflow(indices, x.shape, data_format="channels_first").ravel().tolist() == [0, -1, 0]
    assert pooling.indices_from_tensorflow(indices, x.shape, data_format="channels_first").ravel().tolist() == [
        0,
        -1,
        0,
    ]


def test_indices_that_can_not_be_converted() -> None:
    indices = np.zeros((1, 2, 1, 1), int)
    with pytest.raises(pooling.PoolingError, match=r"storage_order=2: it must be 0 \(row by row\) or 1"):
        pooling.indices_to_onnx(indices, (1, 2, 2, 2), 2)
    with pytest.raises(pooling.PoolingError, match=r"input_shape=\(1, 3, 2, 2\) does not go with indices of shape"):
        pooling.indices_to_onnx(indices, (1, 3, 2, 2))
    with pytest.raises(pooling.PoolingError, match=r"indices is 4 at .*: it must be from 0 to 3, or -1 for nowhere"):
        pooling.indices_to_onnx(indices + 4, (1, 2, 2, 2))
    with pytest.raises(pooling.PoolingError, match=r"indices is 0 at \(0, 1, 0, 0\): that cell lies in another plane"):
        pooling.indices_from_onnx(indices, (1, 2, 2, 2))
    with pytest.raises(pooling.PoolingError, match="lies in another plane"):
        pooling.indices_from_tensorflow(indices, (1, 2, 2, 2), data_format="channels_first")
    with pytest.raises(pooling.PoolingError, match="data_format='NHWC'"):
        pooling.indices_to_tensorflow(indices, (1, 2, 2, 2), data_format="NHWC")
    with pytest.raises(pooling.PoolingError, match="data_format=array"):
        pooling.indices_to_tensorflow(indices, (1, 2, 2, 2), data_format=np.array(["a", "b"]))  # type: ignore[arg-type]
    wrong: Any
    for wrong in (5, None, "1222"):
        with pytest.raises(pooling.PoolingError, match=r"input_shape=.*: give the shape of the array that was pooled"):
            pooling.indices_to_onnx(indices, wrong)
    for wrong in (np.array([0, 1]), "C", None):
        with pytest.raises(pooling.PoolingError, match="storage_order="):
            pooling.indices_to_onnx(indices, (1, 2, 2, 2), wrong)
    for wrong in (2, "yes", None):
        with pytest.raises(pooling.PoolingError, match=r"include_batch_in_index=.*: it must be True or False"):
            pooling.indices_to_tensorflow(indices, (1, 2, 2, 2), wrong, data_format="channels_first")
    with pytest.raises(pooling.PoolingError, match="indices is no array"):
        pooling.indices_to_onnx([[1], [1, 2]], (1, 1, 1))


def test_an_int_for_one_argument_and_a_tuple_for_another() -> None:
    """As for MaxPool, and PyTorch's MaxUnpool2d(2, (2, 2), (0, 0))."""
    plain = pooling.max_unpool(Y, PLACES, 2)
    stride: Any
    padding: Any
    for stride, padding in (((2, 2), 0), (None, (0, 0)), ([2, 2], np.zeros(2, int))):
        np.testing.assert_array_equal(pooling.max_unpool(Y, PLACES, 2, stride, padding), plain)


def test_saved_state_of_another_unpooling() -> None:
    x, saved = pooling.MaxUnpool(2).forward(Y, PLACES)
    others: tuple[Any, ...] = (
        pooling.MaxUnpool(4, 2, 1),
        pooling.MaxUnpool(2, data_format="channels_last"),
        pooling.MaxUnpool(),
    )
    for other in others:
        with pytest.raises(pooling.PoolingError, match="saved comes from another operator's forward pass"):
            other.backward(x, saved)
    np.testing.assert_array_equal(pooling.MaxUnpool((2, 2), 2).backward(x, saved), Y)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("spatial", [(8,), (8, 8), (8, 9, 7)])
def test_the_remedy_for_a_dilated_pooling_works(spatial: tuple[int, ...], data_format: Any) -> None:
    """The size that the message named was refused by the next call; and a kernel_size can't be told to be dilated."""
    x = np.arange(6 * math.prod(spatial), dtype=np.float32).reshape(2, 3, *spatial)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if data_format == "channels_last" else x
    y, indices = pooling.max_pool(x, 3, 2, dilation=2, data_format=data_format, return_indices=True)
    remedy = "if its windows were dilated, leave out kernel_size, stride and padding and pass its spatial size as output_size"
    with pytest.raises(pooling.PoolingError, match=f"is the default size: pass .*; {remedy}$"):
        pooling.max_unpool(y, indices, 3, 2, data_format=data_format)
    with pytest.raises(pooling.PoolingError, match=f"it must be from .*; {remedy}$"):
        pooling.max_unpool(y, indices, 3, 2, output_size=x.shape, data_format=data_format)
    back = pooling.max_unpool(y, indices, output_size=spatial, data_format=data_format)
    np.testing.assert_array_equal(back, np.where(np.isin(x, y), x, 0))
