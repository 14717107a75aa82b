"""Every backend gives what the reference gives: maxima and their gradients to the bit, means within a tolerance."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.geometry.problem import TIES
from pooling.simd.plan import cache_blocking
from pooling.simd.plan.geometry import forward_program
from tests.cases import Array, Case, cases, gradient_for, pairs, same_bits

OTHERS = [name for name in pooling.list_backends() if name != "reference"]
MEANS: dict[str, dict[str, Any]] = {
    "padded": {},
    "real": {"count_include_pad": False},
    "by3": {"divisor_override": 3},
}
TOLERANCE = {"float16": 4e-3, "float32": 2e-6, "float64": 1e-14}


@functools.cache
def all_of(name: str) -> tuple[Case, ...]:
    """What a backend is tried on."""
    return cases() if name == "simd" else tuple(dict.fromkeys(cases() + pairs()))


def refusal(name: str, case: Case, pool: Any) -> str | None:
    """None if the backend does this; else its reason, which has to be told."""
    reason = pooling.get_backend(name).why_not(case.shape, case.dtype, pool)
    assert reason is None or reason.strip(), f"{name} refuses {case} without a reason"
    return reason


def policies(name: str, i: int) -> tuple[Any, ...]:
    """All of them; for `simd`, which compiles for each, "first", and with every other case one of the others in turn."""
    first, *others = TIES
    return TIES if name != "simd" else (first,) if i % 2 else (first, others[i // 2 % len(others)])


def maxima() -> list[Any]:
    """Cases and policies; those that `simd` takes in turn in float32 alone."""
    return [
        pytest.param(case, name, ties, id=f"{name}-{ties}-{case}")
        for name in OTHERS
        for i, case in enumerate(all_of(name))
        for ties in policies(name, i)
        if name != "simd" or ties == TIES[0] or case.dtype == "float32"
        if refusal(name, case, case.max_pool("reference", ties)) is None
    ]


def means() -> list[Any]:
    return [
        pytest.param(case, name, kind, id=f"{name}-{kind}-{case}")
        for name in OTHERS
        for i, case in enumerate(all_of(name))
        for j, (kind, options) in enumerate(MEANS.items())
        if (case in cases() or i % 3 == j) and case.is_float
        if refusal(name, case, case.avg_pool("reference", **options)) is None
    ]


@functools.cache
def expected_maxima(case: Case, ties: Any) -> tuple[Array, Array | None]:
    pool = case.max_pool("reference", ties)
    y, saved = pool.forward(case.input())
    return y, pool.backward(gradient_for(y), saved) if case.is_float else None


@functools.cache
def expected_means(case: Case, kind: str) -> tuple[Array, Array]:
    """In float64, of what `case` gives in its own dtype."""
    pool = case.avg_pool("reference", **MEANS[kind])
    y, saved = pool.forward(case.input().astype(np.float64))
    return y, pool.backward(gradient_for(y.astype(case.dtype)).astype(np.float64), saved)


@pytest.mark.parametrize(("case", "name", "ties"), maxima())
def test_max(case: Case, name: str, ties: Any) -> None:
    y, dx = expected_maxima(case, ties)
    x = case.input()
    pool = case.max_pool(name, ties)
    got, saved = pool.forward(x)
    assert saved.backend == name
    assert same_bits(got, y)
    assert same_bits(pool(x), y), "without training it differs"
    assert same_bits(x, case.input()), "x was changed"
    if dx is not None:
        dy = gradient_for(y)
        assert same_bits(pool.backward(dy, saved), dx)
        assert same_bits(dy, gradient_for(y)), "dy was changed"
        if ties not in pooling.get_backend(name).keeps_x:
            x.fill(7)
            got.fill(7)
        assert same_bits(pool.backward(dy, saved), dx), "a second backward differs"


@pytest.mark.parametrize(("case", "name", "kind"), means())
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # inf - inf
def test_mean(case: Case, name: str, kind: str) -> None:
    y, dx = expected_means(case, kind)
    pool = case.avg_pool(name, **MEANS[kind])
    x = case.input()
    got, saved = pool.forward(x)
    close = functools.partial(
        np.testing.assert_allclose, rtol=TOLERANCE[case.dtype], atol=8 * TOLERANCE[case.dtype], equal_nan=True
    )
    close(got, y)
    assert same_bits(pool(x), got), "without training it differs"
    assert same_bits(x, case.input()), "x was changed"
    x.fill(7)
    close(pool.backward(gradient_for(got), saved), dx)


@pytest.mark.parametrize("name", OTHERS)
def test_most_cases_are_refused_for_a_reason_or_done(name: str) -> None:
    """So that a backend that begins to refuse everything does not pass for want of tests."""
    least = {"block_reduce": 10, "repeat_mask": 20, "strided_reshape": 50}.get(name, 80)
    backend = pooling.get_backend(name)
    done = sum(
        refusal(name, case, case.max_pool("reference", ties)) is None for case in all_of(name) for ties in backend.ties
    )
    assert done >= least
    if "avg" not in backend.ops:
        assert "no avg" in str(backend.why_not((1, 1, 4, 4), "float32", pooling.AvgPool(2)))


@pytest.mark.parametrize("name", pooling.list_backends())
@pytest.mark.parametrize("shape", [(0, 3, 6, 6), (2, 0, 6, 6), (0, 0, 6, 6)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_nothing_to_pool(name: str, shape: tuple[int, ...], data_format: Any) -> None:
    backend = pooling.get_backend(name)
    spatial = slice(2, 4)
    if data_format == "channels_last":
        shape, spatial = (shape[0], 6, 6, shape[1]), slice(1, 3)
    pools: list[Any] = [pooling.MaxPool(2, ties=backend.ties[0], data_format=data_format, backend=name)]
    if "avg" in backend.ops:
        pools.append(pooling.AvgPool(2, data_format=data_format, backend=name))
    for pool in pools:
        y, saved = pool.forward(np.zeros(shape, np.float32))
        assert y.shape == tuple(3 if i in range(4)[spatial] else n for i, n in enumerate(shape))
        assert pool.backward(y, saved).shape == shape


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("size", "kernel", "stride"), [((7, 7), 7, 1), ((3, 4), 3, 2), ((4, 3), 3, 2)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_one_window_longer_than_its_stride(
    name: str, size: tuple[int, int], kernel: int, stride: int, data_format: Any
) -> None:
    """As a network's global pooling is often written. The cells past the stride have no other window."""
    backend = pooling.get_backend(name)
    shape = (2, 17, *size) if data_format == "channels_first" else (2, *size, 17)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for make in (pooling.MaxPool, pooling.AvgPool):
        exact, pool = (make(kernel, stride, data_format=data_format, backend=which) for which in ("reference", name))
        if backend.why_not(shape, np.float32, pool) is None:
            y, kept = exact.forward(x)
            got, saved = pool.forward(x)
            np.testing.assert_allclose(got, y, rtol=1e-5, atol=1e-6)
            dx = exact.backward(gradient_for(y), kept)
            np.testing.assert_allclose(pool.backward(gradient_for(y), saved), dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n_taps", [254, 255, 256, 257])
def test_as_many_taps_as_a_byte_counts(name: str, n_taps: int) -> None:
    """Switches take one byte, or two: the last tap must not be mistaken for nobody."""
    x = np.zeros((1, 2, 2 * n_taps), np.float32)
    x[0, 0, [n_taps - 1, n_taps]] = 1  # the last tap, then the first
    for ties in pooling.get_backend(name).ties:
        exact = pooling.MaxPool(n_taps, ties=ties, backend="reference")
        pool = pooling.MaxPool(n_taps, ties=ties, backend=name)
        y, kept = exact.forward(x)
        got, saved = pool.forward(x)
        assert same_bits(got, y)
        assert same_bits(pool.backward(gradient_for(y), saved), exact.backward(gradient_for(y), kept))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_shares_of_very_many(name: str, data_format: Any) -> None:
    """More ties than float16 counts one by one: there, 2048 + 1 is 2048."""
    x = np.zeros((1, 3, 4801) if data_format == "channels_first" else (1, 4801, 3), np.float16)
    for ties in pooling.get_backend(name).ties:
        exact, pool = (
            pooling.MaxPool(4801, ties=ties, data_format=data_format, backend=which) for which in ("reference", name)
        )
        if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
            y, kept = exact.forward(x)
            dx = pool.backward(np.ones_like(y), pool.forward(x)[1])
            assert same_bits(dx, exact.backward(np.ones_like(y), kept)), ties


@pytest.mark.parametrize("name", [name for name in pooling.list_backends() if "avg" in pooling.get_backend(name).ops])
def test_means_of_very_many(name: str) -> None:
    """More cells than float16 has numbers: a divisor of 70000 is infinite there."""
    x = np.ones((1, 1, 70000), np.float16)
    pool = pooling.AvgPool(70000, backend=name)
    if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
        y, saved = pool.forward(x)
        assert y == 1
        np.testing.assert_allclose(pool.backward(y, saved), 1 / 70000, rtol=0.01)


@pytest.mark.parametrize("window", [13, 31])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("ties", TIES)
def test_large_windows(window: int, data_format: Any, ties: Any) -> None:
    """The scan of `simd` against the slices: values that tie a lot, NaN among them, more taps than a byte counts."""
    rng = np.random.default_rng(window)
    x = np.round(rng.standard_normal((2, 33, 35, 18))).astype(np.float32)
    x[rng.random(x.shape) < 0.001] = np.nan
    if data_format == "channels_first":
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    arguments = (window, 1, window // 2)
    results = []
    for name in ("strided_slices", "simd"):
        pool = pooling.MaxPool(*arguments, ties=ties, data_format=data_format, backend=name)
        y, saved = pool.forward(x)
        results.append((y, pool.backward(gradient_for(y), saved)))
    assert same_bits(results[0][0], results[1][0])
    assert same_bits(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [((1, 60, 40, 64), (21, 5), 1), ((2, 90, 50, 48), (40, 3), 16), ((1, 9, 3000, 16), (3, 30), 7)],
)
@pytest.mark.parametrize("op", ["max", "avg"])
def test_bands_that_read_much_again(
    monkeypatch: pytest.MonkeyPatch, op: str, shape: Any, kernel: Any, stride: int
) -> None:
    """Cut as finely as can be, and as if caches were small: each band reads most of what the one before has read."""
    monkeypatch.setattr(cache_blocking, "MORE", 1 << 14)
    x = np.round(np.random.default_rng(0).standard_normal(shape) * 3).astype(np.float32)
    results = []
    for name in ("strided_slices", "simd"):
        make: Any = pooling.MaxPool if op == "max" else pooling.AvgPool
        pool = make(kernel, stride, tuple(k // 2 for k in kernel), data_format="channels_last", backend=name)
        y, saved = pool.forward(x)
        results.append((y, pool.backward(np.round(gradient_for(y) * 4), saved)))
    (y, dx), (got, back) = results
    if op == "max":
        assert same_bits(got, y)
        assert same_bits(back, dx)
    np.testing.assert_allclose(got, y, 1e-5, 1e-5)
    np.testing.assert_allclose(back, dx, 1e-4, 1e-5)


@pytest.mark.parametrize("kernel", [1, 2, 25])
@pytest.mark.parametrize("limit", [1, 100, 5000, 10**9])
def test_bands_are_as_large_as_fits(kernel: int, limit: int) -> None:
    problem = pooling.MaxPool(kernel, 1).problem((1, 1, 3000))
    program = forward_program(problem, np.dtype(np.float32))

    def size(cells: int, results: int) -> int:
        return 2 * cells + results

    rows = cache_blocking.bands(program, size, limit=limit)
    assert rows[0, 0] == 0
    assert rows[-1, 1] == program.out[2]
    assert (rows[1:, 0] == rows[:-1, 1]).all()
    for first, stop, low, high, _, _ in rows.tolist():
        assert (low, high) == (first, stop + kernel - 1)
        assert size(high - low, stop - first) <= limit or stop == first + 1
        assert size(high - low + 1, stop - first + 1) > limit or stop == program.out[2]


@pytest.mark.parametrize("ties", ["first", "split"])
@pytest.mark.parametrize(("layout", "window"), [("3d-last", "k3s2ceil"), ("2d-few-last", "k3s1p1")])
def test_halves_in_vectors(layout: str, window: str, ties: Any) -> None:
    """`simd` computes float16 in float32; where windows overlap, sums are rounded after each addition all the same."""
    for data in ("nan", "ties"):
        case = Case(window, layout, "float16", data)
        pool = case.max_pool("simd", ties)
        reason = refusal("simd", case, pool)
        if reason is not None:
            assert "convert float16" in reason
            return
        y, dx = expected_maxima(case, ties)
        got, saved = pool.forward(case.input())
        assert same_bits(got, y)
        assert dx is not None
        assert same_bits(pool.backward(gradient_for(y), saved), dx)


def test_every_half_comes_through_vectors() -> None:
    y = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 256, 256, 1).repeat(19, axis=3)
    x = y.repeat(2, axis=1).repeat(2, axis=2)
    pool = pooling.MaxPool(2, data_format="channels_last", backend="simd")
    reason = pooling.get_backend("simd").why_not(x.shape, x.dtype, pool)
    if reason is None:
        assert same_bits(pool(x), y)
    else:
        assert "convert float16" in reason


@pytest.mark.parametrize("window", [(3,), (5, 1), (3, 2, 1), ((3, 5), 2)], ids=str)
@pytest.mark.parametrize("name", pooling.list_backends())
def test_the_mean_of_ones_is_one(name: str, window: tuple[Any, ...]) -> None:
    """As in PyTorch, which divides once: a third of a third of nine is 1.0000001 in float32."""
    pool = pooling.AvgPool(*window, backend=name)
    x = np.ones((2, 3, 15, 15), np.float32)
    if pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
        assert (pool(x)[..., 1:-1, 1:-1] == 1).all()
        for size in (7, 13, 15):  # one window alone, in a dtype with reciprocals of its own
            own = np.ones((2, 3, size, size))
            assert (pooling.AvgPool(size, backend=name)(own) == 1).all()
        back = pooling.AvgPool(3, backend=name)
        assert (back.backward(np.full((2, 3, 5, 5), 9, np.float32), back.forward(x)[1]) == 1).all()
