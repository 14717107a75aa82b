"""Arrays that come from memory are asked for in order or in several places, and pooled as all others are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling
from pooling.runtime.numba_api import config, llvm
from pooling.simd.memory import prefetch
from pooling.simd.memory.prefetch import BLOCK_BITS, FROM_MEMORY, from_memory, interleaved_line
from pooling.simd.planner import forward_job
from tests.cases import same_bits

# Each just above FROM, and pooled by another kernel.
LARGE: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "rows": ((37, 16, 126, 128), {"kernel_size": 2}),
    "rows with margins": ((37, 16, 126, 127), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "rows in three dimensions": ((5, 16, 30, 64, 64), {"kernel_size": 2, "stride": (1, 2, 2)}),
    "short rows": ((65, 1024, 12, 12), {"kernel_size": 2}),
    "short rows with margins": ((65, 1024, 12, 12), {"kernel_size": 3, "padding": 1}),
    "short rows in three dimensions": ((65, 128, 8, 12, 12), {"kernel_size": 2}),
    "channels": ((37, 128, 126, 16), {"kernel_size": 2, "data_format": "channels_last"}),
    "channels that end within a vector": ((37, 128, 126, 17), {"kernel_size": 2, "data_format": "channels_last"}),
}


def test_all_lines_of_the_next_block_are_asked_for_once() -> None:
    block = 1 << BLOCK_BITS
    asked = [interleaved_line.function(line) for line in range(3 * block, 4 * block)]
    assert sorted(asked) == list(range(4 * block, 5 * block))
    assert np.diff(asked[:8]).tolist() == [block // 8] * 7


@pytest.mark.parametrize("turns", [False, True], ids=["in order", "by turns"])
@pytest.mark.parametrize("op", ["max", "avg"])
@pytest.mark.parametrize("name", LARGE)
def test_large_arrays(name: str, op: str, turns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = config.CPU_NAME or llvm.get_host_cpu_name()
    monkeypatch.setattr(prefetch, "INTERLEAVED_CPUS", (cpu,) if turns else ())
    (items, *rest), arguments = LARGE[name]
    shape = (items + turns, *rest)  # passes are kept by how many planes there are
    x = np.random.default_rng(0).integers(-99, 99, shape).astype(np.float32)
    make: Any = pooling.MaxPool if op == "max" else pooling.AvgPool
    exact, pool = make(**arguments, backend="strided_slices"), make(**arguments, backend="simd")
    channels = shape[-1] if pool.data_format == "channels_last" else 1
    outer = len(x) * (1 if channels > 1 else shape[1])
    assert x.nbytes >= FROM_MEMORY
    assert from_memory(pool.problem(shape), outer, channels, x.dtype)
    want, got = exact(x), pool(x)
    if op == "max":
        assert same_bits(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("turns", [False, True], ids=["in order", "by turns"])
def test_no_kernel_is_made_twice_for_how_it_asks(turns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "INTERLEAVED_CPUS", (config.CPU_NAME or llvm.get_host_cpu_name(),) if turns else ())

    def kernel(items: int, channels: int, **window: Any) -> str:
        """Its title: what is bound, and which file the compiled code goes to."""
        items += 4 * turns  # passes are kept by how many planes there are
        pool = pooling.MaxPool(**window, data_format="channels_last")
        return forward_job(
            pool.problem((items, 60, 60, channels)), items, channels, np.dtype(np.float32), False
        ).kernel.title

    # However much of their last line pixels fill, and however many there are where nothing is asked.
    assert kernel(1, 20, kernel_size=2) == kernel(1, 21, kernel_size=2) == kernel(2, 50, kernel_size=2)
    assert kernel(1, 64, kernel_size=3, stride=2) == kernel(99, 64, kernel_size=3, stride=2)
    assert kernel(1, 64, kernel_size=2) != kernel(99, 64, kernel_size=2)
