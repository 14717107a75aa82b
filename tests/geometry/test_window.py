"""The arithmetic of windows, against the definition: walk over all outputs and taps, and look."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pooling import PoolingError, Window
from pooling.geometry.axis import Axis

AXES = [
    Axis(size, kernel, stride, before, after, dilation, ceil)
    for size, kernel, stride, dilation in itertools.product((1, 2, 5, 6), (1, 2, 3), (1, 2, 4), (1, 3))
    for before, after in {(0, 0), (min(1, kernel - 1), 0), (kernel - 1, dilation * (kernel - 1))}
    for ceil in (False, True)
]
FITTING = [axis for axis in AXES if axis.out >= 1]


def cell(axis: Axis, o: int, k: int) -> int:
    return o * axis.stride + k * axis.dilation - axis.before


def real(axis: Axis, o: int, k: int) -> bool:
    return 0 <= cell(axis, o, k) < axis.size


def count_outputs(axis: Axis) -> int:
    """Windows that start where they may, one after another."""
    out = 0
    while True:
        start = out * axis.stride - axis.before
        inside = start + axis.span <= axis.size + axis.after
        # In ceil_mode one more, which sticks out, if it starts in the data or the padding before it.
        before_inside = out > 0 and (out - 1) * axis.stride - axis.before + axis.span < axis.size + axis.after
        if not inside and not (axis.ceil_mode and start < axis.size and before_inside):
            return out
        out += 1


def test_the_number_of_outputs() -> None:
    for axis in AXES:
        missing = axis.span - (axis.before + axis.size + axis.after)
        if missing <= 0:
            assert axis.out == count_outputs(axis), axis
        else:  # PyTorch, in ceil_mode, takes a window that lacks less than a stride
            assert axis.out == (1 if axis.ceil_mode and missing < axis.stride else min(axis.out, 0)), axis


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ((5, 2, 2), 2),
        ((5, 2, 2, 0, 0, 1, True), 3),
        ((4, 2, 2, 0, 0, 1, True), 2),
        ((3, 1, 2, 0, 0, 1, True), 2),  # pytorch#45357: the last one may not start behind the data
        ((4, 1, 2, 0, 0, 1, True), 2),
        ((6, 2, 3, 1, 1, 1, True), 3),
        ((5, 2, 3, 1, 1, 1, True), 2),  # a third would start at 6 - 1: in the padding
        ((10, 3, 4, 0, 0, 1, True), 3),
        ((112, 3, 2, 1, 1), 56),
        ((13, 3, 2, 0, 0, 2, True), 5),
        ((2, 5, 4, 0, 0, 1, True), 1),  # sticks out, but starts inside,
    ],
)
def test_outputs_as_pytorch_counts_them(arguments: Any, out: int) -> None:
    assert Axis(*arguments).out == out


def test_cells_of_a_tap() -> None:
    for axis in FITTING:
        for k in range(axis.kernel):
            outputs, cells = axis.cells(k)
            found = list(zip(range(axis.out)[outputs], range(axis.size)[cells], strict=True))
            assert found == [(o, cell(axis, o, k)) for o in range(axis.out) if real(axis, o, k)], (axis, k)


def test_counts_of_cells() -> None:
    for axis in FITTING:
        assert axis.counts(False) == [sum(real(axis, o, k) for k in range(axis.kernel)) for o in range(axis.out)]
        padded = Axis(axis.before + axis.size + axis.after, axis.kernel, axis.stride, 0, 0, axis.dilation)
        inside = [sum(real(padded, o, k) for k in range(axis.kernel)) for o in range(axis.out)]
        assert axis.counts(True) == inside, axis


def test_counting_cells_takes_no_walk() -> None:
    """Means over windows of thousands of cells took seconds to prepare."""
    axis = Axis(1 << 20, 1 << 19, 1, 5, 5)
    for include in (True, False):
        counts = axis.counts(include)
        assert (len(counts), counts[0], counts[10], counts[-1]) == (
            axis.out,
            *((1 << 19,) * 3 if include else ((1 << 19) - 5, 1 << 19, (1 << 19) - 5)),
        )


def test_what_windows_share_and_reach() -> None:
    for axis in FITTING:
        reads = [{cell(axis, o, k) for k in range(axis.kernel)} for o in range(axis.out)]
        shared = any(a & b for a, b in itertools.combinations(reads, 2))
        window = Window((axis,))
        if window.disjoint:  # a promise; interlaced windows share nothing either and are not promised
            assert not shared, axis
        elif axis.dilation == 1:
            assert shared, axis
        reaches = any(not 0 <= c < axis.size for cells in reads for c in cells)
        assert reaches <= window.padded, axis
        if axis.kernel == axis.stride and axis.dilation == 1 and axis.before == 0:
            assert window.tiles == (not reaches), axis
        if window.tiles:
            assert window.covers == (set().union(*reads) == set(range(axis.size))), axis


def test_slices_are_the_product_of_axes() -> None:
    for axes in itertools.product(FITTING[::37], FITTING[::29]):
        window = Window(axes)
        x = np.arange(axes[0].size * axes[1].size).reshape(1, axes[0].size, axes[1].size, 1)
        seen = []
        for number, outputs, inputs in window.slices():
            i, j = divmod(number, axes[1].kernel)
            pairs = np.broadcast_to(np.indices(window.output_size)[:, None, ..., None], (2, 1, *window.output_size, 1))
            for o, p, value in zip(*(np.ravel(a[outputs]) for a in pairs), x[inputs].ravel(), strict=True):
                assert value == cell(axes[0], o, i) * axes[1].size + cell(axes[1], p, j)
                seen.append((number, o, p))
        expected = [
            (i * axes[1].kernel + j, o, p)
            for i, j in itertools.product(range(axes[0].kernel), range(axes[1].kernel))
            for o, p in itertools.product(range(axes[0].out), range(axes[1].out))
            if real(axes[0], o, i) and real(axes[1], p, j)
        ]
        assert seen == expected


def test_what_arguments_mean() -> None:
    window = Window.over((7, 9), (2, 3), padding=((0, 1), (2, 0)), dilation=2, ceil_mode=True)
    assert window.kernel_size == window.stride == (2, 3)
    assert window.padding == ((0, 1), (2, 0))
    assert window.dilation == (2, 2)
    assert window.input_size == (7, 9)
    assert window.output_size == (4, 3)
    assert (window.n_taps, window.n_outputs, window.ndim) == (6, 12, 2)
    assert Window.over((4,), 2) == Window.over([4], [2], (2,), 0, (1,), False)
    assert hash(Window.over((4,), 2)) == hash(Window.over((4,), 2, 2))


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_pads_to_as_many_outputs_as_strides(size: int, kernel: int, stride: int, dilation: int) -> None:
    upper = Window.over((size,), kernel, stride, "same_upper", dilation)
    lower = Window.over((size,), kernel, stride, "same_lower", dilation)
    assert upper.output_size == lower.output_size == (-(-size // stride),)
    before, after = upper.padding[0]
    assert after - before in (0, 1)
    assert lower.padding[0] == (after, before)
    total = before + after
    assert total == 0 or (upper.output_size[0] - 1) * stride + dilation * (kernel - 1) + 1 == size + total
    assert Window.over((size + 4,), kernel, stride, "valid", dilation).padding == ((0, 0),)


def test_a_window_too_large_is_an_error_in_ceil_mode_too() -> None:
    """pytorch#88464 went on with a negative size."""
    for ceil in (False, True):
        with pytest.raises(
            PoolingError, match=r"kernel_size 5 .*spans 5 cells.*has 2 .*smaller window or more padding"
        ):
            Window.over((2,), 5, 3, 0, 1, ceil)
