"""From the first honest NumPy version to the last: what is done faster on each rung, everything below it included.

``python -m bench train --rung NAME`` trains on any of them, and every rung computes the same losses but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rung:
    """How a network is computed.

    Parameters
    ----------
    note
        What is new on this rung, for people.
    backend
        That pools, unless a training asks for another.
    reuse
        Arrays are kept from step to step.
    pool_first
        Max pooling comes before ReLU, with which it commutes; a mean stays behind it, for it doesn't.
    update
        The optimizer's step is one compiled pass over all weights.
    direct
        Convolutions are compiled, and make no patches.
    shards
        Each thread trains on its part of a batch, all layers through, instead of sharing each matrix product.
    sparse
        Convolutions leave out the zeros that max pooling and ReLU put into gradients.
    """

    note: str
    backend: str = "argmax_switches"
    reuse: bool = False
    pool_first: bool = False
    update: bool = False
    direct: bool = False
    shards: bool = False
    sparse: bool = False


def _ladder() -> dict[str, Rung]:
    rungs = {
        "numpy": Rung("NumPy alone: im2col and matrix products, ReLU, then pooling by argmax; new arrays each step")
    }
    for name, note, change in (
        ("slices", "pooling by strided slices, the fastest in NumPy", {"backend": "strided_slices"}),
        ("order", "max pooling before ReLU, which then has a quarter of the work", {"pool_first": True}),
        ("buffers", "arrays are kept from step to step", {"reuse": True}),
        ("simd", "pooling in explicit vectors", {"backend": "auto"}),
        ("update", "the optimizer's step in one compiled pass", {"update": True}),
        ("shards", "each thread takes a part of the batch through all layers", {"shards": True}),
        ("direct", "convolutions without patches: sums in registers, images read where they lie", {"direct": True}),
        ("sparse", "no multiplication by the zeros that max pooling and ReLU put into gradients", {"sparse": True}),
    ):
        below = list(rungs.values())[-1]
        rungs[name] = replace(below, note=note, **change)
    return rungs


LADDER = _ladder()
FASTEST = "sparse"
