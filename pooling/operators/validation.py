"""Arrays at the door: what users pass in is checked and brought into the form that backends see."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from pooling.dtypes import DTYPES, computed_in
from pooling.errors import DTypeError, PoolingError, shown
from pooling.geometry.problem import Array
from pooling.geometry.window import is_many


def as_plain_array(name: str, value: Any) -> Array:
    """`value` as an array, of any dtype and order, and without a mask that would be ignored."""
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a masked array, whose mask pooling would ignore: pass {name}.filled(value)")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PoolingError(f"{name} is no array: {error}; pass one, or lists of equal lengths") from None


def as_array(name: str, value: Any) -> Array:
    """`value` as a C-contiguous and aligned array of a dtype that pooling knows; a copy only if it is not one already."""
    if type(value) is np.ndarray and value.flags.carray:
        dtype = value.dtype  # is_plain, without its call
        if dtype.char in DTYPES and dtype.isnative and dtype.fields is None:
            return value  # as most often, in half the time
    array = as_plain_array(name, value)
    known = computed_in(array.dtype)
    if known.char not in DTYPES:
        raise DTypeError(
            f"{name} has dtype {array.dtype}: pooling takes bool, integers, float16, float32 and float64; "
            f"pass {name}.astype(np.float32)"
        )
    if array.dtype.kind != "V" and not is_plain(array.dtype):
        array = array.astype(known)
    return in_order(array)


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether kernels know numbers of this dtype as they lie in memory."""
    return dtype.char in DTYPES and dtype.isnative and dtype.fields is None


def in_order(array: Array) -> Array:
    """`array` if it is C-contiguous and aligned, as kernels take every array to be; else a copy that is."""
    flags = array.flags
    if flags.carray or (flags.c_contiguous and flags.aligned):  # the first is both, and writeable
        return array
    return np.array(array, order="C", copy=True)  # not np.ascontiguousarray, which makes a 0-d array 1-d


def shaped(array: Array, shape: tuple[int, ...]) -> Array:
    """`array` in another shape, or itself if that is its own: reshape takes three times as long. Not for what is kept."""
    return array if array.shape == shape else array.reshape(shape)


def widened(array: Array) -> Array:
    """`array` in the dtype in which it is pooled."""
    return array.astype(computed_in(array.dtype)) if array.dtype.kind == "V" else array


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *sources: Any) -> Array:
    """`out`, if a result of this shape and dtype, computed from `sources`, may be written to it."""
    if type(out) is not np.ndarray and isinstance(out, np.ma.MaskedArray):
        raise PoolingError("out is a masked array, whose mask pooling would not set: pass out.data")
    if not isinstance(out, np.ndarray):
        raise PoolingError(f"out is {type(out).__name__}: it must be a NumPy array of shape {shape} and dtype {dtype}")
    if out.shape != shape or out.dtype != dtype or out.dtype.fields is not None:  # which is equal to a dtype without
        raise PoolingError(
            f"out has shape {out.shape} and dtype {out.dtype}: the result has {shape} and {dtype}; pass such an array, or none"
        )
    if not out.flags.carray:
        raise PoolingError("out must be C-contiguous, aligned and writeable: pass np.empty(shape, dtype), or no out")
    checked = None
    for source in sources:
        if source is not checked and np.may_share_memory(out, source):  # most often the same array comes twice
            raise PoolingError("out overlaps an array that the result is computed from: pass another one")
        checked = source
    return out


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of these words; an array, which compares cell by cell, is none."""
    if not isinstance(value, str) or value not in choices:
        raise PoolingError(f"{name}={shown(value)}: it must be one of {', '.join(map(repr, choices))}")


def as_plain(value: Any) -> Any:
    """Lists, ranges and arrays as tuples, what stands for an int as one, so that arguments can be compared and hashed."""
    if isinstance(value, np.ndarray | np.generic):
        if np.ma.is_masked(value):  # of which `tolist` makes None, an argument that is not given: let it be refused
            return value if value.ndim else np.ma.masked
        value = value.tolist()
    if is_many(value):
        return tuple(as_plain(v) for v in value)
    if hasattr(value, "__index__") and not isinstance(value, bool) and type(value) is not int:
        with contextlib.suppress(Exception):  # a foreign object's method; it is refused as it is
            return operator.index(value)
    return value
