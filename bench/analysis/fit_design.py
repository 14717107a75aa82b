"""What the rule is fitted on beside the suite's own workloads: problems drawn by chance, each dtype, policy and layout with some.

The table has what networks do. A rule that knows that alone would guess at float16, at ties that are split, at calls too
small to matter to the table; so here is some of everything, from 1 KB to 16 MB, the same for everybody.
"""

from __future__ import annotations

import math
import random
from typing import Any

from pooling.tuning.layer import Layer
from pooling.tuning.model_files import layer_of

COUNT = 220
SEED = 20

SIZES = (10, 24)
"""Bytes of x, as powers of two."""

WINDOWS: tuple[tuple[dict[str, Any], float], ...] = (
    ({"kernel_size": 2}, 5),
    ({"kernel_size": 3, "stride": 2, "padding": 1}, 4),
    ({"kernel_size": 3, "stride": 1, "padding": 1}, 3),
    ({"kernel_size": 3}, 2),
    ({"kernel_size": 4}, 2),
    ({"kernel_size": 5, "stride": 1, "padding": 2}, 1),
    ({"kernel_size": 7}, 2),
)
"""Windows with how often to draw them; the last also over whole planes of 7 cells."""


def design(count: int = COUNT, seed: int = SEED) -> list[tuple[Layer, int]]:
    """Layers, and on how many of two threads to measure each; for training and for inference in turn."""
    rng = random.Random(seed)
    return [(_layer(rng, ("training", "inference")[i % 2]), rng.choice((1, 2, 2))) for i in range(count)]


def _layer(rng: random.Random, direction: str) -> Layer:
    window = dict(rng.choices([w for w, _ in WINDOWS], [n for _, n in WINDOWS])[0])
    dtype = rng.choices(("float32", "float64", "float16", "int8"), (5, 2, 3, 1 if direction == "inference" else 0))[0]
    op = "max" if dtype == "int8" else rng.choices(("max", "avg"), (3, 1))[0]
    n = rng.choices((1, 2, 3), (1, 5, 1))[0]
    least = window["kernel_size"]
    spatial = [7 if least == 7 and rng.random() < 0.5 else rng.choice((8, 11, 14, 20, 28, 56)) for _ in range(n)]
    nbytes = 2 ** rng.uniform(*SIZES)
    planes = max(1, round(nbytes / (math.prod(spatial) * {"float64": 8, "float32": 4, "float16": 2, "int8": 1}[dtype])))
    channels = max(1, min(planes, rng.choice((3, 16, 64, 256))))
    batch = max(1, planes // channels)
    data: dict[str, Any] = {"op": op, "dtype": dtype, "direction": direction, **window}
    if rng.random() < 0.4:
        data |= {"shape": [batch, *spatial, channels], "data_format": "channels_last"}
    else:
        data |= {"shape": [batch, channels, *spatial]}
    if op == "max":
        data["ties"] = rng.choices(("first", "last", "split", "all"), (4, 1, 3, 3))[0]
    return layer_of(data)
