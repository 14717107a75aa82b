"""The table of workloads that everything else is generated from."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pooling
from bench.protocol.contenders import backends
from bench.schema.workloads import PRESETS, WORKLOADS, Workload, ladder, of_preset

BY_ID = [pytest.param(workload, id=workload.id) for workload in WORKLOADS]


def test_ids_and_labels_tell_workloads_apart() -> None:
    assert len({workload.id for workload in WORKLOADS}) == len(WORKLOADS)
    assert len({(workload.name, workload.label) for workload in WORKLOADS}) == len(WORKLOADS)


@pytest.mark.parametrize("workload", BY_ID)
def test_small_cut_has_the_same_windows_and_ends_in_the_same_way(workload: Workload) -> None:
    small = workload.small()
    assert small.cells <= min(workload.cells, 100_000)
    assert (small.kernel_size, small.stride, small.padding, small.ceil_mode, small.data_format, small.op) == (
        workload.kernel_size,
        workload.stride,
        workload.padding,
        workload.ceil_mode,
        workload.data_format,
        workload.op,
    )
    for cut, whole in zip(small.window.affine, workload.window.affine, strict=True):
        assert (whole.size - cut.size) % whole.stride == 0
        assert whole.out - cut.out == (whole.size - cut.size) // whole.stride


@pytest.mark.parametrize("workload", BY_ID)
def test_arrays_fit_the_operator(workload: Workload) -> None:
    small = workload.small()
    y, saved = small.operator("strided_slices").forward(small.input())
    assert (y.shape, y.dtype) == (small.gradient().shape, small.gradient().dtype)
    assert small.operator("strided_slices").backward(small.gradient(), saved).shape == small.array_shape
    assert math.prod(y.shape) == small.outputs
    assert small.nbytes == small.input().nbytes


@pytest.mark.parametrize("workload", BY_ID)
def test_every_backend_offers_it_or_says_why_not(workload: Workload) -> None:
    reasons = {contender.name: contender.why_not(workload) for contender in backends()}
    assert all(reason is None or len(reason) > 10 for reason in reasons.values())
    assert reasons["strided_slices"] is None
    assert reasons["numba_loops"] is None


def test_presets_grow() -> None:
    quick, standard, full = ({workload.id for workload in of_preset(preset)} for preset in PRESETS)
    assert quick < standard < full == {workload.id for workload in WORKLOADS}


@pytest.mark.parametrize("preset", PRESETS)
def test_ladder_goes_from_a_kilobyte_to_200_megabytes(preset: str) -> None:
    sizes = [rung.nbytes for rung in ladder(preset)]  # type: ignore[arg-type]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1024
    assert 200e6 <= sizes[-1] <= 210e6


def test_input_ties_after_relu_and_is_the_same_each_time() -> None:
    workload = WORKLOADS[0].small()
    x = workload.input()
    assert np.array_equal(x, workload.input())
    assert 0.4 < float((x == 0).mean()) < 0.6
    assert not np.array_equal(x, workload.input("normal"))


def test_part_has_fewer_planes_of_the_same_size() -> None:
    workload = Workload("one", "a network", (8, 64, 16, 16), 2)
    part = workload.part(16)
    assert part.shape == (1, 32, 16, 16)
    assert workload.part(10**9).cells == 21 * 256
    assert part.window == workload.window


def test_bytes_moved_counts_each_array_once() -> None:
    workload = Workload("one", "a network", (2, 3, 8, 8), 2)
    x, y, switches = 2 * 3 * 64 * 4, 2 * 3 * 16 * 4, 2 * 3 * 16
    assert workload.bytes_moved("forward") == x + y
    assert workload.bytes_moved("backward") == x + y + switches
    assert workload.bytes_moved("step") == 2 * (x + y + switches)


def test_layouts_compute_the_same() -> None:
    first = next(w for w in WORKLOADS if w.both_layouts).small()
    last = next(w for w in WORKLOADS if w.both_layouts and w.data_format == "channels_last").small()
    x = first.input()
    y = first.operator("reference")(x)
    assert first.shape == last.shape
    assert np.array_equal(last.operator("reference")(np.moveaxis(x, 1, -1)), np.moveaxis(y, 1, -1))
    assert isinstance(first.operator(), pooling.MaxPool)


def test_nan_is_in_some_cells_and_in_the_name() -> None:
    plain = Workload("one", "a network", (4, 8, 32, 32), 2)
    holed = Workload("one", "a network", (4, 8, 32, 32), 2, values="nan")
    x = holed.input()
    assert 0.005 < float(np.isnan(x).mean()) < 0.02
    assert np.array_equal(x[~np.isnan(x)], plain.input()[~np.isnan(x)])
    assert (holed.id, "nan" in holed.label) == (f"{plain.id}-nan", True)
