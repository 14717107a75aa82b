"""gradcheck, by what it lets pass and what it refuses: right gradients of every kind, and wrong ones, each with its cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pooling
from pooling.operators.base import DataFormat
from tests.wrong import TIED, WRONG, ZEROS, Array, Spoiled, X, avg_pool, cell_in, max_pool, message


def winner(plane: Array) -> tuple[int, int]:
    """The cell of a plane that takes the gradient of its first window."""
    row, column = np.unravel_index(plane[:2, :2].argmax(), (2, 2))
    return int(row), int(column)


def put(at: tuple[int, ...], change: Callable[[float], float]) -> Callable[[Array, Array], Array]:
    def spoil(dx: Array, dy: Array) -> Array:
        dx[at] = change(dx[at])
        return dx

    return spoil


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
    assert pooling.gradcheck(max_pool(2), x, cells=10).cells == 10
    said = message(Spoiled(spoil), x, cells=10)
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
    assert "output (1, 1, 2, 1), 2 cells get up to 1 each, the first of them cell (1, 1, 4, 2);" in said


def test_paying_too_little_at_a_tie_is_refused() -> None:
    split = max_pool(2, ties="split")
    assert "together they get 0.5, expected 1" in message(Spoiled(lambda dx, dy: dx / 2, split), ZEROS)


def test_paying_a_tied_cell_of_another_window_is_refused() -> None:
    x = np.zeros((1, 1, 2, 4))
    swapped = Spoiled(lambda dx, dy: np.roll(dx, 2, axis=3), max_pool(2, ties="split"))
    said = message(swapped, x)  # the sum over all cells is right, and each cell's gradient is within its bounds
    assert re.fullmatch(r"of a dy of 1 at output \(0, 0, 0, [01]\), cell \(.*\) gets 0.25, expected 0", said), said


# Of 1600 cells, 4 are looked at: what is wrong shows in one of the directions alone.
MOSTLY_TIED = np.zeros((1, 1, 40, 40))
MOSTLY_TIED[0, 0, 20:22, 20:22] = [[1, 3], [2, 0]]


def halved_first(dx: Array, dy: Array) -> Array:
    dx[0, 0, 10, 10] /= 2
    return dx


def shared_with_a_loser(dx: Array, dy: Array) -> Array:
    dx[0, 0, 20, 21] = dx[0, 0, 21, 20] = dx[0, 0, 20, 21] / 2
    return dx


def to_the_right_neighbour(dx: Array, dy: Array) -> Array:
    dx[0, 0, 11, 12], dx[0, 0, 10, 10] = dx[0, 0, 10, 10], 0
    return dx


@pytest.mark.parametrize(
    ("wrong", "directions", "output"),
    [
        (halved_first, 0, (0, 0, 5, 5)),
        (to_the_right_neighbour, 0, (0, 0, 5, 5)),
        (shared_with_a_loser, 2, (0, 0, 10, 10)),
    ],
)
def test_a_mistake_in_one_window_among_many_ties(wrong: Any, directions: int, output: tuple[int, ...]) -> None:
    found = pooling.gradcheck(max_pool(2), MOSTLY_TIED, cells=4, directions=directions)
    assert (found.cells, found.directions) == (4, 2 + directions)
    assert f"at output {output}" in message(Spoiled(wrong), MOSTLY_TIED, cells=4, directions=directions)


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


@settings(max_examples=60)
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
    ties: Any = draw(st.sampled_from(["first", "last", "split"]), "ties")
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


@pytest.mark.parametrize("name", pooling.list_backends())
@pytest.mark.parametrize("ties", ["first", "last", "split"])
def test_every_backend_passes_after_relu(name: str, ties: Any) -> None:
    pool = pooling.MaxPool(2, ties=ties, backend=name)
    if pooling.get_backend(name).why_not(TIED.shape, TIED.dtype, pool) is None:
        pooling.gradcheck(pool, TIED)
    else:
        assert ties not in pooling.get_backend(name).ties


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


def test_no_step_crosses_zero() -> None:
    x = np.array([[[[2e-6, -1], [-2, -3]]]])
    pooling.gradcheck(FUNCTIONS["ReLU of the maximum"], x)
    said = message(Spoiled(lambda dx, dy: dx / 2, FUNCTIONS["ReLU of the maximum"]), x)
    assert cell_in(said) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("wrong", ["scaled a little", "one channel", "no last row", "flipped", "sign"])
def test_other_functions_with_wrong_gradients_are_refused(name: str, wrong: str) -> None:
    assert "expected" in message(Spoiled(WRONG[wrong], FUNCTIONS[name]))
