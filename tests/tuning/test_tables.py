"""Layers as CSV, JSON and TOML: each holds what the others do."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pooling
from pooling.geometry.problem import TIES
from pooling.tuning.model_files import data_of, layer_of, read, write
from pooling.tuning.tables import cell_of, rows_of, table_of, value_of

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (2, 3, 9, 8)

LAYERS = [
    pooling.Layer(SHAPE, "float32", pooling.LpPool(3, p=1.5)),
    pooling.Layer(SHAPE, "float64", pooling.LpPool(3, p=math.inf, signed=True), "inference"),
    pooling.Layer(SHAPE, "float32", pooling.FractionalMaxPool(2, output_ratio=0.5)),
    pooling.Layer(SHAPE, "float32", pooling.FractionalMaxPool(2, output_ratio=(0.5, 0.7)), count=1 << 40),
    pooling.Layer(SHAPE, "float32", pooling.FractionalMaxPool(2, output_ratio=(Fraction(1, 3), np.float64(0.7)))),  # type: ignore[arg-type]
    pooling.Layer(SHAPE, "float32", pooling.MaxPool((3, 2), 2, ((1, 0), (0, 1)), ties="last")),
    pooling.Layer(SHAPE, "float32", pooling.MaxPool((3, 2), (2, 1), ((1, 0), 1), 1, True)),  # type: ignore[arg-type]
    pooling.Layer((9,), "float32", pooling.MaxPool((3,), padding=((1, 0),))),
    pooling.Layer(SHAPE, "float32", pooling.AvgPool(3, padding="same_lower", count_include_pad=False)),
    pooling.Layer(SHAPE, "float32", pooling.AvgPool(3, divisor_override=-2, data_format="channels_last")),
    pooling.Layer(SHAPE, "float32", pooling.AdaptiveMaxPool((None, 4))),
    pooling.Layer(SHAPE, "float32", pooling.AdaptiveAvgPool(None)),
    pooling.Layer(SHAPE, "int8", pooling.GlobalMaxPool(keepdims=False)),
    pooling.Layer([np.int64(n) for n in SHAPE], ">f4", pooling.GlobalLpPool(3), count=np.int64(7)),  # type: ignore[arg-type,misc]
]


def said(layers: list[pooling.Layer]) -> list[Any]:
    return [(data_of(one), one.facts().key, one.count) for one in layers]


@pytest.mark.parametrize("suffix", [".csv", ".toml", ".json"])
def test_every_form_holds_every_layer(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"layers{suffix}"
    write(path, LAYERS)
    assert said(read(path)) == said(LAYERS)


def test_other_forms_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(pooling.PoolingError, match=r"'\.yaml': a description that is written ends in \.toml, \.json"):
        write(tmp_path / "layers.yaml", LAYERS)


SMALL = st.integers(1, 3)
PAIR = st.lists(st.integers(0, 1), min_size=2, max_size=2)


def for_both(entry: Any) -> Any:
    return st.one_of(entry, st.lists(entry, min_size=2, max_size=2))


WINDOW = {"stride": for_both(SMALL), "padding": st.one_of(for_both(st.integers(0, 1)))}
WINDOW["padding"] |= st.lists(st.one_of(PAIR, st.integers(0, 1)), min_size=2, max_size=2)
WINDOW["padding"] |= st.sampled_from(["valid", "same_upper"])
OF_ALL: dict[str, Any] = {
    "shape": st.lists(st.integers(7, 9), min_size=4, max_size=4),
    "dtype": st.sampled_from(["float32", "float64"]),
    "direction": st.sampled_from(["training", "inference"]),
    "count": st.integers(1, 1 << 40),
    "data_format": st.sampled_from(["channels_first", "channels_last"]),
    "name": st.sampled_from(["conv1", "3x3", "1:0", "none", "true", "[", '"quoted"', "a,b"]),
}
RATIO = st.floats(0.01, 0.6)
KINDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"op": st.just("max"), "kernel_size": st.just(3), "dilation": SMALL, "ties": st.sampled_from(TIES)}, WINDOW),
    (
        {
            "op": st.just("lp"),
            "kernel_size": st.just(3),
            "p": st.one_of(st.integers(1, 9), st.floats(0.1, 1e300), st.just(math.inf)),
        },
        WINDOW,
    ),
    (
        {
            "op": st.just("avg"),
            "kernel_size": st.just(3),
            "count_include_pad": st.booleans(),
            "ceil_mode": st.booleans(),
        },
        WINDOW,
    ),
    ({"op": st.just("fractionalmax"), "kernel_size": SMALL, "output_ratio": for_both(RATIO)}, {}),
    ({"op": st.just("adaptiveavg"), "output_size": for_both(st.one_of(st.none(), SMALL))}, {}),
]
ENTRIES = st.one_of([st.fixed_dictionaries(must, optional=may | OF_ALL) for must, may in KINDS])
FUZZED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@settings(FUZZED)
@given(entries=st.lists(ENTRIES, min_size=1, max_size=3))
def test_from_form_to_form(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    """What a table could not hold: ``p=1.5``, ``output_ratio=0.5``, pairs of padding."""
    for entry in entries:
        entry.setdefault("shape", [2, 7, 9, 8])
    (tmp_path / "first.json").write_text(json.dumps(entries), encoding="utf-8")
    layers = read(tmp_path / "first.json")
    (tmp_path / "same.csv").write_text(table_of(entries), encoding="utf-8")
    assert said(read(tmp_path / "same.csv")) == said(layers)
    for suffix in (".csv", ".toml", ".json"):
        write(tmp_path / f"again{suffix}", layers)
        again = read(tmp_path / f"again{suffix}")
        assert said(again) == said(layers)
        layers = again


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4), max_leaves=8)


@settings(FUZZED)
@given(value=VALUES)
def test_a_cell_for_every_value(value: Any) -> None:
    read_again = value_of("padding", cell_of("padding", value))
    assert json.dumps(read_again) == json.dumps(value), "of the same types, too"


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("2", 2),
        (" 2 ", 2),
        ("+2", 2),
        ("-2", -2),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("inf", math.inf),
        ("Inf", math.inf),
        ("TRUE", True),
        ("none", None),
        ("3x2", [3, 2]),
        ("3 X 2", [3, 2]),
        ("3x", [3]),
        ("nonex4", [None, 4]),
        ("0.5x0.7", [0.5, 0.7]),
        ("1:0", [[1, 0]]),
        ("1:0x0:1", [[1, 0], [0, 1]]),
        ("1:0x2", [[1, 0], 2]),
        ("1:0x", [[1, 0]]),
        ("[]", []),
        ("[1, [2, null]]", [1, [2, None]]),
        ('"2"', "2"),
        ("same_upper", "same_upper"),
        ("max", "max"),
        ("x", "x"),
        ("1x2y", "1x2y"),
        ("1:2:3", "1:2:3"),
        ("²", "²"),
        ("0b1", "0b1"),
    ],
)
def test_what_a_cell_means(cell: str, value: Any) -> None:
    assert repr(value_of("stride", cell)) == repr(value)


def test_shapes_are_lists_and_words_are_words() -> None:
    assert rows_of("shape,dtype,name\n5,f4,3x3\n\n6x,f8,2\n") == [
        {"shape": [5], "dtype": "f4", "name": "3x3"},
        {"shape": [6], "dtype": "f8", "name": "2"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape,shape\n1x1x4x4,2\n", "two columns have the name 'shape': leave one out"),
        ("shape,\n1x1x4x4,2\n", "line 2: '2' is in a column without a name: give it one"),
        ('shape,padding\n1x1x4x4,"[1"\n', r"line 2: padding='\[1' is no JSON .*: write it as 2, 3x3 or 1:0x0:1"),
        ('shape,padding\n1x1x4x4,"2\n', "line 2 is no line of a table"),
        ("shape,padding\n1x1x4x4," + "2" * 200_000 + "\n", "line 2 is no line of a table .*field limit"),
        ("shape,padding\n1x1x4x4," + "[" * 100_000 + "\n", "model.csv: its lists .* nested too deeply: write"),
        ("shape,kernel_size,count\n1x1x4x4,2,1.5\n", r"layer 1: count=1\.5: 1\.5 is not an int"),
        ("shape,kernel_size,count\n1x1x4x4,2,0\n", "layer 1: count=0: 0 is too small, it must be at least 1"),
        (f"shape,kernel_size,count\n1x1x4x4,2,{(1 << 40) + 1}\n", "layer 1: count=.* it must be at most 1099511627776"),
        ("shape,kernel_size\n4\u00b2,2\n", "line 2: shape='4²' is no number and no list: write it as 2x3x8x8"),
        ('shape,op,p\n"2,3,8,8",lp,2\n', "line 2: shape='2,3,8,8' is no number and no list: write it as 2x3x8x8"),
        ("", "has no layers: describe at least one"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "model.csv").write_text(text, encoding="utf-8")
    with pytest.raises(pooling.PoolingError, match=message):
        read(tmp_path / "model.csv")


def test_an_entry_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('[{"shape": [1, 1, 4, 4], "stride": 1, "stride": 2}]', encoding="utf-8")
    with pytest.raises(pooling.PoolingError, match="a table has the entry 'stride' twice: leave one out"):
        read(tmp_path / "model.json")


def test_none_in_toml(tmp_path: Path) -> None:
    text = '[[layers]]\nop = "adaptivemax"\nshape = [2, 3, 9, 8]\noutput_size = ["none", 4]\n'
    (tmp_path / "model.toml").write_text(text, encoding="utf-8")
    (layer,) = read(tmp_path / "model.toml")
    assert layer.facts().problem.window.output_size == (9, 4)


def test_the_table_in_the_manual(tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    found = re.search(r"```\n(op,.*?)```", manual, re.DOTALL)
    assert found is not None
    (tmp_path / "model.csv").write_text(found[1], encoding="utf-8")
    layers = read(tmp_path / "model.csv")
    assert [repr(one.operator) for one in layers] == [
        "MaxPool(kernel_size=(3, 2), stride=2, padding=((1, 0), (0, 1)))",
        "LpPool(kernel_size=(3,), p=1.5, stride=1)",
        "AdaptiveMaxPool(output_size=(None, 4))",
        "FractionalMaxPool(kernel_size=2, output_ratio=(0.5, 0.7))",
        "AvgPool(kernel_size=3, padding=((1, 0), (0, 1)))",
    ]
    assert layers[0].count == 100


ONNX_WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no kernel": ({"strides": [1, 1]}, "the node MaxPool 'pool' is not as ONNX defines it .*kernel_shape"),
    "pads of three": ({"kernel_shape": [2, 2], "pads": [0, 0, 1]}, "is not as ONNX defines it"),
    "a kernel of one number": ({"kernel_shape": 2}, "is not as ONNX defines it"),
    "a kernel of words": ({"kernel_shape": ["a", "b"]}, "layer 1: kernel_size=.* is not an int"),
    "negative pads": ({"kernel_shape": [2, 2], "pads": [-1, 0, 0, 0]}, "layer 1: padding=.*-1 is too small"),
    "unknown automatic pads": ({"kernel_shape": [2, 2], "auto_pad": "SAME"}, "layer 1: padding='same'"),
    "automatic pads as a number": ({"kernel_shape": [2, 2], "auto_pad": 1}, "is not as ONNX defines it"),
    "a huge kernel": ({"kernel_shape": [1 << 62, 2]}, "layer 1: kernel_size=.* is too large"),
    "stride 0": ({"kernel_shape": [2, 2], "strides": [0, 1]}, "layer 1: stride=.* 0 is too small"),
}


@pytest.mark.parametrize("name", ONNX_WRONG)
def test_nodes_that_are_none_are_named(tmp_path: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    attributes, message = ONNX_WRONG[name]
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("MaxPool", ["x"], ["y"], name="pool", **attributes)
    x = value("x", onnx.TensorProto.FLOAT, [2, 3, 9, 9])
    graph = onnx.helper.make_graph([node], "g", [x], [value("y", onnx.TensorProto.FLOAT, None)])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(pooling.PoolingError, match=message):
        read(tmp_path / "model.onnx")


def test_random_samples_in_every_form() -> None:
    """They are not written, and read from every form."""
    data: dict[str, Any] = {"op": "fractionalmax", "shape": [1, 1, 8, 8], "kernel_size": 2, "output_size": 3}
    samples = [[[0.25, 0.5]]]
    (row,) = rows_of(table_of([data | {"random_samples": samples, "rng": 10**40}]))
    assert (row["random_samples"], row["rng"]) == (samples, 10**40)
    assert layer_of(row).facts().key == layer_of(data).facts().key
