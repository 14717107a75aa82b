"""Means as near to the exact ones as they have to be, of however many cells, and finite where they can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import pooling
from pooling import accuracy
from pooling.backends.registry import REGISTRY
from pooling.cli import app
from pooling.geometry.argmax_rules import MOST_NARROW_TERMS, SUM_BLOCK
from pooling.parallel.pool import using_threads
from pooling.simd.vector.ops import lanes
from tests.cases import same_bits

Array = Any
LAYOUTS = ("channels_first", "channels_last")
FLOAT = np.dtype(np.float32)


def level(shape: tuple[int, ...]) -> Iterator[Array]:
    """Numbers whose rounding errors have one sign, so that they add up, and such whose don't."""
    yield np.full(shape, 0.1, np.float32)
    yield np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)


def laid_out(planes: int, size: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    return (1, planes, *size) if data_format == "channels_first" else (1, *size, planes)


def off(got: Array, exact: Array) -> float:
    """In units in the last place."""
    return float(np.max(np.abs(got - exact) / np.abs(exact))) / float(np.finfo(got.dtype).eps)


def offered(make: Any, shape: tuple[int, ...], dtype: Any = FLOAT) -> Iterator[Any]:
    """The operator with each backend that does it, but for the slow one."""
    for name, backend in REGISTRY.items():
        if not backend.reference_only and backend.why_not(shape, dtype, make(name)) is None:
            yield make(name)


WINDOWS: dict[str, tuple[Any, tuple[int, int]]] = {
    "global": (lambda **kw: pooling.GlobalAvgPool(**kw), (300, 290)),
    "global, small": (lambda **kw: pooling.GlobalAvgPool(**kw), (28, 28)),
    "adaptive": (lambda **kw: pooling.AdaptiveAvgPool(3, **kw), (200, 211)),
    "side by side": (lambda **kw: pooling.AvgPool(40, **kw), (120, 81)),
    "overlapping much": (lambda **kw: pooling.AvgPool(65, 1, 32, count_include_pad=False, **kw), (96, 80)),
    "overlapping little": (lambda **kw: pooling.AvgPool((50, 33), (40, 20), **kw), (150, 120)),
    "a row": (lambda **kw: pooling.AvgPool((1, 3000), (1, 500), **kw), (2, 5000)),
    "dilated": (lambda **kw: pooling.AvgPool(40, 2, 0, 2, **kw), (100, 90)),
}


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("name", WINDOWS)
def test_means_of_many_cells(name: str, data_format: str) -> None:
    """onnxruntime#12043 and numpy#22956: added one after the other in float32, they lose a unit for every dozen cells."""
    make, size = WINDOWS[name]
    for planes in (2, 8, lanes(FLOAT) + 3):
        shape = laid_out(planes, size, data_format)
        for x in level(shape):
            exactly = make(data_format=data_format, backend="strided_slices")
            exact, saved = exactly.forward(x.astype(np.float64))
            dy = np.full(exact.shape, 0.1, np.float32)
            exact_dx = exactly.backward(dy.astype(np.float64), saved)
            reached = exact_dx != 0
            for pool in offered(lambda b: make(data_format=data_format, backend=b), shape):
                y, saved = pool.forward(x)
                assert off(y, exact) <= accuracy.ULPS, pool.backend
                dx = pool.backward(dy, saved)
                assert np.array_equal(dx != 0, reached), pool.backend
                assert off(dx[reached], exact_dx[reached]) <= accuracy.ULPS, pool.backend


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n", [4, 31, 32, 33, 2047, 2065, 4 * SUM_BLOCK * 16 + 1, (4 * SUM_BLOCK * 16 + 3) * SUM_BLOCK])
def test_means_of_whole_planes_of_any_length(n: int, dtype: str) -> None:
    """Blocks, blocks of blocks, and what is left over."""
    x = np.random.default_rng(n).uniform(0.5, 1.5, (1, 2, n)).astype(dtype)
    y = pooling.GlobalAvgPool(backend="simd")(x)[..., 0]
    assert off(y, x.astype(np.longdouble).mean(-1)) < 8


def test_norms_of_many_cells() -> None:
    x = np.full((1, 2, 300, 290), 0.1, np.float32)
    exact = pooling.GlobalLpPool(backend="strided_slices")(x.astype(np.float64))
    for pool in offered(lambda b: pooling.GlobalLpPool(backend=b), x.shape):
        assert off(pool(x), exact) <= 1, pool.backend


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("ties", ["first", "last", "split", "all"])
def test_gradients_of_many_maxima_that_one_cell_gets(ties: Any, dtype: str, data_format: Any) -> None:
    """All backends agree to the bit, and with the exact sum."""
    kernel = 19
    assert kernel**2 > MOST_NARROW_TERMS
    shape = laid_out(lanes(FLOAT) + 1, (22, 20), data_format)
    x = np.zeros(shape, dtype)
    x[(0, slice(None), 10, 11) if data_format == "channels_first" else (0, 10, 11)] = 1
    results = {}
    for pool in offered(
        lambda b: pooling.MaxPool(kernel, 1, 9, ties=ties, data_format=data_format, backend=b), shape, dtype
    ):
        y, saved = pool.forward(x)
        results[pool.backend] = pool.backward(np.full(y.shape, 0.1, dtype), saved)
    first = results["strided_slices"]
    assert set(results) >= {"strided_slices", "simd"}
    assert all(same_bits(dx, first) for dx in results.values()), list(results)
    won = 19 * 18  # windows that hold the cell, whose row is in the middle, and whose column is not
    got = first[0, :, 10, 11] if data_format == "channels_first" else first[0, 10, 11]
    assert off(got, won * np.float64(np.dtype(dtype).type(0.1))) <= (accuracy.ULPS if dtype == "float64" else 1)


LARGE = {"float32": 3e38, "float64": 1.7e308}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("dtype", LARGE)
@pytest.mark.parametrize(
    ("window", "size", "planes"),
    [
        ((2, 2), (8, 8), 4),
        ((2, 1), (3, 3), 1),
        ((3, 1, 1), (40, 20), 20),
        ((3, 2, 1), (33, 64), 16),
        ((7, 7), (7, 7), 300),
        ((13, 1, 6), (30, 30), 16),
        ((20, 20), (40, 40), 8),
    ],
)
def test_means_of_numbers_that_fit_are_finite(
    window: Any, size: tuple[int, int], planes: int, dtype: str, data_format: Any, threads: int
) -> None:
    """chainer#7681: though their sum does not fit, in any backend, forward and backward."""
    shape = laid_out(planes, size, data_format)
    with using_threads(threads):
        for pool in offered(lambda b: pooling.AvgPool(*window, data_format=data_format, backend=b), shape, dtype):
            ones = np.ones(shape, dtype)
            share, saved = pool.forward(ones)
            shares = pool.backward(np.ones_like(share), saved)
            y, saved = pool.forward(ones * dtype_of(dtype)(LARGE[dtype]))
            np.testing.assert_allclose(y / LARGE[dtype], share, rtol=1e-5, err_msg=pool.backend)
            dx = pool.backward(np.full(share.shape, LARGE[dtype], dtype), saved)
            np.testing.assert_allclose(dx / LARGE[dtype], shares, rtol=1e-5, err_msg=pool.backend)


def dtype_of(name: str) -> Any:
    return np.dtype(name).type


def test_what_is_infinite_stays_so_beside_what_overflows() -> None:
    x = np.full((1, 1, 4, 4), 3e38, np.float32)
    x[0, 0, 0, 0], x[0, 0, 3, 3] = np.inf, np.nan
    for pool in offered(lambda b: pooling.AvgPool(2, backend=b), x.shape):
        y = pool(x)[0, 0]
        assert y[0, 0] == np.inf
        assert np.isnan(y[1, 1])
        np.testing.assert_allclose(y[0, 1], 3e38, rtol=1e-6)
    summed = pooling.AvgPool(2, divisor_override=1, backend="simd")
    assert np.isposinf(summed(np.full((1, 1, 2, 2), 3e38, np.float32))).all()


def one_after_the_other(scale: float = 1.0) -> Any:
    """A backend whose means are sums in float32, one cell after the other, or off by a factor."""

    def forward(x: Array, problem: Any, y: Array, training: bool) -> Any:
        total = np.zeros(y.shape, x.dtype)
        for _, outputs, inputs in problem.window.slices():
            total[outputs] += x[inputs]
        y[...] = total / problem.divisors(x.dtype) * x.dtype.type(scale)
        return ()

    honest = REGISTRY["strided_slices"]
    return dataclasses.replace(
        honest, name="inexact", ops={"avg": dataclasses.replace(honest.ops["avg"], forward=forward)}
    )


@pytest.fixture
def inexact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "inexact", one_after_the_other())


@pytest.mark.usefixtures("inexact")
class TestInexactMeansAreFoundOut:
    """A backend that adds in float32 without blocks, wherever something is proven right."""

    shape = (1, 1, 250, 240)

    def test_by_gradcheck(self) -> None:
        x = np.full(self.shape, 0.1, np.float32)
        with pytest.raises(pooling.GradientError, match=r"forward of x in float32 gives y .* in float64 0.1"):
            pooling.gradcheck(pooling.GlobalAvgPool(backend="inexact"), x, cells=3, directions=1)
        pooling.gradcheck(pooling.GlobalAvgPool(backend="inexact"), x, cells=3, directions=1, accuracy=False)
        pooling.gradcheck(pooling.GlobalAvgPool(backend="strided_slices"), x, cells=3, directions=1)

    def test_by_the_command(self) -> None:
        result = CliRunner().invoke(app, ["check", "--backend", "inexact"])
        assert result.exit_code == 1
        assert "WRONG: forward of x in float32 gives y" in result.output
        assert CliRunner().invoke(app, ["check", "--backend", "strided_slices"]).exit_code == 0

    @pytest.mark.parametrize("data_format", LAYOUTS)
    def test_by_the_tuner_even_if_it_comes_first(self, data_format: Any) -> None:
        from pooling.tuning import timing
        from pooling.tuning.layer import facts

        shape = laid_out(8, (250, 240), data_format)
        about = facts(shape, "float32", pooling.GlobalAvgPool(data_format=data_format))
        names = ["inexact", "strided_slices", "repeat_mask"]
        outcome = timing.measure(about, names, timing.Clock(1e9), timing.Clock(0.1))
        assert set(outcome.refused) == {"inexact"}
        assert set(outcome.times) == {"strided_slices", "repeat_mask"}
