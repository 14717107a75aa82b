"""Results written past the caches: the same to the bit, and only where whole cache lines are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling
from pooling.runtime.buffer_pool import empty
from pooling.simd import planner
from pooling.simd.memory import streaming_stores
from tests.cases import data, gradient_for, same_bits

WHOLE: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "channels, side by side": ((2, 6, 7, 48), {"kernel_size": 2}),
    "channels, apart and cut short": ((2, 7, 8, 16), {"kernel_size": 2, "stride": 3}),
    "channels, overlapping": ((2, 9, 7, 32), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "channels, stride 1": ((2, 7, 6, 16), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "channels, asked by axes": ((1, 9, 9, 16), {"kernel_size": 5, "stride": 1, "padding": 2}),
    "channels, scanned": ((1, 20, 18, 32), {"kernel_size": 13, "stride": 1, "padding": 6}),
    "rows, side by side": ((2, 3, 6, 64), {"kernel_size": 2}),
    "rows, overlapping": ((2, 2, 7, 80), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "rows, overlapping, into whole lines": ((2, 2, 7, 64), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "rows that end within a line": ((2, 3, 6, 72), {"kernel_size": 2}),
    "rows, stride 4": ((2, 2, 8, 128), {"kernel_size": 4}),
    "short rows": ((2, 3, 8, 16), {"kernel_size": 2}),
    "planes for lanes": ((2, 3, 12, 16), {"kernel_size": 6, "stride": 2, "padding": 2}),
}


MEANS = (
    "channels, side by side",
    "channels, stride 1",
    "channels, asked by axes",
    "channels, scanned",
    "rows, side by side",
    "rows, overlapping, into whole lines",
    "rows that end within a line",
)
OTHER_DTYPES = [("channels, asked by axes", "avg", "float16"), ("channels, asked by axes", "max", "float64")]


@pytest.mark.parametrize(
    ("name", "op", "dtype"),
    [*((name, "max", "float32") for name in WHOLE), *((name, "avg", "float32") for name in MEANS), *OTHER_DTYPES],
)
def test_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch, name: str, op: str, dtype: str) -> None:
    shape, window = WHOLE[name]
    layout: Any = "channels_last" if name.startswith("channels") else "channels_first"
    make: Any = pooling.MaxPool if op == "max" else pooling.AvgPool
    pool = make(**window, data_format=layout, backend="simd")
    x = data(shape, dtype)
    if pooling.get_backend("simd").why_not(x.shape, dtype, pool) is not None:
        pytest.skip("this CPU does not convert float16")
    y, saved = pool.forward(x)
    dx = pool.backward(gradient_for(y), saved)
    monkeypatch.setattr(streaming_stores, "LARGE", 0)
    monkeypatch.setattr(streaming_stores, "LARGE_ROWS", 0)
    to, back = aligned(y), aligned(x)
    assert same_bits(pool.forward(x, out=to)[0], y)
    assert same_bits(pool(x, out=to), y)
    assert same_bits(pool.backward(gradient_for(y), saved, out=back), dx)


def aligned(like: np.ndarray[Any, Any], by: int = 0) -> np.ndarray[Any, Any]:
    """An array of this shape that begins `by` bytes after a cache line."""
    raw = np.full(like.nbytes + 128, 7, np.uint8)
    start = -raw.ctypes.data % 64 + by
    return np.asarray(raw[start : start + like.nbytes].view(like.dtype).reshape(like.shape))


def test_where_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_stores, "LARGE", 1 << 12)
    monkeypatch.setattr(streaming_stores, "LARGE_ROWS", 1 << 12)
    for shape, stride, gradient, result in (
        ((4, 8, 8, 16), 2, 64, 64),
        ((1, 8, 8, 8), 2, 0, 0),  # too small
        ((4, 8, 8, 24), 2, 0, 0),  # pixels are no lines
        ((40, 8, 64, 1), 2, 64, 64),
        ((40, 8, 56, 1), 2, 32, 0),
        ((40, 8, 60, 1), 2, 0, 0),
        ((40, 8, 64, 1), 3, 0, 64),  # the last stride of a row is not whole
    ):
        layout: Any = "channels_last" if shape[-1] > 1 else "channels_first"
        pool = pooling.MaxPool((2, 2), stride, data_format=layout)
        problem = pool.problem(shape if shape[-1] > 1 else shape[:3])
        like = np.zeros(shape, np.float32)
        assert streaming_stores.streaming_bytes(problem, aligned(like), back=True) == gradient
        assert streaming_stores.streaming_bytes(problem, aligned(like), back=False) == result
        assert streaming_stores.streaming_bytes(problem, aligned(like, by=16), back=True) == 0


def test_results_that_begin_within_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that writes past the caches would end the process there."""
    pool = pooling.MaxPool(2, data_format="channels_last", backend="simd")
    x = data((2, 8, 8, 16))
    y, saved = pool.forward(x)
    dx = pool.backward(gradient_for(y), saved)
    monkeypatch.setattr(streaming_stores, "LARGE", 0)
    for by in (0, 4, 0, 16):
        assert same_bits(pool.forward(x, out=aligned(y, by))[0], y)
        assert same_bits(pool.backward(gradient_for(y), saved, out=aligned(x, by)), dx)
    given = saved.plan.problem, 2, 16, np.dtype(np.float32), False
    for back, plain in ((False, planner.forward_job(*given)), (True, planner.backward_job(*given))):
        other = planner.streaming_job(*given, back, 64)
        assert other.kernel is not plain.kernel
        assert plain.ready
        assert other.ready
        assert plain.ready is not other.ready


def test_kernels_with_their_result_in_a_buffer_do_not() -> None:
    """It would leave the cache, and be fetched again to be turned."""
    for shape, window, direct in (
        ((3, 12, 16), {"kernel_size": (6, 6), "stride": 2, "padding": 2}, False),
        ((3, 6, 64), {"kernel_size": (2, 2)}, True),
    ):
        problem = pooling.MaxPool(**window).problem(shape)
        given = problem, 3, 1, np.dtype(np.float32), False
        assert (planner.streaming_job(*given, True, 64) is not planner.backward_job(*given)) == direct
    assert empty((1 << 20,), np.dtype(np.float32)).ctypes.data % 64 == 0  # or large results would never do so
