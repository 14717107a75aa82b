"""Convolution: by patches and a matrix product, in NumPy; and by kernels that need no patches.

Each output pixel is the product of the patch under the kernel with the weights, of shape (height * width * channels, filters).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training.layers import Weighted

Array = NDArray[Any]

PATCH_BYTES = 1 << 17
"""How large the patches' gradients of a few images may be: a part of the second cache."""

SPARSE = 0.3
"""Part of a gradient that may differ from 0 for zeros to be left out; at a half, multiplying them is faster."""


class Convolution(Weighted):
    """The patches of the whole batch, and one product: what NumPy can do.

    Parameters
    ----------
    size
        Height and width of the kernel.
    """

    def __init__(self, name: str, size: int, w: Array, b: Array, first: bool, reuse: bool = True) -> None:
        super().__init__(name, w, b, first, reuse)
        self.size = size

    def forward(self, x: Array, training: bool) -> Array:
        n, height, width, channels = x.shape
        k = self.size
        rows, columns = height - k + 1, width - k + 1
        patches = self._buffers.get(f"patches {training}", (n, rows, columns, k, k, channels), x.dtype)
        views = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
        np.copyto(patches, views.transpose(0, 1, 2, 4, 5, 3))
        self._patches, self._shape = patches.reshape(n * rows * columns, -1), x.shape
        y = self._buffers.get(f"y {training}", (n, rows, columns, len(self.b)), x.dtype)
        np.matmul(self._patches, self.w, out=y.reshape(len(self._patches), -1))
        y += self.b
        return y

    def backward(self, dy: Array) -> Array | None:
        flat = dy.reshape(len(self._patches), -1)
        np.matmul(self._patches.T, flat, out=self.dw)
        np.sum(flat, axis=0, out=self.db)
        if self.first:
            return None
        n, rows, columns, _ = dy.shape
        k = self.size
        # What each patch passes back may overwrite the patches: they have been used.
        back = np.matmul(flat, self.w.T, out=self._patches).reshape(n, rows, columns, k, k, -1)
        dx = self._buffers.get("dx", self._shape, dy.dtype)
        dx.fill(0)
        for i in range(k):
            for j in range(k):
                dx[:, i : i + rows, j : j + columns] += back[:, :, :, i, j]
        return dx


class DirectConvolution(Convolution):
    """No patches: kernels that read the image where a patch would lie, and keep tiles of sums in registers.

    With `sparse`, the gradients are sums over those elements of dy that aren't 0, where these are few: max pooling sends a
    gradient to one cell of its window, and ReLU stops half of them, so that 7 of 8 products would be with a 0.
    """

    def __init__(self, name: str, size: int, w: Array, b: Array, first: bool, sparse: bool = True) -> None:
        super().__init__(name, size, w, b, first)
        self.sparse = sparse

    def forward(self, x: Array, training: bool) -> Array:
        k = self.size
        n, height, width, channels = self._shape = x.shape
        self._g = height, width, channels, k
        self._x = np.ascontiguousarray(x).reshape(-1)
        y = self._buffers.get(f"y {training}", (n, height - k + 1, width - k + 1, len(self.b)), x.dtype)
        kernel, parts = forward_kernel(width - k + 1, len(self.b), x.dtype)
        kernel(self._x, n, self._g, len(self.b), parts, self.w.reshape(-1), self.b, y.reshape(-1))
        return y

    def backward(self, dy: Array) -> Array | None:
        if self.sparse and self._few(dy):
            return self._backward_sparse(dy)
        kernel, parts = backward_kernel(self.size * self._shape[3], len(self.b), dy.dtype)
        flat = dy.reshape(-1)
        one = np.ones(1, dy.dtype)
        kernel(self._x, len(dy), self._g, len(self.b), parts, flat, self.dw.reshape(-1), self.db, one)
        return None if self.first else self._backward_to_x(dy)

    def _backward_to_x(self, dy: Array) -> Array:
        """A matrix product gives each patch's gradient, a few images at a time, which are added where it came from."""
        from bench.training.kernels import scatter

        pixels = dy.shape[1] * dy.shape[2]
        flat, dx = dy.reshape(len(dy) * pixels, -1), self._buffers.get("dx", self._shape, dy.dtype)
        count = max(1, PATCH_BYTES // (pixels * len(self.w) * dy.itemsize))
        back = self._buffers.get("back", (count * pixels, len(self.w)), dy.dtype)
        for first in range(0, len(dy), count):
            own = flat[first * pixels : (first + count) * pixels]
            np.matmul(own, self.w.T, out=back[: len(own)])
            scatter(back.reshape(-1), first, len(own) // pixels, self._g, dx.reshape(-1))
        return dx

    def _few(self, dy: Array) -> bool:
        """Whether most of `dy` is 0, and a row of the kernel is long enough to fill vectors."""
        from bench.training.kernels import count_nonzero
        from pooling.simd.vector.ops import lanes

        if self.size * self._shape[3] < lanes(dy.dtype):
            return False
        counted = self._buffers.get("counted", (1,), np.int64)
        count_nonzero(dy.reshape(-1), counted)
        return bool(counted[0] < SPARSE * dy.size)

    def _backward_sparse(self, dy: Array) -> Array | None:
        from bench.training.kernels import GROUP, sparse_backward

        k, channels, filters = self.size, self._shape[3], len(self.b)
        in_image, in_weights, run = vectors_of(*self._shape[1:], k, dy.dtype)
        pitch = int(in_weights[-1]) + int(in_weights[1])
        by_filter = self._buffers.get("w by filter", (filters, pitch), dy.dtype)
        gradient = self._buffers.get("dw by filter", (filters, pitch), dy.dtype)
        by_filter.fill(0)
        gradient.fill(0)
        shape, row = (filters, k, run), k * channels
        by_filter[:, : k * run].reshape(shape)[..., :row] = self.w.T.reshape(filters, k, row)
        self.db.fill(0)
        most = max(dy.shape[1] * dy.shape[2], filters) + 1
        dx = None if self.first else self._buffers.get("dx", self._shape, dy.dtype)
        sparse_backward(
            dy.reshape(-1),
            self._x,
            len(dy),
            self._g,
            filters,
            pitch,
            by_filter.reshape(-1),
            gradient.reshape(-1),
            self.db,
            None if dx is None else dx.reshape(-1),
            in_image,
            in_weights,
            self._buffers.get("image", (2 * math.prod(self._shape[1:]) + 4 * GROUP * run,), dy.dtype),
            self._buffers.get("places", (most,), np.int64),
            self._buffers.get("factors", (most,), dy.dtype),
        )
        self.dw[...] = gradient[:, : k * run].reshape(shape)[..., :row].reshape(filters, -1).T
        return dx


@lru_cache(maxsize=64)
def forward_kernel(columns: int, filters: int, dtype: Any) -> tuple[Any, int]:
    """The kernel for rows of so many pixels, and the parts the filters are cut into."""
    from bench.training.kernels import convolve
    from bench.training.tiles import parts_for, rows_for

    parts, vectors = parts_for(filters, dtype)
    rows, _ = rows_for(columns, vectors, 14)
    return convolve.bind(ROWS=rows, VECTORS=vectors).compiled(), parts


@lru_cache(maxsize=64)
def backward_kernel(run: int, filters: int, dtype: Any) -> tuple[Any, int]:
    """The same for the weights' gradient, for rows of the kernel with so many elements."""
    from bench.training.kernels import convolve_backward
    from bench.training.tiles import parts_for, rows_for

    parts, vectors = parts_for(filters, dtype)
    rows, rest = rows_for(run, vectors, 16)
    return convolve_backward.bind(ROWS=rows, VECTORS=vectors, REST=rest).compiled(), parts


@lru_cache(maxsize=64)
def vectors_of(height: int, width: int, channels: int, k: int, dtype: Any) -> tuple[Array, Array, int]:
    """Where the vectors of a patch lie in an image, and in a row of weights; and the length of a row of the kernel there.

    In weights each row of the kernel is filled up with zeros to whole vectors; in an image they go past it, times these zeros.
    Vectors to fill up the last group are zeros of the weights, and lie behind the image.
    """
    from bench.training.kernels import GROUP
    from pooling.simd.vector.ops import lanes

    step = lanes(dtype)
    each = -(-k * channels // step)
    more = -k * each % GROUP
    behind = height * width * channels + step
    in_image = [i * width * channels + v * step for i in range(k) for v in range(each)] + [behind] * more
    in_weights = np.arange(k * each + more) * step
    return np.array(in_image), in_weights, each * step
