"""Regions, windows described one by one: their arithmetic by definition, and adaptive and global pooling in every backend."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooling
from pooling.geometry.axis import Axis, Regions, regions
from pooling.geometry.problem import TIES
from pooling.geometry.window import Window
from tests.backends.test_backends_property import arrays, costly, steady, tame
from tests.cases import Array, gradient_for, same_bits

OTHERS = [name for name in pooling.list_backends() if name != "reference"]
COVERING = ("strided_slices", "numba_loops", "simd")
SLICES = "strided_slices"  # for what is not about backends: it need not compile
SIZES = [(size, out) for size in range(1, 10) for out in range(1, 12)]


def adaptive(size: int, out: int) -> Axis | Regions:
    (axis,) = pooling.AdaptiveMaxPool((out,)).problem((size,)).window.axes
    return axis


def described(size: int, out: int) -> list[range]:
    """PyTorch's formula."""
    return [range(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def reads(axis: Axis | Regions) -> list[range]:
    return [range(cell, cell + count * axis.step, axis.step) for cell, _, count in axis.table.tolist()]


@st.composite
def some_regions(draw: Any, size: int) -> Regions:
    """Any that never go back."""
    out = draw(st.integers(1, 6))
    starts = sorted(draw(st.lists(st.integers(0, size - 1), min_size=out, max_size=out)))
    stops: list[int] = []
    for start in starts:
        stops.append(draw(st.integers(max(start + 1, *stops, 0), size)))
    return Regions(size, tuple(starts), tuple(stops))


@pytest.mark.parametrize(("size", "out"), SIZES)
def test_adaptive_regions_are_pytorchs(size: int, out: int) -> None:
    axis = adaptive(size, out)
    assert reads(axis) == described(size, out)
    assert axis.out == out
    if size % out == 0:
        assert isinstance(axis, Axis), "windows alike are described as such, which every backend knows"


@steady
@given(st.integers(1, 9).flatmap(some_regions))
def test_regions_by_definition(axis: Regions) -> None:
    cells = [range(a, b) for a, b in zip(axis.starts, axis.stops, strict=True)]
    assert reads(axis) == cells
    assert axis.counts(True) == axis.counts(False) == [len(region) for region in cells]
    assert axis.kernel == max(map(len, cells))
    assert axis.padded == (len(set(map(len, cells))) > 1)
    assert axis.disjoint == (not any(set(a) & set(b) for a, b in itertools.combinations(cells, 2)))
    for first, stop in itertools.combinations(range(axis.out + 1), 2):
        assert axis.reach(first, stop) == (cells[first][0], cells[stop - 1][-1] + 1)
    for tap in range(axis.kernel):
        found = []
        for outputs, inputs in axis.runs(tap):
            found += list(zip(range(axis.out)[outputs], range(axis.size)[inputs], strict=True))
        assert found == [(o, region[tap]) for o, region in enumerate(cells) if tap < len(region)]
    same = regions(axis.size, axis.starts, axis.stops)
    assert reads(same) == cells


@steady
@given(some_regions(5), some_regions(4))
def test_a_cell_is_met_in_the_order_of_its_windows(first: Regions, second: Regions) -> None:
    window = Window((first, second))
    numbers = np.arange(window.n_outputs).reshape(1, *window.output_size, 1)
    met: dict[int, list[int]] = {}
    cells = np.arange(20).reshape(1, 5, 4, 1)
    for _, outputs, inputs in window.slices(backwards=True):
        for output, cell in zip(numbers[outputs].ravel(), cells[inputs].ravel(), strict=True):
            met.setdefault(int(cell), []).append(int(output))
    for outputs_of_cell in met.values():
        assert outputs_of_cell == sorted(outputs_of_cell)
    taps: dict[int, list[int]] = {}
    for tap, outputs, _ in window.slices():
        for output in numbers[outputs].ravel():
            taps.setdefault(int(output), []).append(tap)
    for of_output in taps.values():
        assert of_output == sorted(of_output)


class Windows:
    """Any window as an operator's rule."""

    keepdims = True
    fitted = False
    described = "regions"
    dimensions = "as many as there are"

    def __init__(self, window: Window) -> None:
        self.made = window
        self.ndim = window.ndim

    def window(self, size: Any) -> Window:
        return self.made


def operators(window: Window, data_format: Any, backend: str, ties: Any) -> tuple[Any, Any]:
    """Max and mean pooling with just this window."""
    largest = pooling.GlobalMaxPool(ties=ties, data_format=data_format, backend=backend)
    mean = pooling.GlobalAvgPool(data_format=data_format, backend=backend)
    largest.rule = mean.rule = Windows(window)
    return largest, mean


@st.composite
def pooled_regions(draw: Any, dtypes: tuple[str, ...], ndim: Any) -> tuple[Array, Window, Any]:
    n = draw(ndim)
    size = tuple(draw(st.integers(1, 8 if n < 3 else 4)) for _ in range(n))
    window = Window(tuple(draw(some_regions(cells)) for cells in size))
    outer, channels = draw(st.sampled_from([1, 2, 0])), draw(st.sampled_from([1, 3, 9, 0]))
    data_format = draw(st.sampled_from(["channels_first", "channels_last"]))
    shape = (outer, channels, *size) if data_format == "channels_first" else (outer, *size, channels)
    return draw(arrays(shape, np.dtype(draw(st.sampled_from(dtypes))))), window, data_format


def check(problem: tuple[Array, Window, Any], names: tuple[str, ...], policies: Any = TIES) -> None:
    x, window, data_format = problem
    for ties in policies:
        exact, exact_mean = operators(window, data_format, "reference", ties)
        y, saved = exact.forward(x)
        dx = exact.backward(gradient_for(y), saved) if y.dtype.kind == "f" else None
        for name in names:
            pool, mean = operators(window, data_format, name, ties)
            if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is not None:
                assert name not in COVERING or x.dtype == np.float16 or window.ndim > 3
                continue
            got, saved = pool.forward(x)
            assert same_bits(got, y), name
            if dx is not None:
                assert same_bits(pool.backward(gradient_for(y), saved), dx), name
            if ties in ("first", "last"):
                assert np.array_equal(pool.forward_with_indices(x)[1], exact.forward_with_indices(x)[1]), name
            if dx is not None and ties == "first":
                small = tame(x)
                close: dict[str, Any] = {
                    "rtol": 4e-3 if x.itemsize == 2 else 3e-6,
                    "atol": 1e-2 if x.itemsize == 2 else 3e-5,
                }
                z, kept = mean.forward(small)
                exact_z, exact_kept = exact_mean.forward(small)
                np.testing.assert_allclose(z, exact_z, equal_nan=True, err_msg=name, **close)
                back = mean.backward(gradient_for(z), kept)
                np.testing.assert_allclose(
                    back, exact_mean.backward(gradient_for(z), exact_kept), err_msg=name, **close
                )


ANY = pooled_regions(("float32", "float64", "float16", "int8", "uint64", "bool"), st.integers(1, 4))


@steady
@given(ANY)
def test_regions_in_numpy_backends(problem: Any) -> None:
    check(problem, ("strided_slices",))


@steady
@given(pooled_regions(("float32", "int16"), st.just(2)))
def test_regions_in_numba_loops(problem: Any) -> None:
    check(problem, ("numba_loops",))


@costly
@given(pooled_regions(("float32",), st.just(2)))
def test_regions_in_simd(problem: Any) -> None:
    check(problem, ("simd",))


@pytest.mark.parametrize("name", COVERING)
@pytest.mark.parametrize("spatial", [1, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_regions_over_other_numbers_of_dimensions(name: str, spatial: int, data_format: Any) -> None:
    size = (8, 5, 7)[:spatial]
    x = np.round(
        np.random.default_rng(0).standard_normal((2, 18, *size) if data_format == "channels_first" else (2, *size, 18))
    )
    window = pooling.AdaptiveMaxPool((3,) * spatial, data_format=data_format).problem(x.shape).window
    assert not window.slides
    policies: tuple[Any, ...] = TIES
    if name == "simd":  # which compiles for each, for minutes
        policies = ("first", "split") if data_format == "channels_first" else ("first", "last", "all")
    check((x, window, data_format), (name,), policies)


@pytest.mark.parametrize("name", OTHERS)
def test_who_needs_windows_alike_says_so(name: str) -> None:
    pool = pooling.AdaptiveMaxPool(3, ties=pooling.get_backend(name).ties[0], backend=name)
    reason = pooling.get_backend(name).why_not((1, 1, 8, 8), "float32", pool)
    assert (reason is None) == (name in COVERING)
    alike = pooling.get_backend(name).why_not((1, 1, 6, 9), "float32", pool)
    assert alike is None, "regions of one size side by side are windows like any other"


@pytest.mark.parametrize("name", pooling.list_backends())
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_global_pooling(name: str, data_format: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    axes = (2, 3) if data_format == "channels_first" else (1, 2)
    options: dict[str, Any] = {"data_format": data_format, "backend": name}
    for keepdims in (True, False):
        if "first" in pooling.get_backend(name).ties:
            y = pooling.global_max_pool(x, keepdims=keepdims, **options)
            np.testing.assert_array_equal(y, x.max(axes, keepdims=keepdims))
        if "avg" in pooling.get_backend(name).ops:
            mean = pooling.GlobalAvgPool(keepdims=keepdims, **options)
            y, saved = mean.forward(x)
            np.testing.assert_allclose(y, x.mean(axes, keepdims=keepdims), rtol=1e-5, atol=1e-6)
            dx = mean.backward(np.ones_like(y), saved)
            np.testing.assert_allclose(dx, np.full_like(x, 1 / (x.shape[axes[0]] * x.shape[axes[1]])), rtol=1e-6)


def test_global_pooling_of_any_size_by_one_operator() -> None:
    pool = pooling.GlobalMaxPool(keepdims=False, backend=SLICES)
    for shape in ((2, 3, 4), (2, 3, 4, 5), (1, 2, 9, 3, 4)):
        x = np.random.default_rng(0).standard_normal(shape)
        y, indices = pool.forward_with_indices(x)
        assert y.shape == indices.shape == shape[:2]
        np.testing.assert_array_equal(indices, x.reshape(*shape[:2], -1).argmax(-1))
        pooling.gradcheck(pool, x)
    with pytest.raises(pooling.PoolingError, match=r"x has 2 dimensions.*global pooling.*all but two"):
        pool(np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("output_size", "shape", "expected"),
    [
        (1, (2, 3, 5, 7), (2, 3, 1, 1)),
        (4, (2, 3, 5, 7), (2, 3, 4, 4)),
        (9, (2, 3, 5, 7), (2, 3, 9, 9)),
        (None, (2, 3, 5, 7), (2, 3, 5, 7)),
        ((None, 4), (2, 3, 5, 7), (2, 3, 5, 4)),
        ((3, None), (2, 3, 5, 7), (2, 3, 3, 7)),
        ([2, 3], (3, 5, 7), (3, 2, 3)),
        ((2, 3, 4), (2, 3, 5, 7, 6), (2, 3, 2, 3, 4)),
        (0, (2, 3, 5, 7), (2, 3, 0, 0)),
        (2, (0, 3, 5, 7), (0, 3, 2, 2)),
        (2, (2, 0, 5, 7), (2, 0, 2, 2)),
    ],
)
def test_output_sizes(output_size: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    for make in (pooling.AdaptiveMaxPool, pooling.AdaptiveAvgPool):
        pool = make(output_size, backend=SLICES)
        y, saved = pool.forward(x)
        assert y.shape == expected
        assert pool.backward(np.ones_like(y), saved).sum() == pytest.approx(y.size)
    function = pooling.adaptive_max_pool
    assert function(x, output_size, return_indices=True, backend=SLICES)[1].shape == expected


@pytest.mark.parametrize("make", [pooling.AdaptiveMaxPool, pooling.AdaptiveAvgPool])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, r"output_size=-1: -1 is too small, it must be at least 0"),
        ((2, -3), r"output_size=\(2, -3\): -3 is too small"),
        (2.5, r"output_size=2\.5: 2\.5 is not an int"),
        (True, r"output_size=True: True is not an int"),
        ((), r"output_size=\(\) has no entry: give one per spatial dimension"),
        (0x3FFFFFFFFFFFFFFF, r"output_size=4611686018427387903: .* is too large, it must be at most"),
        (1 << 30, r"output_size=1073741824: .* is too large, it must be at most 16777216"),
        ("3", r"output_size='3': '3' is not an int"),
    ],
)
def test_wrong_output_sizes(make: Any, value: Any, message: str) -> None:
    with pytest.raises(pooling.PoolingError, match=f"^{message}"):
        make(value)


def test_shapes_that_do_not_go_with_an_output_size() -> None:
    with pytest.raises(
        pooling.PoolingError, match=r"x has 1 dimensions.*output_size=\(2, 2\).*as many as it has entries"
    ):
        pooling.adaptive_avg_pool(np.zeros(5), (2, 2))
    with pytest.raises(pooling.PoolingError, match=r"spatial size \(0, 4\) is empty in dimension 0"):
        pooling.adaptive_max_pool(np.zeros((2, 3, 0, 4)), 2)
    with pytest.raises(pooling.DTypeError, match=r"x has dtype int64: a mean of it would be rounded"):
        pooling.adaptive_avg_pool(np.zeros((2, 3, 4, 4), int), 2)
    assert pooling.adaptive_max_pool(np.ones((2, 3, 5, 5), np.int8), 2).dtype == np.int8


@pytest.mark.parametrize(
    "pool",
    [
        pooling.AdaptiveMaxPool((3, 4), backend=SLICES),
        pooling.AdaptiveMaxPool((7, 2), ties="split", backend=SLICES),
        pooling.AdaptiveAvgPool((4, 3), backend=SLICES),
        pooling.AdaptiveAvgPool(9, backend=SLICES),
        pooling.GlobalMaxPool(ties="last", backend=SLICES),
        pooling.GlobalAvgPool(backend=SLICES),
    ],
    ids=repr,
)
def test_gradients(pool: Any) -> None:
    x = np.round(np.random.default_rng(0).standard_normal((2, 2, 5, 7)))
    pooling.gradcheck(pool, x)
    assert eval(repr(pool), vars(pooling)).problem(x.shape) == pool.problem(x.shape)


def test_paying_every_tie_is_refused_in_regions_too() -> None:
    with pytest.raises(pooling.GradientError, match="backward pays every tied cell"):
        pooling.gradcheck(pooling.AdaptiveMaxPool((2,), ties="all"), np.zeros((1, 3)))
