"""Bad input: an error before any work, which names the argument, its value and the remedy."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import pooling
from pooling import DTypeError, PoolingError, UnknownBackendError, UnsupportedError

X = np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(np.float32)

NOT_SIZES: list[tuple[Any, str]] = [
    (0, r"=0: 0 is too small, it must be at least 1"),
    (-2, r"=-2: -2 is too small"),
    (2.5, r"=2\.5: 2\.5 is not an int"),
    (2.0, r"=2\.0: 2\.0 is not an int"),
    (np.float64(2), r"=2\.0: 2\.0 is not an int"),
    (True, r"=True: True is not an int"),
    (np.bool_(True), r"=True: True is not an int"),
    ("2", r"='2': '2' is not an int"),
    (1j, r"=1j: 1j is not an int"),
    ({2}, r"=\{2\}: \{2\} is not an int"),
    (2**70, r"=1180591620717411303424: 1180591620717411303424 is too large, it must be at most 1099511627776"),
    ((2, 0), r"=\(2, 0\): 0 is too small"),
    ((2, 2.5), r"=\(2, 2\.5\): 2\.5 is not an int"),
    ([2, None], r"=\(2, None\): None is not an int"),
    (np.array([2, -1]), r"=\(2, -1\): -1 is too small"),
]


@pytest.mark.parametrize("operator", [pooling.MaxPool, pooling.AvgPool])
@pytest.mark.parametrize("argument", ["kernel_size", "stride", "dilation"])
@pytest.mark.parametrize(("value", "message"), NOT_SIZES, ids=[str(value) for value, _ in NOT_SIZES])
def test_sizes_that_are_none(operator: Any, argument: str, value: Any, message: str) -> None:
    with pytest.raises(PoolingError, match=f"^{argument}{message}"):
        operator(**{"kernel_size": 2, argument: value})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no kernel": ({"kernel_size": None}, r"kernel_size=None.*not an int"),
    "empty kernel": ({"kernel_size": ()}, r"kernel_size=\(\) has no entry: give one per spatial dimension"),
    "stride of another length": (
        {"kernel_size": (2, 2), "stride": (2, 2, 2)},
        r"stride=.* 3 entries: give one int, or 2",
    ),
    "dilation of another length": (
        {"kernel_size": (2, 2), "dilation": (1, 1, 1)},
        r"dilation=\(1, 1, 1\) has 3 entries.* 2",
    ),
    "no dilation": ({"kernel_size": (2, 2), "dilation": ()}, r"dilation=\(\) has no entry: give one per"),
    "padding of another length": ({"kernel_size": (2, 2), "padding": (1, 1, 1)}, r"padding=.* 3 entries.*2 ints or"),
    "negative padding": ({"padding": -1}, r"padding=-1: -1 is too small, it must be at least 0"),
    "negative half of a pair": ({"padding": ((1, -1),)}, r"padding=\(\(1, -1\),\): -1 is too small"),
    "padding of three": ({"padding": ((1, 1, 1),)}, r"padding=.*\(1, 1, 1\) is not an int or a \(before, after\) pair"),
    "padding of a window": ({"padding": 2}, r"padding=2: 2 is too large for kernel_size 2.*use at most 1"),
    "padding of a dilated window": ({"padding": 4, "dilation": 3}, r"padding=4: 4 is too large.*dilation 3.*at most 3"),
    "float padding": ({"padding": 0.5}, r"padding=0\.5: 0\.5 is not an int"),
    "bool padding": ({"padding": True}, r"padding=True: True is not an int"),
    "no padding": ({"padding": None}, r"padding=None: None is not an int"),
    "unknown padding": ({"padding": "same"}, r"padding='same'.*'valid', 'same_upper', 'same_lower'"),
    "ceil_mode": ({"ceil_mode": 1}, r"ceil_mode=1: it must be True or False"),
    "data_format": ({"data_format": "NHWC"}, r"data_format='NHWC'.*'channels_first', 'channels_last'"),
    "backend": ({"backend": "strided_slice"}, r"backend='strided_slice': did you mean 'strided_slices'\?"),
    "backend in capitals": ({"backend": "SIMD"}, r"backend='SIMD'.*There are: auto, reference.*simd"),
    "no backend": ({"backend": None}, r"backend=None.*There are: auto"),
    "an array of backends": ({"backend": np.array([2, 2])}, r"backend=array.*There are: auto"),
    "an array of formats": ({"data_format": np.array([2, 2])}, r"data_format=array.*'channels_first'"),
}
OF_MAX: dict[str, tuple[dict[str, Any], str]] = {
    "ties": ({"ties": "any"}, r"ties='any': it must be one of 'first', 'last', 'split', 'all'"),
    "no ties": ({"ties": None}, r"ties=None: it must be one of 'first'"),
    "an array of ties": ({"ties": np.array([2, 2])}, r"ties=array.*'first'"),
}
OF_AVG: dict[str, tuple[dict[str, Any], str]] = {
    "divisor 0": ({"divisor_override": 0}, r"divisor_override=0: nothing can be divided by it; give another int"),
    "float divisor": ({"divisor_override": 2.5}, r"divisor_override=2\.5: 2\.5 is not an int"),
    "bool divisor": ({"divisor_override": True}, r"divisor_override=True: True is not an int"),
    "count_include_pad": ({"count_include_pad": "no"}, r"count_include_pad='no': it must be True or False"),
}


@pytest.mark.parametrize("name", WRONG | OF_MAX)
def test_wrong_arguments_of_max_pool(name: str) -> None:
    arguments, message = (WRONG | OF_MAX)[name]
    with pytest.raises(PoolingError, match=f"^{message}"):
        pooling.MaxPool(**{"kernel_size": 2} | arguments)


@pytest.mark.parametrize("name", WRONG | OF_AVG)
def test_wrong_arguments_of_avg_pool(name: str) -> None:
    arguments, message = (WRONG | OF_AVG)[name]
    with pytest.raises(PoolingError, match=f"^{message}"):
        pooling.AvgPool(**{"kernel_size": 2} | arguments)
    with pytest.raises(PoolingError, match=f"^{message}"):
        pooling.avg_pool(X, **{"kernel_size": 2} | arguments)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_of_the_function(name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(PoolingError, match=f"^{message}"):
        pooling.max_pool(X, **{"kernel_size": 2} | arguments)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_arguments_of_another_number_of_dimensions(length: int) -> None:
    """An int kernel pools over two dimensions of `X`: a stride or padding for three can't be meant."""
    for argument, value in (("stride", (2,) * length), ("dilation", (1,) * length), ("padding", ((1, 0),) * length)):
        pool = pooling.MaxPool(2, **{argument: value})  # type: ignore[arg-type]
        if length in (1, 2):  # a single entry is for all
            assert pool(X).ndim == 4
        else:
            with pytest.raises(PoolingError, match=f"^{argument}=.* has {length} entries: give .*2"):
                pool(X)


@pytest.mark.parametrize(
    ("shape", "kernel", "data_format"),
    [
        ((), 2, "channels_first"),
        ((6,), 2, "channels_first"),
        ((6, 6), 2, "channels_first"),
        ((6, 6), 2, "channels_last"),
        ((6,), (2, 2), "channels_first"),
        ((6, 6), (2, 2), "channels_last"),
        ((), (2,), "channels_first"),
        ((6, 6), (2, 2, 2), "channels_first"),
    ],
)
def test_wrong_rank(shape: tuple[int, ...], kernel: Any, data_format: Any) -> None:
    pool = pooling.MaxPool(kernel, data_format=data_format)
    message = rf"x has {len(shape)} dimensions.*kernel_size=.*{data_format}.*a tuple over as many as it has entries"
    for call in (pool, pool.forward, pool.forward_with_indices):
        with pytest.raises(PoolingError, match=message):
            call(np.zeros(shape, np.float32))


def test_windows_that_do_not_fit() -> None:
    with pytest.raises(
        PoolingError, match=r"kernel_size 9 .*dimension 0 of x has 6 .*\(6, 7\).*smaller window or more pad"
    ):
        pooling.max_pool(X, 9)
    with pytest.raises(PoolingError, match=r"kernel_size 3 \(dilation 3\) spans 7 cells.*dimension 0 of x has 6 "):
        pooling.max_pool(X, 3, dilation=3)
    with pytest.raises(PoolingError, match=r"kernel_size 2 .*dimension 0 of x has 1 with its padding"):
        pooling.avg_pool(np.zeros((1, 1, 1, 4), np.float32), 2)
    with pytest.raises(
        PoolingError, match=r"x of spatial size \(6, 0\) is empty in dimension 1: pooling needs at least"
    ):
        pooling.max_pool(np.zeros((2, 3, 6, 0), np.float32), 1)
    with pytest.raises(PoolingError, match="is empty in dimension 0"):
        pooling.avg_pool(np.zeros((2, 3, 0, 0), np.float32), 2, padding=1)


WRONG_DTYPES: dict[str, tuple[Any, str]] = {
    "complex": (
        X.astype(np.complex64),
        r"x has dtype complex64: pooling takes .*float64; pass x\.astype\(np\.float32\)",
    ),
    "object": (X.astype(object), "x has dtype object: pooling takes"),
    "string": (np.full((1, 1, 4, 4), "a"), "x has dtype <U1: pooling takes"),
    "bytes": (np.full((1, 1, 4, 4), b"a"), r"x has dtype \|S1: pooling takes"),
    "datetime": (np.zeros((1, 1, 4, 4), "M8[s]"), "x has dtype datetime64"),
    "timedelta": (np.zeros((1, 1, 4, 4), "m8[s]"), "x has dtype timedelta64"),
    "record": (np.zeros((1, 1, 4, 4), [("a", "f4")]), "x has dtype .*'a'"),
    "masked": (np.ma.masked_array(X, X > 0), r"x is a masked array, whose mask .*: pass x\.filled\(value\)"),
    "nothing": (None, "x has dtype object"),
}


@pytest.mark.parametrize("name", WRONG_DTYPES)
def test_wrong_dtypes(name: str) -> None:
    x, message = WRONG_DTYPES[name]
    for call in (pooling.MaxPool(2), pooling.MaxPool(2).forward, pooling.AvgPool(2), pooling.AvgPool(2).forward):
        with pytest.raises(DTypeError, match=message):
            call(x)


def test_what_is_no_array() -> None:
    with pytest.raises(PoolingError, match=r"x is no array: .*inhomogeneous.*pass one, or lists of equal lengths"):
        pooling.max_pool([[1.0, 2.0], [3.0]], (2, 2))
    pool = pooling.MaxPool((2, 2))
    with pytest.raises(PoolingError, match="dy is no array"):
        pool.backward([[1.0, 2.0], [3.0]], pool.forward(np.zeros((4, 4)))[1])


@pytest.mark.parametrize("ask", [pooling.pick, pooling.get_backend("strided_slices").why_not])
def test_questions_about_backends(ask: Any) -> None:
    pool = pooling.MaxPool(2)
    for dtype in ("nonsense", None, object(), "f77"):
        with pytest.raises(DTypeError, match=r"dtype=.*: NumPy knows no such dtype; give one such as 'float32'"):
            ask((1, 1, 4, 4), dtype, pool)
    for operator in ("max", None, 3, pooling.MaxPool):
        with pytest.raises(PoolingError, match=r"(operator=.* is none: pass one, such as pooling\.MaxPool\(2\))"):
            ask((1, 1, 4, 4), "float32", operator)
    for shape in ((-1, 1, 4, 4), (1, -3, 4, 4), (1, 1, -4, 4)):
        with pytest.raises(PoolingError, match=r"shape=.*: -\d is too small, it must be at least 0"):
            ask(shape, "float32", pool)
    for wrong in ("1,1,4,4", 4, None):
        with pytest.raises(PoolingError, match=r"shape=.*: give the input's shape, such as \(64, 20, 24, 24\)"):
            ask(wrong, "float32", pool)
    with pytest.raises(PoolingError, match=r"shape=\(1, 1, 4\.5, 4\): 4\.5 is not an int"):
        ask((1, 1, 4.5, 4), "float32", pool)


@pytest.mark.parametrize("operator", [None, "max", np.maximum, pooling.MaxPool])
def test_what_gradcheck_can_not_check(operator: Any) -> None:
    with pytest.raises(PoolingError, match=r"operator=.* has no forward and backward: pass one, such as"):
        pooling.gradcheck(operator, X)


def test_auto_is_a_choice_and_no_backend() -> None:
    with pytest.raises(UnknownBackendError, match=r"backend='auto' is a choice among the backends.*pooling\.pick"):
        pooling.get_backend("auto")


def test_the_functions_remember_no_wrong_arguments() -> None:
    """2.0 and True are equal to 2 and 1, and yet no sizes."""
    pooling.max_pool(X, (2, 2), (1, 1))
    for kernel, stride in (((2.0, 2.0), (1, 1)), ((2, 2), (True, True))):
        with pytest.raises(PoolingError, match="is not an int"):
            pooling.max_pool(X, kernel, stride)  # type: ignore[arg-type]


def test_errors_say_what_saved_comes_from_in_a_few_words() -> None:
    y, saved = pooling.MaxPool(2, ties="last").forward(X)
    with pytest.raises(PoolingError) as caught:
        pooling.AvgPool(2).backward(y, saved)
    assert str(caught.value) == (
        "saved comes from another operator's forward pass (of max pooling of (6, 7) to (3, 3), kernel (2, 2), stride (2, 2), "
        "padding ((0, 0), (0, 0)), ties 'last'), not from AvgPool(kernel_size=2): "
        "call backward of the operator whose forward gave it"
    )


@pytest.mark.skipif(np.dtype(np.longdouble) == np.float64, reason="on this system a longdouble is a float64")
def test_longdouble_would_lose_digits() -> None:
    with pytest.raises(DTypeError, match=r"x has dtype .*; pass x\.astype\(np\.float32\)"):
        pooling.max_pool(X.astype(np.longdouble), 2)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_means_and_gradients_of_integers(dtype: str) -> None:
    x = np.ones((1, 1, 4, 4), dtype)
    with pytest.raises(DTypeError, match=rf"x has dtype {dtype}: a mean .*rounded; pass x\.astype\(np\.float32\)"):
        pooling.avg_pool(x, 2)
    pool = pooling.MaxPool(2)
    y, saved = pool.forward(x)
    with pytest.raises(DTypeError, match=rf"x had dtype {dtype}, which has no gradient: pool x\.astype\(np\.float32\)"):
        pool.backward(y, saved)


@pytest.mark.parametrize("pool", [pooling.MaxPool(2), pooling.AvgPool(2)])
def test_wrong_gradients(pool: Any) -> None:
    y, saved = pool.forward(X)
    for shape in ((), (1,), X.shape, (2, 3, 3), (3, 2, 3, 3), (1, 3, 3, 3)):
        with pytest.raises(PoolingError, match=r"dy has shape \(.*\), but the y .*has \(2, 3, 3, 3\)"):
            pool.backward(np.ones(shape, np.float32), saved)
    for dtype in ("float64", "float16", "int32", "bool"):
        with pytest.raises(DTypeError, match=rf"dy has dtype {dtype}, but y has float32: pass dy\.astype\('float32'\)"):
            pool.backward(y.astype(dtype), saved)
    with pytest.raises(DTypeError, match="dy has dtype complex64"):
        pool.backward(y.astype(np.complex64), saved)
    with pytest.raises(DTypeError, match=r"dy is a masked array.*dy\.filled"):
        pool.backward(np.ma.masked_array(y), saved)


def test_an_avg_operator_of_another_divisor() -> None:
    y, saved = pooling.AvgPool(3, 2, 1).forward(X)
    for other in (pooling.AvgPool(3, 2, 1, count_include_pad=False), pooling.AvgPool(3, 2, 1, divisor_override=2)):
        with pytest.raises(PoolingError, match="another operator"):
            other.backward(y, saved)


def test_what_a_backend_cannot_do() -> None:
    with pytest.raises(
        UnsupportedError, match=r"backend='strided_reshape' can't .*windows overlap.*use backend='auto'"
    ):
        pooling.MaxPool(3, 1, backend="strided_reshape")(X)
    with pytest.raises(UnsupportedError, match=r"backend='block_reduce'.*no ties='first', only all"):
        pooling.MaxPool(2, backend="block_reduce")(X)
    with pytest.raises(UnsupportedError, match=r"backend='argmax_switches'.*no avg pooling"):
        pooling.AvgPool(2, backend="argmax_switches")(X)
    with pytest.raises(UnsupportedError, match=r"numba_loops.*no float16"):
        pooling.MaxPool(2, backend="numba_loops")(X.astype(np.float16))
    with pytest.raises(UnsupportedError, match=r"numba_loops.*up to 3 spatial dimensions, not 4"):
        pooling.MaxPool(2, backend="numba_loops")(np.zeros((1, 1, 2, 2, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("fast", ""), ("numba", "numba_loops"), ("strided-slices", "strided_slices"), ("argmax", "argmax_switches")],
)
def test_unknown_backends(name: str, hint: str) -> None:
    message = f"backend='{name}': " + (f"did you mean '{hint}'" if hint else "it is not known.*There are: auto, ref")
    for call in (
        pooling.get_backend,
        lambda n: pooling.MaxPool(2, backend=n),
        lambda n: pooling.avg_pool(X, 2, backend=n),
    ):
        with pytest.raises(UnknownBackendError, match=message):
            call(name)
    with pytest.raises(UnknownBackendError, match=r"backend=\['simd'\]"):
        pooling.get_backend(["simd"])  # type: ignore[arg-type]


def test_errors_are_of_the_kinds_python_has() -> None:
    """So that a caller who knows nothing of this library catches them too, in another process as well."""
    for kind, builtin in (
        (PoolingError, ValueError),
        (DTypeError, TypeError),
        (UnsupportedError, NotImplementedError),
        (UnknownBackendError, LookupError),
        (pooling.GradientError, AssertionError),
    ):
        assert issubclass(kind, builtin)
        assert issubclass(kind, PoolingError)
        assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"


def test_nothing_is_written_before_an_error() -> None:
    out = np.full((2, 3, 3, 3), 5, np.float32)
    pool = pooling.MaxPool(2, backend="strided_slices")
    _, saved = pool.forward(X)
    gradient = np.full_like(X, 5)
    with pytest.raises(PoolingError):
        pool(X.astype(np.float64), out=out)
    with pytest.raises(PoolingError):
        pool.backward(out.astype(np.float64), saved, out=gradient)
    assert (out == 5).all()
    assert (gradient == 5).all()


def test_a_backend_is_named_and_not_passed() -> None:
    with pytest.raises(UnknownBackendError, match="backend is a Backend: pass its name, 'simd'"):
        pooling.MaxPool(2, backend=pooling.get_backend("simd"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", pooling.list_backends())
@pytest.mark.parametrize("dtype", ["g", "F", "O"])
def test_what_operators_refuse_no_backend_claims(name: str, dtype: str) -> None:
    ties = pooling.get_backend(name).ties[0]
    assert "does not take" in str(pooling.get_backend(name).why_not((1, 1, 4, 4), dtype, pooling.MaxPool(2, ties=ties)))


def test_words_and_bytes_have_no_entries() -> None:
    x = np.zeros((1, 1, 4, 4))
    for wrong in (b"\x02\x02", "22", bytearray(b"\2\2")):
        with pytest.raises(pooling.PoolingError, match=r"kernel_size=.* is not an int"):
            pooling.max_pool(x, wrong)  # type: ignore[arg-type]
    with pytest.raises(pooling.PoolingError, match=r"padding=b.* is not an int"):
        pooling.max_pool(x, 2, padding=b"\1\1")
    np.testing.assert_array_equal(pooling.max_pool(x, range(2, 4)), pooling.max_pool(x, (2, 3)))


@pytest.mark.parametrize("pool", [pooling.MaxPool, pooling.AvgPool, pooling.LpPool])
def test_windows_with_more_taps_than_have_numbers(pool: Any) -> None:
    for kernel, n in ((70_000, 2), (1 << 40, 1)):
        with pytest.raises(pooling.PoolingError, match=r"kernel_size=\d+: a window of \d+ cells is too large"):
            pool(kernel, stride=kernel, padding=kernel // 2)(np.ones((1, 1) + (4,) * n))
