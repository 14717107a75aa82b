"""Transposition: planes into lanes and back.

In channels_first the lanes of a vector are cells at the same place of as many planes. A block of planes is transposed, a run of
pixels at a time, into a buffer with one vector per pixel. Short rows, odd widths and padding then waste no lane, and kernels
are those for channels_last, whose lanes are channels. The cost is four shuffles per vector and a pass through the cache, so long
rows are pooled as they lie in memory (`kernels/rows/`; docs/experiments.md, transposition).
"""

from __future__ import annotations

from typing import Any

from pooling.runtime.jit import kernel
from pooling.runtime.numba_api import intrinsic, ir, types
from pooling.simd.vector.ops import VectorType, lanes_in, llvm_type, move, read, storage, write


@intrinsic
def transpose_tile(typing: Any, source: Any, s: Any, s_step: Any, target: Any, t: Any, t_step: Any, last: Any) -> Any:
    """Move a square tile, turned: row i of the source becomes column i of the target.

    Row i is the vector at ``source[s + min(i, last_s) * s_step]``, and column-wise row i of the result goes to
    ``target[t + min(i, last_t) * t_step]``. `last` is (last_s, last_t): rows after it are read, or written, as that
    row again, so that fewer planes than lanes need no code of their own.
    """
    vector = VectorType(storage(source), lanes_in(source))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_array, s0, s_by, target_array, t0, t_by, lasts = args

        def at(base: Any, step: Any, last_row: Any, i: int) -> Any:
            row = ir.Constant(base.type, i)
            clamped = builder.select(builder.icmp_signed("<", row, last_row), row, last_row)
            return builder.add(base, builder.mul(clamped, step))

        last_s, last_t = builder.extract_value(lasts, 0), builder.extract_value(lasts, 1)
        kind = llvm_type(context, vector)
        rows = [
            read(context, builder, source, source_array, at(s0, s_by, last_s, i), kind) for i in range(vector.count)
        ]
        for i, row in enumerate(transposed(builder, rows)):
            write(context, builder, target, target_array, at(t0, t_by, last_t, i), row)
        return context.get_dummy_value()

    pair = types.UniTuple(types.intp, 2)
    return types.void(source, types.intp, types.intp, target, types.intp, types.intp, pair), codegen


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of vectors, by log2(n) rounds of n shuffles, each swapping off-diagonal blocks."""
    n, block = len(rows), len(rows) // 2
    while block:
        swapped = list(rows)
        for i in range(n):
            if not i & block:
                a, b = rows[i], rows[i + block]
                low = [j if not j & block else n + j - block for j in range(n)]
                high = [j + block if not j & block else n + j for j in range(n)]
                mask = ir.VectorType(ir.IntType(32), n)
                swapped[i] = builder.shuffle_vector(a, b, ir.Constant(mask, low))
                swapped[i + block] = builder.shuffle_vector(a, b, ir.Constant(mask, high))
        rows, block = swapped, block // 2
    return rows


@kernel
def planes_to_lanes(x: Any, start: int, n: int, step: int, last: int, pixels: Any, p: int, lanes: int) -> None:
    """Bring `n` cells of `last` + 1 planes, `step` apart, into `pixels`, from element `p` on, a lane per plane.

    Further lanes repeat the last.
    """
    i = 0
    if n < lanes:
        for i in range(n):
            for lane in range(lanes):
                move(x, start + i + min(lane, last) * step, pixels, p + i * lanes + lane)
        return
    while i < n:
        i = min(i, n - lanes)  # the last tile overlaps the one before it
        transpose_tile(x, start + i, step, pixels, p + i * lanes, lanes, (last, lanes - 1))
        i += lanes


@kernel
def lanes_to_planes(pixels: Any, p: int, n: int, x: Any, start: int, step: int, last: int, lanes: int) -> None:
    """The way back: write `n` pixels, from element `p` on, to as many cells of each plane."""
    i = 0
    if n < lanes:
        for i in range(n):
            for lane in range(last + 1):
                move(pixels, p + i * lanes + lane, x, start + i + lane * step)
        return
    while i < n:
        i = min(i, n - lanes)
        transpose_tile(pixels, p + i * lanes, lanes, x, start + i, step, (lanes - 1, last))
        i += lanes
