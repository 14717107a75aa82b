"""Switches: gather each window's cells, remember with ``argmax`` which cell won, and put the gradient back there.

What the literature calls switches (Zeiler and Fergus, 2014): the forward pass copies every window's cells to a
contiguous axis, so that one ``argmax`` finds the winners and ``take_along_axis`` their values. Backward,
``put_along_axis`` writes each gradient into an array of windows, empty elsewhere, and the windows are laid back onto the
input: written where they lie side by side, added tap by tap where they overlap.

Cost: a gathered copy (kernel-size times the output, 4x the reads of the pooling itself for an overlapping 3x3/2), eight
bytes of index per output while it works, one to keep. It frees `x`: only the switches are needed later.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling.backends._gather import needs_slides, pad, windows
from pooling.backends._sums import with_wide_sums
from pooling.backends.base import Backend, Pass
from pooling.geometry.argmax_rules import NO_TAP, kept_taps, lowest, tap_dtype
from pooling.geometry.problem import Array, Kept, Problem


def max_forward(x: Array, problem: Problem, y: Array, training: bool) -> Kept:
    n, window = problem.window.ndim, problem.window
    wide = windows(pad(x, problem, lowest(x.dtype)), problem)
    cells = np.moveaxis(wide, -1, n + 1).reshape(*y.shape, window.n_taps)
    taps = argmax(cells, problem.ties)
    if window.padded:
        # Where the maximum is the lowest value itself, argmax may have found padding: only a real cell may win.
        real = np.moveaxis(windows(pad(np.ones((1, *x.shape[1:-1], 1), bool), problem, False), problem), -1, n + 1)
        real = real.reshape(1, *window.output_size, 1, window.n_taps)
        low = np.take_along_axis(cells, taps[..., None], -1)[..., 0] == lowest(x.dtype)
        taps = np.where(low, argmax((cells == lowest(x.dtype)) & real, problem.ties), taps)
    y[...] = np.take_along_axis(cells, taps[..., None], -1)[..., 0]
    if not training:
        return ()
    switches = taps.astype(tap_dtype(window.n_taps))
    if window.padded:
        switches[np.broadcast_to(~real.any(-1), y.shape)] = NO_TAP[switches.dtype]
    return (switches,)


def argmax(cells: Array, ties: str) -> Array:
    """Position of the maximum on the last axis, the first or the last one; a NaN counts as the largest, and the first."""
    first: Array = cells.argmax(-1)
    if ties == "first":
        return first
    last: Array = cells.shape[-1] - 1 - cells[..., ::-1].argmax(-1)
    won = np.take_along_axis(cells, first[..., None], -1)[..., 0]
    return np.where(np.isnan(won), first, last) if won.dtype.kind == "f" else last


@with_wide_sums
def max_backward(dy: Array, kept: Kept, problem: Problem, dx: Array) -> None:
    (switches,) = kept
    taps = switches[..., None].astype(np.intp)
    shares = np.zeros((*dy.shape, problem.window.n_taps), dy.dtype)
    no_tap = switches == NO_TAP[switches.dtype]
    if no_tap.any():
        taps[no_tap] = 0
        dy = np.where(no_tap, dy.dtype.type(0), dy)
    np.put_along_axis(shares, taps, dy[..., None], -1)
    dx.fill(0)
    # From the last tap to the first: a cell's shares are then added in the order of its windows.
    for tap, outputs, inputs in problem.window.slices(backwards=True):
        dx[inputs] += shares[..., tap][outputs]


def limits(problem: Problem, dtype: np.dtype[Any]) -> str | None:
    return needs_slides(problem)


BACKEND = Backend(
    name="argmax_switches",
    note="gather the windows, argmax, and put_along_axis from the switches",
    ops={"max": Pass(max_forward, max_backward, kept_taps)},
    ties=("first", "last"),
    limits=limits,
)
