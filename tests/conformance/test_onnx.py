"""The operator tests that ONNX ships: every one that is about pooling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests import onnx_adapter
from tests.onnx_adapter import POOLING, Array

BACKENDS = ("auto", "strided_slices", "numba_loops")
"""Every other one is held to the same bits elsewhere; and `simd`, which auto picks, compiles for each window."""

KINDS = ("node", "pytorch-converted", "pytorch-operator")
"""Where ONNX keeps tests of single operators; its other kinds are whole networks."""

pytestmark = pytest.mark.filterwarnings("ignore")  # making ONNX's cases, of all operators, divides by zero and more

Case = tuple[str, Any, list[tuple[list[Array], list[Array]]], float, float]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Name, model, inputs with outputs, and tolerances of whatever has a pooling in it."""
    return list(found())


def found() -> Iterator[Case]:
    from onnx.backend.test.loader import load_model_tests

    for kind in KINDS:
        for case in load_model_tests(kind=kind):
            folder = None if case.model_dir is None else Path(case.model_dir)
            model = case.model if folder is None else onnx.load(str(folder / "model.onnx"))
            if any("ool" in name for name in onnx_adapter.operators(model)):
                data = case.data_sets if folder is None else onnx_adapter.data_sets(folder)
                yield case.name, model, data, case.rtol, case.atol


@pytest.mark.parametrize("op", POOLING)
def test_every_case_of(op: str, cases: list[Case], subtests: pytest.Subtests) -> None:
    ran = 0
    for name, model, data, rtol, atol in cases:
        if op not in onnx_adapter.operators(model):
            continue
        assert data, name
        for backend in BACKENDS:
            with subtests.test(name, backend=backend):
                for inputs, expected in data:
                    got = onnx_adapter.run(model, inputs, backend)
                    assert len(got) == len(expected)
                    for a, b in zip(got, expected, strict=True):
                        assert (a.dtype, a.shape) == (b.dtype, b.shape)
                        np.testing.assert_allclose(a, b, rtol, atol)
        ran += 1
    assert ran


def test_no_pooling_is_left_out(cases: list[Case]) -> None:
    pools = {op for _, model, *_ in cases for op in onnx_adapter.operators(model) if "ool" in op}
    assert pools == set(POOLING)
    assert len(cases) >= 65, "ONNX 1.23 ships so many"
