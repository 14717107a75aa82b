"""MNIST by hand: the data and its errors, every layer's gradient, and training."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.training import data
from bench.training.convolution import Convolution, DirectConvolution
from bench.training.idx import IMAGES, LABELS, DataError, parse
from bench.training.layers import FullyConnected, Pool, ReLU, Sigmoid, Softmax
from bench.training.networks import Network
from bench.training.train import Settings, race, train
from pooling import AvgPool, MaxPool
from tests.digits_folder import folder, idx

__all__ = ["folder"]  # a fixture


def test_a_folder_of_idx_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLING_DATA_DIR", str(folder))
    dataset = data.load()
    assert dataset.images.shape == (30, 28, 28, 1)
    assert dataset.images.dtype == np.float32
    assert 0 <= dataset.images.min() < dataset.images.max() <= 1
    assert dataset.name == folder.name
    assert "not MNIST" in dataset.note


def test_wrong_files_are_named(folder: Path) -> None:
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*truncated"):
        data.load(folder)
    images.write_bytes(gzip.decompress(labels.read_bytes()))
    with pytest.raises(DataError, match="swapped"):
        data.load(folder)
    images.write_bytes(idx(np.zeros((29, 28, 28))))
    with pytest.raises(DataError, match="29 images and 30 labels"):
        data.load(folder)
    images.write_bytes(b"PNG")
    with pytest.raises(DataError, match="3 bytes"):
        data.load(folder)
    images.unlink()
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte"):
        data.load(folder)
    labels.write_bytes(b"not gzip")
    images.write_bytes(whole)
    with pytest.raises(DataError, match="can't be read"):
        data.load(folder)
    with pytest.raises(DataError, match="no IDX"):
        parse(b"12345678", IMAGES, "a file")
    assert parse(idx(np.arange(5)), LABELS, "labels").tolist() == [0, 1, 2, 3, 4]


def test_offline_there_are_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network() -> Path:
        raise DataError("no mirror answered")

    monkeypatch.delenv("POOLING_DATA_DIR", raising=False)
    monkeypatch.setattr(data, "download", no_network)
    with pytest.warns(UserWarning, match="no mirror answered"):
        dataset = data.load()
    assert dataset.name == "digits"
    assert "not MNIST" in dataset.note
    assert dataset.images.shape == (1500, 28, 28, 1)
    assert len(dataset.test_images) == 297


RANDOM = np.random.default_rng(0)


def parameters(rows: int, columns: int, biases: int | None = None) -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    return random.standard_normal((rows, columns)), random.standard_normal(biases or columns)


LAYERS: dict[str, Any] = {
    "convolution": lambda: Convolution("conv", 3, *parameters(18, 4), False),
    "direct convolution": lambda: DirectConvolution("conv", 3, *parameters(18, 13), False, False),
    "sparse convolution": lambda: DirectConvolution("conv", 4, *parameters(32, 13), False),
    "filters in parts": lambda: DirectConvolution("conv", 2, *parameters(8, 61), False, False),
    "fully connected": lambda: FullyConnected("full", *parameters(7, 5 * 6 * 2, biases=7), False),
    "relu": lambda: ReLU("relu"),
    "compiled relu": lambda: ReLU("relu", compiled=True),
    "sigmoid": lambda: Sigmoid("sigmoid"),
    "max": lambda: Pool("pool", MaxPool(2, data_format="channels_last")),
    "mean": lambda: Pool("pool", AvgPool(2, data_format="channels_last")),
}


def differences(f: Any, x: Any, step: float = 1e-6) -> Any:
    """The gradient of `f` with respect to `x`, changed in place, by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        before = x[i]
        x[i] = before + step
        high = f()
        x[i] = before - step
        low = f()
        x[i] = before
        gradient[i] = (high - low) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_gradient(name: str) -> None:
    layer = LAYERS[name]()
    x = RANDOM.standard_normal((2, 5, 6, 2))
    dy = RANDOM.standard_normal(layer.forward(x, True).shape)
    if name == "sparse convolution":
        dy *= RANDOM.random(dy.shape) < 0.2

    def loss() -> float:
        return float((layer.forward(x, True) * dy).sum())

    loss()
    dx = layer.backward(dy).copy()
    learned = [g.copy() for g in layer.gradients]
    np.testing.assert_allclose(dx, differences(loss, x), atol=1e-6)
    for w, g in zip(layer.weights, learned, strict=True):
        np.testing.assert_allclose(g, differences(loss, w), atol=1e-6)


def test_softmax_gradient() -> None:
    scores, labels, softmax = RANDOM.standard_normal((4, 10)), np.array([3, 1, 9, 0]), Softmax()
    expected = differences(lambda: softmax.loss(scores, labels), scores)
    softmax.loss(scores, labels)
    np.testing.assert_allclose(softmax.backward(), expected, atol=1e-8)
    huge = np.array([[1e4, 0, 0]])
    assert softmax.loss(huge, np.array([0])) == 0


@pytest.mark.parametrize(("design", "pool"), [("lenet", "max"), ("question", "avg")])
def test_a_networks_gradient(design: str, pool: Any) -> None:
    network = Network(design, pool, dtype=np.float64)
    x, labels = RANDOM.random((3, 28, 28, 1)), np.array([1, 5, 7])
    network.step(x, labels)
    gradients = [g.copy() for g in network.gradients]
    for w, g in zip(network.weights, gradients, strict=True):
        direction = RANDOM.standard_normal(w.shape)
        start = w.copy()
        losses = []
        for sign in (1, -1):
            w[...] = start + sign * 1e-8 * direction  # small, or a ReLU or a maximum changes sides
            losses.append(network.softmax.loss(network.scores(x), labels))
        w[...] = start
        assert (losses[0] - losses[1]) / 2e-8 == pytest.approx(float((g * direction).sum()), rel=1e-3, abs=1e-5)


def test_training_is_the_same_from_the_same_seed_with_every_backend() -> None:
    dataset = data.digits()
    settings = [
        Settings(backend=name, ties="first", images=256, epochs=1)
        for name in ("argmax_switches", "strided_slices", "numba_loops", "simd")
    ]
    histories = race(settings, dataset)
    for history in histories[1:]:
        assert history.losses == histories[0].losses
    masked = race([Settings(backend="repeat_mask", ties="all", images=256, epochs=1)], dataset)[0]
    assert masked.losses[0] == histories[0].losses[0]
    assert masked.losses != histories[0].losses


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_training_learns(pool: Any) -> None:
    history = train(Settings("question", pool, epochs=4), data.digits())
    assert history.accuracy[-1] > 0.9
    assert 0 < history.pooling_share() < 1
    assert len(history.losses) == 4 * 24


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match=r"learning_rate below 1e\+30"), np.errstate(all="ignore"):
        train(Settings("question", epochs=1, learning_rate=1e30), data.digits())
