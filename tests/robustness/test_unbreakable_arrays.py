"""Arrays that break other libraries: what is read, what is written, what is refused. Each test names the report it answers."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

import pooling
from pooling import DTypeError, PoolingError
from tests.backends.test_memory import KINDS, SHAPE, image, operators
from tests.cases import Array, gradient_for, same_bits

POOLS = {"max": pooling.MaxPool(2), "avg": pooling.AvgPool(2), "lp": pooling.LpPool(2)}


def frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("pool", operators())
def test_inputs_are_never_modified(pool: Any) -> None:
    """caffe#3574: a layer that worked in place broke the indices that max pooling had kept. Here even read-only inputs do."""
    x = frozen(image())
    before = x.copy()
    y, saved = pool.forward(x)
    dy = frozen(gradient_for(y))
    given = dy.copy()
    pool.backward(dy, saved)
    pool(x)
    assert same_bits(x, before)
    assert same_bits(dy, given)


def overlapping(shape: tuple[int, ...], other: tuple[int, ...], step: int) -> tuple[Array, Array]:
    """Two arrays over one piece of memory, the first one with steps along its last axis."""
    n, m = int(np.prod(shape)) * step, int(np.prod(other))
    raw = np.random.default_rng(0).standard_normal(max(n, m)).astype(np.float32)
    return raw[:n].reshape(*shape[:-1], -1)[..., ::step], raw[:m].reshape(other)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_out_over_x_is_an_error(pool: Any, step: int) -> None:
    """numpy#8043: an output over its input gave results that depended on the order of work.

    Not even where what is read is a copy, because of the steps: what the caller has would be written to.
    """
    small = (4, 6, 4, 5)
    x, out = overlapping(SHAPE, small, step)
    before = x.copy()
    for call in (pool.__call__, pool.forward, *([pool.forward_with_indices] if pool.op == "max" else [])):
        with pytest.raises(PoolingError, match="out overlaps"):
            call(x, out=out)
    dy, out = overlapping(small, SHAPE, step)
    _, saved = pool.forward(before)
    with pytest.raises(PoolingError, match="out overlaps"):
        pool.backward(dy, saved, out=out)
    assert same_bits(x, before)


def test_out_over_what_was_kept_is_an_error() -> None:
    """The same for what backward reads beside dy."""
    x = image()
    pool = pooling.MaxPool(2, ties="split", backend="strided_slices")
    y, saved = pool.forward(x)
    with pytest.raises(PoolingError, match="out overlaps"):
        pool.backward(y.copy(), saved, out=x)


@pytest.mark.parametrize("pool", operators())
def test_results_never_alias_a_live_array(pool: Any) -> None:
    """openvino#15290: a mode in which results are views of memory that the next call writes to.

    Here they are no views of arguments, nor of earlier results, nor changed by later calls.
    """
    x = image()
    one, saved = pool.forward(x)
    gradient = pool.backward(one, saved)
    kept = [one.copy(), gradient.copy()]
    two, other = pool.forward(-x)
    alive = [x, one, gradient, two, pool.backward(two, other), pool(x), pool(x)]
    for a, b in itertools.combinations(alive, 2):
        assert not np.may_share_memory(a, b)
    assert same_bits(one, kept[0])
    assert same_bits(gradient, kept[1])
    assert same_bits(pool.backward(one, saved), gradient), "saved was changed by another call"


@pytest.mark.parametrize("pool", operators())
@pytest.mark.parametrize("how", ["Fortran", "steps", "pickled", "copied"])
def test_saved_state_in_any_order(pool: Any, how: str) -> None:
    """pytorch#197888: indices that were not contiguous were read as if they were, and the gradients silently wrong."""
    y, saved = pool.forward(image())
    dy = gradient_for(y)
    dx = pool.backward(dy, saved)
    if how == "pickled":
        other = pickle.loads(pickle.dumps(saved))
    elif how == "copied":
        other = copy.deepcopy(saved)
    else:
        change = np.asfortranarray if how == "Fortran" else lambda kept: np.repeat(kept, 2, axis=-1)[..., ::2]
        other = dataclasses.replace(saved, kept=tuple(map(change, saved.kept)))
    assert same_bits(pool.backward(dy, other), dx)


@pytest.mark.parametrize("pool", operators())
def test_gradients_in_any_order(pool: Any) -> None:
    """torch/cunn#68, pytorch#47065: arrays that are not contiguous, of x or dy, gave wrong results."""
    x = image()
    y, saved = pool.forward(x)
    dy = gradient_for(y)
    dx = pool.backward(dy, saved)
    for kind, made in KINDS.items():
        assert same_bits(pool.backward(made(dy), saved), dx), kind
        assert same_bits(pool(made(x)), y), kind


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_gradients_of_another_shape_or_dtype(pool: Any) -> None:
    """pytorch#140923: a gradient of another shape than y ended in a segmentation fault."""
    x = image()
    y, saved = pool.forward(x)
    for shape in ((), (1,), SHAPE, y.shape[::-1], (*y.shape, 1), (9, *y.shape[1:]), np.moveaxis(y, 1, -1).shape):
        with pytest.raises(PoolingError, match=r"dy has shape"):
            pool.backward(np.ones(shape, np.float32), saved)
    for dtype in ("float64", "float16", "int32", "bool", "complex64", "O"):
        with pytest.raises(DTypeError, match="dy has dtype"):
            pool.backward(y.astype(dtype), saved)


REFUSED: dict[str, Any] = {
    "object": np.zeros(SHAPE, object),
    "object that holds arrays": np.array([np.zeros(2), np.zeros(3)], object),
    "string": np.full(SHAPE, "a"),
    "bytes": np.full(SHAPE, b"a"),
    "complex": np.zeros(SHAPE, np.complex128),
    "datetime": np.zeros(SHAPE, "M8[s]"),
    "record": np.zeros(SHAPE, [("a", "f4")]),
    "void": np.zeros(SHAPE, "V4"),
    "masked": np.ma.masked_array(image(), image() > 0),
    "masked nowhere": np.ma.masked_array(image()),
    "nothing": None,
    "a word": "x",
    "a dictionary": {"x": 1},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_arrays_that_are_refused(kind: str) -> None:
    """numpy#26669, jax#13795: masks were dropped without a word; and what holds no numbers ended somewhere within."""
    for pool in POOLS.values():
        for call in (pool, pool.forward):
            with pytest.raises(DTypeError, match=r"^x "):
                call(REFUSED[kind])
        y, saved = pool.forward(image())
        if kind.startswith("masked"):
            with pytest.raises(DTypeError, match=r"dy is a masked array"):
                pool.backward(np.ma.masked_array(y), saved)


@pytest.mark.parametrize("x", [3.0, np.float32(3), np.array(3.0), np.zeros(()), np.zeros(5), np.zeros((5, 5))], ids=str)
def test_too_few_dimensions(x: Any) -> None:
    """pytorch#4986: an input that no window fits was read beyond its end. A number has no axis to pool over."""
    for pool in POOLS.values():
        with pytest.raises(PoolingError, match=r"x has \d dimensions"):
            pool(x)


class Tagged(np.ndarray[Any, Any]):
    """A subclass that tells of everything done to it."""

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a subclass was computed with")

    def __array_function__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a subclass was computed with")


@pytest.mark.parametrize("pool", operators())
def test_subclasses_are_taken_for_the_arrays_they_are(pool: Any) -> None:
    """numpy#18675: functions that are half aware of a subclass keep some of it and lose the rest."""
    x = image()
    y, saved = pool.forward(x)
    dx = pool.backward(y, saved)
    got, saved = pool.forward(x.view(Tagged))
    assert type(got) is np.ndarray
    assert same_bits(got, y)
    back = pool.backward(y.view(Tagged), saved)
    assert type(back) is np.ndarray
    assert same_bits(back, dx)


def test_saved_state_of_another_operator_or_backend() -> None:
    """pytorch#142459: indices of another pooling ended in a segmentation fault."""
    x = image()
    pool = pooling.MaxPool(2, backend="numba_loops")
    y, saved = pool.forward(x)
    others: tuple[Any, ...] = (
        pooling.MaxPool(2, 1),
        pooling.MaxPool(3, 2, 1),
        pooling.MaxPool(2, ties="last"),
        pooling.MaxPool(2, ceil_mode=True),
        pooling.MaxPool(2, data_format="channels_last"),
        pooling.AvgPool(2),
        pooling.LpPool(2),
        pooling.GlobalMaxPool(),
        pooling.AdaptiveMaxPool(4),
    )
    for other in others:
        with pytest.raises(PoolingError, match=r"saved comes from another operator's forward pass"):
            other.backward(y, saved)
    with pytest.raises(
        PoolingError, match="saved comes from backend='numba_loops', but this operator has backend='simd'"
    ):
        pooling.MaxPool(2, backend="simd").backward(y, saved)
    for wrong in (None, y, (y, saved), saved.kept, 3, object()):
        with pytest.raises(PoolingError, match=r"saved is of type .*: pass what this operator's forward returned"):
            pool.backward(y, wrong)  # type: ignore[arg-type]


def test_copies_of_an_operator_go_their_own_way() -> None:
    """A pickle or copy has no plans: another machine, or another backend, may ask for others."""
    pool = pooling.MaxPool(2, backend="numba_loops")
    x = image()
    pool.forward(x)
    other = copy.copy(pool)
    other.backend = "strided_slices"
    assert other.forward(x)[1].backend == "strided_slices"
    assert pool.forward(x)[1].backend == "numba_loops"
    problem = pool.problem(SHAPE)
    hash(problem)
    assert "_hash" not in problem.__getstate__()
    assert pickle.loads(pickle.dumps(problem)) == problem


def test_a_masked_out() -> None:
    out = np.ma.zeros((4, 6, 4, 5), np.float32)
    for name in ("auto", "strided_slices"):
        with pytest.raises(PoolingError, match=r"out is a masked array.*pass out\.data"):
            pooling.max_pool(image(), 2, out=out, backend=name)


@pytest.mark.parametrize("name", ["auto", *pooling.list_backends()])
def test_many_dimensions(name: str) -> None:
    """NumPy ends at 64 dimensions; views that split each in two end sooner, and say so."""
    x = np.ones((1,) * 64, np.float32)
    for n in (30, 31, 62):
        for pool in (pooling.MaxPool((1,) * n, backend=name), pooling.AvgPool((1,) * n, backend=name)):
            if name == "auto" or pooling.get_backend(name).why_not(x.shape, x.dtype, pool) is None:
                y, saved = pool.forward(x)
                assert same_bits(pool.backward(y, saved), x)
    with pytest.raises(PoolingError, match="63 spatial dimensions are too many, use at most 62"):
        pooling.MaxPool((1,) * 63, backend=name)(x)


@pytest.mark.parametrize("ties", ["first", "split"])
def test_arrays_given_another_shape_between_forward_and_backward(ties: Any) -> None:
    """What is kept are views of its own: the caller's arrays may be reshaped in place."""
    pool = pooling.MaxPool(2, data_format="channels_last", ties=ties, backend="simd")
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 4, 3)).astype(np.float32)
    y, saved = pool.forward(x)
    dy = np.ones_like(y)
    expected = pool.backward(dy, saved)
    y.shape = (2, -1)
    x.shape = (-1,)
    assert same_bits(pool.backward(dy, saved), expected)
