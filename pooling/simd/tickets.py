"""Who does what of a shared pass: threads draw their ranges inside the kernel, where no GIL is needed.

Handing out ranges from Python cost more than the work: each time a thread comes back for one it needs the GIL, and to be woken
when another holds it, 30 to 50 us. With 2 threads 3 MB took twice as long as with one.
"""

from __future__ import annotations

from typing import Any

from pooling.compiler import intrinsic, ir, types
from pooling.jit import kernel
from pooling.threads import DONE, NEXT

SPINS = 4000
"""How often to look, about 40 us, whether others have finished before Python puts this thread to sleep until they have."""

body: Any  # bound when a pass is made


@intrinsic
def fetch_add(typing: Any, array: Any, index: Any, amount: Any) -> Any:
    """Add to an element of an array that other threads use too; its value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def pause(typing: Any) -> Any:
    """Tell the CPU that this is a loop that waits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if "x86_64" in builder.module.triple:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), function), [])
        return context.get_dummy_value()

    return types.void(), codegen


@kernel
def draw(tickets: Any, n: int, grain: int, *args: Any) -> None:
    """Do ranges of `grain` units until all `n` are drawn, then wait a little for those who drew the last ones."""
    start = fetch_add(tickets, NEXT, grain)
    while start < n:
        stop = min(start + grain, n)
        body(start, stop, *args)
        fetch_add(tickets, DONE, stop - start)
        start = fetch_add(tickets, NEXT, grain)
    for _ in range(SPINS):
        if fetch_add(tickets, DONE, 0) >= n:
            break
        pause()
