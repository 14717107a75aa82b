"""Software prefetch: cache lines are requested before they are read.

Windows read several rows at once, which hardware prefetchers follow badly, and there is so much arithmetic between two new cache
lines that out-of-order execution overlaps few misses. Kernels over rows therefore prefetch `DISTANCE` bytes ahead in address
order, whatever the order in which the window reads. Where up to nine rows are read side by side (`kernels/direct/blocks.py`) each
row is prefetched `CLOSE` bytes ahead. On `INTERLEAVED_CPUS`, whose hardware prefetcher follows one stream per page, arrays that
come from memory are prefetched at eight places of the next 64 KB block in turn. Measurements: docs/experiments.md, prefetch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pooling.geometry.problem import Problem
from pooling.runtime.buffer_pool import ALIGNMENT
from pooling.runtime.jit import inlined
from pooling.runtime.numba_api import config, intrinsic, ir, llvm, types
from pooling.simd.vector.ops import BYTE, address, itemsize

DISTANCE = 1 << 12
"""Bytes ahead, in address order."""

CLOSE = 3 << 9
"""Bytes ahead, where many rows are read side by side."""

FROM_MEMORY = 9 << 22
"""Bytes of x from which it is taken to come from memory and not from a cache."""

LINE_BITS = ALIGNMENT.bit_length() - 1
# Kernels inherit constants that their callers are bound to: these names must be unique in the library.
BLOCK_BITS, PLACE_BITS = 10, 3
"""Logarithms: cache lines of a block (64 KB), and places in it that are prefetched in turn (eight)."""


INTERLEAVED_CPUS = (
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "icelake-server",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
)
"""CPUs, by LLVM's name, for which prefetch is interleaved. Measured on Sapphire Rapids; the others are of the same family."""

INTERLEAVED = 0
"""Bound when a pass is made: whether prefetch is interleaved."""


def from_memory(problem: Problem, outer: int, inner: int, dtype: np.dtype[Any]) -> bool:
    """Whether the cells of such an array come from memory.

    Examples
    --------
    >>> from pooling.geometry.window import Window
    >>> window = Window.over((112, 112), kernel_size=2)
    >>> [from_memory(Problem("max", window), n, 64, np.dtype("float32")) for n in (1, 16)]
    [False, True]
    """
    return outer * math.prod(problem.window.input_size) * inner * dtype.itemsize >= FROM_MEMORY


def interleaves_prefetch() -> bool:
    """Whether prefetch is interleaved on this CPU, for arrays that come from memory."""
    return (config.CPU_NAME or llvm.get_host_cpu_name()) in INTERLEAVED_CPUS


@intrinsic
def prefetch(typing: Any, array: Any, byte: Any) -> Any:
    """Prefetch the cache line of this byte of an array into the L1 data cache; the byte may lie past the end."""

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
def interleaved_line(line: int) -> int:
    """The line of the next block to prefetch when this line is read: a permutation, so that a whole block covers the next one."""
    place = line & ((1 << BLOCK_BITS) - 1)
    part, within = place & ((1 << PLACE_BITS) - 1), place >> PLACE_BITS
    return line - place + (1 << BLOCK_BITS) + (part << (BLOCK_BITS - PLACE_BITS)) + within


@inlined
def prefetch_byte(array: Any, byte: int) -> None:
    """Prefetch what belongs to this byte: a line of the next block, or the one `DISTANCE` bytes ahead."""
    if INTERLEAVED:
        prefetch(array, interleaved_line(byte >> LINE_BITS) << LINE_BITS)
    else:
        prefetch(array, byte + DISTANCE)


@inlined
def prefetch_at(array: Any, index: int) -> None:
    """Prefetch one line: call it where ``array[index]`` is read."""
    prefetch_byte(array, index * size_of(array))


@inlined
def prefetch_close(array: Any, index: int) -> None:
    """Prefetch the cache line `CLOSE` bytes after ``array[index]``."""
    prefetch(array, index * size_of(array) + CLOSE)


@inlined
def prefetch_range(array: Any, start: int, n: int) -> None:
    """Prefetch as many lines as `n` elements take: call it where those from ``array[start]`` on are read."""
    size = size_of(array)
    for byte in range(start * size, (start + n) * size, 1 << LINE_BITS):
        prefetch_byte(array, byte)
