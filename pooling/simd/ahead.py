"""Asking memory for what is needed soon.

Between one new cache line and the next lies so much work that a CPU, which looks some 500 instructions ahead, waits for few of
them at a time, and its own prefetchers follow a stream best if it is read as it lies. Windows read several rows at once. So
kernels over rows ask for the lines 4 KB ahead one after the other, as they lie, however they are read: as many cells at a
time as results use up. On an EPYC (Zen 5) forward of 3x3 at stride 2 over 51 MB took 0.65 to 0.9 of the time that it took when
each row was asked for where it was read, and that 0.4 to 0.9 of not asking; asking for whole rows at once took 0.7 times as
long with 112 cells, 1.4 to 2 times with 512. Short rows took 0.65 to 1.0 of the time, in caches up to 1.1; gradients in rows 0.65
to 1.0, but copied short rows of them 1.0 to 1.2. Planes that are turned into lanes gained nothing. Over channels, which
are read as they lie, asking like that took 1.1 to 1.7 times as long; asking where x is read paid side by side alone, from
memory, 0.75 to 1.0, or where pixels end within a line, 0.8 to 0.95 (`windows.py`). Where four rows of windows that overlap are
pooled together (`blocks.py`), up to nine rows are read side by side; asked for closely ahead, each in its turn, that took
0.75 to 1.0 of the time from memory, 1.0 to 1.08 in caches.

What no cache holds is asked for in another order on CPUs whose prefetcher follows an address through a page, some 20 lines
ahead, which is all that a core then waits for at a time; of eight pages it follows eight addresses. So while one block of
memory is worked on, the next is asked for in eight places by turns. On a Xeon (Sapphire Rapids) reading 400 MB took 0.7 of the
time so, copying it 0.75; forward of 2x2 over 50 to 210 MB in rows 0.76 to 0.8, in channels_last 0.89 to 0.98, over 28x28 planes
0.82 to 1.02. Two places gained half of it. One stream that was asked for further ahead, or into the second cache alone, gained
nothing. On the EPYC reading in places took 1.3 to 1.6 times as long as in order, and those poolings 1.0 to 1.2 times.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pooling.backend import Problem
from pooling.compiler import config, intrinsic, ir, llvm, types
from pooling.jit import inlined
from pooling.memory import ALIGNMENT
from pooling.simd.vectors import BYTE, address, itemsize

DISTANCE = 1 << 12
"""Bytes: 1 KB gained less, 8 KB as much."""

CLOSE = 3 << 9
"""Bytes, where many rows are read side by side: 1 KB and 0.75 KB gained less, 4 KB lost."""

FROM = 9 << 22
"""Bytes of x from which it comes from memory. Asked for in several places 36 MB took as long, 13 MB, which the caches hold, up to
1.17 times."""

LINE_BITS = ALIGNMENT.bit_length() - 1
# Kernels inherit names that others are bound to: these are nobody else's.
BLOCK_BITS, PLACE_BITS = 10, 3
"""Of a block's lines, and of the places in it that are asked for by turns, the logarithm: 64 KB, and eight. With blocks of 16 KB
four places were best and gained less, 256 KB gained as much."""


PAGED = (
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "icelake-server",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
)
"""CPUs, as LLVM calls them, that are asked in several places by turns; all others are asked in order. Measured on a Sapphire
Rapids; the others are Intel's of the same kind."""

BY_TURNS = 0
"""Bound when a pass is made: whether it asks in several places."""


def from_memory(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> bool:
    """Whether the cells of such an array come from memory.

    Examples
    --------
    >>> from pooling.window import Window
    >>> window = Window.over((112, 112), kernel_size=2)
    >>> [from_memory(Problem("max", window), n, 64, np.dtype("float32")) for n in (1, 16)]
    [False, True]
    """
    return outer * math.prod(problem.window.input_size) * inner * dtype.itemsize >= FROM


def paged() -> bool:
    """Whether this CPU is asked in several places, by turns, for what comes from memory."""
    return (config.CPU_NAME or llvm.get_host_cpu_name()) in PAGED


@intrinsic
def prefetch(typing: Any, array: Any, byte: Any) -> Any:
    """Ask for the cache line of this byte of an array, which may lie past the end: nothing is read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = address(context, builder, array, args[0], args[1].type(0), BYTE)
        pointer = builder.gep(start, [args[1]])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def size_of(typing: Any, array: Any) -> Any:
    """Bytes of an element, as a constant, which an array's own attribute is not."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, itemsize(array.dtype))

    return types.intp(array), codegen


@inlined
def apart(line: int) -> int:
    """The line of the next block that is asked for together with this one.

    Who goes through a block in order has asked for all lines of the next at its end.
    """
    place = line & ((1 << BLOCK_BITS) - 1)
    part, within = place & ((1 << PLACE_BITS) - 1), place >> PLACE_BITS
    return line - place + (1 << BLOCK_BITS) + (part << (BLOCK_BITS - PLACE_BITS)) + within


@inlined
def ask_byte(array: Any, byte: int) -> None:
    """Ask for a cache line of the block after that of this byte, or for the one `DISTANCE` bytes on."""
    if BY_TURNS:
        prefetch(array, apart(byte >> LINE_BITS) << LINE_BITS)
    else:
        prefetch(array, byte + DISTANCE)


@inlined
def fetch(array: Any, index: int) -> None:
    """Ask for a cache line when ``array[index]`` is read."""
    ask_byte(array, index * size_of(array))


@inlined
def fetch_close(array: Any, index: int) -> None:
    """Ask for the cache line `CLOSE` bytes after ``array[index]``."""
    prefetch(array, index * size_of(array) + CLOSE)


@inlined
def ask(array: Any, start: int, n: int) -> None:
    """Ask for as many lines as `n` elements take when those from ``array[start]`` on are read."""
    size = size_of(array)
    for byte in range(start * size, (start + n) * size, 1 << LINE_BITS):
        ask_byte(array, byte)
