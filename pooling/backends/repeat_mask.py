"""The mask trick in NumPy alone: reshape to reduce, broadcast to compare.

Seen as (outer, out, k, out, k, inner), an array has its windows on axes of their own: a maximum over these axes is the
forward pass. Backward, the output with axes of length 1 in their place broadcasts against that view, which does what two
``repeat`` calls do and copies nothing. The mask ``tiles == y`` says which cells are tied for the maximum; give each of them the
whole (ties="all"), or count them and give each its share (ties="split").

Cost: the forward reduction is as slow as block_reduce's (the same loops run below it). Backward has one mask, a byte per
cell, and no upscaled copies.
"""

from __future__ import annotations

import numpy as np

from pooling.backends._sums import finite_mean
from pooling.backends._tiles import needs_tiles, tiles, winners, zero_uncovered
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import bits, settle_zeros, sum_dtype, wide
from pooling.geometry.problem import Array, Kept, Problem


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    boxes, inside = tiles(x, problem)
    boxes.max(axis=inside, out=y)
    settle_zeros(x, y, problem)
    return (x, y)


def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    x, y = kept
    inside = tiles(x, problem)[1]
    mask = winners(x, y, problem)
    if problem.ties == "split":
        dy = dy / mask.sum(axis=inside, dtype=wide(dy.dtype)).astype(dy.dtype, copy=False)
    # Bits, not floats: a product with a mask must not turn inf into NaN.
    np.multiply(mask, bits(np.expand_dims(dy + dy.dtype.type(0), inside)), out=tiles(bits(dx), problem)[0])
    zero_uncovered(dx, problem)


@finite_mean
def avg_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    boxes, inside = tiles(x, problem)
    dtype = sum_dtype(x.dtype, problem.window.n_taps)
    y[...] = boxes.sum(axis=inside, dtype=dtype) / problem.divisors(dtype)
    return ()


def avg_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    boxes, inside = tiles(dx, problem)
    boxes[...] = np.expand_dims(dy / problem.divisors(wide(dy.dtype)), inside)
    zero_uncovered(dx, problem)


BACKEND = Backend(
    name="repeat_mask",
    note="reshape and reduce forward, broadcast and compare backward",
    ops={"max": Pass(max_forward, max_backward), "avg": Pass(avg_forward, avg_backward)},
    ties=("split", "all"),
    limits=needs_tiles,
    keeps_x=("split", "all"),
)
