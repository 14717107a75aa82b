"""Who is chosen: by the record, by the rule, within what users were promised; and what is said of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.backends.registry import REGISTRY
from pooling.tuning import rule
from pooling.tuning.candidates import FOR_REFERENCE, READS_X_AGAIN, sort_out, source_of
from pooling.tuning.choose import choose
from pooling.tuning.layer import Direction, facts
from pooling.tuning.store import store
from tests.cases import LAYOUTS, WINDOWS, same_bits
from tests.wisdom import SHAPE, key, made_up, store_in


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with store_in(tmp_path / "wisdom.json", monkeypatch) as path:
        yield path


def explain(shape: Any = SHAPE, operator: Any = None, **options: Any) -> pooling.Choice:
    choice: pooling.Choice = pooling.pick(shape, "float32", operator or pooling.MaxPool(2), explain=True, **options)
    return choice


def test_without_a_record_the_rule_says() -> None:
    choice = explain()
    assert choice.origin == "rule"
    assert choice.backend == pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) == choice.ranking[0].backend
    assert "rule" in str(choice)
    assert not any(place.measured for place in choice.ranking)


def test_a_record_decides() -> None:
    store.add(key(), made_up({"simd": 30.0, "strided_slices": 20.0, "numba_loops": 40.0}))
    choice = explain()
    assert (choice.backend, choice.origin) == ("strided_slices", "record")
    assert [(place.backend, round(1e6 * (place.seconds or 0))) for place in choice.ranking] == [
        ("strided_slices", 20),
        ("simd", 30),
        ("numba_loops", 40),
    ]
    assert all(place.measured == "2026-01-01T00:00:00+00:00" for place in choice.ranking)
    assert "measured 2026-01-01" in str(choice)
    assert "tune again" in choice.not_considered["argmax_switches"]
    x = np.zeros(SHAPE, np.float32)
    assert pooling.MaxPool(2).forward(x)[1].backend == "strided_slices"
    assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2), "inference") != "strided_slices"


def test_who_is_not_considered_is_told_why() -> None:
    choice = explain()
    ranked = {place.backend for place in choice.ranking}
    assert ranked | set(choice.not_considered) == set(REGISTRY)
    assert not ranked & set(choice.not_considered)
    assert choice.not_considered["reference"] == FOR_REFERENCE
    assert choice.not_considered["strided_reshape"] == READS_X_AGAIN
    assert "ties" in choice.not_considered["block_reduce"]


def test_an_operator_chooses_anew_after_tuning_and_with_other_threads() -> None:
    pool, x = pooling.MaxPool(2), np.zeros(SHAPE, np.float32)
    y, saved = pool.forward(x)
    before = saved.backend
    other = "strided_slices" if before != "strided_slices" else "numba_loops"
    store.add(key(), made_up({other: 1.0}))
    assert pool.forward(x)[1].backend == other
    assert pool.backward(y, saved).shape == x.shape, "what was saved before is still good"
    try:
        pooling.set_num_threads(pooling.get_num_threads() + 3)
        assert pool.forward(x)[1].backend == before
    finally:
        pooling.set_num_threads(None)


@pytest.mark.parametrize("batch", [2, 3, 5, 7, 8, 14])
def test_another_batch_size_shares_the_record(batch: int) -> None:
    store.add(key(), made_up({"argmax_switches": 1.0}))
    assert explain((batch, *SHAPE[1:])).backend == "argmax_switches"


@pytest.mark.parametrize(
    ("shape", "operator", "options"),
    [
        ((400, *SHAPE[1:]), None, {}),
        ((4, 3, 40, 12), None, {}),
        (SHAPE, pooling.MaxPool(3), {}),
        (SHAPE, pooling.MaxPool(2, 1), {}),
        (SHAPE, pooling.MaxPool(2, ties="last"), {}),
        (SHAPE, pooling.MaxPool(2, padding=1), {}),
        (SHAPE, pooling.MaxPool(2, ceil_mode=True), {}),
        (SHAPE, pooling.AvgPool(2), {}),
        (SHAPE, None, {"direction": "inference"}),
        (SHAPE, None, {"threads": 7}),
        ((4, 12, 12, 3), pooling.MaxPool(2, data_format="channels_last"), {}),
    ],
)
def test_what_matters_to_speed_has_a_record_of_its_own(shape: Any, operator: Any, options: Any) -> None:
    store.add(key(), made_up({"argmax_switches": 1.0}))
    assert explain(shape, operator, **options).origin == "rule"
    assert pooling.pick(SHAPE, "float64", pooling.MaxPool(2), explain=True).origin == "rule"


def test_a_stale_choice_gives_way_to_the_next_measured() -> None:
    record = made_up({"argmax_switches": 1.0, "strided_slices": 2.0, "numba_loops": 3.0})
    old = dict(record.candidates)
    old["argmax_switches"] = type(old["argmax_switches"])("another source", "2026-01-01", 1.0, 1.0, 1.0, 3)
    store.add(key(), type(record)("argmax_switches", "made up", old))
    choice = explain()
    assert choice.backend == "strided_slices"
    assert "source has changed" in choice.not_considered["argmax_switches"]


def test_a_record_of_a_backend_that_is_gone_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(key(), made_up({"argmax_switches": 1.0}))
    monkeypatch.delitem(REGISTRY, "argmax_switches")
    assert explain().origin == "rule"
    assert explain().backend in REGISTRY


def test_a_record_can_not_choose_what_changes_semantics() -> None:
    store.add(key(), made_up({"strided_reshape": 1.0, "strided_slices": 9.0}))
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    pool = pooling.MaxPool(2)
    y, saved = pool.forward(x)
    assert saved.backend == "strided_slices"
    expected = pool.backward(y, saved)
    dy = y.copy()
    x.fill(7)
    assert same_bits(pool.backward(dy, saved), expected), "x may be overwritten in between"
    store.add(key(operator=pooling.MaxPool(2, ties="all")), made_up({"argmax_switches": 1.0, "strided_slices": 9.0}))
    assert explain(operator=pooling.MaxPool(2, ties="all")).backend == "strided_slices"


def test_within_the_margin_the_rule_stays() -> None:
    from pooling.tuning.wisdom import chosen

    close = made_up({"simd": 100.0, "numba_loops": 97.0}).candidates
    apart = made_up({"simd": 100.0, "numba_loops": 80.0}).candidates
    assert chosen(close, "simd") == "simd"
    assert chosen(close, "numba_loops") == "numba_loops"
    assert chosen(close, None) == chosen(apart, "simd") == "numba_loops"


def problems() -> Iterator[tuple[tuple[int, ...], str, Any]]:
    layouts = [LAYOUTS[name] for name in ("1d-first", "2d-first", "2d-last", "2d-few-last", "3d-first", "4d-last")]
    for window, (data_format, shape), dtype in itertools.product(
        WINDOWS.values(), layouts, ("float32", "float16", "int8")
    ):
        arguments: tuple[Any, ...] = tuple(a[: len(shape) - 2] if isinstance(a, tuple) else a for a in window)
        for ties in pooling.get_backend("reference").ties:
            yield shape, dtype, pooling.MaxPool(*arguments, ties=ties, data_format=data_format)
        if dtype != "int8":
            yield shape, dtype, pooling.AvgPool(*arguments, data_format=data_format)


def test_the_rule_never_names_who_declines() -> None:
    count = 0
    settings: tuple[tuple[Direction, int], ...] = (("training", 1), ("inference", 64))
    for shape, dtype, operator in problems():
        for direction, threads in settings:
            name = choose(facts(shape, dtype, operator, direction, threads))
            assert REGISTRY[name].why_not(shape, dtype, operator) is None
            assert not REGISTRY[name].reference_only
            count += 1
    assert count > 1000


def test_the_rule_has_prices_for_every_backend_but_the_reference() -> None:
    prices = rule.rule()["prices"]
    assert prices
    for name in REGISTRY:
        assert any(case.startswith(f"{name}, ") for case in prices) or REGISTRY[name].reference_only, name
    for values in prices.values():
        assert len(values) == len(rule.TERMS)
        assert min(values) >= 0


def test_without_its_file_the_rule_falls_back_to_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "PATH", str(tmp_path / "none.json"))
    rule.rule.cache_clear()
    try:
        assert explain().backend == "simd"
        assert explain().ranking[0].seconds is None
        assert "?" in str(explain())
    finally:
        monkeypatch.undo()
        rule.rule.cache_clear()


def test_a_new_backend_without_prices_is_ranked_last() -> None:
    about = facts(SHAPE, "float32", pooling.MaxPool(2))
    able, _ = sort_out(about)
    assert rule.ranked(about, ["newcomer", *able])[-1] == "newcomer"


def test_a_changed_source_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    from pooling.tuning import candidates

    digests = {name: source_of(backend) for name, backend in REGISTRY.items()}
    assert len(set(digests.values())) == len(REGISTRY)
    candidates._digest.cache_clear()
    original = candidates._source
    monkeypatch.setattr(
        candidates,
        "_source",
        lambda module: original(module) + b"#" * module.endswith("separable.axis"),
    )
    try:
        changed = {name for name, backend in REGISTRY.items() if source_of(backend) != digests[name]}
    finally:
        candidates._digest.cache_clear()
    assert changed == {"simd"}, "and only that of who is made from it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SHAPE, "float32", pooling.MaxPool(2), "sideways"), "direction='sideways'"),
        (("4,4", "float32", pooling.MaxPool(2)), "shape='4,4'"),
        (((4, 3.5, 8, 8), "float32", pooling.MaxPool(2)), r"3.5 is not an int"),
        ((SHAPE, "float23", pooling.MaxPool(2)), "dtype='float23'"),
        ((SHAPE, "(2,", pooling.MaxPool(2)), r"dtype='\(2,'"),
        ((SHAPE, ("i4", -1), pooling.MaxPool(2)), r"dtype=\('i4', -1\)"),
        ((SHAPE, "int32", pooling.AvgPool(2)), r"with dtype=int32 none can: pool x.astype\(np.float32\)"),
        ((SHAPE, "float32", "max"), "operator='max'"),
        ((SHAPE, "float32", 2), "operator=2"),
        (((3, 12), "float32", pooling.MaxPool(2).problem(SHAPE)), "neither its last 2 axes"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(pooling.PoolingError, match=message):
        pooling.pick(*arguments)


def test_a_problem_is_as_good_as_an_operator() -> None:
    operator = pooling.MaxPool(2, data_format="channels_last")
    shape = (2, 8, 8, 5)
    problem = operator.problem(shape)
    assert facts(shape, "float32", problem) == facts(shape, "float32", operator)


def test_no_choice_reads_the_store_before_it_is_needed() -> None:
    store.reload()
    pooling.MaxPool(2, backend="strided_slices")(np.zeros(SHAPE, np.float32))
    assert store.records is None
    assert os.environ["POOLING_WISDOM"]
    pooling.pick(SHAPE, "float32", pooling.MaxPool(2))
    assert store.records is not None
