"""Small windows that overlap: rows of results taken together, cells that ask a stride at a time, and the edges of both."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.simd.kernels.direct.blocks import ROWS_AT_ONCE, in_blocks
from pooling.simd.kernels.gather.plan import gather_is_cheap
from pooling.simd.plan.geometry import backward_program, forward_program
from pooling.simd.vector.ops import vector_bytes
from tests.cases import Array, gradient_for, same_bits
from tests.processes import run_python, works

FLOAT = np.dtype(np.float32)

WINDOWS: dict[str, dict[str, Any]] = {
    "3x3, stride 1": {"kernel_size": 3, "stride": 1, "padding": 1},
    "3x3, stride 2": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "2x2, stride 1": {"kernel_size": 2, "stride": 1},
    "dilated": {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1},
    "4x3": {"kernel_size": (4, 3), "stride": (1, 2), "padding": (2, 0)},
    "the last wins": {"kernel_size": 3, "stride": 1, "padding": 1, "ties": "last"},
}


def both(data_format: Any, **window: Any) -> tuple[pooling.MaxPool, pooling.MaxPool]:
    """What is tested, and what it has to agree with."""
    simd, loops = (pooling.MaxPool(data_format=data_format, backend=name, **window) for name in ("simd", "numba_loops"))
    return simd, loops


def image(rows: int, columns: int, data_format: str) -> Array:
    """Few different values, so that there are ties; 17 channels, one more than a vector has lanes."""
    shape = (2, 17, rows, columns) if data_format == "channels_first" else (2, rows, columns, 17)
    return np.random.default_rng(rows * 100 + columns).integers(-2, 3, shape).astype(FLOAT)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_these_windows_are_those(window: dict[str, Any]) -> None:
    """Or what follows would test nothing."""
    problem = pooling.MaxPool(**window).problem((1, 1, 12, 12))
    assert in_blocks(forward_program(problem, FLOAT))["ROWS"] == ROWS_AT_ONCE
    if vector_bytes() == 64:  # with fewer lanes most of them scatter, as large windows do everywhere
        assert gather_is_cheap(backward_program(problem, FLOAT), problem, FLOAT)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_every_size(window: dict[str, Any], data_format: str) -> None:
    simd, loops = both(data_format, **window)
    for rows in range(5, 14):
        for columns in (5, 6, 9, 13) if data_format == "channels_last" else (6, 13):  # each of which is compiled
            x = image(rows, columns, data_format)
            (y, saved), (y_loops, saved_loops) = simd.forward(x), loops.forward(x)
            assert same_bits(y, y_loops), (rows, columns)
            dy = gradient_for(y)
            assert same_bits(simd.backward(dy, saved), loops.backward(dy, saved_loops)), (rows, columns)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (5, 5)])
@pytest.mark.parametrize("lonely", [True, False])
def test_a_nan_in_one_of_many_bands_of_a_row(kernel: int, stride: int, lonely: bool, data_format: str) -> None:
    """Windows are pooled again where it is noticed, and nowhere else: other bands of the row are others' to write."""
    n = 60000
    window: Any = {"kernel_size": kernel, "stride": stride, "padding": kernel // 2, "data_format": data_format}
    if not lonely:
        window |= {"kernel_size": (1, kernel), "stride": (1, stride), "padding": (0, kernel // 2)}
    simd, slices = (pooling.MaxPool(backend=name, **window) for name in ("simd", "strided_slices"))
    spatial = (n,) if lonely else (1, n)
    shape = (1, 16, *spatial) if data_format == "channels_first" else (1, *spatial, 16)
    for at in (0, 5, n // 2, n - 1):
        x = np.random.default_rng(at).standard_normal(shape).astype(FLOAT)
        x.reshape((16, n) if data_format == "channels_first" else (n, 16))[(3, at) if shape[1] == 16 else (at, 3)] = (
            np.nan
        )
        (y, saved), (expected, saved_expected) = simd.forward(x), slices.forward(x)
        assert same_bits(y, expected), at
        assert same_bits(simd(x), y), at
        dy = gradient_for(y)
        assert same_bits(simd.backward(dy, saved), slices.backward(dy, saved_expected)), at


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("stride", [1, 2])
def test_other_dtypes(stride: int, dtype: str, data_format: str) -> None:
    """Blocks of float16 over channels once did not compile: a divisor of 1, which maxima do not use, had no value in it."""
    window: dict[str, Any] = {"kernel_size": 3, "stride": stride, "padding": 1, "data_format": data_format}
    simd, reference = (pooling.MaxPool(backend=name, **window) for name in ("simd", "reference"))
    for channels in (32, 19):
        x = np.repeat(image(9, 9, data_format), 2, axis=1 if data_format == "channels_first" else 3)
        x = np.ascontiguousarray(x[:, :channels] if data_format == "channels_first" else x[..., :channels])
        x = x.astype(dtype)
        (y, saved), (y_expected, saved_expected) = simd.forward(x), reference.forward(x)
        assert same_bits(y, y_expected)
        assert same_bits(simd(x), y)
        if dtype[0] == "f":
            dy = gradient_for(y)
            assert same_bits(simd.backward(dy, saved), reference.backward(dy, saved_expected))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_a_nan_anywhere(window: dict[str, Any], data_format: str) -> None:
    """Rows taken together once lost it where the rows after them had noticed one."""
    simd, loops = both(data_format, **window)
    base = image(9, 8, data_format)
    for i in range(9):
        for j in range(8):
            x = base.copy()
            x[(1, 16, i, j) if data_format == "channels_first" else (1, i, j, 16)] = np.nan
            (y, saved), (y_loops, saved_loops) = simd.forward(x), loops.forward(x)
            assert same_bits(y, y_loops), (i, j)
            assert same_bits(simd(x), y), (i, j)
            dy = gradient_for(y)
            assert same_bits(simd.backward(dy, saved), loops.backward(dy, saved_loops)), (i, j)


@pytest.mark.skipif(sys.platform != "linux", reason="protects memory as Linux does")
def test_windows_in_padding_alone() -> None:
    """No cell stands for what is missing, and none is read that lies before what there is."""
    code = """
import ctypes, mmap
import numpy as np, pooling
from pooling.simd.plan import job

kept = []

def scratch(n, dtype, slot):
    pad, size = 4 << 20, -(-n * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
    room = mmap.mmap(-1, size + 2 * pad)
    kept.append(room)
    at = ctypes.addressof(ctypes.c_char.from_buffer(room))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(at, pad, 0) == 0 and protect(at + pad + size, pad, 0) == 0  # whoever reads there dies
    return np.frombuffer(room, np.uint8, size, pad).view(dtype)[:n]

job.scratch = scratch
pooling.set_num_threads(1)
x = np.random.default_rng(0).standard_normal((1, 16, 1500, 12)).astype(np.float32)
window = {"stride": 1, "dilation": (1600, 1), "padding": (1599, 1)}
y, loops = (pooling.MaxPool(2, backend=name, **window)(x) for name in ("simd", "numba_loops"))
assert kept
print(np.array_equal(y, loops), int(np.isneginf(y).sum()) // (16 * 13))
"""
    works(run_python(code), "True 100")


def test_factors_end_in_ones() -> None:
    """A vector longer than its row reads on: denormals there made means 8 times as slow on some CPUs."""
    problem = pooling.AvgPool(2).problem((1, 1, 24, 24))
    for program in (forward_program(problem, FLOAT), backward_program(problem, FLOAT)):
        assert (program.factors[-64:] == 1).all()
