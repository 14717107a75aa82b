"""PyTorch beside the other operators: Lp, adaptive and unpooling, by value, index and gradient, and what is an error."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import pooling
from tests.cases import Array
from tests.conformance.test_pytorch import REFUSED, F, counting, image, torch

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch warns about its own affairs

SIZES = tuple(itertools.product(range(1, 8), range(1, 8)))


def graded(x: Array, pool: Any) -> tuple[Array, Array]:
    """The result of a PyTorch function, and its gradient for dy = 1, 2, 3 ..."""
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    y = pool(leaf)
    (dx,) = torch.autograd.grad(y, leaf, torch.from_numpy(counting(y.detach().numpy())))
    return y.detach().numpy(), dx.numpy()


@pytest.mark.parametrize("backend", ["strided_slices", "numba_loops"])
def test_adaptive_pooling_of_every_size(backend: str) -> None:
    for size, out in SIZES:
        x = image(2, 3, size, data="ties")
        expected, dx = graded(x, lambda t, out=out: F.adaptive_max_pool1d(t, out))
        pool = pooling.AdaptiveMaxPool((out,), backend=backend)
        y, saved = pool.forward(x)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(pool.backward(counting(y), saved), dx)
        _, indices = F.adaptive_max_pool1d(torch.from_numpy(x), out, return_indices=True)
        np.testing.assert_array_equal(pool.forward_with_indices(x)[1], indices.numpy())
        expected, dx = graded(x, lambda t, out=out: F.adaptive_avg_pool1d(t, out))
        mean = pooling.AdaptiveAvgPool((out,), backend=backend)
        y, saved = mean.forward(x)
        np.testing.assert_allclose(y, expected, 1e-6, 1e-6)
        np.testing.assert_allclose(mean.backward(counting(y), saved), dx, 1e-5, 1e-5)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_positive_values(p: int) -> None:
    """PyTorch's rounds negative powers its own way (`signed`, `scale_partial`); where all is positive there is one answer."""
    for size, kernel, stride in itertools.product(range(1, 8), range(1, 4), (None, 1, 2)):
        x = np.abs(image(2, 3, size, data="normal")) + np.float32(0.5)
        if kernel > size:
            with pytest.raises(pooling.PoolingError):
                pooling.lp_pool(x, kernel, p, stride)
            with pytest.raises(REFUSED):
                F.lp_pool1d(torch.from_numpy(x), p, kernel, stride)
            continue
        expected, dx = graded(x, lambda t, k=kernel, s=stride: F.lp_pool1d(t, p, k, s))
        pool = pooling.LpPool(kernel, p, stride, backend="strided_slices")
        y, saved = pool.forward(x)
        np.testing.assert_allclose(y, expected, 1e-5)
        np.testing.assert_allclose(pool.backward(counting(y), saved), dx, 1e-4, 1e-5)


def test_unpooling_of_every_window() -> None:
    for size, kernel, stride in itertools.product(range(2, 9), range(1, 4), (1, 2, 3)):
        if not stride <= kernel <= size:
            continue
        x = image(2, 3, size, data="normal")
        y, indices = F.max_pool1d(torch.from_numpy(x), kernel, stride, return_indices=True)
        expected = F.max_unpool1d(y, indices, kernel, stride, output_size=(size,)).numpy()
        got = pooling.max_unpool(y.numpy(), indices.numpy(), (kernel,), stride, output_size=(size,))
        np.testing.assert_array_equal(got, expected)
