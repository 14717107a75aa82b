"""Asking memory for what is needed soon.

Where windows overlap, so much work lies between one new cache line and the next that a CPU, which looks some 500 instructions
ahead, waits for few of them at a time, and its own prefetchers did not always make up for it: forward of 3x3 at stride 2 over
51 MB of 112x112 planes took 1.4 to 2 times as long. In caches, and where prefetchers do their work, asking cost nothing. It
brought nothing over channels where they overlap, and for windows side by side only where pixels end within a line (`windows.py`).
"""

from __future__ import annotations

from typing import Any

from pooling.compiler import intrinsic, ir, types
from pooling.simd.vectors import BYTE, address, itemsize

AHEAD = 1 << 12
"""Bytes: 1 KB gained less, 8 KB as much."""


@intrinsic
def fetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line `AHEAD` bytes after ``array[index]``, which may lie past the end: nothing is read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.IntType(32)
        index = builder.add(args[1], args[1].type(AHEAD // itemsize(array.dtype)))
        pointer = address(context, builder, array, args[0], index, BYTE)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen
