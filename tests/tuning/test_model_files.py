"""Descriptions of models: each kind of file says the same, and what is wrong is named with its file and layer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pooling
from pooling.tuning.model_files import data_of, layer_of, operators, read, write

ROOT = Path(__file__).resolve().parents[2]

TOML = """
[defaults]
dtype = "float64"
direction = "inference"

[[layers]]
name = "conv1"
op = "max"
shape = [2, 3, 9, 8]
kernel_size = [3, 2]
stride = 2
padding = [[1, 0], [0, 1]]
ties = "last"
count = 5

[[layers]]
op = "avg"
shape = [2, 9, 8, 3]
kernel_size = 3
data_format = "channels_last"
count_include_pad = false
dtype = "float32"
"""

CSV = """op,shape,kernel_size,stride,padding,ties,count,data_format,count_include_pad,dtype,direction
max,2x3x9x8,3x2,2x2,1x0,last,5,,,float64,inference
avg,2x9x8x3,3,,,,,channels_last,false,float32,inference
"""


def said(layers: list[pooling.Layer]) -> list[Any]:
    return [(tuple(one.shape), str(one.dtype), repr(one.operator), one.direction, one.count) for one in layers]


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_toml(tmp_path: Path) -> None:
    first, second = read(file(tmp_path, "model.toml", TOML))
    assert said([first]) == [
        (
            (2, 3, 9, 8),
            "float64",
            repr(pooling.MaxPool((3, 2), 2, ((1, 0), (0, 1)), ties="last")),
            "inference",
            5,
        )
    ]
    pool = pooling.AvgPool(3, data_format="channels_last", count_include_pad=False)
    assert said([second]) == [((2, 9, 8, 3), "float32", repr(pool), "inference", 1)]


def test_json_and_csv(tmp_path: Path) -> None:
    layers: list[dict[str, Any]] = [
        {"op": "MaxPool", "shape": [2, 3, 9, 8], "kernel_size": [3, 2], "stride": [2, 2], "padding": [1, 0]}
    ]
    layers[0] |= {"ties": "last", "count": 5, "dtype": "float64", "direction": "inference"}
    listed = read(file(tmp_path, "list.json", json.dumps(layers)))
    table = read(file(tmp_path, "table.csv", CSV))
    assert said(listed) == said(read(file(tmp_path, "model.json", json.dumps({"layers": layers}))))
    assert said(listed) == said(table[:1])
    assert table[1].operator.data_format == "channels_last"  # type: ignore[union-attr]


def test_what_was_recorded_can_be_written_and_read(tmp_path: Path) -> None:
    with pooling.record() as seen:
        pooling.max_pool(np.zeros((1, 2, 8, 8), np.float32), 3, 2, "same_upper", ceil_mode=True)
        pooling.AvgPool((2, 2), divisor_override=3).forward(np.zeros((4, 4)))
    path = tmp_path / "seen.json"
    write(path, list(seen))
    assert [one.facts() for one in read(path)] == [one.facts() for one in seen]
    assert [layer_of(data_of(one)).facts() for one in seen] == [one.facts() for one in seen]


@pytest.mark.parametrize("options", [{}, {"rng": 3}, {"random_samples": np.full((1, 1, 2), 0.5)}])
def test_windows_drawn_by_chance_can_be_written(tmp_path: Path, options: Any) -> None:
    with pooling.record() as seen:
        pooling.FractionalMaxPool(2, output_size=3, **options)(np.zeros((1, 1, 8, 8), np.float32))
    write(tmp_path / "seen.json", list(seen))
    (layer,) = read(tmp_path / "seen.json")
    assert layer.facts().key == next(iter(seen)).facts().key


def test_a_process_that_has_used_none_knows_every_operator() -> None:
    script = "from pooling.tuning.model_files import operators; print(*operators())"
    done = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == set(operators()) >= {"globalavg", "adaptivemax", "fractionalmax", "lp"}
    assert "maxoperator" not in operators()


def test_a_table_of_excel_has_a_mark_before_it(tmp_path: Path) -> None:
    (tmp_path / "layers.csv").write_text("shape,kernel_size\n4x4x8x8,2\n", encoding="utf-8-sig")
    assert read(tmp_path / "layers.csv")[0].shape == (4, 4, 8, 8)


@pytest.mark.parametrize("name", ["deep.json", "deep.toml"])
def test_a_deep_file_is_no_end_of_the_stack(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a = " * name.endswith("toml") + "[" * 100_000, encoding="utf-8")
    with pytest.raises(pooling.PoolingError, match=name):
        read(tmp_path / name)


def test_every_operator_has_a_name() -> None:
    assert {"max", "MaxPool", "avg", "AvgPool"} <= set(operators())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.toml", "[[layers]", "model.toml: "),
        ("model.json", "{", "model.json: "),
        ("model.json", '{"layers": 3}', "a list `layers`"),
        ("model.json", '{"layers": [], "other": 1}', "a list `layers`"),
        ("model.json", "[]", "has no layers"),
        ("model.json", "[3]", "layer 1: 3 is not a layer"),
        (
            "model.json",
            '[{"shape": [1, 1, 4, 4], "kernel_size": 2, "op": "median"}]',
            "layer 1: op='median': there are",
        ),
        ("model.json", '[{"shape": [1, 1, 4, 4], "kernel": 2}]', "'kernel' is no entry of a layer"),
        ("model.json", '[{"kernel_size": 2}]', "shape is missing"),
        ("model.json", '[{"shape": [1, 1, 4, 4]}]', "missing 1 required .*kernel_size"),
        ("model.json", '[{"shape": [1, 1, 4, 4], "kernel_size": 9}]', "layer 1: kernel_size 9"),
        ("model.json", '[{"shape": "big", "kernel_size": 2}]', "shape='big'"),
        ("model.json", '[{"shape": [1, 1, 4, 4], "kernel_size": 2, "dtype": "f23"}]', "dtype='f23'"),
        ("model.json", '[{"shape": [1, 1, 4, 4], "kernel_size": 2, "count": 0}]', "count=0"),
        ("model.json", '[{"shape": [1, 1, 4, 4], "kernel_size": 2, "direction": "up"}]', "direction='up'"),
        ("model.csv", "shape,kernel_size\n1x1x4x4,2,3\n", "a column without a name"),
        ("model.yaml", "", "ends in .toml, .json, .csv or .onnx"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(pooling.PoolingError, match=message):
        read(file(tmp_path, name, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(pooling.PoolingError, match=r"none.toml: No such file"):
        read(tmp_path / "none.toml")


def test_an_onnx_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("AveragePool", ["b"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", onnx.TensorProto.FLOAT, ["n", 3, 9, 9])], [value("y", onnx.TensorProto.FLOAT, None)]
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(pooling.PoolingError, match="no fixed shape: pass --batch"):
        read(path)
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(helper.make_model(graph), path)
    first, second = read(path)
    assert said([first]) == [
        ((4, 3, 9, 9), "float32", repr(pooling.MaxPool((3, 3), (2, 2), ((1, 0), (1, 0)), (1, 1), True)), "inference", 1)
    ]
    assert tuple(second.shape) == (4, 3, 5, 5)
    assert second.facts().problem.window.output_size == (5, 5)
    path.write_bytes(b"no model")
    with pytest.raises(pooling.PoolingError, match="not an ONNX model"):
        read(path)


@pytest.mark.parametrize(("separator", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_table_with_other_separators_names_them(tmp_path: Path, separator: str, called: str) -> None:
    lines = [["op", "shape", "kernel_size"], ["max", "1x1x4x4", "2"]]
    path = tmp_path / "layers.csv"
    path.write_text("\n".join(map(separator.join, lines)), encoding="utf-8")
    with pytest.raises(pooling.PoolingError, match=f"layers.csv: line 1: .* separated by {called}: write commas"):
        read(path)


@pytest.mark.parametrize("name", ["layers.csv", "layers.json", "layers.toml"])
@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-16", "it is UTF-16"),
        ("utf-16-be", "it has zero bytes, as UTF-16 without a mark"),
        ("utf-16-le", "it has zero bytes, as UTF-16 without a mark"),
        ("latin-1", "it is no UTF-8"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, name: str, encoding: str, told: str) -> None:
    (tmp_path / name).write_text(
        "op,name\nmax,\u00fcber\n" if encoding == "latin-1" else "op\nmax\n", encoding=encoding
    )
    with pytest.raises(pooling.PoolingError, match=f"{name}: {told}.*: save it as UTF-8"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "cure"),
    [
        ("layers.toml", "[[layers]]\nshape = [1, 1, 4, 4]\ncount = 1" + "0" * 5000, "digits: write a smaller one"),
        ("layers.json", '[{"shape": [1, 1, 4, 4], "kernel_size": 2, "count": 1' + "0" * 5000 + "}]", "give one"),
        ("layers.toml", "a = " + "[" * 100_000, "nested too deeply: write a list of layers"),
        ("layers.json", "[" * 100_000, "nested too deeply: write a list of layers"),
    ],
)
def test_what_python_does_not_read_is_one_line_with_the_cure(tmp_path: Path, name: str, text: str, cure: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(pooling.PoolingError, match=f"{name}.*{cure}") as caught:
        read(tmp_path / name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_every_pooling_node_of_an_onnx_model_is_read(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [
        helper.make_node("LpPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], p=3),
        helper.make_node("LpPool", ["x"], ["b"], kernel_shape=[2, 2]),
        helper.make_node("GlobalMaxPool", ["x"], ["c"]),
        helper.make_node("GlobalAveragePool", ["x"], ["d"]),
        helper.make_node("GlobalLpPool", ["x"], ["e"], p=1),
        helper.make_node("GlobalLpPool", ["x"], ["f"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", onnx.TensorProto.FLOAT, [2, 3, 9, 9])], [value("f", onnx.TensorProto.FLOAT, None)]
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    layers = read(path)
    assert [layer.operator for layer in layers] == [
        pooling.LpPool((2, 2), 3, (2, 2), ((0, 1), (0, 1)), (1, 1)),
        pooling.LpPool((2, 2), 2, (1, 1), 0, (1, 1)),
        pooling.GlobalMaxPool(),
        pooling.GlobalAvgPool(),
        pooling.GlobalLpPool(1),
        pooling.GlobalLpPool(),
    ]
    assert {(layer.shape, layer.dtype, layer.direction) for layer in layers} == {((2, 3, 9, 9), "float32", "inference")}
