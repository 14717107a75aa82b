"""Tuning: who is wrong gets no time, who is hopeless is stopped, what is known stays, and an interrupt loses little."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.backends.registry import REGISTRY
from pooling.parallel.pool import chosen_threads
from pooling.tuning import timing as measuring
from pooling.tuning import tuner
from pooling.tuning.candidates import sort_out
from pooling.tuning.layer import facts
from pooling.tuning.store import store
from pooling.tuning.timing import Clock, measure
from tests.wisdom import CHEAP, SHAPE, key, only, store_in, wrong_forward

POOL = pooling.MaxPool(2)
LAYER = (SHAPE, "float32", POOL)


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    only(CHEAP, monkeypatch)
    monkeypatch.setattr(measuring, "MOST", 6)
    with store_in(tmp_path / "wisdom.json", monkeypatch) as path:
        yield path


def records() -> dict[str, Any]:
    return dict(store.load())


def test_tuning_records_every_candidate_with_its_times() -> None:
    tuned = pooling.tune([LAYER])
    assert list(tuned.measured) == [key()]
    assert tuned.kept
    record = records()[key()]
    assert set(record.candidates) == {"argmax_switches", "strided_slices"}
    assert record.choice in record.candidates
    assert record.layer == "(4, 3, 12, 12) float32"
    for one in record.candidates.values():
        assert 0 < one.low_us <= one.median_us <= one.high_us
        assert one.samples >= 1
    assert pooling.pick(*LAYER, explain=True).origin == "record"
    assert "1 measured, 0 known already" in str(tuned)


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pooling.tune([LAYER])
    before = records()
    calls: list[Any] = []

    def counted(about: Any, names: Any, *rest: Any) -> Any:
        calls.append(names)
        return measure(about, names, *rest)

    monkeypatch.setattr(tuner, "measure", counted)
    tuned = pooling.tune([LAYER, ((3, *SHAPE[1:]), "float32", POOL)])
    assert (tuned.known, tuned.measured, calls) == ([key()], {}, [])
    assert records() == before
    assert pooling.tune([LAYER], again=True).measured
    assert len(calls) == 1


def test_a_new_backend_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pooling.tune([LAYER])
    before = records()[key()]
    newcomer = dataclasses.replace(REGISTRY["strided_slices"], name="newcomer")
    monkeypatch.setitem(REGISTRY, "newcomer", newcomer)
    tuned = pooling.tune([LAYER])
    after = records()[key()]
    assert list(tuned.measured) == [key()]
    assert set(after.candidates) == {*before.candidates, "newcomer"}
    assert {name: after.candidates[name] for name in before.candidates} == before.candidates


def test_a_wrong_candidate_gets_no_time_and_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "strided_slices", wrong_forward("strided_slices"))
    tuned = pooling.tune([LAYER])
    assert "differs from that of reference on a small cut" in tuned.refused[key()]["strided_slices"]
    assert records()[key()].candidates["strided_slices"].median_us is None
    choice = pooling.pick(*LAYER, explain=True)
    assert choice.backend == "argmax_switches"
    assert "wrong" in choice.not_considered["strided_slices"]


def test_when_all_are_wrong_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("strided_slices", "argmax_switches"):
        monkeypatch.setitem(REGISTRY, name, wrong_forward(name))
    tuned = pooling.tune([LAYER])
    assert "no candidate gave the right result" in tuned.left[key()]
    assert set(tuned.refused[key()]) == {"strided_slices", "argmax_switches"}
    assert records() == {}


def test_who_is_wrong_at_full_size_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = REGISTRY["argmax_switches"]
    run = honest.ops["max"]

    def forward(x: Any, problem: Any, y: Any, training: bool) -> Any:
        kept = run.forward(x, problem, y, training)
        if y.size > 40_000:
            y[-1] += 1
        return kept

    broken = dataclasses.replace(honest, ops={"max": dataclasses.replace(run, forward=forward)})
    monkeypatch.setitem(REGISTRY, "argmax_switches", broken)
    tuned = pooling.tune([((64, 20, 12, 12), "float32", POOL)])
    (refused,) = tuned.refused.values()
    assert "differs from what is right" in refused["argmax_switches"]


def test_who_raises_is_refused_now_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("out of luck")

    run = REGISTRY["argmax_switches"].ops["max"]
    with monkeypatch.context() as patch:
        broken = dataclasses.replace(REGISTRY["argmax_switches"], ops={"max": dataclasses.replace(run, forward=fail)})
        patch.setitem(REGISTRY, "argmax_switches", broken)
        tuned = pooling.tune([LAYER])
        assert "out of luck" in tuned.refused[key()]["argmax_switches"]
        assert set(records()[key()].candidates) == {"strided_slices"}
    pooling.tune([LAYER])
    assert set(records()[key()].candidates) == {"argmax_switches", "strided_slices"}


def test_the_proof_has_ties_and_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    about = facts((64, 64, 56, 56), "float32", pooling.MaxPool(3, 2, 1))
    proof = measuring._Proof.of(about)
    x, y = proof.arrays.x, proof.truth.y
    assert np.isnan(x).any()
    assert np.isneginf(x).any()
    assert len(np.unique(x[np.isfinite(x)])) < 20
    assert x.size < 21 * 121
    assert (proof.arrays.facts.problem.window.padded, y.shape[1] > 3) == (True, True)
    for name in ("strided_slices", "argmax_switches"):
        assert proof.refutes(REGISTRY[name]) is None


@pytest.mark.parametrize("direction", ["training", "inference"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_every_kind_of_layer_can_be_measured(direction: Any, dtype: str, data_format: Any) -> None:
    operators: list[Any] = [pooling.MaxPool(2, ties=ties, data_format=data_format) for ties in ("first", "all")]
    operators += [] if dtype in ("int8", "bool") else [pooling.AvgPool(3, 2, 1, data_format=data_format)]
    for operator in operators:
        about = facts((2, 6, 7, 5), dtype, operator, direction)
        able, _ = sort_out(about)
        outcome = measure(about, able, Clock(math.inf), Clock(0.01))
        assert set(outcome.times) == set(able)
        assert outcome.refused == {}


def test_the_hopeless_are_stopped_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SOON_S", 0.0)
    about = facts((320, 10, 12, 12), "float32", POOL)
    monkeypatch.setattr(measuring, "HOPELESS", 1e-9)
    outcome = measure(about, ["strided_slices", "argmax_switches"], Clock(math.inf), Clock(1.0))
    assert "hopeless" in outcome.times["argmax_switches"].note
    assert len(outcome.times["argmax_switches"].samples) == 1
    assert len(outcome.times["strided_slices"].samples) >= measuring.FEW


def test_a_budget_that_is_spent_leaves_the_rest() -> None:
    layers = [((n, 3, 12, 12), "float32", POOL) for n in (1, 16, 256)]
    tuned = pooling.tune(layers, 1e-9)
    assert tuned.measured == {}
    assert set(tuned.left.values()) == {"no time was left"}
    assert records() == {}


@pytest.mark.parametrize("budget_s", [np.float32(30), np.int64(30), math.inf, 10**400])
def test_a_budget_may_be_any_number(budget_s: Any) -> None:
    assert len(pooling.tune([LAYER], budget_s).measured) == 1


def test_the_layers_that_take_longest_come_first() -> None:
    layers = [
        pooling.Layer((2, 3, 12, 12), "float32", POOL),
        pooling.Layer((200, 3, 12, 12), "float32", POOL),
        pooling.Layer((20, 3, 12, 12), "float32", POOL, count=10_000),
    ]
    seen: list[str] = []
    pooling.tune(layers, progress=lambda done, of, key: seen.append(key))
    assert seen == [layers[2].facts().key, layers[1].facts().key, layers[0].facts().key, ""]


def test_an_interrupt_keeps_what_is_done(path: Path) -> None:
    layers = [((n, 3, 12, 12), "float32", POOL) for n in (1, 16, 256)]

    def interrupt(done: int, of: int, key: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pooling.tune(layers, progress=interrupt)
    store.reload()
    assert len(records()) == 2
    assert pooling.tune(layers).measured.keys() == {facts((1, 3, 12, 12), "float32", POOL).key}


def test_threads_are_as_before() -> None:
    before = pooling.get_num_threads()
    pooling.tune([LAYER], threads=before + 1)
    assert pooling.get_num_threads() == before
    assert chosen_threads() is None, "POOLING_NUM_THREADS counts for nothing while a number is set"
    assert list(records()) == [key(threads=before + 1)]


def test_what_can_not_be_measured_is_told() -> None:
    tuned = pooling.tune([((0, 3, 12, 12), "float32", POOL), (SHAPE, "complex64", POOL)])
    assert "its input is empty" in tuned.left.values()
    assert "complex64" in str(tuned)
    huge = pooling.tune([((1 << 20, 1 << 12, 1 << 10, 1 << 10), "float64", POOL)], 1e9)
    assert "do not fit into memory" in str(huge)
    assert tuned.measured == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([LAYER], 0), "budget_s=0"),
        (([LAYER], True), "budget_s=True"),
        (([LAYER], float("nan")), "budget_s=nan"),
        (([3],), "workloads holds 3"),
        ((3,), "workloads=3: give a list"),
        ((pooling.Layer(*LAYER),), "workloads=Layer.*: give a list"),
        (([pooling.Layer(*LAYER, count="often")],), "count='often'"),  # type: ignore[arg-type]
        (([(SHAPE, "float32")],), "workloads holds"),
        (([(SHAPE, "float32", pooling.MaxPool(99))],), "kernel_size 99"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(pooling.PoolingError, match=message):
        pooling.tune(*arguments)
    with pytest.raises(pooling.PoolingError, match="threads=0"):
        pooling.tune([LAYER], threads=0)


def test_a_recording_knows_what_ran() -> None:
    x = np.zeros(SHAPE, np.float32)
    pool = pooling.AvgPool(2)
    with pooling.record() as outer:
        y, saved = POOL.forward(x)
        with pooling.record() as inner:
            for _ in range(3):
                pooling.max_pool(x[:1], 2)
            pool(np.moveaxis(x, 1, -1))
        POOL.backward(y, saved)
        POOL.forward(x)
    POOL.forward(x)
    seen = [(layer.shape, layer.facts().problem.op, layer.direction, layer.count) for layer in outer]
    assert seen == [
        (SHAPE, "max", "training", 2),
        ((1, 3, 12, 12), "max", "inference", 3),
        ((4, 12, 12, 3), "avg", "inference", 1),
    ]
    assert len(inner) == 2
    assert "3 layers, 6 calls" in repr(outer)
    assert pooling.tune(outer).measured.keys() == {layer.facts().key for layer in outer}


def test_threads_record_together() -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)

    def work() -> None:
        for _ in range(50):
            pooling.max_pool(x, 2)

    with pooling.record() as seen:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [layer.count for layer in seen] == [200]


def test_an_error_ends_a_recording() -> None:
    from pooling.operators.selection import observers

    with pytest.raises(ZeroDivisionError), pooling.record():
        raise ZeroDivisionError
    assert observers() == ()


def test_a_call_notes_nothing_when_nobody_records(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = itertools.count()
    monkeypatch.setattr(pooling.Recording, "note", lambda *a: next(notes))
    POOL(np.zeros(SHAPE, np.float32))
    assert next(notes) == 0
