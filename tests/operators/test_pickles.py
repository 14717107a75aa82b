"""What users hold is data: pickled, copied, and sent to another process it is the same, and does the same."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.geometry.window import Window
from pooling.gradient_check import Checked
from pooling.tuning.exchange import Imported
from pooling.tuning.layer import facts
from pooling.tuning.wisdom import Measured, Wisdom, WisdomError
from tests.wisdom import made_up, store_in

SHAPE = (2, 3, 9, 8)
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)

OPERATORS: dict[str, Any] = {
    "max": pooling.MaxPool(3, 2, ((1, 0), (0, 1)), ties="last"),
    "max of simd": pooling.MaxPool(2, backend="simd"),
    "avg": pooling.AvgPool((3, 2), count_include_pad=False, data_format="channels_last"),
    "lp": pooling.LpPool(2, p=3.0),
    "lp of inf": pooling.LpPool(2, p=float("inf")),
    "adaptive max": pooling.AdaptiveMaxPool((None, 3)),
    "adaptive avg": pooling.AdaptiveAvgPool(2),
    "global max": pooling.GlobalMaxPool(keepdims=False),
    "global avg": pooling.GlobalAvgPool(),
    "global lp": pooling.GlobalLpPool(1),
    "fractional": pooling.FractionalMaxPool(2, output_ratio=0.5, random_samples=[0.25, 0.5]),
    "fractional, seeded": pooling.FractionalMaxPool(2, output_size=3, rng=3),
    "unpool": pooling.MaxUnpool(2, padding=(0, 0)),
}


def seen() -> pooling.Recording:
    with pooling.record() as recording:
        for name, operator in OPERATORS.items():
            if name != "unpool":
                operator(X)
        pooling.max_pool(X, 2)
        pooling.max_pool(X, 2)
    return recording


def data() -> dict[str, Any]:
    """One of everything that is public, or that public functions hand out."""
    window = Window.over((9, 8), 3, 2, ((1, 0), (0, 1)))
    layer = pooling.Layer(SHAPE, "float32", pooling.MaxPool(2), count=3)
    tuned = pooling.Tuned({"key": made_up({"strided_slices": 1.0})}, ["known"], {"left": "no time"}, {}, False)
    regions = pooling.AdaptiveMaxPool((4, 3)).problem(SHAPE)
    hash(regions)
    return OPERATORS | {
        "window": window,
        "problem": regions,
        "facts": facts(SHAPE, "float32", pooling.MaxPool(2)),
        "layer": layer,
        "recording": seen(),
        "choice": pooling.pick(SHAPE, "float32", pooling.MaxPool(2), explain=True),
        "choice of threads": pooling.pick(SHAPE, "float32", pooling.MaxPool(2), threads=3, explain=True),
        "ranked": pooling.pick(SHAPE, "float32", pooling.MaxPool(2), explain=True).ranking[0],
        "tuned": tuned,
        "record": made_up({"strided_slices": 1.0}),
        "wisdom": Wisdom({"here": {"cpu": "a CPU"}}, {"here": {"key": made_up({"strided_slices": 1.0})}}),
        "measured": Measured("abc", "2026-01-01"),
        "imported": Imported(["key"], [], {"other": "reason"}),
        "checked": Checked(1, 2, 3, 4, 5, "float64"),
        **{f"backend {name}": one for name, one in pooling.REGISTRY.items()},
        "registry": dict(pooling.REGISTRY),
    }


NAMES = list(data())
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda value: pickle.loads(pickle.dumps(value, protocol))


# The oldest can't pickle slots, of which what forward saves has some.
WAYS |= {f"pickle of protocol {protocol}": pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)}


def test_what_was_recorded_is_data() -> None:
    """``pickle.dumps(recording)`` and ``copy.deepcopy(recording)`` made "TypeError: cannot pickle '_thread.lock' object"."""
    recording = seen()
    for name, way in WAYS.items():
        again = way(recording)
        assert list(again) == list(recording), name
        assert again == recording
        assert repr(again) == repr(recording)
        again.note(SHAPE, X.dtype, OPERATORS["max"], OPERATORS["max"].problem(SHAPE), True)
        assert again != recording, "it is another one"
        assert len(again) == len(recording) + 1


def test_a_copy_of_a_recording_that_is_on_notes_nothing_more() -> None:
    with pooling.record() as recording:
        pooling.max_pool(X, 2)
        again = pickle.loads(pickle.dumps(recording))
        pooling.max_pool(X, 2)
    assert [layer.count for layer in again] == [1]
    assert [layer.count for layer in recording] == [2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_everything_public_can_be_copied(name: str, way: str) -> None:
    value = data()[name]
    again = WAYS[way](value)
    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)
    assert str(again) == str(value)


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "unpool"])
@pytest.mark.parametrize("way", WAYS)
def test_operators_and_what_they_saved_do_the_same(name: str, way: str) -> None:
    operator = copy.deepcopy(OPERATORS[name])
    again = WAYS[way](operator)
    y, saved = operator.forward(X)
    dx = operator.backward(y, saved)
    if way != "copy" or "seeded" not in name:  # those share their generator
        np.testing.assert_array_equal(again.forward(X)[0], y)
    np.testing.assert_array_equal(again.backward(y, WAYS[way](saved)), dx)


def test_an_unpooling_does_the_same() -> None:
    unpool = OPERATORS["unpool"]
    y, indices = pooling.max_pool(X[..., :8, :], 2, return_indices=True)
    back, saved = unpool.forward(y, indices)
    for way in WAYS.values():
        np.testing.assert_array_equal(way(unpool)(y, indices), back)
        np.testing.assert_array_equal(way(unpool).backward(back, way(saved)), y)


def test_operators_are_equal_if_they_do_the_same() -> None:
    pool = pooling.MaxPool(2)
    assert pool == pooling.MaxPool(2)
    assert hash(pool) == hash(pooling.MaxPool(2))
    assert len({pool, pooling.MaxPool(2), pooling.MaxPool(3)}) == 2
    others = [pooling.MaxPool(3), pooling.MaxPool(2, ties="last"), pooling.MaxPool(2, backend="simd")]
    others += [pooling.MaxPool(2, data_format="channels_last"), pooling.AvgPool(2), pooling.MaxUnpool(2), 2, None]  # type: ignore[list-item]
    for other in others:
        assert pool != other
        assert other != pool
    assert pooling.MaxUnpool(2) == pooling.MaxUnpool(2) != pooling.MaxUnpool(2, 1)
    assert len({pooling.MaxUnpool(2), pooling.MaxUnpool(2)}) == 1
    drawn = [pooling.FractionalMaxPool(2, 3, rng=seed) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    drawn[0](X)
    assert drawn[0] != drawn[1], "it has drawn"
    saved = pool.forward(X)[1]
    assert saved in [saved]
    assert saved != copy.deepcopy(saved), "what is saved is opaque, and holds arrays"


def test_a_backend_that_is_not_registered_is_copied_whole() -> None:
    known = pooling.get_backend("strided_slices")
    other = dataclasses.replace(known, ops={"max": known.ops["max"]})
    assert pickle.loads(pickle.dumps(other)) == copy.deepcopy(other) == other
    assert copy.deepcopy(pooling.get_backend("simd")) is pooling.get_backend("simd")


@pytest.mark.parametrize("kind", [*pooling.PoolingError.__subclasses__(), pooling.PoolingError, WisdomError])
@pytest.mark.parametrize("arguments", [(), ("why",), ("why", 3)])
def test_errors_can_be_copied(kind: Any, arguments: tuple[Any, ...]) -> None:
    error = kind(*arguments)
    error.add_note("a note")
    for way in WAYS.values():
        again = way(error)
        assert (type(again), again.args, str(again)) == (kind, arguments, str(error))
        assert again.__notes__ == error.__notes__


def _there(given: dict[str, Any], saved: Any, y: Any) -> Any:
    """In another process: what was sent is what is made there, and goes on."""
    same = {name: value == given[name] for name, value in data().items() if name in given}
    tuned = pooling.tune(given["recording"], 1e-9)
    dx = OPERATORS["max"].backward(y, saved)
    x, back = given["max"].forward(X)
    return same, len(tuned.left), dx, given["max"].backward(x, back), given


def test_another_process_is_sent_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_in(tmp_path / "wisdom.json", monkeypatch):
        given = data()
        y, saved = OPERATORS["max"].forward(X)
        dx = OPERATORS["max"].backward(y, saved)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            same, left, there, fresh, returned = pool.apply(_there, (given, saved, y))
    # What was drawn here before was not drawn there.
    assert {name for name, value in same.items() if not value} <= {"recording", "fractional, seeded"}
    assert left > 5
    np.testing.assert_array_equal(there, dx)
    np.testing.assert_array_equal(fresh, dx)
    assert returned == given
