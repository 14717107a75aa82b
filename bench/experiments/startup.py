"""What using the library costs around its kernels: imports, the first call in a process, and the least call.

Each sample of an import or a first call is a process of its own, which times its own statement; the call is timed in this one.
Those compared take turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Literal

import numpy as np

import pooling
from bench.files import ROOT
from bench.protocol.measure import pinned
from bench.schema.results import Cost, Results

FIRST_CALL = """import numpy as np, pooling
pooling.MaxPool(2, backend="simd").forward(np.ones((1, 8, 8, 8), np.float32))"""

STATEMENTS = {
    "import numpy": "import numpy",
    "import pooling": "import pooling",
    "pooling.MaxPool": "import pooling; pooling.MaxPool",
    "import numba": "import numba",
    "first call, compiled before": FIRST_CALL,
}
COLD = "first call, nothing compiled"

ALONE = ", without SciPy"
"""Added to what was timed as if SciPy were not installed, which Numba loads where it is, and the library does not need."""

WITH_NUMBA = ("import numba", "first call, compiled before")
"""Statements timed in both ways."""

BLOCK_SCIPY = "import sys; sys.modules['scipy'] = None"

CHILD = """{before}
from time import perf_counter
start = perf_counter()
exec({statement!r})
print(perf_counter() - start)"""

CALLED = ("simd", "auto")
CALLS = 500
"""Calls in a sample: some milliseconds."""


def seconds_of(statement: str, cache: str, *, scipy: bool = True) -> float:
    """Seconds that `statement` takes in a new process whose kernels are kept in the folder `cache`.

    Raises
    ------
    RuntimeError
        The process failed; the message is what it said.
    """
    code = CHILD.format(before="" if scipy else BLOCK_SCIPY, statement=statement)
    environment = os.environ | {"POOLING_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"a new process failed at {statement!r}: {done.stderr.strip()}")
    return float(done.stdout)


def measure(
    *, threads: int, rounds: int, cold_rounds: int, progress: Callable[[float], None] = lambda done: None
) -> list[Cost]:
    """The cost of each of :data:`STATEMENTS`, of a first call that compiles, and of a call of each of :data:`CALLED`."""
    samples: dict[str, list[float]] = {}
    steps = rounds + 4 * cold_rounds  # one that compiles takes about as long as four rounds of the others
    with tempfile.TemporaryDirectory(prefix="pooling-startup-") as folder:
        kept = os.path.join(folder, "kept")
        seconds_of(FIRST_CALL, kept)  # compiles, and brings all files into memory
        for i in range(rounds):
            for what, statement in STATEMENTS.items():
                for ending in ("", ALONE) if what in WITH_NUMBA else ("",):
                    samples.setdefault(what + ending, []).append(seconds_of(statement, kept, scipy=not ending))
            progress((i + 1) / steps)
        for i in range(cold_rounds):
            for ending in ("", ALONE):
                empty = tempfile.mkdtemp(dir=folder)
                samples.setdefault(COLD + ending, []).append(seconds_of(FIRST_CALL, empty, scipy=not ending))
            progress((rounds + 4 * (i + 1)) / steps)
    samples |= call_samples(threads, 3 * rounds)
    return [as_cost(what, found) for what, found in samples.items()]


def call_samples(threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds that a forward call on the least array takes, its new result included."""
    x = np.ones((1, 8, 8, 8), np.float32)
    pools = {name: pooling.MaxPool(2, backend=name) for name in CALLED}
    samples: dict[str, list[float]] = {f"call of {name}": [] for name in CALLED}
    with pinned(threads):
        for _ in range(rounds + 1):
            for name, pool in pools.items():
                start = perf_counter()
                for _ in range(CALLS):
                    pool.forward(x)
                samples[f"call of {name}"].append((perf_counter() - start) / CALLS)
    return {what: found[1:] for what, found in samples.items()}  # the first round loads the kernel


def as_cost(what: str, samples: Sequence[float]) -> Cost:
    """The median of the samples with its quartiles.

    Examples
    --------
    >>> as_cost("import numpy", [3.0, 1.0, 2.0]).median_s
    2.0
    """
    q1, _, q3 = quantiles(samples, method="inclusive") if len(samples) > 1 else [*samples] * 3
    mid, low, high = (float(f"{value:.4g}") for value in (median(samples), q1, q3))
    return Cost("startup", what, mid, low, high, len(samples))


@dataclass(frozen=True)
class Aim:
    """How much more than `beside` something may cost: `most` times as much, or `most` seconds; None aims at nothing."""

    what: str
    beside: str | None
    most: float | None
    relation: Literal["times", "more"]


AIMS = (
    Aim("import pooling", "import numpy", 1.3, "times"),
    Aim("pooling.MaxPool", "import numpy", None, "times"),
    Aim("first call, compiled before", "import numba", 0.5, "more"),
    Aim("first call, nothing compiled", "import numba", 2.5, "more"),
    Aim("first call, compiled before" + ALONE, "import numba" + ALONE, 0.5, "more"),
    Aim("first call, nothing compiled" + ALONE, "import numba" + ALONE, 2.5, "more"),
    Aim("call of simd", None, 15e-6, "more"),
    Aim("call of auto", "call of simd", 5e-6, "more"),
)


@dataclass(frozen=True)
class Outcome:
    """What was reached of an aim."""

    aim: Aim
    cost: Cost
    reached: float

    @property
    def met(self) -> bool | None:
        return None if self.aim.most is None else self.reached <= self.aim.most

    def text(self, value: float) -> str:
        """A value of the aim for people, in its unit."""
        if self.aim.relation == "times":
            return f"{value:.2f}×"
        return f"{value:.2f} s" if value >= 0.01 else f"{1e6 * value:.1f} µs"


def outcomes(results: Results) -> Iterator[Outcome]:
    """Of every aim whose costs the run measured."""
    costs = {cost.what: cost for cost in results.of(Cost)}
    for aim in AIMS:
        if aim.what not in costs or (aim.beside is not None and aim.beside not in costs):
            continue
        own = costs[aim.what].median_s
        beside = costs[aim.beside].median_s if aim.beside is not None else 0.0
        yield Outcome(aim, costs[aim.what], own / beside if aim.relation == "times" else own - beside)
