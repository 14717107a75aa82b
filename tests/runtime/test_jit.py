"""Compiling: cached on disk, never stale, and no error where there is no disk."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pooling.runtime.jit import UNBOUND, Kernel, kernel, never
from tests.processes import run_python

CODE = """
import numpy as np, pooling
x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
pool = pooling.MaxPool(2, backend="numba_loops")
y, saved = pool.forward(x)
print(int(pool.backward(y, saved).sum()))
"""


def pool_in(folder: Path | str) -> subprocess.CompletedProcess[str]:
    return run_python(CODE, POOLING_CACHE_DIR=str(folder))


def test_kernels_are_cached_and_found_again(tmp_path: Path) -> None:
    assert pool_in(tmp_path).stdout.strip() == "576"
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    assert files, "nothing was cached"
    assert pool_in(tmp_path).stdout.strip() == "576"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")} == files, "compiled again"


def test_a_damaged_cache_is_compiled_anew(tmp_path: Path) -> None:
    pool_in(tmp_path)
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(b"damaged")
    done = pool_in(tmp_path)
    assert done.stdout.strip() == "576", done.stderr


FACTOR = 2


@kernel
def scaled(x: int) -> int:
    return x * FACTOR


@kernel
def twice_scaled(x: int) -> int:
    return scaled(scaled(x))


def test_constants_are_bound_in_called_kernels_too() -> None:
    assert twice_scaled(3) == 12
    assert twice_scaled.bind(FACTOR=5)(3) == 75
    assert scaled(3) == 6
    assert isinstance(twice_scaled.bind(scaled=scaled.bind(FACTOR=7)), Kernel)
    assert twice_scaled.bind(scaled=scaled.bind(FACTOR=7))(1) == 49


RARE = 0
other: Any = UNBOUND


@kernel
def fill(out: Any, value: int) -> None:
    out[0] = value
    if RARE:
        other(out, value + 1)


def test_a_name_that_no_kernel_uses_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"twice_scaled.*no global name FACTR"):
        twice_scaled.bind(FACTR=5)
    assert twice_scaled.known({"FACTOR": 3, "RARE": 1}) == {"FACTOR": 3}


def test_a_name_that_is_left_unbound_is_an_error() -> None:
    with pytest.raises(TypeError, match="fill has to be bound to other"):
        fill.bind(RARE=1)(np.zeros(1), 3)


def test_what_is_never_called_is_not_compiled_into_a_recursion() -> None:
    out = np.zeros(1)
    inner = fill.bind(RARE=0, other=never(fill))
    inner(out, 3)
    assert out[0] == 3
    fill.bind(RARE=1, other=inner.noinline())(out, 3)
    assert out[0] == 4
