"""The rule: what a backend's call will cost, from a handful of prices.

The time of a call is a sum: so much for the call itself and for each cell of a window, for which NumPy is called; then for each
byte of x and y, for each cell that the windows look at, be they taken axis by axis or as a whole, and for each inner loop
over such cells. The prices of each backend, for each op, direction, layout and policy, are in `rule.json`, in nanoseconds:
`python -m bench fit` finds them in committed measurements. Where a backend splits its work over threads, what follows
"then" is divided by their number. No price is negative, so that the sum makes sense outside what was measured too.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pooling.tuning.layer import Facts

PREFERENCE = ("simd", "numba_loops", "strided_slices", "repeat_mask", "reference")
"""Fastest first, as the benchmarks order them: for problems that no price is known for."""

SURE = 0.6
"""What part of the time of the first of PREFERENCE another must be expected to take to be taken instead: expectations are off by
as much. Without it the worst choice at a problem left out of the fit took 5.5 times as long as the fastest, with it 2."""

PATH = os.path.join(next(iter(sys.modules["pooling.tuning"].__path__)), "rule.json")

TERMS = (
    "call",
    "call for each length",
    "call for each tap",
    "bytes",
    "passes",
    "lengths",
    "taps",
    "loops over passes",
    "loops over lengths",
    "loops over taps",
)
"""What has a price: see :func:`amounts`."""


@cache
def rule() -> dict[str, Any]:
    """The prices by case, and the number of bytes from which on each backend splits its work; no prices without the file.

    What is not sound in the file is left out, as if it were not there.
    """
    import json

    try:
        found = json.loads(_text())
    except (OSError, ValueError, RecursionError):
        found = {}
    parts = {part: _part(found, part) for part in ("prices", "splits", "floors")}
    prices = {case: given for case, given in parts["prices"].items() if _are_prices(given)}
    numbers = {part: {b: n for b, n in parts[part].items() if _is_price(n)} for part in ("splits", "floors")}
    return {"prices": prices, **numbers}


def _part(found: Any, name: str) -> dict[str, Any]:
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


def _are_prices(given: Any) -> bool:
    return isinstance(given, list) and len(given) == len(TERMS) and all(map(_is_price, given))


def _is_price(given: Any) -> bool:
    if type(given) not in (int, float):
        return False
    try:
        return given >= 0 and math.isfinite(given)
    except OverflowError:  # an int above the largest float
        return False


def _text() -> bytes:
    """What the file holds; its package may have been imported from an archive."""
    loader: Any = getattr(__spec__, "loader", None)
    if hasattr(loader, "get_data"):
        return bytes(loader.get_data(PATH))
    with open(PATH, "rb") as file:
        return file.read()


def cases(facts: Facts, backend: str) -> tuple[str, ...]:
    """Which prices count: the first of these that there are, from the most particular to the most general."""
    problem = facts.problem
    layout = "channels_first" if facts.inner == 1 else "channels_last"
    kind = "float16" if facts.dtype.char == "e" else "other dtypes"
    passes = f"{backend}, {problem.op}, {facts.direction}"
    any_op = f"{backend}, {facts.direction}, {layout}"
    general = (f"{passes}, {layout}, {kind}", f"{passes}, {layout}", any_op)
    if problem.op != "max" or facts.direction != "training":
        return general
    ties = "one winner" if problem.ties in ("first", "last") else f"ties {problem.ties}"
    return f"{passes}, {layout}, {kind}, {ties}", *general


def amounts(facts: Facts) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How much of each of :data:`TERMS` a call has: first what is there whatever the arrays' size, then the work.

    Lengths are those of a window along its axes, added up, and taps its cells: NumPy is called for each. Of the work, passes are
    the cells looked at when windows are taken axis by axis, the last axis first, over all of the others; lengths those along
    the axes of each window; taps those of each window as a whole. An inner loop runs along a row of the output, or in
    channels_last along the channels.
    """
    window = facts.problem.window
    taps, lengths = float(window.n_taps), float(sum(window.kernel_size))
    passes, cells = 0.0, facts.cells
    for size, out, kernel in reversed(
        list(zip(window.input_size, window.output_size, window.kernel_size, strict=True))
    ):
        cells = cells // max(size, 1) * out
        passes += cells * kernel
    row = max(window.output_size[-1] if facts.inner == 1 else facts.inner, 1)
    nbytes = facts.nbytes + facts.outputs * facts.dtype.itemsize
    looked_at = (passes, facts.outputs * lengths, facts.outputs * taps)
    return (1.0, lengths, taps), (nbytes, *looked_at, *(cells / row for cells in looked_at))


def seconds(facts: Facts, backend: str, given: Mapping[str, Any] | None = None) -> float | None:
    """What the rule expects a call to take; None where it has no prices."""
    known = rule() if given is None else given
    prices = next((known["prices"][case] for case in cases(facts, backend) if case in known["prices"]), None)
    if prices is None:
        return None
    calls, work = amounts(facts)
    splits = facts.nbytes > known["splits"].get(backend, float("inf"))
    threads = facts.threads if splits else 1
    parts = (*calls, *(amount / threads for amount in work))
    expected = float(1e-9 * sum(price * amount for price, amount in zip(prices, parts, strict=True)))
    # Where a window is unlike all that were measured, sums of prices can come to next to nothing.
    return max(expected, float(known.get("floors", {}).get(backend, 0.0)))


def fastest(facts: Facts, able: Sequence[str], given: Mapping[str, Any] | None = None) -> str:
    """The backend among those able that the rule expects to be the fastest."""
    return ranked(facts, able, given)[0]


def ranked(facts: Facts, able: Sequence[str], given: Mapping[str, Any] | None = None) -> list[str]:
    """Those able, fastest first; after those that the rule has prices for come others in the order of preference.

    The first in the order of preference comes later only where another is SURE to be faster.
    """
    expected = {name: seconds(facts, name, given) for name in able}
    last = len(PREFERENCE)
    usual = next((name for name in PREFERENCE if expected.get(name) is not None), None)

    def place(name: str) -> tuple[bool, float, int]:
        time = expected[name]
        preferred = PREFERENCE.index(name) if name in PREFERENCE else last
        return time is None, 0.0 if time is None else time * (SURE if name == usual else 1.0), preferred

    return sorted(able, key=place)
