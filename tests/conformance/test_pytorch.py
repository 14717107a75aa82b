"""PyTorch decides where the contract is silent: shapes, values, indices, gradients, and what is an error, over grids.

Where we go another way on purpose, a test says so and holds both sides to it, so that a change on either shows.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pooling
from tests.cases import FLOATS, Array, same_bits, some_floats

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed; make peers installs it")
F: Any = torch.nn.functional
torch.set_num_threads(1)  # its threads would cost these small arrays more than they save

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch warns about its own affairs

Window = tuple[Any, Any, Any, Any, bool]
TOLERANCE = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}

ONE_D: tuple[tuple[int, Window], ...] = tuple(
    (size, (k, stride, pad, dilation, ceil))
    for size, k, stride, dilation, ceil in itertools.product(
        range(9), range(1, 5), (None, 1, 2, 3, 5), (1, 2, 3), (False, True)
    )
    for pad in range((k - 1) * dilation + 2)
)
"""Every combination, on inputs of 0 to 8 cells: also paddings and windows that are too large."""

REFUSED = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError)


def image(*shape: int, dtype: str = "float32", data: str = "ties") -> Array:
    return some_floats(np.random.default_rng(0), shape, data).astype(dtype)


def theirs(
    op: str, x: Array, n: int, window: Window, **options: Any
) -> tuple[Array, Array | None, Array | None] | None:
    """y, indices (of max) and the gradient for dy = 1, 2, 3 ... as PyTorch computes them; None where it refuses.

    No gradient of maxima where a window holds padding alone: PyTorch's writes outside of dx there, and aborts sooner or later.
    """
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    try:
        if op == "max":
            y, indices = getattr(F, f"max_pool{n}d")(leaf, *window, return_indices=True)
        else:
            kernel, stride, padding, _, ceil = window
            y, indices = getattr(F, f"avg_pool{n}d")(leaf, kernel, stride, padding, ceil, **options), None
    except REFUSED:
        return None
    values, numbers = y.detach().numpy(), None if indices is None else indices.numpy()
    if op == "max" and no_cell(x, window).any():
        return values, numbers, None
    (dx,) = torch.autograd.grad(y, leaf, torch.from_numpy(counting(values)))
    return values, numbers, dx.numpy()


def ours(
    op: str, x: Array, window: Window, name: str = "numba_loops", **options: Any
) -> tuple[Array, Array | None, Array] | None:
    try:
        if op == "max":
            pool = pooling.MaxPool(*window, backend=name, **options)
            y, indices = pool.forward_with_indices(x)
            return y, indices, pool.backward(counting(y), pool.forward(x)[1])
        mean = pooling.AvgPool(*window, backend=name, **options)
        y, saved = mean.forward(x)
        return y, None, mean.backward(counting(y), saved)
    except pooling.PoolingError:
        return None


def counting(y: Array) -> Array:
    """A gradient whose sums are exact, so that they can be compared to the bit."""
    return (np.arange(y.size, dtype=y.dtype) % 7 + 1).reshape(y.shape)


def padded_too_much(window: Window) -> bool:
    """PyTorch allows half of the kernel, whatever the dilation."""
    kernel, padding = np.broadcast_arrays(window[0], window[2])
    return bool((padding > kernel // 2).any())


def no_cell(x: Array, window: Window) -> Array:
    """Which windows hold padding alone."""
    y = pooling.max_pool(np.zeros(x.shape, x.dtype), *window, backend="strided_slices")
    return np.asarray(y == -np.inf)


def check(op: str, x: Array, n: int, window: Window, backend: str = "numba_loops", **options: Any) -> bool:
    """Hold ours to theirs; whether there was an answer."""
    expected, got = theirs(op, x, n, window, **options), ours(op, x, window, backend, **options)
    assert (expected is None) == (got is None), f"{window} on {x.shape}: one refuses it"
    if expected is None or got is None:
        return False
    (y, indices, dx), (y_, indices_, dx_) = expected, got
    assert y_.shape == y.shape, f"{window} on {x.shape}"
    if op == "max":
        assert same_bits(y_, y), f"{window} on {x.shape}"
        # On purpose: where there is no cell PyTorch names one outside of x. We say -1, and pay nobody.
        assert indices is not None
        known = np.where(no_cell(x, window), -1, indices) if dx is None else indices
        np.testing.assert_array_equal(indices_, known, err_msg=f"{window} on {x.shape}")
        assert dx is None or same_bits(dx_, dx), f"{window} on {x.shape}"
    else:
        assert dx is not None
        tolerance = TOLERANCE[str(x.dtype)]
        np.testing.assert_allclose(y_, y, tolerance, tolerance, err_msg=f"{window} on {x.shape}")
        np.testing.assert_allclose(dx_, dx, tolerance, 8 * tolerance, err_msg=f"{window} on {x.shape}")
    return True


@pytest.mark.parametrize("backend", ["numba_loops", "strided_slices"])
def test_maxima_of_every_window_in_one_dimension(backend: str) -> None:
    inputs = {size: image(2, 2, size) for size in range(9)}
    answered = [check("max", inputs[size], 1, w, backend) for size, w in ONE_D if not padded_too_much(w)]
    assert 500 < sum(answered) < len(answered)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("backend", ["numba_loops", "strided_slices"])
def test_means_of_every_window_in_one_dimension(backend: str, include: bool) -> None:
    """Divisors with padding and ceil_mode: onnx#5276, onnxruntime#16203."""
    inputs = {size: image(2, 2, size, data="normal") for size in range(9)}
    answered = [
        check("avg", inputs[size], 1, window, backend, count_include_pad=include)
        for size, window in ONE_D
        if window[3] == 1 and not padded_too_much(window)
    ]
    assert 200 < sum(answered) < len(answered)


def test_more_padding_than_half_the_window_is_allowed_here() -> None:
    """On purpose: up to kernel - 1, in effective size, as ONNX allows. The values are those of an input padded beforehand."""
    seen = 0
    for size, window in ONE_D:
        kernel, stride, pad, dilation, ceil = window
        if not padded_too_much(window) or size == 0:
            continue
        x = image(2, 2, size)
        assert theirs("max", x, 1, window) is None
        got = ours("max", x, window)
        if pad > (kernel - 1) * dilation:
            assert got is None
        elif got is not None and not ceil:
            before = F.pad(torch.from_numpy(x), (pad, pad), value=-np.inf)
            y, indices = F.max_pool1d(before, kernel, stride, 0, dilation, return_indices=True)
            assert same_bits(got[0], y.numpy()), window
            empty = no_cell(x, window)
            np.testing.assert_array_equal(got[1], np.where(empty, -1, indices.numpy() - pad))
            seen += 1
    assert seen > 200


def drawn(n: int, how_many: int) -> Iterator[tuple[Array, Window]]:
    """Inputs and windows of `n` dimensions, each argument drawn apart; windows that fit nothing among them."""
    choose = random.Random(n)
    for i in range(how_many):
        size = [choose.randint(1, 8 if n == 2 else 5) for _ in range(n)]
        kernel = tuple(choose.randint(1, 4) for _ in size)
        stride = choose.choice([None, tuple(choose.randint(1, 4) for _ in size)])
        padding = tuple(choose.randint(0, k // 2) for k in kernel)
        dilation = tuple(choose.choice([1, 1, 2, 3]) for _ in size)
        data = ("ties", "normal", "zeros", "low", "equal")[i % 5]
        yield (
            image(2, 3, *size, dtype=FLOATS[i % 3], data=data),
            (kernel, stride, padding, dilation, choose.random() < 0.5),
        )


@pytest.mark.parametrize("n", [2, 3])
def test_maxima_of_drawn_windows(n: int) -> None:
    answered = [check("max", x, n, window, "strided_slices") for x, window in drawn(n, 300)]
    assert 100 < sum(answered) < 300


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("options", [{}, {"count_include_pad": False}, {"divisor_override": 5}], ids=str)
def test_means_of_drawn_windows(n: int, options: dict[str, Any]) -> None:
    answered = []
    for x, (kernel, stride, padding, _, ceil) in drawn(n, 100):
        tame = np.where(np.isfinite(x), x, x.dtype.type(0.5))
        window: Window = (kernel, stride, padding, 1, ceil)
        larger = any(k > size for k, size in zip(kernel, x.shape[2:], strict=True))
        if n == 3 and (larger or x.dtype == np.float16):
            # On purpose: its 3-D mean alone refuses a kernel larger than x, though padding makes room for it, and float16.
            assert theirs("avg", tame, n, window, **options) is None
        else:
            answered.append(check("avg", tame, n, window, "strided_slices", **options))
    assert sum(answered) > 10


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_maxima_of_integers(dtype: str) -> None:
    """In channels_last negative ones gave 0 once: pytorch#109586."""
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, (2, 3, 5, 6), dtype, endpoint=True)
    for window in ((2,), (3, 2, 1), (3, 1, 1, 1, True)):
        y, indices = F.max_pool2d(torch.from_numpy(x), *window, return_indices=True)
        got, got_indices = pooling.max_pool(x, *window, return_indices=True, backend="numba_loops")
        np.testing.assert_array_equal(got, y.numpy())
        np.testing.assert_array_equal(got_indices, indices.numpy())
        last = pooling.max_pool(
            np.ascontiguousarray(np.moveaxis(x, 1, -1)), *window, data_format="channels_last", backend="numba_loops"
        )
        np.testing.assert_array_equal(np.moveaxis(last, -1, 1), y.numpy())


@pytest.mark.parametrize("window", [(2,), (3, 2, 1)], ids=str)
def test_the_backend_that_is_picked(window: tuple[Any, ...]) -> None:
    x = image(4, 19, 13, 14)
    whole: Window = (window[0], window[1] if len(window) > 1 else None, window[2] if len(window) > 1 else 0, 1, False)
    assert check("max", x, 2, whole, "auto")
    assert check("avg", x, 2, whole, "auto")


def test_a_nan_wins_in_both_and_the_gradient_goes_to_the_first_here() -> None:
    """On purpose: the contract's "first NaN". PyTorch takes the last one; the value is the same."""
    x = np.array([[[1, np.nan, 3, np.nan, 2]]], np.float32)
    y, indices = F.max_pool1d(torch.from_numpy(x), 5, return_indices=True)
    got, got_indices = pooling.max_pool(x, 5, return_indices=True)
    assert np.isnan(y.item())
    assert np.isnan(got.item())
    assert (indices.item(), got_indices.item()) == (3, 1)
    single = np.where(np.arange(5) == 3, 3, x)
    assert check("max", single.astype(np.float32), 1, (5, None, 0, 1, False))


# Arguments that one or the other refuses, on an input (2, 3, 6, 7).
BOTH_REFUSE: tuple[dict[str, Any], ...] = (
    {"kernel_size": 0},
    {"kernel_size": -1},
    {"kernel_size": 2.0},
    {"kernel_size": True},
    {"kernel_size": None},
    {"kernel_size": "2"},
    {"kernel_size": 7},
    {"kernel_size": (2, 8)},
    {"kernel_size": 2, "stride": 0},
    {"kernel_size": 2, "stride": -1},
    {"kernel_size": 2, "stride": (2, 0)},
    {"kernel_size": (2, 2), "stride": (1, 1, 1)},
    {"kernel_size": 2, "stride": 1.5},
    {"kernel_size": 2, "padding": -1},
    {"kernel_size": 2, "padding": 2},
    {"kernel_size": 3, "padding": (1, 3)},
    {"kernel_size": 2, "padding": 0.5},
    {"kernel_size": 2, "padding": None},
    {"kernel_size": (2, 2), "padding": (1, 1, 1)},
    {"kernel_size": 2, "dilation": 0},
    {"kernel_size": 2, "dilation": -1},
    {"kernel_size": 2, "dilation": 10},
    {"kernel_size": 2, "ceil_mode": 1},
    {"kernel_size": 2, "ceil_mode": None},
)
BOTH_ALLOW: tuple[dict[str, Any], ...] = (
    {"kernel_size": (6, 7)},
    {"kernel_size": [2, 3]},
    {"kernel_size": np.int64(2)},
    {"kernel_size": 2, "stride": 100},
    {"kernel_size": (6, 8), "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "padding": 1, "dilation": 5, "ceil_mode": True},
    {"kernel_size": (1, 3), "stride": (3, 1), "padding": (0, 1)},
)
ON_PURPOSE: tuple[tuple[dict[str, Any], bool, str], ...] = (
    ({"kernel_size": 3, "padding": 2}, True, "ONNX allows padding up to kernel - 1"),
    ({"kernel_size": 2, "padding": 3, "dilation": 3}, True, "the same, in effective size"),
    ({"kernel_size": (2, 2, 2)}, True, "a tuple says how many dimensions are pooled: here three, channels among them"),
    ({"kernel_size": (2, 2), "stride": (1,)}, False, "one entry is not one per dimension; PyTorch repeats it"),
    ({"kernel_size": (2, 2), "padding": (1,)}, False, "the same"),
    ({"kernel_size": (2, 2), "dilation": (1,)}, False, "the same"),
    ({"kernel_size": np.array([2, 2])}, True, "arrays are sequences too"),
    ({"kernel_size": 2, "stride": 1 << 33}, True, "sizes end at 2^40; PyTorch's at 2^31"),
)
"""Arguments, whether we allow what PyTorch does not or the other way round, and why."""


def allowed_there(arguments: dict[str, Any]) -> bool:
    try:
        F.max_pool2d(torch.from_numpy(image(2, 3, 6, 7)), **arguments)
    except REFUSED:
        return False
    return True


def allowed_here(arguments: dict[str, Any]) -> bool:
    try:
        pooling.max_pool(image(2, 3, 6, 7), **arguments, backend="numba_loops")
    except pooling.PoolingError:
        return False
    return True


@pytest.mark.parametrize("arguments", BOTH_REFUSE, ids=str)
def test_what_both_refuse(arguments: dict[str, Any]) -> None:
    assert not allowed_there(arguments)
    assert not allowed_here(arguments)


@pytest.mark.parametrize("arguments", BOTH_ALLOW, ids=str)
def test_what_both_allow(arguments: dict[str, Any]) -> None:
    assert allowed_there(arguments)
    assert allowed_here(arguments)


@pytest.mark.parametrize(("arguments", "here", "why"), ON_PURPOSE, ids=str)
def test_what_only_one_allows_on_purpose(arguments: dict[str, Any], here: bool, why: str) -> None:
    assert (allowed_here(arguments), allowed_there(arguments)) == (here, not here), why
