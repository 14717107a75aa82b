"""Calls that nobody would write: ``python -m tests.fuzz SECONDS`` makes them up, and keeps those that led somewhere new.

Hypothesis turns bytes into a call: an operator with sane or absurd arguments, an array, a gradient, an ``out``. Either an answer
comes, the same as the reference's and with the inputs left alone, or a PoolingError; anything else ends the run with what
did it. The bytes of each new outcome go into the corpus, which the next run changes at random, and the tests replay.
"""

from __future__ import annotations

import faulthandler
import inspect
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pooling
from tests.cases import Array, same_bits

CORPUS = Path(__file__).parent / "corpus" / "seeds.txt"
RUNNING = CORPUS.with_name("running.txt")
"""What is being tried: if the process dies, it did it."""

OPERATORS: tuple[Any, ...] = (
    pooling.MaxPool,
    pooling.AvgPool,
    pooling.LpPool,
    pooling.GlobalMaxPool,
    pooling.GlobalAvgPool,
    pooling.GlobalLpPool,
    pooling.AdaptiveMaxPool,
    pooling.AdaptiveAvgPool,
    pooling.FractionalMaxPool,
)
ABSURD: tuple[Any, ...] = (
    0, -1, 2.0, True, None, "2", "same", (), (2,), (2, 2, 2), (1, -1), [2, None], 2**31, 2**40, 2**70, 1j, float("nan"),
    np.int8(3), np.array([2, 2]), np.array(2), np.zeros(0), b"2", {2}, object, ((1, 2), (3, 4)), ((1, 0), (0, 1)),
)  # fmt: skip
DTYPES = ("float32", "float64", "float16", "int8", "uint64", "bool", "complex64", "O", "U1", "M8[s]", ">f4", "g")
ARGUMENTS = (
    "kernel_size", "stride", "padding", "dilation", "ceil_mode", "ties", "data_format", "backend", "count_include_pad",
    "divisor_override", "p", "signed", "scale_partial", "keepdims", "output_size", "output_ratio", "seed", "random_samples",
)  # fmt: skip

outcomes: list[str] = []
"""How the calls of the latest example ended."""


def sane(draw: Any, name: str, backend: str) -> Any:
    size = st.integers(2, 3) if backend == "simd" else st.integers(1, 4)  # of which it compiles each
    if name in ("kernel_size", "output_size"):
        return draw(st.one_of(size, st.tuples(size, size)))
    if name in ("stride", "dilation"):
        return draw(st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    choices: dict[str, list[Any]] = {
        "padding": [0, 1, 2, "valid", "same_upper", "same_lower", ((0, 1), (1, 0))],
        "ties": ["first", "last", "split", "all"],
        "data_format": ["channels_first", "channels_last"],
        "backend": [backend],
        "divisor_override": [None, 1, 3],
        "p": [1, 2, 3.5, float("inf")],
        "output_ratio": [0.5, 0.7, (0.5, 0.9)],
        "seed": [None, 0, 7],
        "random_samples": [None],
    }
    return draw(st.sampled_from(choices.get(name, [True, False])))


def array(draw: Any, shape: tuple[int, ...], dtype: str) -> Array:
    """Values with ties, NaN and infinities, in any order of axes and steps."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    values = rng.choice([0.0, -0.0, 1.0, -1.0, 2.5, np.nan, np.inf, -np.inf], shape)
    kind = np.dtype(dtype).kind
    x = (values if kind in "fcO" else rng.integers(0, 3, shape)).astype(dtype)
    how = draw(st.sampled_from(["C", "C", "Fortran", "backwards", "steps", "broadcast", "frozen"]))
    if how == "Fortran":
        return np.asfortranarray(x)
    if how == "backwards":
        return x[(slice(None, None, -1),) * len(shape)] if shape else x  # without any, an index would give a number
    if how == "steps" and shape:
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if how == "broadcast" and shape and shape[0]:
        return np.broadcast_to(x[:1], shape)
    x.flags.writeable = how != "frozen"
    return x


@settings(
    max_examples=1, deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)
@given(st.data())
def call(data: Any) -> None:
    """One operator, made and called forward and backward."""
    draw = data.draw
    outcomes.clear()
    cls = draw(st.sampled_from(OPERATORS))
    backend = draw(st.sampled_from([*pooling.list_backends(), "auto"]))
    parameters = inspect.signature(cls).parameters
    takes = [name for name in parameters if name in ARGUMENTS]
    needed = {name for name in takes if parameters[name].default is inspect.Parameter.empty}
    chosen = {
        name: sane(draw, name, backend)
        for name in takes
        if name != "backend" and (name in needed or draw(st.booleans()))
    }
    if draw(st.integers(0, 3)) == 0:
        chosen[draw(st.sampled_from(takes))] = draw(st.sampled_from(ABSURD))
    rank = draw(st.sampled_from([4, 4, 4, 3, 5, 0, 1, 2, 6]))
    shape = tuple(draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 6)) for _ in range(rank))
    x = array(draw, shape, draw(st.sampled_from(DTYPES[:3] if draw(st.booleans()) else DTYPES)))
    try:
        attempt(draw, cls, {"backend": backend} | chosen, x)
    except pooling.PoolingError as error:
        outcomes.append(f"{cls.__name__} {type(error).__name__} {' '.join(str(error).split('=')[0].split()[:3])}")


def attempt(draw: Any, cls: Any, arguments: dict[str, Any], x: Array) -> None:
    before = x.copy()
    if "rng" in inspect.signature(cls).parameters and arguments.get("rng") is None:
        arguments = arguments | {"rng": 0}  # or the reference would draw other windows
    operator = cls(**arguments)
    y, saved = operator.forward(x)
    assert type(y) is np.ndarray
    assert not np.may_share_memory(x, y)
    exact = cls(**arguments | {"backend": "reference"})
    small = x.size < 2000
    if small and cls.__name__.endswith("MaxPool"):
        assert same_bits(y, exact(x)), "not what the reference gives"
    out = np.empty_like(y) if draw(st.booleans()) else array(draw, y.shape, str(y.dtype))
    if draw(st.booleans()) and (x.dtype.kind != "f" or draw(st.booleans())):
        operator(x, out=out)
    if hasattr(operator, "forward_with_indices"):
        _, indices = operator.forward_with_indices(x)
        assert indices.dtype == np.int64
        assert indices.shape == y.shape
    dy = array(draw, y.shape, str(y.dtype) if draw(st.integers(0, 3)) else "float64")
    dx = operator.backward(dy, saved)
    assert (dx.shape, dx.dtype) == (x.shape, y.dtype)
    assert not any(np.may_share_memory(dx, other) for other in (x, y, dy))
    assert x.tobytes() == before.tobytes(), "x was changed"
    outcomes.append(f"{cls.__name__} {operator.backend} {saved.backend} {y.dtype} {x.ndim}")


def seeds() -> list[bytes]:
    return [bytes.fromhex(line) for line in CORPUS.read_text().split()] if CORPUS.exists() else []


def replay(seed: bytes) -> None:
    call.hypothesis.fuzz_one_input(seed)  # type: ignore[attr-defined]


def changed(seed: bytes, choose: random.Random) -> bytes:
    """The same bytes but for some."""
    found = bytearray(seed)
    for _ in range(choose.randint(1, 6)):
        found[choose.randrange(len(found))] = choose.randrange(256)
    return bytes(found)


def keep(seed: bytes) -> None:
    with CORPUS.open("a") as file:
        file.write(seed.hex() + "\n")


def main(seconds: float) -> None:
    """Try for so long; what led somewhere new is in the corpus then."""
    faulthandler.enable()
    choose, kept, seen = random.Random(), seeds(), set[str]()
    for seed in kept:
        replay(seed)  # what once ended a run ends this one, until it is mended
        seen.update(outcomes)
    end, tried = time.monotonic() + seconds, 0
    CORPUS.parent.mkdir(exist_ok=True)
    while time.monotonic() < end:
        seed = changed(choose.choice(kept), choose) if kept and choose.random() < 0.5 else choose.randbytes(600)
        RUNNING.write_text(seed.hex())
        try:
            replay(seed)
        except Exception:
            keep(seed)
            raise
        tried += 1
        if not seen.issuperset(outcomes):
            seen.update(outcomes)
            kept.append(seed)
            keep(seed)
    RUNNING.unlink(missing_ok=True)
    print(f"{tried} calls in {seconds:g} s and no crash; {len(seen)} outcomes, {len(kept)} seeds in {CORPUS.name}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 600)
