"""Means are proven by sums in a wider type: who adds a million cells one by one gets no time (onnxruntime#12043, numpy#22956)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pooling
from bench.protocol import exact
from bench.protocol.contenders import Arrays, Calls, Contender, of_backend
from bench.protocol.measure import WITNESSES, Patience, WrongResult, measure, prove_small, prove_whole
from bench.schema.results import LeftOut, Timing
from bench.schema.workloads import Workload

GLOBAL = Workload("global", "a test", (1, 1, 1024, 1024), 1024, op="avg")
SHARED = Workload("shared", "a test", (2, 3, 9, 10), 3, 2, 1, op="avg")
BRIEF = Patience(budget_s=0.01, limit_s=math.inf, rounds=(1, 1))
GOOD = of_backend(pooling.get_backend("strided_slices"))

Mean = Callable[[Any], Any]


def global_mean(mean: Mean, share: float = 1.0) -> Contender:
    """A contender for global windows, whose gradient is off by the factor `share`."""

    def bind(workload: Workload, arrays: Arrays) -> Calls:
        at = tuple(i + (1 if workload.data_format == "channels_last" else 2) for i in range(2))
        n = workload.window.n_taps

        def forward() -> None:
            arrays.y[...] = np.reshape(mean(np.moveaxis(arrays.x, at, (-2, -1))), arrays.y.shape)

        def backward() -> None:
            arrays.dx[...] = arrays.dy * np.float32(share / n)

        def step() -> None:
            forward()
            backward()

        return {"forward": forward, "forward_train": forward, "backward": backward, "step": step}

    return replace(GOOD, name="seeded", why_not=lambda workload: None, bind=bind)


def one_by_one(x: Any) -> Any:
    """The sum of a plane in float32, in the order of memory."""
    return np.cumsum(x.reshape(*x.shape[:2], -1), axis=-1, dtype=np.float32)[..., -1] / np.float32(x[0, 0].size)


def right(x: Any) -> Any:
    return x.mean(axis=(-2, -1), dtype=np.float64)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("channels", [1, 8])
def test_who_adds_a_million_cells_one_by_one_is_refused(layout: Any, channels: int) -> None:
    workload = replace(GLOBAL, shape=(1, channels, 1024, 1024), data_format=layout)
    prove_small(global_mean(right), workload)
    with pytest.raises(WrongResult, match=r"seeded, forward of global-.*: y differs from the exact sum's"):
        prove_small(global_mean(one_by_one), workload)
    with pytest.raises(WrongResult, match=r"y differs from the exact sum's"):
        prove_whole(global_mean(one_by_one), workload, Arrays.of(workload))


@pytest.mark.parametrize("size", [7, 64, 512])
@pytest.mark.parametrize(
    "wrong",
    [
        global_mean(lambda x: right(x) * (1 + 1e-4)),
        global_mean(lambda x: right(x) * (1 - 2**-16)),
        global_mean(right, share=1 + 1e-4),
    ],
)
def test_a_relative_error_over_64_ulp_is_refused(wrong: Contender, size: int) -> None:
    workload = replace(GLOBAL, shape=(2, 3, size, size), kernel_size=size)
    honest = replace(global_mean(lambda x: right(x) * (1 + 2**-18)), name="honest")
    rows = measure(workload, [wrong, honest], BRIEF, threads=1)
    assert {(row.contender, row.proof) for row in rows if isinstance(row, Timing)} == {("honest", "exact means")}
    assert [(row.contender, row.wrong) for row in rows if isinstance(row, LeftOut)] == [("seeded", True)]


def test_nobody_is_measured_by_who_ran_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends that are wrong alike, the usual witnesses among them, do not prove each other."""
    bad = global_mean(one_by_one)
    honest = replace(global_mean(right), name="honest")

    def unused(*_: Any, **__: Any) -> None:
        raise AssertionError("a backend is no witness for a mean")

    monkeypatch.setattr(Workload, "operator", unused)
    rows = measure(GLOBAL, [replace(bad, name=name) for name in WITNESSES] + [honest], BRIEF, threads=1)
    assert {row.contender for row in rows if isinstance(row, Timing)} == {"honest"}
    assert {row.contender for row in rows if isinstance(row, LeftOut) and row.wrong} == set(WITNESSES)


@pytest.mark.parametrize("values", ["normal", "relu", "level"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("changed", [{}, {"count_include_pad": False}, {"ceil_mode": True}, {"dilation": 2}])
def test_exact_means_are_those_of_the_reference(values: Any, layout: Any, changed: dict[str, Any]) -> None:
    workload = replace(SHARED, data_format=layout, values=values, dtype="float64", **changed)
    arrays = Arrays.of(workload)
    pool = workload.operator("reference")
    y, saved = pool.forward(arrays.x)
    np.testing.assert_allclose(exact.means(workload, arrays.x).astype(float), y, rtol=1e-14, atol=1e-15)
    dx = exact.gradients(workload, arrays.dy).astype(float)
    np.testing.assert_allclose(dx, pool.backward(arrays.dy, saved), rtol=1e-14, atol=1e-15)
    prove_whole(GOOD, workload, arrays)


def test_sums_in_one_and_three_dimensions() -> None:
    for shape, kernel in (((2, 3, 17), 4), ((1, 2, 4, 5, 6), (1, 3, 2))):
        workload = Workload("other", "a test", shape, kernel, op="avg")
        _, calls = prove_whole(GOOD, workload, Arrays.of(workload))
        assert calls


def test_values_that_cancel_are_measured_by_their_sizes() -> None:
    """A sum near zero of large terms is not exact in anybody's float32."""
    workload = replace(SHARED, values="normal", shape=(4, 8, 40, 40), kernel_size=5, padding=2)
    prove_small(GOOD, workload)
    prove_whole(GOOD, workload, Arrays.of(workload))
