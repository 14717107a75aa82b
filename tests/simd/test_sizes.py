"""Arrays of ever other sizes: what is compiled belongs to windows, dtypes and layouts, and what is remembered has an end.

openvino#20633, pytorch#27971, onnxruntime#5796, numba#7831, tensorflow#41141, jax#4447: programs whose batches, lengths or images
differ in size grew, or compiled, with each of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling
from pooling.backends import simd
from pooling.runtime import jit
from pooling.simd.plan import specialization
from pooling.simd.planner import special_for
from pooling.simd.vector.ops import lanes
from tests.cases import data, gradient_for, same_bits
from tests.processes import run_python, works

FLOAT = np.dtype(np.float32)

POOLS: dict[str, Any] = {
    "2x2": lambda **kw: pooling.MaxPool(2, **kw),
    "3x3, stride 2": lambda **kw: pooling.MaxPool(3, 2, 1, **kw),
    "13x13": lambda **kw: pooling.MaxPool(13, 1, 6, **kw),
    "means of 3x3": lambda **kw: pooling.AvgPool(3, 1, 1, **kw),
    "adaptive": lambda **kw: pooling.AdaptiveMaxPool((23, 13), **kw),
    "adaptive means": lambda **kw: pooling.AdaptiveAvgPool((3, 4), **kw),
    "global": lambda **kw: pooling.GlobalAvgPool(**kw),
}


def step(pool: Any, planes: int, size: tuple[int, ...]) -> None:
    shape = (2, planes, *size) if pool.data_format == "channels_first" else (2, *size, planes)
    y, saved = pool.forward(np.ones(shape, np.float32))
    pool.backward(y, saved)


def dispatchers() -> list[Any]:
    return [kernel._compiled for kernel in jit._kernels.values() if kernel._compiled is not None]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", POOLS)
def test_a_new_size_finds_its_kernels_compiled(name: str, data_format: Any) -> None:
    """Sizes of one kind: rows of several vectors, taps of one byte, and regions that overlap."""
    pool = POOLS[name](data_format=data_format, backend="simd")
    sizes = [(int(a), int(b)) for a, b in np.random.default_rng(0).integers(66, 120, (60, 2))]
    for size in sizes[:20]:
        step(pool, 3, size)
    kernels, signatures = len(jit._kernels), sum(len(each.signatures) for each in dispatchers())
    for size in sizes[20:]:
        step(pool, 3, size)
    assert sum(len(each.signatures) for each in dispatchers()) == signatures
    assert len(jit._kernels) == kernels


@pytest.fixture
def never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specialization, "_calls", type(specialization._calls)())
    monkeypatch.setattr(specialization, "_specialized", set())
    simd.short_passes.cache_clear()


@pytest.mark.usefixtures("never_seen")
@pytest.mark.parametrize(
    "pool",
    [
        pooling.MaxPool(2, backend="simd"),
        pooling.AvgPool(3, 1, 1, backend="simd"),
        pooling.AdaptiveMaxPool((10, 5), backend="simd"),
    ],
)
def test_what_comes_often_is_compiled_for(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specialization, "CALLS", 6)
    for _ in range(3):
        step(pool, 3, (20, 25))
    assert not specialization._specialized
    step(pool, 3, (20, 25))
    assert len(specialization._specialized) == 1


@pytest.mark.usefixtures("never_seen")
def test_sizes_in_turn_are_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they come again: each would keep its machine code for good."""
    monkeypatch.setattr(specialization, "CALLS", 6)
    monkeypatch.setattr(specialization, "COUNTED", 4)
    pool = POOLS["2x2"](backend="simd")
    for _ in range(10):
        for length in range(10, 20):
            step(pool, 3, (8, length))
    assert not specialization._specialized
    assert len(specialization._calls) == 4


@pytest.mark.usefixtures("never_seen")
def test_no_more_than_so_many_are_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specialization, "CALLS", 0)
    monkeypatch.setattr(specialization, "MOST", 2)
    found = [specialization.is_specialized(length, length) for length in range(4)]
    assert found == [True, True, False, False]
    specialization.specialize(3)
    assert specialization.is_specialized(3, 3)


@pytest.mark.usefixtures("never_seen")
@pytest.mark.parametrize(
    ("shape", "data_format"),
    [((3, 5, 8, 9), "channels_first"), ((3, 8, 9, 3), "channels_last"), ((2, 6, 6, 6, 3), "channels_last")],
)
@pytest.mark.parametrize("specialized_first", [False, True])
def test_both_passes_need_not_be_specialized_alike(
    shape: tuple[int, ...], data_format: Any, specialized_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taps lie otherwise before and after; so does what another process has saved."""
    pool, exact = (pooling.MaxPool(2, data_format=data_format, backend=name) for name in ("simd", "reference"))
    x = data(shape)
    y, kept = exact.forward(x)
    dx = exact.backward(gradient_for(y), kept)
    inner = shape[-1] if data_format == "channels_last" else 1
    what = special_for(pool.problem(shape), inner, FLOAT)
    if lanes(FLOAT) == 16:
        assert what is not None
    if specialized_first:
        specialization._specialized.add(what)
    got, saved = pool.forward(x)
    if specialized_first:
        specialization._specialized.discard(what)
        simd.short_passes.cache_clear()
    else:
        specialization._specialized.add(what)
    assert same_bits(got, y)
    assert same_bits(pool.backward(gradient_for(y), saved), dx)
    assert np.array_equal(pool.forward_with_indices(x)[1], exact.forward_with_indices(x)[1])


MEMORY = """
import numpy as np, pooling
pool, random = pooling.{pool}, np.random.default_rng(0)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
for i in range(2000):
    shape = (int(random.integers(1, 9)), 8, *map(int, random.integers(8, 60, 2)))
    y, saved = pool.forward(np.ones(shape, np.float32))
    pool.backward(y, saved)
    if i == 500:
        before = resident()
print("flat" if resident() - before < 6_000_000 else (resident() - before))
"""


@pytest.mark.skipif(not __import__("os").path.exists("/proc/self/statm"), reason="it asks Linux how large it is")
@pytest.mark.parametrize(
    "pool", ["MaxPool(2)", "MaxPool(3, 2, 1)", "AvgPool(5, 1, 2)", "AdaptiveAvgPool(7)", "LpPool(2)"]
)
def test_memory_does_not_grow_with_sizes(pool: str) -> None:
    works(run_python(MEMORY.format(pool=pool)), "flat")
