"""From "which tap won" to "which cell won": the index convention of PyTorch and of max-unpooling."""

from __future__ import annotations

import numpy as np

from pooling.backend import Array, Problem
from pooling.taps import NOBODY, winning_taps


def flat_indices(x: Array, y: Array, taps: Array | None, problem: Problem) -> Array:
    """Index of each window's winner, flat within one spatial plane of the unpadded input; int64, -1 for nobody.

    Parameters
    ----------
    x, y
        Input and output of a max pooling, canonical.
    taps
        The winning taps, if the backend kept them; else they are found by comparing `x` with `y`.
    problem
        What was computed.
    """
    window = problem.window
    if taps is None:
        taps = winning_taps(x, y, problem)
    nobody = taps == NOBODY[taps.dtype]
    along_axes = np.unravel_index(np.where(nobody, 0, taps), window.kernel_size)
    index = np.zeros(y.shape, np.int64)
    for i, (axis, tap) in enumerate(zip(window.axes, along_axes, strict=True)):
        starts = axis.table[:, 0] - axis.table[:, 1] * axis.step
        index *= axis.size
        index += starts.reshape((-1,) + (1,) * (window.ndim - i)) + tap * axis.step
    index[nobody] = -1
    return index
