"""Several rows in a vector, or rows a few vectors long, whatever the windows and however many planes there are."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.geometry.axis import Axis
from pooling.runtime.jit import kernel
from pooling.simd.kernels.packed_rows.plan import Cut, short_fit, strides_of
from pooling.simd.kernels.rows.plan import BAND
from pooling.simd.plan import specialization
from pooling.simd.vector.interleave import load_n, picked, repeated, replaced
from pooling.simd.vector.ops import lanes, store
from pooling.simd.vector.pack import copy_row, load_first, load_rows, store_first, store_rows, under_taps
from tests.cases import data, gradient_for, same_bits
from tests.processes import run_python, works

FLOAT = np.dtype(np.float32)

pytestmark = pytest.mark.usefixtures("specialized")


@pytest.fixture
def specialized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this rows would be pooled by kernels for any length, as at the first calls."""
    monkeypatch.setattr(specialization, "CALLS", 0)
    monkeypatch.setattr(specialization, "MOST", sys.maxsize)


SHORT: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "planes follow as rows do": ((3, 5, 8, 8), {"kernel_size": 2}),
    "a row and a column left over": ((2, 3, 11, 7), {"kernel_size": 2}),
    "overlapping": ((2, 3, 13, 7), {"kernel_size": 3, "stride": 2}),
    "margins, and windows cut short": ((2, 3, 8, 7), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "stride 1": ((2, 3, 7, 7), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "padding, but no margins backward": ((2, 3, 9, 12), {"kernel_size": (2, 1), "stride": (1, 3), "padding": (1, 0)}),
    "rows longer than a vector": ((2, 3, 6, 28), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "and shorter than two": ((2, 3, 9, 35), {"kernel_size": 3, "stride": 2}),
    "windows apart": ((2, 2, 9, 8), {"kernel_size": 2, "stride": 3}),
    "oblong": ((1, 3, 12, 8), {"kernel_size": (2, 3), "stride": 2, "padding": (0, 1)}),
    "one dimension": ((2, 3, 9), {"kernel_size": 2}),
    "one dimension, overlapping": ((3, 7, 20), {"kernel_size": 3, "stride": 2}),
    "three": ((2, 2, 5, 6, 7), {"kernel_size": 2, "stride": (1, 2, 2), "padding": (0, 0, 1)}),
    "few channels": ((2, 9, 8, 3), {"kernel_size": 2, "data_format": "channels_last"}),
    "a single output": ((1, 1, 2, 3), {"kernel_size": (1, 2)}),
}


@pytest.mark.parametrize("name", SHORT)
def test_these_are_those(name: str) -> None:
    """Or what follows would test nothing; where vectors are shorter some of these rows aren't."""
    shape, window = SHORT[name]
    if lanes(FLOAT) == 16 and name != "few channels":
        assert short_fit(pooling.MaxPool(**window).problem(shape), FLOAT)


@pytest.mark.parametrize("name", SHORT)
def test_maxima(name: str) -> None:
    shape, window = SHORT[name]
    exact, pool = (pooling.MaxPool(**window, backend=backend) for backend in ("reference", "simd"))
    for x in (data(shape), np.nan_to_num(data(shape), neginf=-9)):
        (y, kept), (got, saved) = exact.forward(x), pool.forward(x)
        assert same_bits(got, y)
        assert same_bits(pool(x), y)
        assert same_bits(pool.backward(gradient_for(y), saved), exact.backward(gradient_for(y), kept))
        assert np.array_equal(pool.forward_with_indices(x)[1], exact.forward_with_indices(x)[1])


@pytest.mark.parametrize("name", SHORT)
def test_means(name: str) -> None:
    shape, window = SHORT[name]
    x = np.random.default_rng(0).standard_normal(shape)
    exact, pool = (
        pooling.AvgPool(**window, count_include_pad=False, backend=backend) for backend in ("reference", "simd")
    )
    (y, kept), (got, saved) = exact.forward(x), pool.forward(x)
    np.testing.assert_allclose(got, y, rtol=1e-13, atol=1e-13)
    dy = gradient_for(y)
    np.testing.assert_allclose(pool.backward(dy, saved), exact.backward(dy, kept), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["int8", "float64"])
def test_other_dtypes(dtype: str) -> None:
    x = data((2, 3, 8, 8), dtype)
    assert same_bits(pooling.max_pool(x, 2, backend="simd"), pooling.max_pool(x, 2, backend="reference"))


@pytest.mark.parametrize("planes", [0, 1, 2, 5, 97, 400])
def test_any_number_of_planes(planes: int) -> None:
    """Fewer than a vector takes, a unit more or less full, several units."""
    for rows in (4, 5):
        x = data((1, planes, rows, 4))
        loops, pool = (pooling.MaxPool(2, backend=backend) for backend in ("numba_loops", "simd"))
        (y, kept), (got, saved) = loops.forward(x), pool.forward(x)
        assert same_bits(got, y)
        assert same_bits(pool.backward(gradient_for(y), saved), loops.backward(gradient_for(y), kept))


def test_planes_are_dealt_out_evenly() -> None:
    """A group of one plane would leave room in every vector."""
    for outer in [*range(1, 300), 94250]:
        cut = Cut.of(outer, rows=2, nbytes=BAND // 20, depth=1, fit=8, one=True)
        assert (cut.groups - 1) * 20 < outer <= cut.groups * cut.most
        assert cut.most <= 20
        assert cut.rows == min(8, 2 * (outer // cut.groups))


def test_large_planes_are_cut_or_left_to_others() -> None:
    assert Cut.of(1, rows=2, nbytes=BAND * 9, depth=100, fit=8, one=False).pieces == 9
    for shape, fits in (((1, 1, 1 << 16, 8), False), ((1, 1, 1 << 10, 8), True), ((1, 1, 1 << 10, 1 << 6, 8), True)):
        problem = pooling.MaxPool(2, (2, 2, 2)[: len(shape) - 2]).problem(shape)
        assert short_fit(problem, FLOAT) == fits or lanes(FLOAT) < 16


def test_too_few_rows_for_a_vector_are_turned_into_lanes() -> None:
    for size in (2, 3, 4):
        assert not short_fit(pooling.MaxPool(3, 2, 1).problem((9, 9, size, size)), FLOAT) or lanes(FLOAT) < 16


def test_where_outputs_lie_over_strides() -> None:
    side_by_side = strides_of(Axis(size=11, kernel=2, stride=2))
    assert (side_by_side.count, side_by_side.before, side_by_side.gap, side_by_side.pitch) == (
        5,
        0,
        0,
        5,
    )
    overlapping = strides_of(Axis(size=13, kernel=3, stride=2))
    assert (overlapping.count, overlapping.before, overlapping.gap, overlapping.pitch) == (7, 1, 1, 7)
    padded = strides_of(Axis(size=7, kernel=3, stride=1, before=1, after=1))
    assert (padded.count, padded.before, padded.gap, padded.pitch) == (7, 1, 1, 8)


N, ROWS, RESULTS, APART, STRIDE, TAPS, COUNT = 8, 1, 1, 1, 1, 1, 1


def gather(x: Any, y: Any, i: int) -> None:
    cells = under_taps(load_rows(x, i, N, ROWS, RESULTS, APART, STRIDE, TAPS), ROWS, RESULTS, APART, STRIDE, TAPS)
    for k in range(TAPS):
        store(y, k * N, picked(cells, k))


@pytest.mark.parametrize(
    ("rows", "results", "apart", "stride", "taps"),
    [(2, 4, 16, 2, 2), (4, 2, 8, 2, 2), (2, 3, 7, 2, 3), (1, 7, 9, 1, 3), (2, 3, 30, 4, 5), (2, 1, 4, 1, 1)],
)
def test_what_the_windows_of_several_rows_have_under_each_tap(
    rows: int, results: int, apart: int, stride: int, taps: int
) -> None:
    x = np.arange(3 + (rows - 1) * apart + (results - 1) * stride + taps, dtype=np.float32)  # ends with the last cell
    n = lanes(FLOAT)
    y = np.zeros(taps * n, np.float32)
    names = {"ROWS": rows, "RESULTS": results, "APART": apart, "STRIDE": stride, "TAPS": taps}
    kernel(gather).bind(N=n, **names)(x, y, 3)
    for k in range(taps):
        wanted = [3 + r * apart + o * stride + k for r in range(rows) for o in range(results)]
        assert y[k * n : k * n + min(len(wanted), n)].tolist() == wanted[:n]


def pass_on(x: Any, y: Any, z: Any) -> None:
    like = load_n(x, 0, N)
    store_first(y, 1, load_first(x, 2, like, COUNT), COUNT)
    copy_row(x, 2, z, 1, COUNT)


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_part_of_a_vector(count: int, dtype: str) -> None:
    x = np.arange(20, dtype=dtype)
    y, z = np.full(12, 99, dtype), np.full(12, 99, dtype)
    kernel(pass_on).bind(COUNT=count)(x, y, z)
    assert y.tolist() == z.tolist() == [99, *range(2, 2 + count), *[99] * (11 - count)]


WIDE, PITCH, STRIDES, STEP = 1, 1, 1, 1


def write_rows(x: Any, y: Any) -> None:
    vectors = repeated(load_n(x, 0, N), STEP)
    for c in range(STEP):
        vectors = replaced(vectors, c, load_n(x, c * N, N))
    store_rows(y, 1, vectors, ROWS, PITCH, STRIDES, APART, WIDE)


@pytest.mark.parametrize(
    ("rows", "pitch", "strides", "apart", "wide", "step"),
    [
        (2, 4, 4, 16, 8, 2),
        (2, 4, 3, 16, 8, 2),
        (3, 2, 2, 9, 4, 2),
        (2, 3, 3, 14, 7, 2),
        (1, 8, 8, 24, 23, 3),
        (2, 4, 4, 5, 4, 1),
    ],
)
def test_rows_are_interleaved_and_filled_up(
    rows: int, pitch: int, strides: int, apart: int, wide: int, step: int
) -> None:
    n = 8
    x = np.arange(1, step * n + 1, dtype=np.int32)
    y = np.full(1 + rows * apart + wide, -1, np.int32)
    expected = y.copy()
    for r in range(rows):
        for w in range(wide):
            m, c = divmod(w, step)
            expected[1 + r * apart + w] = x[c * n + r * pitch + m] if m < strides else 0
    names = {"ROWS": rows, "PITCH": pitch, "STRIDES": strides, "APART": apart, "WIDE": wide, "STEP": step}
    kernel(write_rows).bind(N=n, **names)(x, y)
    assert y.tolist() == expected.tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="protects memory as Linux does")
def test_nothing_is_read_or_written_beyond_the_arrays() -> None:
    code = """
import ctypes, mmap
import numpy as np, pooling
from pooling.backends import simd

kept = []

def room(shape, dtype, at_end):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    page = mmap.PAGESIZE
    inside = -(-size // page) * page
    pages = mmap.mmap(-1, inside + 2 * page)
    kept.append(pages)
    at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(at, page, 0) == 0 and protect(at + page + inside, page, 0) == 0  # whoever reads there dies
    return np.frombuffer(pages, dtype, size // np.dtype(dtype).itemsize, page + at_end * (inside - size)).reshape(shape)

short = [
    ((1, 3, 8, 8), (2,)), ((1, 2, 11, 7), (2,)), ((1, 2, 13, 13), (3, 2)), ((1, 2, 7, 7), (3, 2, 1)), ((2, 3, 8, 12), (2, 2, 1)),
]
# The last of tied cells wins in rows of any length, which are walked back; those of 11 to 15 outputs are overrun.
long = [((1, 1, 6, 28), (3, 2, 1)), ((2, 1, 7, 90), (3, 1, 1)), ((1, 1, 5, 113), (3, 2, 1)), ((1, 1, 4, 69), (2, 2, 1))]
for shape, window, ties in [(*case, "first") for case in short + long] + [(*case, "last") for case in long]:
    for at_end in (0, 1):
        simd.empty = lambda shape, dtype: room(shape, dtype, at_end)
        x = room(shape, "f4", at_end)
        x[...] = np.random.default_rng(0).standard_normal(shape)
        loops, pool = (pooling.MaxPool(*window, ties=ties, backend=name) for name in ("numba_loops", "simd"))
        y, other = loops.forward(x)
        got, saved = pool.forward(x, out=room(y.shape, "f4", at_end))
        dy = room(y.shape, "f4", at_end)
        dy[...] = y
        dx = pool.backward(dy, saved, out=room(shape, "f4", at_end))
        print(int(np.array_equal(got, y) and np.array_equal(dx, loops.backward(dy, other))), end="")
"""
    works(run_python(code), "1" * 26)
