"""What this machine's memory can do: read, write and copy bandwidth by array size, from L1 to main memory.

Kernels of our own, made of the library's vectors and split over its threads, with ordinary and with streaming (non-temporal)
stores, read in order, with software prefetch ahead or in several places (`pooling/simd/memory/prefetch.py`), and NumPy's copy:
the best of them is what memory allows. A size counts all bytes touched, so that a copy of 1 MB reads half of it and writes half:
whatever fits a cache as one array does as another's two.

Passes are repeated inside a kernel until a sample is long enough to measure: handing work to threads costs as much as moving
200 KB, and says nothing about memory. Each repeat writes another value, or adds to what was read before, so that the compiler
can't leave any out. No value is 0: some CPUs write cache lines of zeros three times as fast as others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bench.protocol.measure import pinned
from bench.schema.results import Bandwidth, BandwidthKind, Timing
from bench.schema.workloads import Direction, Workload
from pooling.parallel import pool as pool_threads

Array = NDArray[Any]
Work = Callable[[int, int, int], None]

SIZES = tuple(64 * 1024 * 2**i for i in range(13)) + (400_000_000,)
"""Bytes touched: 64 KB to 256 MB by doubling, and 400 MB."""

SAMPLE_S = 2e-3
SAMPLES = 7
BLOCK = 256
"""Floats that the kernels move at a time: ranges are cut at its multiples, which are multiples of any vector."""

APART = 528
"""Floats between a copy's source and target: a load whose address equals a store's in its last 12 bits waits for it."""


@functools.cache
def kernels() -> dict[str, Any]:
    """The compiled kernels: each works on ``array[start:stop]`` (and `target`), `repeats` times."""
    import numba

    from pooling.simd.memory.prefetch import prefetch_range
    from pooling.simd.vector.ops import load, splat, store, store_stream, width

    compile_ = numba.njit(nogil=True, error_model="numpy")
    nothing = numba.njit(lambda array, start, n: None)
    ahead, in_places = (prefetch_range.bind(INTERLEAVED=turns).callee() for turns in (0, 1))

    def make_read(prepare: Any = nothing) -> Any:
        @compile_
        def read(array: Array, target: Array, start: int, stop: int, repeats: int) -> None:
            # Eight sums at once: one would wait for the addition before it, and not for memory.
            a = b = c = d = e = f = g = h = splat(np.float32(0), load(array, start))
            n = width(a)
            for _ in range(repeats):
                for i in range(start, stop, 8 * n):
                    prepare(array, i, 8 * n)
                    a = a + load(array, i)
                    b = b + load(array, i + n)
                    c = c + load(array, i + 2 * n)
                    d = d + load(array, i + 3 * n)
                    e = e + load(array, i + 4 * n)
                    f = f + load(array, i + 5 * n)
                    g = g + load(array, i + 6 * n)
                    h = h + load(array, i + 7 * n)
            store(target, start, (a + b) + (c + d) + ((e + f) + (g + h)))

        return read

    def make_write(put: Any) -> Any:
        @compile_
        def write(array: Array, target: Array, start: int, stop: int, repeats: int) -> None:
            for r in range(repeats):
                value = splat(np.float32(r + 1), load(target, start))
                n = width(value)
                for i in range(start, stop, n):
                    put(target, i, value)

        return write

    def make_copy(put: Any, prepare: Any = nothing) -> Any:
        @compile_
        def copy(array: Array, target: Array, start: int, stop: int, repeats: int) -> None:
            n = width(load(array, start))
            for _ in range(repeats):
                for i in range(start, stop, n):
                    prepare(array, i, n)
                    put(target, i, load(array, i))

        return copy

    return {
        "read": make_read(),
        "read, ahead": make_read(ahead),
        "read, in places": make_read(in_places),
        "write": make_write(store),
        "write, streaming": make_write(store_stream),
        "copy": make_copy(store),
        "copy, streaming": make_copy(store_stream),
        "copy, streaming, ahead": make_copy(store_stream, ahead),
        "copy, streaming, in places": make_copy(store_stream, in_places),
    }


def aligned(n: int) -> Array:
    """`n` floats that start at a cache line, with memory behind them."""
    raw = np.empty(n + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4
    array = raw[skip : skip + n]
    array.fill(1)
    return array


def contests(memory: Array) -> dict[BandwidthKind, dict[str, tuple[int, Work]]]:
    """By kind, each way to touch all of `memory`: the floats in an array of it, and what does a range of that some times over."""
    n = len(memory) - APART
    half = n // 2
    x, y = memory[:half], memory[half + APART : 2 * half + APART]

    def of(name: str, source: Array = memory, target: Array = memory) -> Work:
        kernel = kernels()[name]

        def work(start: int, stop: int, repeats: int) -> None:
            kernel(source, target, start, stop, repeats)

        return work

    def numpy_copy(start: int, stop: int, repeats: int) -> None:
        source, target = x[start:stop], y[start:stop]
        for _ in range(repeats):
            np.copyto(target, source)

    return {
        "read": {
            "vector loads": (n, of("read")),
            "vector loads ahead": (n, of("read, ahead")),
            "vector loads in places": (n, of("read, in places")),
        },
        "write": {"stores": (n, of("write")), "streaming stores": (n, of("write, streaming"))},
        "copy": {
            "stores": (half, of("copy", x, y)),
            "streaming stores": (half, of("copy, streaming", x, y)),
            "streaming stores, loads ahead": (half, of("copy, streaming, ahead", x, y)),
            "streaming stores, loads in places": (half, of("copy, streaming, in places", x, y)),
            "numpy.copyto": (half, numpy_copy),
        },
    }


def measure(
    *, threads: int, sizes: Sequence[int] = SIZES, progress: Callable[[float], None] = lambda done: None
) -> list[Bandwidth]:
    """Bandwidth of reading, writing and copying at each of `sizes`, in bytes touched.

    Examples
    --------
    >>> rows = measure(threads=1, sizes=(1 << 16,))
    >>> [row.kind for row in rows]
    ['read', 'write', 'copy']
    >>> all(row.gb_per_s > 0 for row in rows)
    True
    """
    rows = []
    with pinned(threads):
        for i, size in enumerate(sizes):
            memory = of_size(size)
            rows += [row(kind, memory, threads, fastest(ways)) for kind, ways in contests(memory).items()]
            progress((i + 1) / len(sizes))
    return rows


def of_size(nbytes: int) -> Array:
    """Memory for :func:`contests` that touch about so many bytes."""
    return aligned(max(nbytes // 4 // (2 * BLOCK), 1) * 2 * BLOCK + APART)


def row(
    kind: BandwidthKind, memory: Array, threads: int, seconds: dict[str, float], workload: Workload | None = None
) -> Bandwidth:
    """The fastest way's bandwidth, of those with these seconds a pass."""
    best = min(seconds, key=seconds.__getitem__)
    nbytes = (len(memory) - APART) * 4
    rate = float(f"{nbytes / seconds[best] / 1e9:.4g}")
    stage: Literal["roofline", "beyond"] = "beyond" if workload else "roofline"
    return Bandwidth(stage, kind, nbytes, threads, rate, best, workload.id if workload else "")


def single(n: int, work: Work) -> Callable[[], object]:
    """A pass over `n` floats, as a call that can take turns with others."""
    return lambda: _seconds(n, work, 1)


def fastest(ways: dict[str, tuple[int, Work]]) -> dict[str, float]:
    """Seconds a pass of each way: the least of some samples, taken in turns."""
    repeats = {name: _calibrate(n, work) for name, (n, work) in ways.items()}
    best = dict.fromkeys(ways, math.inf)
    for _ in range(SAMPLES):
        for name, (n, work) in ways.items():
            best[name] = min(best[name], _seconds(n, work, repeats[name]))
    return best


def _calibrate(n: int, work: Work) -> int:
    """Passes that make a sample."""
    repeats = 1
    _seconds(n, work, 1)  # compiles, and brings the arrays into the caches they fit
    while (seconds := _seconds(n, work, repeats)) * repeats < SAMPLE_S:
        repeats = max(repeats + 1, math.ceil(1.2 * SAMPLE_S / max(seconds, 1e-9)))
    return repeats


def _seconds(n: int, work: Work, repeats: int) -> float:
    """Seconds a pass over `n` floats, on all threads. Even what is small is split: at issue is memory, not the hand-over."""

    def part(first: int, last: int) -> None:
        work(first * BLOCK, last * BLOCK, repeats)

    start = perf_counter()
    pool_threads.split(part, n // BLOCK, pool_threads.SMALL + 1)
    return (perf_counter() - start) / repeats


def read_and_written(workload: Workload, direction: Direction) -> tuple[int, int]:
    """The parts of :meth:`Workload.bytes_moved`: bytes read, and bytes written.

    Examples
    --------
    >>> workload = Workload("pool1", "a network", (1, 1, 4, 4), 2)
    >>> read_and_written(workload, "forward"), read_and_written(workload, "backward")
    ((64, 16), (20, 64))
    """
    size = np.dtype(workload.dtype).itemsize
    inputs, outputs = workload.cells * size, workload.outputs * size
    switches = workload.outputs if workload.op == "max" else 0
    by_pass = {
        "forward": (inputs, outputs),
        "forward_train": (inputs, outputs + switches),
        "backward": (outputs + switches, inputs),
    }
    if direction == "step":
        (a, b), (c, d) = by_pass["forward_train"], by_pass["backward"]
        return a + c, b + d
    return by_pass[direction]


def rate(kind: BandwidthKind, nbytes: int, roof: Sequence[Bandwidth]) -> float:
    """Bytes a second when `nbytes` are touched: between two measured sizes, on the line between them (of logarithms)."""
    rows = sorted((row for row in roof if row.kind == kind), key=lambda row: row.nbytes)
    if not rows:
        raise ValueError(
            f"roof={roof!r} has no row of kind {kind!r}: measure it with bench.experiments.roofline.measure"
        )
    sizes, rates = [math.log(row.nbytes) for row in rows], [row.gb_per_s * 1e9 for row in rows]
    return float(np.interp(math.log(nbytes), sizes, rates))


def time_needed(read: int, written: int, roof: Sequence[Bandwidth]) -> float:
    """Seconds that memory needs to read and write so many bytes.

    Either as much as possible of both at once, at the bandwidth of a copy, and the rest alone; or one after the other: the
    lesser of the two, because whichever memory can do, it allows.
    """
    total = read + written
    both = min(read, written)
    copying, reading, writing = (rate(kind, total, roof) for kind in ("copy", "read", "write"))
    at_once = 2 * both / copying + (read - both) / reading + (written - both) / writing
    return min(at_once, read / reading + written / writing)


def fraction(timing: Timing, workload: Workload, roof: Sequence[Bandwidth]) -> float | None:
    """How much of what memory allows a timing reaches: 1 is all of it; None where bandwidth was not measured.

    Parameters
    ----------
    timing
        Of `workload`, with as many threads as the rows of `roof`.
    roof
        Rows of the same run; those count that were measured in turns with the workload, if there are any.
    """
    beside = [row for row in roof if row.workload == timing.workload] if timing.stage == "beyond" else []
    standalone = [row for row in roof if not row.workload]
    roof = next(
        (rows for rows in (beside, standalone) if {row.kind for row in rows} == set(get_args(BandwidthKind))), ()
    )
    if not roof:
        return None
    return time_needed(*read_and_written(workload, timing.direction), roof) / timing.median_s
