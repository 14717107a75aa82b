"""The rule: what a backend's call will cost, from a handful of prices.

The time of a call is a sum: so much for the call itself, for each byte of x and y, for each output's window along its axes,
for each cell that an output looks at, and for each inner loop that NumPy or a compiler would begin. The prices of each
backend, for each op, direction and layout, are in `rule.json`, in nanoseconds: `python -m bench fit` finds them in
committed measurements. Where a backend splits its work over threads, the sum, but for the call itself, is divided by
their number. No price is negative, so that the sum makes sense outside what was measured too. Behind the prices stands how
far they are off, typically, at problems that they were not fitted on: of two backends with about the same expectation,
the one whose times follow the sum more closely is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pooling.tune.layer import Facts

PREFERENCE = ("simd", "numba_loops", "strided_slices", "repeat_mask", "reference")
"""Fastest first, as the benchmarks order them: for problems that no price is known for."""

PATH = Path(__file__).with_name("rule.json")

TERMS = ("call", "bytes", "lengths", "taps", "loops", "loop taps")
"""What has a price: see :func:`amounts`."""


@cache
def rule() -> dict[str, Any]:
    """The prices by case, and the number of bytes from which on each backend splits its work; no prices without the file."""
    try:
        found = json.loads(PATH.read_text(encoding="utf-8"))
        return {"prices": dict(found["prices"]), "splits": dict(found["splits"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"prices": {}, "splits": {}}


def cases(facts: Facts, backend: str) -> tuple[str, ...]:
    """Which prices count: the first of these that there are, from the most particular to the most general."""
    problem = facts.problem
    layout = "channels_first" if facts.inner == 1 else "channels_last"
    kind = "float16" if facts.dtype.char == "e" else "other dtypes"
    passes = f"{backend}, {problem.op}, {facts.direction}"
    general = (f"{passes}, {layout}, {kind}", f"{passes}, {layout}", passes)
    if problem.op != "max" or facts.direction != "training":
        return general
    ties = "one winner" if problem.ties in ("first", "last") else f"ties {problem.ties}"
    return f"{passes}, {layout}, {kind}, {ties}", *general


def amounts(facts: Facts) -> tuple[float, ...]:
    """How much of each of :data:`TERMS` a call has.

    A window's lengths are those along its axes, added up; its taps are those multiplied. An inner loop runs along a row of
    the output, or in channels_last along the channels.
    """
    window = facts.problem.window
    taps, lengths = window.n_taps, sum(window.kernel_size)
    loops = facts.outputs / max(window.output_size[-1] if facts.inner == 1 else facts.inner, 1)
    nbytes = facts.nbytes + facts.outputs * facts.dtype.itemsize
    return (1.0, nbytes, facts.outputs * lengths, facts.outputs * taps, loops * lengths, loops * taps)


def seconds(facts: Facts, backend: str, given: Mapping[str, Any] | None = None) -> float | None:
    """What the rule expects a call to take; None where it has no prices."""
    expected = expect(facts, backend, given)
    return None if expected is None else expected[0]


def expect(facts: Facts, backend: str, given: Mapping[str, Any] | None = None) -> tuple[float, float] | None:
    """The seconds expected, and what they are multiplied with where backends are compared, to allow for errors."""
    known = rule() if given is None else given
    found = next((known["prices"][case] for case in cases(facts, backend) if case in known["prices"]), None)
    if found is None:
        return None
    *prices, doubt = found
    call, *rest = amounts(facts)
    splits = facts.nbytes > known["splits"].get(backend, float("inf"))
    work = sum(price * amount for price, amount in zip(prices[1:], rest, strict=True))
    return 1e-9 * (prices[0] * call + work / (facts.threads if splits else 1)), doubt


def fastest(facts: Facts, able: Sequence[str], given: Mapping[str, Any] | None = None) -> str:
    """The backend among those able that the rule expects to be the fastest."""
    return ranked(facts, able, given)[0]


def ranked(facts: Facts, able: Sequence[str], given: Mapping[str, Any] | None = None) -> list[str]:
    """Those able, fastest first; after those that the rule has prices for come others in the order of preference."""
    expected = {name: expect(facts, name, given) for name in able}
    last = len(PREFERENCE)

    def place(name: str) -> tuple[bool, float, int]:
        time = expected[name]
        preferred = PREFERENCE.index(name) if name in PREFERENCE else last
        return time is None, 0.0 if time is None else time[0] * time[1], preferred

    return sorted(able, key=place)
