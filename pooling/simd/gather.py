"""Backward kernels: each cell asks the windows over it for its share, so that dx is written once and needs no zeros.

What a cell takes from one window is the kernel `share`, bound at the end of the file: the gradient if the cell has won, or a
part of it for means. Sums are taken in the windows' order at any thread count.
"""

from __future__ import annotations

from typing import Any

from pooling.jit import kernel
from pooling.simd.vectors import load, load_like, select, splat, store, width

# The window's kernel_size and stride, bound as constants where a pass is made for one window, so that LLVM unrolls the
# taps; 0 stands for "any window".
K_D, K_H, K_W = 0, 0, 0
S_D, S_H, S_W = 0, 0, 0

share: Any


@kernel
def won_share(dy: Any, at: int, taps: Any, t: int, tap: int, d: int, h: int, w: int, zero: Any) -> Any:
    """A window's gradient for the cell under `tap`, if that cell has won."""
    gradient = load(dy, at)
    winner = load_like(taps, t, gradient)
    return select(winner == splat(tap, winner), gradient, splat(zero, gradient))


@kernel
def mean_share(dy: Any, at: int, factors: Any, t: int, tap: int, d: int, h: int, w: int, zero: Any) -> Any:
    """A window's gradient divided by its divisor; output (d, h, w) says which."""
    gradient = load(dy, at)
    return gradient * splat(factors[0][d] * factors[1][h] * factors[2][w], gradient)


@kernel
def gather_cell(
    dy: Any, y0: int, extra: Any, t0: int, dx: Any, p: int, inner: int, geo: Any, d: int, h: int, w: int, zero: Any
) -> None:
    """The gradient of any one cell: the windows over it by their tables."""
    size, out, kernel_size, starts, takers, groups, w_groups = geo
    lanes = width(load(dy, 0))
    for c0 in range(0, inner, lanes):
        c = min(c0, inner - lanes)
        total = splat(zero, load(dy, 0))
        for i in range(starts[0][d], starts[0][d + 1]):
            o_d, tap_d = takers[0][i, 0], takers[0][i, 1]
            for j in range(starts[1][h], starts[1][h + 1]):
                o_h, tap_h = takers[1][j, 0], takers[1][j, 1]
                row = (o_d * out[1] + o_h) * out[2]
                tap_row = (tap_d * kernel_size[1] + tap_h) * kernel_size[2]
                for k in range(starts[2][w], starts[2][w + 1]):
                    o_w = takers[2][k, 0]
                    q = (row + o_w) * inner + c
                    total = total + share(dy, y0 + q, extra, t0 + q, tap_row + takers[2][k, 1], o_d, o_h, o_w, zero)
        store(dx, p + c, total)


@kernel
def gather_groups(
    dy: Any, y0: int, extra: Any, t0: int, dx: Any, p: int, p_by: Any, inner: int, out: Any, first: Any, n: int, zero: Any
) -> None:
    """The gradients of `n` groups in a row: a group is a box of the stride's size at the start of a window.

    The windows over a group are the one that starts there and a few before it, each with taps for the group's cells that
    are known when compiling; every tap of the window occurs once.
    """
    lanes = width(load(dy, 0))
    d, h, w = first
    for g in range(n):
        for c0 in range(0, inner, lanes):
            c = min(c0, inner - lanes)
            for u in range(S_D):
                for v in range(S_H):
                    for s in range(S_W):
                        total = splat(zero, load(dy, 0))
                        for i in range((K_D - u + S_D - 1) // S_D - 1, -1, -1):
                            for j in range((K_H - v + S_H - 1) // S_H - 1, -1, -1):
                                for k in range((K_W - s + S_W - 1) // S_W - 1, -1, -1):
                                    q = (((d - i) * out[1] + h - j) * out[2] + w + g - k) * inner + c
                                    tap = ((u + i * S_D) * K_H + v + j * S_H) * K_W + s + k * S_W
                                    part = share(dy, y0 + q, extra, t0 + q, tap, d - i, h - j, w + g - k, zero)
                                    total = total + part
                        store(dx, p + (g * S_W + s) * inner + u * p_by[0] + v * p_by[1] + c, total)


@kernel
def gather(dy: Any, y0: int, extra: Any, t0: int, dx: Any, x0: int, inner: int, geo: Any, ranges: Any, zero: Any) -> None:
    """The gradient of the cells in `ranges`: rows of whole groups where there are any, cell by cell elsewhere."""
    size, out, kernel_size, starts, takers, groups, w_groups = geo
    d0, d1, h0, h1, w0, w1 = ranges
    p_by = (size[1] * size[2] * inner, size[2] * inner)
    d = d0
    while d < d1:
        d_first = groups[0][d] if S_D > 0 and d + S_D <= d1 else -1
        d_n = S_D if d_first >= 0 else 1
        h = h0
        while h < h1:
            h_first = groups[1][h] if d_first >= 0 and h + S_H <= h1 else -1
            h_n = S_H if h_first >= 0 else 1
            a, b = w1, w1
            if h_first >= 0 and w_groups[1] > 0:
                a = min(max(w_groups[0], w0), w1)
                b = a + max(min(w_groups[0] + w_groups[1] * S_W, w1) - a, 0) // S_W * S_W
            for u in range(d_n):
                for v in range(h_n):
                    row = x0 + ((d + u) * size[1] + h + v) * size[2] * inner
                    for w in range(w0, a):
                        gather_cell(dy, y0, extra, t0, dx, row + w * inner, inner, geo, d + u, h + v, w, zero)
                    for w in range(b, w1):
                        gather_cell(dy, y0, extra, t0, dx, row + w * inner, inner, geo, d + u, h + v, w, zero)
            if a < b:
                p = x0 + ((d * size[1] + h) * size[2] + a) * inner
                first = (d_first, h_first, groups[2][a])
                gather_groups(dy, y0, extra, t0, dx, p, p_by, inner, out, first, (b - a) // S_W, zero)
            h += h_n
        d += d_n
