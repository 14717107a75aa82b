"""gradcheck, by what it lets pass and what it refuses: right gradients of every kind, and wrong ones, each with its cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pooling
from pooling.gradcheck import Checked
from pooling.operators import DataFormat

Array = Any
# One backend for what is not about backends, and one that need not compile.
max_pool = partial(pooling.MaxPool, backend="strided_slices")
avg_pool = partial(pooling.AvgPool, backend="strided_slices")
RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((2, 2, 6, 6))
TIED = np.maximum(np.round(2 * X), 0)
ZEROS = np.zeros((2, 2, 6, 6))
CELL = re.compile(r"cell \((\d+), (\d+), (\d+), (\d+)\)")


class Spoiled:
    """Max or mean pooling whose dx is changed by `spoil` on its way out."""

    def __init__(self, spoil: Callable[[Array, Array], Array], pool: Any = None) -> None:
        self.spoil, self.pool = spoil, pool or max_pool(2)

    def forward(self, x: Array) -> tuple[Array, Any]:
        y, saved = self.pool.forward(x)
        return y, saved

    def backward(self, dy: Array, saved: Any) -> Array:
        return self.spoil(self.pool.backward(dy, saved), dy)


def message(operator: Any, x: Array = X, **options: Any) -> str:
    with pytest.raises(pooling.GradientError) as caught:
        pooling.gradcheck(operator, x, **options)
    return str(caught.value)


def cell_in(text: str) -> tuple[int, ...]:
    found = CELL.search(text)
    assert found, text
    return tuple(map(int, found.groups()))


def winner(plane: Array) -> tuple[int, int]:
    """The cell of a plane that takes the gradient of its first window."""
    row, column = np.unravel_index(plane[:2, :2].argmax(), (2, 2))
    return int(row), int(column)


def put(at: tuple[int, ...], change: Callable[[float], float]) -> Callable[[Array, Array], Array]:
    def spoil(dx: Array, dy: Array) -> Array:
        dx[at] = change(dx[at])
        return dx

    return spoil


def only_channel_1(dx: Array, dy: Array) -> Array:
    dx[:, 1] *= 1.01
    return dx


def without_last_row(dx: Array, dy: Array) -> Array:
    dx[:, :, -1] = 0
    return dx


WRONG: dict[str, Callable[[Array, Array], Array]] = {
    "scaled": lambda dx, dy: 4 * dx,
    "scaled a little": lambda dx, dy: 1.0001 * dx,
    "sign": lambda dx, dy: -dx,
    "shifted by a column": lambda dx, dy: np.roll(dx, 1, axis=3),
    "shifted by a row": lambda dx, dy: np.roll(dx, 1, axis=2),
    "height and width swapped": lambda dx, dy: dx.swapaxes(2, 3).copy(),
    "images swapped": lambda dx, dy: dx[::-1].copy(),
    "channels swapped": lambda dx, dy: dx[:, ::-1].copy(),
    "flipped": lambda dx, dy: dx[:, :, ::-1].copy(),
    "no last row": without_last_row,
    "one channel": only_channel_1,
    "all zero": lambda dx, dy: 0 * dx,
    "mean over the batch": lambda dx, dy: dx / len(dx),
    "noise": lambda dx, dy: dx + 1e-3 * np.random.default_rng(0).standard_normal(dx.shape),
    "fixed noise where paid": lambda dx, dy: dx * (1 + 1e-3 * np.random.default_rng(0).standard_normal(dx.shape)),
    "a constant more": lambda dx, dy: dx + 1e-3,
    "absolute value": lambda dx, dy: np.abs(dx),
    "clipped": lambda dx, dy: np.clip(dx, -1, 1),
    "dy squared": lambda dx, dy: dx * dx,
    "spread over all cells": lambda dx, dy: np.full_like(dx, dx.sum() / dx.size),
    "float32 inside": lambda dx, dy: dx.astype(np.float32).astype(np.float64) + 1e-4 * (dx != 0),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("op", ["max", "avg"])
def test_wrong_gradients_are_refused(wrong: str, op: str) -> None:
    pool = max_pool(2) if op == "max" else avg_pool(2)
    said = message(Spoiled(WRONG[wrong], pool))
    assert "expected" in said
    cell_in(said)


@pytest.mark.parametrize("wrong", sorted(set(WRONG) - {"clipped"}))
def test_wrong_gradients_are_refused_where_windows_tie(wrong: str) -> None:
    assert "expected" in message(Spoiled(WRONG[wrong], max_pool(3, 2, 1)), TIED)


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("change", [lambda g: 0.0, lambda g: g + 1e-4, lambda g: -g], ids=["zero", "off", "sign"])
def test_it_names_the_cell(image: int, channel: int, change: Callable[[float], float]) -> None:
    at = (image, channel, *winner(X[image, channel]))
    assert cell_in(message(Spoiled(put(at, change)))) == at


def test_it_names_the_worst_cell_what_it_got_and_what_was_expected() -> None:
    first, second = ((image, 0, *winner(X[image, 0])) for image in (0, 1))

    def spoil(dx: Array, dy: Array) -> Array:
        dx[first] *= 1.5
        dx[second] *= 7
        return dx

    said = message(Spoiled(spoil))
    assert cell_in(said) == second
    found = re.fullmatch(r"the gradient at cell .* is ([\d.]+), expected ([\d.]+)", said)
    assert found, said
    assert float(found[1]) == pytest.approx(7 * float(found[2]), rel=1e-4)


def test_one_wrong_cell_among_many_is_found_and_named() -> None:
    x = np.maximum(np.random.default_rng(1).standard_normal((2, 3, 40, 40)), 0)
    plane = x[1, 2]
    plane[30:32, 20:22] = [[0.5, 0.25], [3.0, 0.125]]
    spoil = put((1, 2, 31, 20), lambda g: 0.5 * g)
    found = pooling.gradcheck(Spoiled(lambda dx, dy: dx), x)
    assert found.cells < found.all_cells
    said = message(Spoiled(spoil), x)
    assert cell_in(said) == (1, 2, 31, 20)
    assert said.endswith("gets 0.5, expected 1")
    assert "output (1, 2, 15, 10)" in said


def test_one_window_among_many_that_pays_a_losing_cell() -> None:
    x = np.random.default_rng(1).standard_normal((1, 2, 40, 40))
    x[0, 1, 30:32, 20:22] = [[0.5, 0.25], [3.0, 0.125]]

    def spoil(dx: Array, dy: Array) -> Array:
        dx[0, 1, 30, 21], dx[0, 1, 31, 20] = dx[0, 1, 31, 20], 0
        return dx

    assert cell_in(message(Spoiled(spoil), x)) in {(0, 1, 30, 21), (0, 1, 31, 20)}


class Overwriting:
    """Overlapping windows, of which the last one that pays a cell wins: ``=`` where ``+=`` belongs."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=-1)
        return windows.max(axis=-1), windows.argmax(axis=-1) + np.arange(windows.shape[-2])

    def backward(self, dy: Array, winners: Array) -> Array:
        dx = np.zeros((*dy.shape[:-1], dy.shape[-1] + 2))
        np.put_along_axis(dx, winners, dy, axis=-1)
        return dx


def test_overlapping_windows_of_which_only_the_last_pays() -> None:
    x = np.array([[0.0, 1, 2, 9, 3, 4, 5]])
    said = message(Overwriting(), x)
    assert said.startswith("the gradient at cell (0, 3) is ")


@pytest.mark.parametrize("backend", [b.name for b in pooling.REGISTRY.values() if "all" in b.ties])
def test_paying_every_tie_is_refused_at_a_tie_and_only_there(backend: str) -> None:
    pool = pooling.MaxPool(2, ties="all", backend=backend)
    pooling.gradcheck(pool, X)
    said = message(pool, ZEROS)
    assert "backward pays every tied cell: of a dy of 1 at output (" in said
    assert said.endswith("together they get 4, expected 1")
    x = X.copy()
    x[1, 1, 4, 2:4] = 50.0
    said = message(pool, x)
    assert "output (1, 1, 2, 1), 2 cells get 1 each, the first of them (1, 1, 4, 2)" in said


def test_paying_too_little_at_a_tie_is_refused() -> None:
    split = max_pool(2, ties="split")
    assert "together they get 0.5, expected 1" in message(Spoiled(lambda dx, dy: dx / 2, split), ZEROS)


def test_paying_a_tied_cell_of_another_window_is_refused() -> None:
    x = np.zeros((1, 1, 2, 4))
    swapped = Spoiled(lambda dx, dy: np.roll(dx, 2, axis=3), max_pool(2, ties="split"))
    said = message(swapped, x)  # the sum over all cells is right, and each cell's gradient is within its bounds
    assert re.fullmatch(r"of a dy of 1 at output \(0, 0, 0, [01]\), cell \(.*\) gets 0.25, expected 0", said), said


@pytest.mark.parametrize("x", [X, TIED, ZEROS, X * 1e-20, X * 1e20, X + 1e6, -np.abs(X), np.full_like(X, 3.7)])
@pytest.mark.parametrize(
    "pool",
    [
        max_pool(2),
        max_pool(3, 2, 1, ties="last"),
        max_pool(3, 1, 1, ties="split"),
        avg_pool(2),
        avg_pool(3, 2, 1, count_include_pad=False),
        avg_pool(3, 2, ceil_mode=True, divisor_override=1),
    ],
    ids=["first", "last", "split", "mean", "padded mean", "sum"],
)
def test_right_gradients_pass_at_every_scale_and_wrong_ones_do_not(pool: Any, x: Array) -> None:
    found = pooling.gradcheck(pool, x)
    assert found.cells == found.all_cells == x.size
    assert found.outputs == found.all_outputs
    message(Spoiled(lambda dx, dy: 1.01 * dx, pool), x)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_backend_passes_on_random_windows(data: st.DataObject) -> None:
    draw = data.draw
    ndim = draw(st.integers(1, 3), "ndim")
    size = tuple(draw(st.integers(3, 7), "size") for _ in range(ndim)) if ndim < 3 else (3, 4, 3)
    kernel = tuple(draw(st.integers(1, 3), "kernel") for _ in range(ndim))
    stride = tuple(draw(st.integers(1, 3), "stride") for _ in range(ndim))
    padding = tuple(draw(st.integers(0, k - 1), "padding") for k in kernel)
    window = (kernel, stride, padding, 1, draw(st.booleans(), "ceil"))
    layout: DataFormat = draw(st.sampled_from(["channels_first", "channels_last"]), "layout")
    shape = (2, *size) if layout == "channels_first" else (*size, 2)
    x = np.random.default_rng(draw(st.integers(0, 99), "seed")).standard_normal(shape)
    if draw(st.booleans(), "tied"):
        x = np.maximum(np.round(x), 0)
    ties = draw(st.sampled_from(["first", "last", "split"]), "ties")
    for backend in pooling.REGISTRY.values():
        if backend.name == "simd":  # compiles for each kind of window: it agrees with the others in its own tests
            continue
        pools: list[Any] = [
            pooling.MaxPool(*window, ties=ties, data_format=layout, backend=backend.name),
            pooling.AvgPool(*window, data_format=layout, backend=backend.name),
        ]
        for pool in pools:
            if backend.why_not(shape, x.dtype, pool) is None:
                pooling.gradcheck(pool, x, cells=12, directions=2)


@pytest.mark.parametrize("name", pooling.backends())
@pytest.mark.parametrize("ties", ["first", "last", "split"])
def test_every_backend_passes_after_relu(name: str, ties: Any) -> None:
    pool = pooling.MaxPool(2, ties=ties, backend=name)
    if pooling.backend(name).why_not(TIED.shape, TIED.dtype, pool) is None:
        pooling.gradcheck(pool, TIED)
    else:
        assert ties not in pooling.backend(name).ties


class OfWindows:
    """Any function of 2 x 2 windows, with its gradient: what a user may hand in."""

    def __init__(self, f: Callable[[Array], Array], gradient: Callable[[Array, Array], Array]) -> None:
        self.f, self.gradient = f, gradient

    def forward(self, x: Array) -> tuple[Array, Any]:
        n, c, h, w = x.shape
        windows = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
        y = self.f(windows)
        return y, (windows, y)

    def backward(self, dy: Array, saved: Any) -> Array:
        windows, y = saved
        n, c, h, w, _ = windows.shape
        d = self.gradient(windows, y[..., None]) * dy[..., None]
        return d.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


def norm_gradient(windows: Array, y: Array) -> Array:
    return np.divide(windows, y, out=np.zeros_like(windows), where=y != 0)


def minimum(windows: Array, y: Array) -> Array:
    first = np.zeros_like(windows)
    np.put_along_axis(first, windows.argmin(axis=-1)[..., None], 1.0, axis=-1)
    return first


def largest_magnitude(windows: Array, y: Array) -> Array:
    first = np.zeros_like(windows)
    np.put_along_axis(first, np.abs(windows).argmax(axis=-1)[..., None], 1.0, axis=-1)
    return first * np.sign(windows)


def smooth(windows: Array, y: Array) -> Array:
    return np.exp(windows - y)


FUNCTIONS = {
    "L2": OfWindows(lambda w: np.sqrt((w**2).sum(axis=-1)), norm_gradient),
    "L3": OfWindows(
        lambda w: (np.abs(w) ** 3).sum(axis=-1) ** (1 / 3),
        lambda w, y: np.divide(w * np.abs(w), y**2, out=np.zeros_like(w), where=y != 0),
    ),
    "mean of squares": OfWindows(lambda w: (w**2).mean(axis=-1), lambda w, y: w / 2),
    "log of the sum of exponentials": OfWindows(lambda w: np.log(np.exp(w).sum(axis=-1)), smooth),
    "minimum": OfWindows(lambda w: w.min(axis=-1), minimum),
    "largest magnitude": OfWindows(lambda w: np.abs(w).max(axis=-1), largest_magnitude),
    "ReLU of the maximum": OfWindows(
        lambda w: np.maximum(w.max(axis=-1), 0), lambda w, y: (y > 0) * minimum(-w, y).astype(float)
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x", [X, TIED, ZEROS, 1e-9 * X], ids=["normal", "tied", "zeros", "small"])
def test_other_functions_pass(name: str, x: Array) -> None:
    pooling.gradcheck(FUNCTIONS[name], x)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("wrong", ["scaled a little", "one channel", "no last row", "flipped", "sign"])
def test_other_functions_with_wrong_gradients_are_refused(name: str, wrong: str) -> None:
    assert "expected" in message(Spoiled(WRONG[wrong], FUNCTIONS[name]))


class Stale:
    """Answers with the dx of the call before."""

    def __init__(self) -> None:
        self.last: Array = np.zeros_like(X)

    def forward(self, x: Array) -> tuple[Array, Any]:
        return max_pool(2).forward(x)

    def backward(self, dy: Array, saved: Any) -> Array:
        self.last, before = max_pool(2).backward(dy, saved), self.last
        return before


class Accumulating(Stale):
    """Adds to a dx that nobody clears."""

    def backward(self, dy: Array, saved: Any) -> Array:
        self.last = self.last + max_pool(2).backward(dy, saved)
        return self.last


class Stateful(Stale):
    """Keeps in itself what belongs into saved."""

    def forward(self, x: Array) -> tuple[Array, Any]:
        y, self.saved = max_pool(2).forward(x)
        return y, None

    def backward(self, dy: Array, saved: Any) -> Array:
        return max_pool(2).backward(dy, self.saved)


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (Stale(), "backward of the same dy and saved, a second time: the gradient at cell"),
        (Accumulating(), "backward of the same dy and saved, a second time: the gradient at cell"),
        (Stateful(), "after forward of another x (saved has to carry what it needs): the gradient at cell"),
    ],
)
def test_state_is_refused(operator: Any, says: str) -> None:
    assert says in message(operator)


class Faulty:
    """Max pooling with one of its two methods replaced."""

    def __init__(self, forward: Any = None, backward: Any = None) -> None:
        pool = max_pool(2)
        self.forward = forward or pool.forward
        self.backward = backward or pool.backward


def scaled_in_place(x: Array) -> Any:
    x *= 2
    return max_pool(2).forward(x)


def random_forward(x: Array) -> Any:
    y, saved = max_pool(2).forward(x)
    return y + RANDOM.random(y.shape), saved


def clears_dy(dy: Array, saved: Any) -> Array:
    dx = max_pool(2).backward(dy, saved)
    dy[:] = 0
    return dx


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (Faulty(forward=scaled_in_place), "forward changed x, at (0, 0, 0, 0): it must leave its inputs alone"),
        (Faulty(forward=random_forward), "forward of the same x gave "),
        (Faulty(backward=clears_dy), "backward changed dy, at (0, 0, 0, 0): it must leave its inputs alone"),
        (Faulty(backward=lambda dy, saved: dy), "dx has shape (2, 2, 3, 3), expected (2, 2, 6, 6), that of x"),
        (Faulty(backward=lambda dy, saved: None), "dx has shape (), expected (2, 2, 6, 6)"),
        (Faulty(backward=lambda dy, saved: np.zeros(X.shape, np.float32)), "dx has dtype float32, expected float64"),
        (Faulty(backward=lambda dy, saved: np.full(X.shape, np.nan)), "at cell (0, 0, 0, 0) is nan, expected a finite"),
        (
            Faulty(forward=lambda x: (x[..., ::2, ::2].astype(np.float32), 0)),
            "forward made y of dtype float32 from x of",
        ),
        (Faulty(forward=lambda x: (np.full((2, 2, 3, 3), np.nan), 0)), "y is nan at output (0, 0, 0, 0)"),
    ],
)
def test_a_broken_contract_is_named(operator: Any, says: str) -> None:
    assert says in message(operator)


def test_backward_that_changes_x() -> None:
    class Changing:
        def forward(self, x: Array) -> Any:
            return x.copy(), x

        def backward(self, dy: Array, x: Array) -> Array:
            x[0, 0, 1, 2] = 9
            return dy.copy()

    assert "backward changed x, at (0, 0, 1, 2)" in message(Changing())


def test_zero_padding_shows_by_a_shift() -> None:
    padded = OfWindows(lambda w: np.maximum(w.max(axis=-1), 0), FUNCTIONS["ReLU of the maximum"].gradient)
    pooling.gradcheck(padded, X)
    said = message(padded, X, shifts=True)
    assert re.match(
        r"pooling x[+-]\d+ must give y[+-]\d+, but at output \(\d, \d, \d, \d\) it gives .*, expected ", said
    )
    pooling.gradcheck(avg_pool(2), X, shifts=True)
    with pytest.raises(pooling.GradientError, match="padding by a number"):
        pooling.gradcheck(avg_pool(3, padding=1), X, shifts=True)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.array([[1.0, np.nan]]), "x holds NaN or infinity"),
        (np.array([[1.0, -np.inf]]), "x holds NaN or infinity"),
        (np.array([[1j, 2]]), "x has dtype complex128"),
        (np.array([["a", "b"]]), "x has dtype <U1"),
        (np.array([[1e300, 2.0]]), "the largest number in x is 1e\\+300: .* scale x"),
        (np.array([[1e-300, 0.0]]), "the largest number in x is 1e-300: .* scale x"),
    ],
)
def test_x_that_cannot_be_checked_is_a_value_error(x: Array, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        pooling.gradcheck(max_pool((1,)), x)
    assert not isinstance(caught.value, pooling.GradientError)


def test_an_operator_without_the_pair_and_wrong_numbers_are_named() -> None:
    with pytest.raises(pooling.PoolingError, match=r"forward returned ndarray, not the tuple \(y, saved\)"):
        pooling.gradcheck(Faulty(forward=lambda x: x), X)
    with pytest.raises(pooling.PoolingError, match="cells=0"):
        pooling.gradcheck(max_pool(2), X, cells=0)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.float16, np.float32])
def test_other_real_dtypes_are_checked_as_float64(dtype: Any) -> None:
    assert pooling.gradcheck(max_pool(2), np.abs(TIED).astype(dtype)).dtype == "float64"


def test_lists_and_odd_layouts_of_x() -> None:
    assert pooling.gradcheck(max_pool((2,)), [[3, 1, 4, 1, 5, 9]]).cells == 6
    pooling.gradcheck(max_pool(2), np.asfortranarray(X))
    pooling.gradcheck(max_pool(2), X[:, :, ::-1, ::-1])


def test_an_empty_x_passes() -> None:
    assert pooling.gradcheck(max_pool(2), np.zeros((0, 2, 4, 4))) == Checked(0, 0, 0, 0, 0, "float64")


def test_windows_of_padding_alone_get_nothing_and_pay_nothing() -> None:
    x = np.array([[3.0, 1, 2]])
    pool = max_pool((2,), 2, ((2, 0),), dilation=2)
    y, _ = pool.forward(x)
    pooling.gradcheck(pool, x)
    lone = max_pool((2,), 3, ((1, 0),))
    pooling.gradcheck(lone, x)
    assert np.isfinite(y).any()


class OnlyFloat32:
    """A pooling that knows one dtype, as kernels in C do."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = np.float32(factor)

    def forward(self, x: Array) -> tuple[Array, Any]:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return avg_pool(2).forward(x)

    def backward(self, dy: Array, saved: Any) -> Array:
        return self.factor * avg_pool(2).backward(dy, saved)


def test_an_operator_that_refuses_float64_is_checked_in_float32() -> None:
    for x in (X, TIED):
        assert pooling.gradcheck(OnlyFloat32(), x.astype(np.float32)).dtype == "float32"
        assert "expected" in message(OnlyFloat32(1.05), x.astype(np.float32))
    with pytest.raises(TypeError, match="float32 only"):
        pooling.gradcheck(OnlyFloat32(), X)


def test_large_inputs_are_sampled_and_say_how_much() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 32, 32))
    found = pooling.gradcheck(max_pool(2), x, cells=40, directions=3)
    assert found == Checked(40, 8192, 40, 2048, 5, "float64")


def test_the_seed_decides() -> None:
    spoiled = Spoiled(WRONG["scaled"])
    assert message(spoiled, seed=1) == message(spoiled, seed=1)
    assert message(spoiled, seed=1) != message(spoiled, seed=2)


def test_x_is_left_alone() -> None:
    x = X.copy()
    pooling.gradcheck(max_pool(2), x)
    assert np.array_equal(x, X)
