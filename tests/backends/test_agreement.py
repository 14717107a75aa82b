"""What `why_not` says and what a call does are the same, for every dtype, byte order, layout and state of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pooling
from pooling.geometry.problem import TIES
from tests.backends.test_backends_property import costly, steady
from tests.cases import Array, same_bits

BUILT_IN = [np.dtype(char) for char in "?bBhHiIlLqQefdgFDG"]
OTHERS: list[Any] = [
    "O",
    "S3",
    "U3",
    "V4",
    "M8[s]",
    "m8[ms]",
    [("a", "f4"), ("b", "i2")],
    ("f4", {"names": ["a"], "formats": ["f4"]}),
]
EXTENDED = [value for name, value in vars(ml_dtypes).items() if name.startswith(("bfloat", "float", "int", "uint"))]

DTYPES: list[np.dtype[Any]] = [
    *BUILT_IN,
    *(dtype.newbyteorder() for dtype in BUILT_IN),
    *(np.dtype(other) for other in OTHERS),
    np.dtypes.StringDType(),
    *(np.dtype(scalar) for scalar in EXTENDED),
    np.dtype("f4", metadata={"unit": "m"}),
]

SHAPES = ((2, 3, 4, 4), (1, 1, 5, 3), (0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (4, 4), ())

OPERATORS: list[Callable[..., Any]] = [
    *(lambda ties=ties, **given: pooling.MaxPool(2, ties=ties, **given) for ties in TIES),
    lambda **given: pooling.AvgPool(2, **given),
    lambda **given: pooling.LpPool(2, **given),
    lambda **given: pooling.LpPool(2, p=float("inf"), **given),
    lambda **given: pooling.MaxPool((1, 1, 1, 1), **given),
]


class Subclass(np.ndarray[Any, Any]):
    """An array that is not exactly NumPy's."""


def sliced(x: Array) -> Array:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]) if x.ndim else (), x.dtype)
    view = wide[..., ::2] if x.ndim else wide
    view[...] = x
    return view


def misaligned(x: Array) -> Array:
    if x.dtype.hasobject or x.dtype.kind == "T":
        return x
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = np.ndarray(x.shape, x.dtype, raw.data, offset=1)
    view[...] = x
    return view


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


def mapped(x: Array) -> Array:
    if not x.size or x.dtype.hasobject or x.dtype.kind == "T":
        return x
    with tempfile.TemporaryFile() as file:
        file.write(x.tobytes())
        file.flush()
        return np.memmap(file, x.dtype, "r", shape=x.shape)


STATES: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "sliced": sliced,
    "reversed": lambda x: np.flip(x) if x.ndim else x,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape) if x.ndim else x,
    "read-only": read_only,
    "misaligned": misaligned,
    "memmap": mapped,
    "subclass": lambda x: x.view(Subclass),
    "masked": np.ma.asarray,
}


def filled(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    x = np.zeros(shape, dtype)
    if dtype.kind in "?biufcO" or dtype.type in EXTENDED:
        x[...] = (np.arange(x.size).reshape(shape) * 7 % 5).astype(dtype)
    return x


def said(operator: Any, name: str, x: Array) -> str | None:
    """Why not, in the words of the backend, or of the operator that can't be applied; "" when the call shall work."""
    try:
        if name == "auto":
            pooling.pick(x.shape, x.dtype, operator)
            return ""
        return pooling.REGISTRY[name].why_not(x.shape, x.dtype, operator) or ""
    except pooling.PoolingError as error:
        return str(error)


def check(name: str, make: Callable[..., Any], dtype: np.dtype[Any], shape: tuple[int, ...], state: str) -> None:
    operator = make(backend=name)
    x = STATES[state](filled(shape, dtype))
    reason = said(operator, name, x)
    try:
        y, saved = operator.forward(x)
    except pooling.PoolingError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert reason or state == "masked", f"why_not gives no reason, forward says: {refused}"
        with pytest.raises(pooling.PoolingError):
            operator(x)
        return
    assert not reason, f"forward works, but why_not says: {reason}"
    assert same_bits(operator(x), y)
    assert y.dtype == (x.dtype if x.dtype.isnative else x.dtype.newbyteorder())
    if y.dtype.kind == "f" or y.dtype == ml_dtypes.bfloat16:
        dx = operator.backward(np.ones_like(y), saved)
        assert (dx.shape, dx.dtype) == (x.shape, y.dtype)
    else:
        with pytest.raises(pooling.PoolingError, match="no gradient"):
            operator.backward(np.ones_like(y), saved)


ANY = given(
    st.sampled_from(OPERATORS), st.sampled_from(DTYPES), st.sampled_from(SHAPES), st.sampled_from(sorted(STATES))
)
SWAPPED_HALVES = example(OPERATORS[0], np.dtype(np.float16).newbyteorder(), SHAPES[0], "C")


@pytest.mark.parametrize("name", [name for name in pooling.list_backends() if name != "simd"])
@steady
@ANY
@SWAPPED_HALVES
def test_why_not_and_the_call_agree(name: str, make: Any, dtype: Any, shape: Any, state: str) -> None:
    """Of float16 in the other byte order, `numba_loops` gave no reason, and forward raised Numba's own error."""
    check(name, make, dtype, shape, state)


@pytest.mark.parametrize("name", ["simd", "auto"])
@costly
@ANY
@SWAPPED_HALVES
def test_why_not_and_the_call_agree_where_much_is_compiled(
    name: str, make: Any, dtype: Any, shape: Any, state: str
) -> None:
    check(name, make, dtype, shape, state)


@pytest.mark.parametrize("name", [*pooling.list_backends(), "auto"])
def test_every_dtype(name: str) -> None:
    """What chance may leave out: each dtype, and each state of memory, at least once."""
    for i, dtype in enumerate(DTYPES):
        for make in (OPERATORS[0], OPERATORS[4]):
            check(name, make, dtype, SHAPES[0], sorted(STATES)[i % len(STATES)])
    for state in STATES:
        check(name, OPERATORS[0], np.dtype("f4"), SHAPES[0], state)


@pytest.mark.parametrize("dtype", [dtype for dtype in BUILT_IN if dtype.char in "?bBhHiIlLqQefd"])
def test_byte_order_is_nobodys_business(dtype: np.dtype[Any]) -> None:
    """A backend is the right one for an array whichever way its bytes lie, and `pick` says the same."""
    operator, other = pooling.MaxPool(2), dtype.newbyteorder()
    for backend in pooling.REGISTRY.values():
        assert backend.why_not(SHAPES[0], other, operator) == backend.why_not(SHAPES[0], dtype, operator)
    assert pooling.pick(SHAPES[0], other, operator) == pooling.pick(SHAPES[0], dtype, operator)
    x = filled(SHAPES[0], dtype)
    assert same_bits(operator(x.astype(other)), operator(x))


def test_numbers_whose_parts_have_names() -> None:
    """A float32 with fields equals float32, but is not what kernels know: it is pooled as numbers, and not written to."""
    dtype = np.dtype(("f4", [("low", "u2"), ("high", "u2")]))
    x = filled(SHAPES[0], np.dtype("f4"))
    for name in ("numba_loops", "simd", "strided_slices"):
        pool = pooling.MaxPool(2, backend=name)
        assert same_bits(pool(x.view(dtype)), pool(x))
        with pytest.raises(pooling.PoolingError, match="out has"):
            pool(x, out=pool(x).view(dtype))
