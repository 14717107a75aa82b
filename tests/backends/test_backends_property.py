"""Hypothesis looks for windows, shapes, layouts, strides and values where a backend and the reference differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

import pooling
from pooling.geometry.problem import TIES
from tests.cases import Array, same_bits

OTHERS = [name for name in pooling.list_backends() if name != "reference"]
COMPILED = ("numba_loops", "simd")
TOLERANCE = {2: 4e-3, 4: 3e-6, 8: 1e-13}

# The same examples in every run, by the profile in `conftest.py`: a red CI means a change, and not luck.
steady = settings(max_examples=150)

costly = settings(steady, max_examples=24)
"""For backends that compile for what an example asks: `simd` takes 2 s for most."""


@st.composite
def windows(draw: Any, size: tuple[int, ...], kernels: Any, strides: Any) -> tuple[Any, ...]:
    """Arguments of an operator that fit an input of this size."""
    n = len(size)
    kernel = draw(kernels(n))
    stride = draw(strides(n))
    dilation = tuple(draw(st.integers(1, 3)) for _ in size)
    padding: Any = draw(st.sampled_from(["pairs", "valid", "same_upper", "same_lower"]))
    if padding == "pairs":
        most = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple((draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most)
    return kernel, stride, padding, dilation, draw(st.booleans())


def values(dtype: np.dtype[Any]) -> Any:
    """Few different ones, so that there are ties; the extreme ones, infinities, NaN and both zeros among them."""
    if dtype.kind == "f":
        few = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            2.5,
            np.inf,
            -np.inf,
            np.nan,
            float(np.finfo(dtype).max),
            float(np.finfo(dtype).tiny),
        ]
        return st.sampled_from(few)
    if dtype.kind == "b":
        return st.booleans()
    info = np.iinfo(dtype)
    return st.sampled_from([info.min, info.min + 1, 0, 1, 2, info.max - 1, info.max])


@st.composite
def arrays(draw: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Of any values, and of any strides: Fortran order, negative or broadcast axes, unaligned, other byte orders."""
    x: Array = draw(st_np.arrays(dtype, shape, elements=values(dtype), fill=st.nothing()))
    how = draw(st.sampled_from(["C", "Fortran", "negative", "broadcast", "unaligned", "swapped", "sliced"]))
    if how == "Fortran":
        return np.asfortranarray(x)
    if how == "negative":
        return x[tuple(slice(None, None, -1) for _ in shape)]
    if how == "broadcast" and shape[0]:
        return np.broadcast_to(x[:1], shape)
    if how == "unaligned":
        raw = np.zeros(x.nbytes + 1, np.uint8)
        raw[1:] = np.frombuffer(x.tobytes(), np.uint8)
        return raw[1:].view(dtype).reshape(shape)
    if how == "swapped":
        return x.astype(dtype.newbyteorder())
    if how == "sliced":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    return x


@st.composite
def problems(
    draw: Any, dtypes: tuple[str, ...], kernels: Any, strides: Any, ndim: Any
) -> tuple[Array, tuple[Any, ...], Any]:
    """An input, arguments of an operator on it, and the layout."""
    n = draw(ndim)
    size = tuple(draw(st.integers(1, 9 if n < 3 else 5)) for _ in range(n))
    window = draw(windows(size, kernels, strides))
    outer, channels = draw(st.sampled_from([1, 2, 3, 0])), draw(st.sampled_from([1, 2, 3, 9, 0]))
    data_format = draw(st.sampled_from(["channels_first", "channels_last"]))
    shape = (outer, channels, *size) if data_format == "channels_first" else (outer, *size, channels)
    return draw(arrays(shape, np.dtype(draw(st.sampled_from(dtypes))))), window, data_format


def each(least: int, most: int) -> Any:
    return lambda n: st.tuples(*[st.integers(least, most)] * n)


def the_same(least: int, most: int) -> Any:
    """One number for all dimensions: `simd` compiles for each combination."""
    return lambda n: st.integers(least, most).map(lambda k: (k,) * n)


def fits(operator: Any, x: Array) -> bool:
    try:
        operator.problem(x.shape)
    except pooling.PoolingError:
        return False
    return True


def gradient_like(y: Array) -> Array:
    rng = np.random.default_rng(y.size)
    return rng.choice(np.array([0.0, -0.0, 1.0, -3.5, 0.1], y.dtype), y.shape)


def check_max(x: Array, window: tuple[Any, ...], data_format: Any, names: list[str], policies: Any = TIES) -> None:
    reference = pooling.MaxPool(*window, data_format=data_format, backend="reference")
    if not fits(reference, x):
        return
    before = x.copy()
    for ties in policies:
        reference = pooling.MaxPool(*window, ties=ties, data_format=data_format, backend="reference")
        y, saved = reference.forward(x)
        dy = gradient_like(y) if y.dtype.kind == "f" else None
        dx = None if dy is None else reference.backward(dy, saved)
        for name in names:
            pool = pooling.MaxPool(*window, ties=ties, data_format=data_format, backend=name)
            reason = pooling.get_backend(name).why_not(x.shape, x.dtype, pool)
            if reason is not None:
                with pytest.raises(pooling.PoolingError, match="can't do this"):
                    pool(x)
                continue
            got, saved = pool.forward(x)
            assert same_bits(got, y), name
            assert same_bits(pool(x), y), name
            if dx is not None:
                assert same_bits(pool.backward(dy, saved), dx), name
    assert same_bits(np.ascontiguousarray(x.astype(y.dtype)), np.ascontiguousarray(before.astype(y.dtype))), (
        "x was changed"
    )


def check_mean(x: Array, window: tuple[Any, ...], data_format: Any, names: list[str], divisor: int | None) -> None:
    for include in (True, False):
        options: Any = {"count_include_pad": include, "divisor_override": divisor, "data_format": data_format}
        reference = pooling.AvgPool(*window, backend="reference", **options)
        if not fits(reference, x):
            return
        y, saved = reference.forward(x.astype(np.float64))
        dy = gradient_like(y)
        dx = reference.backward(dy, saved)
        tolerance = TOLERANCE[x.itemsize]
        for name in names:
            pool = pooling.AvgPool(*window, backend=name, **options)
            if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
                got, saved = pool.forward(x)
                np.testing.assert_allclose(got, y, tolerance, 9 * tolerance, equal_nan=True, err_msg=name)
                back = pool.backward(dy.astype(got.dtype), saved)
                np.testing.assert_allclose(back, dx, tolerance, 9 * tolerance, err_msg=name)


ANY = problems(("float32", "float64", "float16", "int8", "uint16", "int64", "uint64", "bool"), each(1, 4), each(1, 4),
               st.integers(1, 4))  # fmt: skip
MEANS = problems(("float32", "float64", "float16"), each(1, 4), each(1, 4), st.integers(1, 4))
FEW_KERNELS = problems(("float32",), the_same(2, 3), the_same(1, 2), st.just(2))


@steady
@given(ANY)
def test_maxima_of_numpy_backends(problem: Any) -> None:
    x, window, data_format = problem
    check_max(x, window, data_format, [name for name in OTHERS if name not in COMPILED])


@costly
@given(FEW_KERNELS, st.sampled_from([("first", "all"), ("last",), ("split",)]))
@pytest.mark.parametrize("name", COMPILED)
def test_maxima_of_compiled_backends(name: str, problem: Any, policies: Any) -> None:
    x, window, data_format = problem
    check_max(x, window, data_format, [name], policies)


def tame(x: Array) -> Array:
    """Without the values whose sums overflow, or depend on their order."""
    return np.where(np.abs(x) <= 2.5, x, x.dtype.type(0.5))


@steady
@given(MEANS, st.sampled_from([None, 1, 7]))
def test_means_of_numpy_backends(problem: Any, divisor: int | None) -> None:
    x, window, data_format = problem
    check_mean(tame(x), window, data_format, [name for name in OTHERS if name not in COMPILED], divisor)


@costly
@given(FEW_KERNELS, st.sampled_from([None, 1, 7]))
@pytest.mark.parametrize("name", COMPILED)
def test_means_of_compiled_backends(name: str, problem: Any, divisor: int | None) -> None:
    x, window, data_format = problem
    check_mean(tame(x), window, data_format, [name], divisor)


@steady
@given(FEW_KERNELS)
def test_every_gradient_arrives_once(problem: Any) -> None:
    """Whatever the window: dx sums to what the windows that hold a cell were paid, and nobody else is paid."""
    x, window, data_format = problem
    pool = pooling.MaxPool(*window, data_format=data_format, backend="numba_loops")
    if fits(pool, x):
        y, saved = pool.forward(x)
        _, indices = pool.forward_with_indices(x)
        dy = np.ones_like(y)
        dx = pool.backward(dy, saved)
        assert dx.sum() == (indices >= 0).sum()
        assert np.count_nonzero(dx) <= (indices >= 0).sum()
