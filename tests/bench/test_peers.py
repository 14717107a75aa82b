"""The peers: that each computes what we compute, by the bench's own proof; and that the suite does without any of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bench import peers
from bench.files import ROOT
from bench.peers import jax_, onednn, onnxruntime_, openvino_, pytorch
from bench.protocol.contenders import Arrays, Contender
from bench.protocol.measure import Patience, WrongResult, measure, pinned, prove_small, prove_whole
from bench.schema.results import LeftOut, Timing
from bench.schema.workloads import DIRECTIONS, Workload

MODULES = (pytorch, jax_, onnxruntime_, openvino_, onednn)
INFER_ONLY = ("onnxruntime", "openvino")
COMPILED = "pytorch_compiled"

WINDOWS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((4, 9, 12, 12), {"kernel_size": 2}),
    ((2, 16, 13, 14), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((2, 16, 13, 13), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((2, 16, 13, 13), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((1, 16, 18, 18), {"kernel_size": 13, "stride": 1, "padding": 6}),
    ((2, 5, 18, 18), {"kernel_size": 2, "stride": 3}),
    ((2, 16, 18, 18), {"kernel_size": 1, "stride": 2}),
    ((2, 16, 60), {"kernel_size": 4}),
    ((2, 3, 61), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((2, 16, 6, 8, 8), {"kernel_size": 2}),
    ((2, 7, 6, 8, 8), {"kernel_size": (1, 3, 3), "stride": (2, 2, 2), "padding": (0, 1, 1)}),
)

WORKLOADS = tuple(
    Workload("peer", "a network", shape, **window, op=op, data_format=data_format)
    for shape, window in WINDOWS
    for op in ("max", "avg")
    for data_format in ("channels_first", "channels_last")
) + (
    Workload("peer", "a network", (2, 16, 18, 18), 3, 2, 1, 2),
    Workload("peer", "a network", (2, 16, 18, 18), 3, 2, 1, 2, data_format="channels_last"),
    Workload("peer", "a network", (2, 16, 13, 13), 3, 1, 1, op="avg", count_include_pad=False),
    Workload(
        "peer", "a network", (2, 16, 13, 13), 3, 1, 1, op="avg", count_include_pad=False, data_format="channels_last"
    ),
    Workload("peer", "a network", (2, 3, 8, 8), 2, dtype="float64"),
)

FEW = {"pytorch_compiled": WORKLOADS[7:8], "jax": WORKLOADS[::3]}
"""For the contenders whose compilers take long."""


def installed(*, names: tuple[str, ...] = ()) -> list[Contender]:
    return [c for c in peers.contenders() if not names or c.name in names]


def pairs() -> list[Any]:
    return [
        pytest.param(contender, workload, id=f"{contender.name}-{workload.id}")
        for contender in installed()
        for workload in FEW.get(contender.name, WORKLOADS)
        if contender.why_not(workload) is None
    ]


@pytest.mark.filterwarnings("ignore")  # frameworks warn about their own affairs
@pytest.mark.parametrize(("contender", "workload"), pairs())
def test_peers_compute_what_we_compute(contender: Contender, workload: Workload) -> None:
    with pinned(2):
        arrays = Arrays.of(workload)
        _, calls = prove_whole(contender, workload, arrays)
        assert tuple(calls) == (("forward",) if contender.name in INFER_ONLY else DIRECTIONS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("contender", [c for c in installed() if c.name != COMPILED], ids=lambda c: c.name)
def test_peers_are_timed_as_backends_are(contender: Contender) -> None:
    workload = next(w for w in WORKLOADS if contender.why_not(w) is None)
    rows = measure(workload, [contender], Patience(0.02, math.inf, (2, 3)), threads=1)
    assert all(isinstance(row, Timing) and row.kind == "peer" and row.threads == 1 for row in rows), rows
    assert [row.direction for row in rows if isinstance(row, Timing)] == list(
        ("forward",) if contender.name in INFER_ONLY else DIRECTIONS
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "contender", [c for c in installed() if c.reuses_outputs and c.name not in INFER_ONLY], ids=lambda c: c.name
)
def test_outputs_that_are_reused_are_really_written(contender: Contender) -> None:
    workload = next(w for w in WORKLOADS if contender.why_not(w) is None)
    arrays = Arrays.of(workload)
    calls = contender.bind(workload, arrays)
    calls["step"]()
    y, dx = arrays.y.copy(), arrays.dx.copy()
    for _ in range(2):  # whoever adds to dx without clearing it would be found the second time
        arrays.y.fill(np.nan)
        arrays.dx.fill(np.nan)
        calls["step"]()
        assert np.array_equal(arrays.y, y)
        assert np.array_equal(arrays.dx, dx)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_the_table_names_what_modules_have(module: Any) -> None:
    peer = next(peer for peer in peers.PEERS if module.__name__ == f"bench.peers.{peer.module}")
    if peer.version:
        found = module.contenders()
        assert tuple(c.name for c in found) == peer.names
        assert all(c.kind == "peer" and c.note for c in found)


def test_every_peer_takes_part_or_is_missing() -> None:
    here, away = [c.name for c in peers.contenders()], [name for name, _ in peers.missing()]
    assert sorted(here + away) == sorted(name for peer in peers.PEERS for name in peer.names)


def test_a_missing_peer_has_a_plain_note(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = tuple(replace(peer, package=f"no-such-{peer.package}") for peer in peers.PEERS)
    monkeypatch.setattr(peers, "PEERS", nobody)
    assert peers.contenders() == ()
    assert peers.versions() == {}
    notes = dict(peers.missing())
    assert notes["openvino"] == "no-such-openvino is not installed; pip install no-such-openvino"


def test_asking_who_is_there_imports_no_framework() -> None:
    code = (
        "import sys; from bench import peers; peers.contenders(); peers.missing();"
        "print({'torch', 'jax', 'onnxruntime', 'openvino', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def refusals() -> list[tuple[Callable[[Workload], str | None], dict[str, Any], str]]:
    return [
        (pytorch.limits, {"shape": (1, 1, 4, 4, 4, 4)}, "up to 3 dimensions"),
        (pytorch.limits, {"op": "avg", "dilation": 2}, "no dilation"),
        (pytorch.limits, {"kernel_size": 3, "padding": 2}, "at most half"),
        (jax_.why_not, {"dilation": 2}, "no dilation"),
        (jax_.why_not, {"dtype": "float16"}, "float16"),
        (onnxruntime_.why_not, {"shape": (1, 3, 4, 4, 4), "data_format": "channels_last"}, "in channels_last up to 2"),
        (onnxruntime_.why_not, {"dtype": "float64"}, "float64"),
        (openvino_.why_not, {"dtype": "float64"}, "float32"),
        (onednn.why_not, {"dtype": "float64"}, "float32"),
        (onednn.why_not, {"shape": (1, 1, 4, 4, 4, 4)}, "up to 3 dimensions"),
    ]


@pytest.mark.parametrize(
    ("why_not", "change", "reason"), refusals(), ids=lambda v: getattr(v, "__module__", str(v)[:40])
)
def test_what_a_peer_cannot_do_has_a_reason(
    why_not: Callable[[Workload], str | None], change: dict[str, Any], reason: str
) -> None:
    workload = replace(Workload("peer", "a network", (2, 3, 8, 8), 2), **change)
    assert reason in (why_not(workload) or "")


def test_without_a_compiler_the_compiled_one_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    compiled = next(c for c in pytorch.contenders() if c.name == COMPILED)
    assert "needs a C++ compiler" in (compiled.why_not(WORKLOADS[0]) or "")


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("before", [None, "no"])
def test_openvino_is_imported_as_in_ci_and_the_environment_put_back(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if before is not None:
        monkeypatch.setenv("CI", before)
    openvino_.quietly()
    assert os.environ.get("CI") == before


@pytest.mark.skipif("onednn-cpu-gomp" not in peers.versions(), reason="onednn-cpu-gomp is not installed")
def test_onednn_tells_which_code_it_chose() -> None:
    chosen = onednn.implementations(WORKLOADS[0])
    assert set(chosen) == {"forward", "forward_train", "backward"}
    assert all(":" in name for name in chosen.values())
    assert chosen["forward_train"] in onednn.note()


@pytest.mark.skipif("onednn-cpu-gomp" not in peers.versions(), reason="onednn-cpu-gomp is not installed")
def test_onednn_errors_name_the_call() -> None:
    with pytest.raises(onednn.OneDNNError, match="dnnl_engine_create: invalid arguments"):
        onednn.handle("dnnl_engine_create", onednn.CPU, 99)


def doubling(contender: Contender, *, returns: bool) -> Contender:
    """A contender whose forward is wrong, and that only infers."""

    def bind(workload: Workload, arrays: Arrays) -> dict[Any, Callable[[], object]]:
        y, _ = workload.operator("strided_slices").forward(arrays.x)

        def write() -> None:
            np.multiply(y, 2, out=arrays.y)

        return {"forward": (lambda: 2 * y) if returns else write}

    return replace(contender, bind=bind, reuses_outputs=not returns)


ANY = Contender("any", "peer", "a note", "first", lambda workload: None, lambda workload, arrays: {})


@pytest.mark.parametrize("returns", [True, False])
def test_one_that_only_infers_is_proven_too(returns: bool) -> None:
    with pytest.raises(WrongResult, match="any, forward of"):
        prove_small(doubling(ANY, returns=returns), WORKLOADS[0])
    (row,) = measure(WORKLOADS[0], [doubling(ANY, returns=returns)], Patience(0.01, math.inf), threads=1)
    assert isinstance(row, LeftOut)
    assert row.wrong


def test_results_of_another_shape_or_dtype_are_wrong() -> None:
    def bind(workload: Workload, arrays: Arrays) -> dict[Any, Callable[[], object]]:
        return {"forward": lambda: np.zeros((1,), np.float64)}

    with pytest.raises(WrongResult, match=r"forward gives float64\(1,\), expected float32"):
        prove_small(replace(ANY, bind=bind, reuses_outputs=False), WORKLOADS[0])
