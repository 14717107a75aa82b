"""Against PyTorch: the same network from the same weights, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.training.data import Dataset, digits
from bench.training.duel import GENTLE, agreement, duel
from bench.training.ladder import FASTEST, LADDER
from bench.training.networks import Network
from bench.training.train import Settings, train

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make peers")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.mark.parametrize(
    ("network", "pool"), [("question", "max"), ("16,24/50 pool=3,2", "max"), ("9,8/30 conv=3", "avg")]
)
def test_losses_agree_step_by_step(dataset: Dataset, network: str, pool: Any) -> None:
    apart = agreement(
        Settings(network, pool, batch_size=16, threads=2), dataset, [FASTEST], ["pytorch", "pytorch_channels_last"]
    )
    assert set(apart) == {
        f"{FASTEST} and pytorch", f"{FASTEST} and pytorch_channels_last", "pytorch and pytorch_channels_last",
    }  # fmt: skip
    assert max(apart.values()) < 1e-3


def test_a_duel_tells_all(dataset: Dataset) -> None:
    settings = Settings("question", images=512, batch_size=32, threads=1, **GENTLE)  # type: ignore[arg-type]
    ours, theirs = duel(settings, dataset, [FASTEST], ["pytorch"])
    assert len(ours.losses) == len(theirs.losses) == 16
    assert ours.accuracy == pytest.approx(theirs.accuracy, abs=0.02)
    assert {layer for layer, _, _ in ours.layers} >= {"conv1", "pool1", "full1", "sgd", "batch"}
    assert {layer for layer, _, _ in theirs.layers} >= {"0 Conv2d", "1 MaxPool2d", "sgd", "batch"}


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_every_rung_computes_the_same(dataset: Dataset, pool: Any) -> None:
    settings = Settings("9,8/20", pool, epochs=1, images=160, batch_size=16, **GENTLE)  # type: ignore[arg-type]
    losses = {rung: train(Settings(**(settings.__dict__ | {"rung": rung})), dataset).losses for rung in LADDER}
    for rung in LADDER:
        np.testing.assert_allclose(losses[rung], losses["numpy"], rtol=1e-4, err_msg=rung)


def test_the_same_from_the_same_settings(dataset: Dataset) -> None:
    settings = Settings("question", epochs=1, images=320, threads=2)
    assert train(settings, dataset).losses == train(settings, dataset).losses


@pytest.mark.parametrize("text", ["", "alexnet", "20", "20,50/500 conv", "20/ conv=0", "0/10", "20/10 stride=2"])
def test_a_network_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="network="):
        Network(text)
