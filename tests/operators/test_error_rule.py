"""The rule for errors: each names the argument, its value and the remedy. Held over every place that raises one."""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pooling as typed
from pooling.errors import PoolingError
from pooling.geometry.problem import Problem
from pooling.geometry.window import Window
from pooling.tuning.layer import facts
from pooling.tuning.model_files import data_of, layer_of, write
from tests.wisdom import store_in

pooling: Any = typed  # wrong arguments are what this is about
ROOT = Path(__file__).resolve().parents[2]
FAMILY = {"PoolingError", "DTypeError", "UnsupportedError", "UnknownBackendError"}
REMEDY = re.compile(
    r"\b(pass|give|use|must|call|make|unset|install|name|rename|names|write|remove|leave|let|describe|one of|did you mean|fix|"
    r"has to|check|save|scale|needs|pool|unpool|try|say|change|move|an int such|tell)\b"
)
WRAPPERS = {  # their messages end in what another error says, or in a remedy that is told apart
    ("model_files", "{path}: {_said(error)}"),
    ("model_files", "{path}, layer {number}: {error}"),
}
OTHERS = {"pooling/runtime/jit.py"}
LONGEST = 2000
"""Characters of a message: the longest has the reason of each backend."""


def template(node: ast.expr) -> str:
    """A message as it is written, with what is filled in between braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return f"{{{ast.unparse(node)}}}"


def raises() -> Iterator[tuple[str, int, int, str]]:
    """File, first and last line, and message of each place in the library that raises an error of the user's making."""
    for path in sorted((ROOT / "pooling").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name in OTHERS or name.startswith("pooling/simd"):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                kind = ast.unparse(node.exc.func).split(".")[-1]
                if kind in FAMILY:
                    yield name, node.lineno, node.end_lineno or 0, template(node.exc.args[0])


RAISES = list(raises())


@pytest.mark.parametrize(("name", "line", "end", "message"), RAISES, ids=[f"{n}-{line}" for n, line, _, _ in RAISES])
def test_a_message_has_a_remedy(name: str, line: int, end: int, message: str) -> None:
    if (Path(name).stem, message) in WRAPPERS:
        return
    spelled = re.sub(r"ANOTHER_SHAPE|_REMEDY|remedy", "pass it", message)
    spelled = spelled.replace("{message}", "change")  # a list of reasons, with what to change at its end
    assert REMEDY.search(spelled), f"{name}, line {line}, has no remedy: {message}"


def test_no_message_spells_a_value_out() -> None:
    """``!r`` fails for an int of 5,000 digits, and fills pages: :func:`pooling.errors.shown` does neither."""
    found = [f"{name}, line {line}: {message}" for name, line, _, message in spelled_out()]
    assert not found, "\n".join(found)


def spelled_out() -> Iterator[tuple[str, int, int, str]]:
    """Raised errors of the library in which a value is converted by ``!r``; a module's missing names are no user's values."""
    for path in sorted((ROOT / "pooling").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            spelled = any(
                isinstance(part, ast.FormattedValue) and part.conversion == ord("r") for part in ast.walk(node)
            )
            if spelled and ast.unparse(node.exc.func) != "AttributeError":
                yield str(path.relative_to(ROOT)), node.lineno, node.end_lineno or 0, ast.unparse(node.exc)


X = np.ones((1, 1, 4, 4), np.float32)
INDICES = np.zeros((1, 1, 2, 2), int)


def backward(pool: Any, dy: Any, saved: Any = None, **options: Any) -> None:
    own = pool.forward(X)[1]
    pool.backward(dy, own if saved is None else saved, **options)


def unpooled(dx: Any, saved: Any = None, dtype: str = "float32") -> None:
    unpool = pooling.MaxUnpool(2)
    own = unpool.forward(np.ones((1, 1, 2, 2), dtype), INDICES)[1]
    unpool.backward(dx, own if saved is None else saved)


def environment(name: str, value: str, call: Callable[[], Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        call()


def fractional(**options: Any) -> Any:
    return pooling.FractionalMaxPool(2, 2, **options)(X)


class Odd:
    """An operator whose forward pass returns one thing alone."""

    def forward(self, x: Any) -> Any:
        return 3

    def backward(self, dy: Any, saved: Any) -> Any:
        return dy


PLAIN: dict[str, Any] = {"shape": [1, 1, 4, 4], "kernel_size": 2}
PROBLEM = Problem("max", Window.over((4, 4), 2))
UNPOOL: Any = pooling.max_unpool
MASKED = np.ma.masked_array(X, X > 0)

CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: pooling.max_pool(MASKED, 2), r"x is a masked array.*pass x\.filled"),
    (lambda: pooling.max_pool([[1], [1, 2]], 2), "x is no array.*pass one"),
    (lambda: pooling.max_pool(X.astype(complex), 2), r"x has dtype complex128.*pass x\.astype"),
    (lambda: pooling.max_pool(X, 2, out=MASKED), "out is a masked array.*pass out.data"),
    (lambda: pooling.max_pool(X, 2, out=[1]), "out is list: it must be a NumPy array"),
    (lambda: pooling.max_pool(X, 2, out=X), r"out has shape \(1, 1, 4, 4\).*pass such"),
    (
        lambda: pooling.max_pool(X, 2, out=np.ones((1, 1, 2, 4), "f4")[..., ::2]),
        "out must be C-contiguous.*pass np.empty",
    ),
    (lambda: pooling.max_pool(X, 1, out=X), "out overlaps.*pass another"),
    (lambda: pooling.MaxPool(2, ties="any"), "ties='any': it must be one of 'first'"),
    (lambda: pooling.pick(X.shape, "f77", pooling.MaxPool(2)), "dtype='f77'.*give one such"),
    (lambda: pooling.pick(X.shape, "f4", "max"), r"operator='max' is none: pass one"),
    (lambda: pooling.get_backend("simd").why_not(3, "f4", pooling.MaxPool(2)), "shape=3: give the input's shape"),
    (lambda: pooling.FractionalMaxPool(2), "output_size=None, output_ratio=None: give one"),
    (lambda: pooling.FractionalMaxPool((2, 2, 2), output_ratio=(0.5, 0.5)), r"output_ratio=\(0.5, 0.5\) has 2.*give"),
    (lambda: pooling.FractionalMaxPool(4, 3)(X), "kernel_size=4: 3 windows of 4 cells need 6.*use a smaller"),
    (lambda: pooling.FractionalMaxPool(2, output_ratio=2), "output_ratio=2: 2 is not between 0 and 1; give"),
    (lambda: pooling.FractionalMaxPool(2, 2, rng="x"), "rng='x': give a numpy.random.Generator"),
    (lambda: fractional(random_samples=[0.5] * 3), r"random_samples has shape \(3,\).*needs"),
    (lambda: fractional(random_samples=[1, 2]), "random_samples has dtype int64: give floats"),
    (lambda: fractional(random_samples=[0.5, 1.5]), r"random_samples=\[0.5, 1.5\]: give an array"),
    (lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES * 0.5, 2), "indices has dtype float64: pass integers"),
    (lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES[0], 2), r"indices has shape \(1, 2, 2\).*pass what"),
    (
        lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES + 16, 2),
        r"indices is 16 at .*\(4, 4\) is the default size: pass output_size",
    ),
    (
        lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES + 25, 2, output_size=(5, 5)),
        r"indices is 25 at .* from 0 to 24.*; pass output_size=x\.shape",
    ),
    (lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES + 3, 2, check=True), "indices is 3 at .* pass output_size"),
    (
        lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES, output_size=(4, 4), check=True),
        "check=True: .*give the kernel_size",
    ),
    (lambda: pooling.check_indices(INDICES, 4, pooling.MaxPool(2)), "input_shape=4: give the shape"),
    (
        lambda: pooling.check_indices(INDICES, X.shape, pooling.FractionalMaxPool(2, 2)),
        "operator=FractionalMaxPool.*check the indices of",
    ),
    (lambda: pooling.indices_to_onnx(INDICES, 4), "input_shape=4: give the shape"),
    (lambda: pooling.indices_to_onnx(INDICES, (2, 1, 4, 4)), r"input_shape=\(2, 1, 4, 4\) does not.*give the shape"),
    (
        lambda: pooling.indices_to_tensorflow(INDICES, X.shape, 2, data_format="channels_first"),
        "include_batch_in_index=2: it must",
    ),
    (lambda: pooling.indices_to_onnx(INDICES, X.shape, 2), "storage_order=2: it must be 0"),
    (
        lambda: pooling.indices_from_onnx(np.zeros((1, 2, 2, 2), int), (1, 2, 4, 4)),
        "indices is 0 at .* another plane.*pass the input_shape .* and the convention",
    ),
    (lambda: pooling.set_buffer_bytes(-1), "n=-1: it must be an int"),
    (
        lambda: environment("POOLING_BUFFER_BYTES", "x", lambda: pooling.set_buffer_bytes(None)),
        "POOLING_BUFFER_BYTES='x': it must",
    ),
    (lambda: pooling.set_num_threads(0), "n=0: .* must be an int from 1"),
    (lambda: environment("POOLING_NUM_THREADS", "x", pooling.get_num_threads), "POOLING_NUM_THREADS='x': it must be"),
    (lambda: pooling.MaxPool(2)(X[0, 0]), r"x has 2 dimensions.*kernel_size=2.*give an x of at least 3"),
    (lambda: pooling.MaxPool((2, 2), data_format="channels_last")(X[0, 0]), "x has 2 dimensions.*of at least 3"),
    (lambda: pooling.GlobalMaxPool()(X[0, 0]), "x has 2 dimensions.*global pooling.*at least 3"),
    (
        lambda: pooling.MaxPool((1,) * 63)(np.ones((1,) * 63)),
        r"kernel_size=\(1, .*63 spatial dimensions.*use at most 62",
    ),
    (lambda: pooling.AvgPool(2)(X.astype(int)), r"x has dtype int64.*pass x\.astype"),
    (lambda: pooling.MaxPool(70_000, padding=35_000)(X), "kernel_size=70000: .* use a smaller one"),
    (
        lambda: pooling.MaxPool(3, 1, backend="strided_reshape")(X),
        "backend='strided_reshape' can't.*use backend='auto'",
    ),
    (lambda: backward(pooling.MaxPool(2), X, 3), "saved is of type int: pass what"),
    (
        lambda: backward(pooling.MaxPool(2), X, pooling.MaxPool(3).forward(X)[1]),
        "saved comes from another.*call backward of",
    ),
    (
        lambda: backward(
            pooling.MaxPool(2, backend="reference"), X, pooling.MaxPool(2, backend="strided_slices").forward(X)[1]
        ),
        "saved comes from backend='strided_slices'.*call backward of",
    ),
    (lambda: backward(pooling.MaxPool(2), X), r"dy has shape \(1, 1, 4, 4\).*pass that y's gradient"),
    (lambda: backward(pooling.MaxPool(2), X[..., :2, :2].astype(float)), r"dy has dtype float64.*pass dy\.astype"),
    (
        lambda: pooling.MaxPool(2).backward(X, pooling.MaxPool(2).forward(X.astype(int))[1]),
        r"x had dtype int64.*pool x\.astype",
    ),
    (lambda: pooling.MaxPool(()), r"kernel_size=\(\) has no entry: give one"),
    (lambda: pooling.MaxPool(2, ceil_mode=1), "ceil_mode=1: it must be True"),
    (lambda: pooling.GlobalMaxPool(keepdims=2), "keepdims=2: it must be True"),
    (lambda: pooling.LpPool(2, "x"), "p='x': it must be a number"),
    (lambda: pooling.LpPool(2, -1), "p=-1: .*give such a number"),
    (lambda: pooling.LpPool(2, 10**400), "p=10.*: .*give math.inf"),
    (lambda: pooling.AvgPool(2, divisor_override=0), "divisor_override=0: .*give another int"),
    (lambda: pooling.pick(X.shape, "f4", pooling.MaxPool(2), "up"), "direction='up': it must be one of"),
    (lambda: pooling.pick("1x1", "f4", pooling.MaxPool(2)), "shape='1x1': give the input's shape"),
    (lambda: pooling.pick((1 << 40,) * 9, "f4", pooling.MaxPool(2)), "shape=.*give a smaller shape"),
    (lambda: facts((1, 1, 5, 4), "f4", PROBLEM), r"shape=\(1, 1, 5, 4\): neither its last 2.*give a shape"),
    (
        lambda: pooling.pick(X.shape, "F", pooling.MaxPool(2)),
        "no backend can do this: .*dtype=complex64 none can: pool x",
    ),
    (
        lambda: pooling.pick((1, 1, 2), "f4", Problem("max", Window.over((2,), 1), ties="none")),  # type: ignore[arg-type]
        "no backend can do this: .*ties='none'.*change the arguments",
    ),
    (lambda: environment("POOLING_FROZEN", "1", lambda: pooling.tune([])), "POOLING_FROZEN is set.*unset it"),
    (lambda: pooling.tune([], -1), "budget_s=-1: it must be a positive"),
    (lambda: pooling.tune(3), "workloads=3: give a list"),
    (lambda: pooling.tune([3]), "workloads holds 3: give pooling.Layer"),
    (lambda: unpooled(X, 3), "saved is of type int: pass what"),
    (
        lambda: unpooled(X, pooling.MaxUnpool(3).forward(np.ones((1, 1, 2, 2), "f4"), INDICES)[1]),
        "saved comes from another.*call backward of",
    ),
    (lambda: unpooled(X, dtype="int32"), r"y had dtype int32.*unpool y\.astype"),
    (lambda: unpooled(X[0]), r"dx has shape \(1, 4, 4\).*pass that result's"),
    (lambda: unpooled(X.astype(float)), r"dx has dtype float64.*pass dx\.astype"),
    (lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES, 2, output_size=4), "output_size=4: give a tuple"),
    (lambda: UNPOOL(np.ones(2), INDICES, 2), r"y has 1 dimensions.*MaxUnpool\(kernel_size=2.*give y a batch"),
    (
        lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES, (2, 2), output_size=(4, 4, 4)),
        r"output_size=\(4, 4, 4\) has 3.*give 2",
    ),
    (lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES), "output_size=None: .*say how large"),
    (
        lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES, 2, padding=2),
        "padding=2 leaves a size.*give less, or an output_size",
    ),
    (
        lambda: UNPOOL(np.ones((1, 1, 2, 2)), INDICES, 2, output_size=(9, 4)),
        r"output_size=\(9, 4\): 9 in.*it must be from 3",
    ),
    (lambda: pooling.MaxPool((2, 2), (1, 1, 1)), r"stride=\(1, 1, 1\) has 3 entries: give one int"),
    (lambda: pooling.MaxPool(2.5), r"kernel_size=2\.5: 2\.5 is not an int; give one"),
    (lambda: pooling.MaxPool(0), "kernel_size=0: 0 is too small, it must"),
    (lambda: pooling.MaxPool(1 << 50), "kernel_size=.* is too large, it must"),
    (lambda: pooling.MaxPool(2, padding="same"), "padding='same': as a word it is one of"),
    (lambda: pooling.MaxPool((2, 2), padding=(1, 1, 1)), r"padding=\(1, 1, 1\) has 3 entries: give an int"),
    (lambda: pooling.MaxPool(2, padding=((1, 1, 1),)), r"padding=.*\(1, 1, 1\) is not an int or.*give one of them"),
    (lambda: pooling.MaxPool(2, padding=2), "padding=2: 2 is too large.*use at most 1"),
    (lambda: pooling.MaxPool(2)(X[..., :0]), r"x of spatial size \(4, 0\) is empty.*give a larger x"),
    (lambda: pooling.MaxPool(5)(X), r"kernel_size 5 .*use a smaller window"),
    (lambda: layer_of(3), "3 is not a layer: give a table"),  # type: ignore[arg-type]
    (lambda: layer_of(PLAIN | {"op": "median"}), "op='median': there are .*give one of them"),
    (lambda: layer_of(PLAIN | {"kernel": 3}), "'kernel' is no entry.*remove it"),
    (lambda: layer_of({"kernel_size": 3}), r"shape is missing in \{'kernel_size': 3\}: give"),
    (lambda: layer_of({"shape": [1, 1, 4, 4]}), "max: .*kernel_size.*give it as an entry"),
    (lambda: data_of(pooling.Layer(X.shape, "f4", PROBLEM)), "operator=Problem.*give one"),
    (lambda: pooling.MaxPool(2, backend="strided_slice"), "backend='strided_slice': did you mean 'strided_slices'"),
    (lambda: pooling.get_backend(pooling.get_backend("simd")), "backend is a Backend: pass its name, 'simd'"),
    (
        lambda: pooling.get_backend("auto"),
        r"backend='auto' is a choice.*pooling\.pick\(shape, dtype, operator\) names it",
    ),
    (lambda: pooling.pick(X.shape, "f4", pooling.MaxPool(2), explain=2), "explain=2: it must be True"),
    (lambda: pooling.gradcheck(2, X), r"operator=2 has no forward and backward: pass one"),
    (lambda: pooling.gradcheck(pooling.MaxPool(2), X, cells=0), "cells=0: give an int, at least 1"),
    (lambda: pooling.gradcheck(pooling.MaxPool(2), [[1], [1, 2]]), "x is no array.*pass one"),
    (lambda: pooling.gradcheck(pooling.MaxPool(2), MASKED), "x has dtype float32: .*unmasked numbers; pass floats"),
    (lambda: pooling.gradcheck(pooling.MaxPool(2), X * np.nan), "x holds NaN.*pass finite"),
    (
        lambda: pooling.gradcheck(pooling.MaxPool(2), X.astype(float) * 1e300),
        "the largest number in x is 1e.300.*scale x",
    ),
    (lambda: pooling.gradcheck(Odd(), X), "operator.forward returned int: it has to return the tuple"),
    (lambda: write(Path("layers.yaml"), []), "'.yaml': a description.*give such a name"),
]

FILES = {"model_files", "tables", "onnx_nodes", "exchange"}
"""Modules whose other errors are about files and options, and have their tests in test_tables.py, test_cli.py and the like."""


def place(error: BaseException) -> tuple[str, int]:
    """File and line of the library where an error was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "pooling" in Path(f.filename).parts]
    return str(Path(frames[-1].filename).relative_to(ROOT)), frames[-1].lineno or 0


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with store_in(tmp_path / "wisdom.json", monkeypatch):
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_an_error_names_argument_value_and_remedy(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(PoolingError, match=f"^{message}") as caught:
        call()
    assert REMEDY.search(str(caught.value))
    assert str(caught.value).isprintable(), "and one line"
    assert len(str(caught.value)) <= LONGEST


@pytest.mark.filterwarnings("ignore")
def test_every_place_that_raises_is_among_them() -> None:
    found = set()
    for call, _ in CALLS:
        try:
            call()
        except PoolingError as error:
            found.add(place(error))
    missing = [
        f"{name}, line {line}: {message}"
        for name, line, end, message in RAISES
        if not (name.startswith("pooling/cli/") or Path(name).stem in FILES)
        and not any((name, at) in found for at in range(line, end + 1))
    ]
    assert not missing, "\n".join(missing)
