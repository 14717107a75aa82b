"""Which results are written past the caches.

A cache line that is written in the ordinary way is read first, and what is larger than the caches nobody finds there later.
Kernels that write whole lines write past the caches where they are bound to PAST: it spares memory a third of what it moves.
Gradients of 13 to 51 MB in channels_last took half the time so, and 0.7 to 0.85 of it together with the next pass, which reads
them; of 51 MB in rows as they lie 0.65 and 0.85, and results of 42 MB there 0.9 and 0.95; means of 3x3 at stride 1 over 19 MB
in channels_last 0.7 and 0.9. Such writes may come late, but the locked instruction by which a thread says that it is done waits
for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.axis import Axis
from pooling.backend import Problem
from pooling.memory import ALIGNMENT

LARGE, LARGE_ROWS = 1 << 23, 1 << 25
"""Bytes of a result in channels_last, and in channels_first, from which it is written past the caches.

Together with the next pass, 2 MB in channels_last took 1.3 times as long; 13 MB in channels_first 1.2 times, 26 MB as long.
"""


def past(problem: Problem, result: np.ndarray[Any, Any], back: bool) -> int:
    """How many bytes of a result to write past the caches at a time; 0: it is written in the ordinary way.

    Parameters
    ----------
    result
        Of shape (outer, *spatial, inner).
    back
        Whether it is a gradient.
    """
    if result.nbytes < LARGE:  # as most often
        return 0
    row, inner = result.shape[-2:]
    if result.nbytes < (LARGE if inner > 1 else LARGE_ROWS) or result.ctypes.data % ALIGNMENT:
        return 0
    if inner > 1:
        return ALIGNMENT if inner * result.itemsize % ALIGNMENT == 0 else 0
    axis = problem.window.axes[-1]
    if not isinstance(axis, Axis) or (back and row % axis.stride):
        return 0
    # Of gradients' lines that end in the next row halves are written: in quarters 56x56 planes gained nothing.
    parts = (ALIGNMENT, ALIGNMENT // 2) if back else (ALIGNMENT,)
    return next((some for some in parts if row * result.itemsize % some == 0), 0)
