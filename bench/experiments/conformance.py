"""Who does what: questions on inputs of a few cells, put to every backend and to the frameworks that are installed.

Where pooling has several meanings (ties, NaN, padding, the last window, divisors, indices) systems differ, and a table of their
answers says so better than prose. The first column, `reference`, is what this library's contract says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import pooling
from bench.schema.results import Answer

Array = NDArray[Any]
nan, inf = np.nan, np.inf


@dataclass(frozen=True)
class Question:
    """A pooling over one spatial dimension of one plane, unless `x` says otherwise, and what is asked of it.

    Parameters
    ----------
    name
        What it decides, in a few words.
    x
        The values of a plane, or of several.
    kernel, stride, padding, dilation, ceil_mode, include
        The window; `include` is count_include_pad.
    op
        "max" or "avg".
    asked
        The result, the indices, or the gradient for dy = 1.
    """

    name: str
    x: tuple[Any, ...]
    kernel: int
    stride: int | None = None
    padding: int = 0
    dilation: int = 1
    ceil_mode: bool = False
    include: bool = True
    op: Literal["max", "avg"] = "max"
    asked: Literal["y", "indices", "dx"] = "y"
    dtype: str = "float32"

    @property
    def input(self) -> Array:
        """(1, planes, cells)."""
        x = np.array(self.x, self.dtype)
        return x.reshape(1, 1, -1) if x.ndim == 1 else x[None]

    @property
    def setting(self) -> str:
        """x and the window in one line."""
        stride = self.kernel if self.stride is None else self.stride
        text = f"{self.op} of {shown(np.array(self.x, self.dtype))}, kernel {self.kernel}, stride {stride}"
        for word, value, usual in (("padding", self.padding, 0), ("dilation", self.dilation, 1)):
            text += f", {word} {value}" if value != usual else ""
        text += ", ceil_mode" if self.ceil_mode else ""
        return text + (f", count_include_pad={self.include}" if self.op == "avg" and self.padding else "")

    @property
    def window(self) -> tuple[int, int | None, int, int, bool]:
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode


QUESTIONS = (
    Question("Which cell takes the gradient of a tie?", (1, 3, 3, 2), 4, asked="dx"),
    Question("And where a whole window ties, as after ReLU?", (0, 0, 0, 0), 2, asked="dx"),
    Question("Does a NaN win?", (1, nan, 9, 2), 4),
    Question("Which of two NaNs takes the gradient?", (inf, nan, nan, 2), 4, asked="dx"),
    Question("Does padding win over negative values?", (-5, -3), 2, padding=1),
    Question("What is a window of padding alone?", (4,), 2, 1, 1, 2),
    Question("And where is its maximum?", (4,), 2, 1, 1, 2, asked="indices"),
    Question("May padding be more than half the kernel?", (1, 2, 3), 3, 1, 2),
    Question("What becomes of cells left over?", (-1, -2, -3), 2),
    Question("And in ceil_mode?", (-1, -2, -3), 2, ceil_mode=True),
    Question("May a last window start in the padding?", (1, 2, 3, 4, 5), 2, 3, 1, ceil_mode=True),
    Question("Is the maximum of negative integers one of them?", (-7, -3, -9, -8), 2, dtype="int32"),
    Question("Which zero is the larger one?", (-0.0, 0.0, 0.0, -0.0), 2),
    Question("What does dilation reach?", (1, 9, 2, 8, 3), 3, dilation=2),
    Question("What does an index count from?", ((1, 5, 2, 3), (7, 6, 8, 9)), 2, asked="indices"),
    Question("Which cell does padding shift an index to?", (5, 1, 2), 2, 1, 1, asked="indices"),
    Question("What is a mean over padding divided by?", (2, 4), 2, padding=1, op="avg"),
    Question("And with count_include_pad=False?", (2, 4), 2, padding=1, include=False, op="avg"),
    Question("And where ceil_mode reaches past the padding?", (2, 4, 6, 8), 3, 2, 1, ceil_mode=True, op="avg"),
    Question("A mean of what is left over, in ceil_mode?", (2, 4, 6), 2, ceil_mode=True, op="avg"),
    Question("What does a mean hand back to each cell?", (1, 2, 3, 4), 2, op="avg", asked="dx"),
)


class NotOffered(Exception):
    """The system has no such thing; the message says what."""


Respondent = Callable[[Question], Array]


def of_backend(name: str) -> Respondent:
    """A backend, with the first tie policy that it has."""

    def answer(q: Question) -> Array:
        pool: Any
        if q.op == "avg":
            pool = pooling.AvgPool(*q.window, count_include_pad=q.include, backend=name)
        else:
            pool = pooling.MaxPool(*q.window, ties=pooling.get_backend(name).ties[0], backend=name)
        reason = pooling.get_backend(name).why_not(q.input.shape, q.dtype, pool)
        if reason is not None:
            raise NotOffered(reason)
        if q.asked == "indices":
            found: Array = pool.forward_with_indices(q.input)[1]
            return found
        y, saved = pool.forward(q.input)
        return y if q.asked == "y" else np.asarray(pool.backward(np.ones_like(y), saved))

    return answer


def pytorch(q: Question) -> Array:
    """``torch.nn.functional``."""
    import torch
    import torch.nn.functional as F

    x = torch.from_numpy(q.input)
    if q.asked == "dx":
        x.requires_grad_()
    result: Any = None
    if q.op == "max":
        y, result = F.max_pool1d(x, *q.window, return_indices=True)
    else:
        y = F.avg_pool1d(x, q.kernel, q.stride, q.padding, q.ceil_mode, q.include)
    if q.asked == "y":
        result = y
    elif q.asked == "dx":
        (result,) = torch.autograd.grad(y.sum(), x)
    return np.asarray(result.detach())


def jax(q: Question) -> Array:
    """``lax.reduce_window``, which has neither means nor indices."""
    import jax
    from jax import lax

    if q.op == "avg":
        raise NotOffered("it has no mean pooling of its own")
    if q.asked == "indices" or q.ceil_mode:
        raise NotOffered("it has no indices" if q.asked == "indices" else "it has no ceil_mode")
    dtype = np.dtype(q.dtype)
    lowest = dtype.type(-np.inf if dtype.kind == "f" else np.iinfo(dtype).min)
    pads = ((0, 0), (0, 0), (q.padding, q.padding))

    def pool(x: Any) -> Any:
        stride = q.kernel if q.stride is None else q.stride
        return lax.reduce_window(
            x, lowest, lax.max, (1, 1, q.kernel), (1, 1, stride), pads, window_dilation=(1, 1, q.dilation)
        )

    if q.asked == "y":
        return np.asarray(pool(q.input))
    return np.asarray(jax.grad(lambda x: pool(x).sum())(q.input))


def onnxruntime(q: Question) -> Array:
    """A model of one node."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    if q.asked == "dx":
        raise NotOffered("it only infers")
    name = {"max": "MaxPool", "avg": "AveragePool"}[q.op]
    options: dict[str, Any] = {"count_include_pad": int(q.include)} if q.op == "avg" else {}
    node = helper.make_node(
        name,
        ["x"],
        ["y", "indices"][: 1 + (q.op == "max")],
        kernel_shape=[q.kernel],
        strides=[q.kernel if q.stride is None else q.stride],
        pads=[q.padding] * 2,
        dilations=[q.dilation],
        ceil_mode=int(q.ceil_mode),
        **options,
    )
    of = helper.np_dtype_to_tensor_dtype(np.dtype(q.dtype))
    outputs = [helper.make_tensor_value_info(n, t, None) for n, t in (("y", of), ("indices", TensorProto.INT64))]
    given = [helper.make_tensor_value_info("x", of, list(q.input.shape))]
    graph = helper.make_graph([node], "pool", given, outputs[: len(node.output)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([q.asked], {"x": q.input})[0])


def skimage(q: Question) -> Array:
    """``skimage.measure.block_reduce``, the original answer's forward pass."""
    from skimage.measure import block_reduce

    if q.asked != "y" or q.padding or q.dilation > 1 or q.stride not in (None, q.kernel):
        raise NotOffered("it has no gradient and no indices" if q.asked != "y" else "its blocks lie side by side")
    if q.ceil_mode:
        raise NotOffered("it always rounds up")
    return np.asarray(block_reduce(q.input, (1, 1, q.kernel), np.max if q.op == "max" else np.mean))


FRAMEWORKS: dict[str, tuple[tuple[str, ...], Respondent]] = {
    "PyTorch": (("torch",), pytorch),
    "JAX": (("jax",), jax),
    "ONNX Runtime": (("onnxruntime", "onnx"), onnxruntime),
    "scikit-image": (("skimage",), skimage),
}
"""By the name they are shown under: what must be installed, and who asks them."""


def installed() -> dict[str, Respondent]:
    return {name: ask for name, (needs, ask) in FRAMEWORKS.items() if all(map(find_spec, needs))}


def answers(frameworks: bool = True) -> Iterator[Answer]:
    """Every answer, question by question. Without `frameworks`, of the backends and scikit-image, which the suite has anyway."""
    asked = {name: of_backend(name) for name in pooling.list_backends()}
    others = installed()
    if not frameworks:
        others = {"scikit-image": others["scikit-image"]}
    for question in QUESTIONS:
        expected = shown(asked["reference"](question))
        for name, respondent in (asked | others).items():
            kind: Literal["backend", "peer"] = "backend" if name in asked else "peer"
            outcome: Literal["same", "differs", "refused", "not offered"]
            try:
                text = shown(respondent(question))
                outcome = "same" if text == expected else "differs"
            except NotOffered as reason:
                text, outcome = str(reason), "not offered"
            except Exception as error:  # whatever a framework raises is its answer
                text, outcome = str(error).strip().split("\n")[0][:300], "refused"
            yield Answer(question.name, question.setting, question.asked, name, kind, outcome, text)


def shown(values: Array) -> str:
    """Numbers as people write them, with the signs of zeros; planes apart.

    Examples
    --------
    >>> shown(np.array([[1.0, -0.0, np.nan, 0.25]]))
    '1 -0 nan 0.25'
    """
    planes = values.reshape(-1, values.shape[-1])
    return " | ".join(" ".join(f"{value:g}" if value.dtype.kind == "f" else str(value) for value in p) for p in planes)
