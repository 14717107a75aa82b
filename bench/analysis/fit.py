"""Fitting the rule that backend="auto" follows where nothing was measured: `pooling/tuning/rule.py` explains what it says.

Prices are found by least squares of relative errors, none below zero, for each backend and case. What is fitted on are the
timings of a run (`reports/results/standard.json`) and those of the problems in `fit_design.py`, kept beside it in
`rule.json`. How good the rule is, is said of problems that it was not fitted on: each is left out once.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling
from bench.analysis.fit_design import design
from bench.files import ROOT, write_atomically
from bench.schema.environment import Machine, machine
from bench.schema.results import Results, ResultsError, Timing
from pooling.geometry.problem import TIES, Ties
from pooling.parallel.pool import using_threads
from pooling.tuning import rule
from pooling.tuning.candidates import sort_out
from pooling.tuning.layer import Direction, Facts
from pooling.tuning.model_files import data_of, layer_of
from pooling.tuning.rule import amounts, cases, fastest, ranked, seconds
from pooling.tuning.timing import Clock, measure

MEASURED = ROOT / "reports" / "results" / "rule.json"

WEIGHTS = (1.0, 0.01, 0.003, 0.001)
"""How much a measurement counts for its own case, and for others with which it shares less: so that a case with few
measurements of its own gets, for what those say nothing of, the prices of its relatives."""

FOLDS = 10
"""Parts of the problems, each of which is judged by prices from the others."""

SPLITS: tuple[float | None, ...] = (None, 1 << 18, 1 << 22)
"""Bytes from which on a backend may split its work over threads; of these the best fit is taken."""

LAYER_S = 1.0
"""Seconds for each problem, beside compilation."""


@dataclass(frozen=True)
class Observation:
    """The times of all candidates at one problem, in seconds."""

    facts: Facts
    times: Mapping[str, float]
    source: str

    @property
    def group(self) -> str:
        """Problems of one group are left out together: batches and directions of the same window on the same planes."""
        return self.facts.family.split(" ", 1)[1].split(" threads")[0]


def of_results(results: Results) -> Iterator[Observation]:
    """What a run has measured: workloads, sizes and threads, each contender with the policy it has."""
    found: dict[tuple[str, str, Direction, Ties, int], dict[str, float]] = defaultdict(dict)
    for row in results.of(Timing, kind="backend"):
        if row.stage not in ("workloads", "sizes", "threads"):
            continue
        direction: Direction = "inference" if row.direction == "forward" else "training"
        if row.stage == "workloads" and row.direction in ("forward_train", "backward"):
            continue  # the step has both
        times = found[row.stage, row.workload, direction, _ties(row), row.threads]
        times[row.contender] = times.get(row.contender, 0.0) + row.median_s
    for (stage, name, direction, ties, threads), times in found.items():
        workload = results.workloads[name]
        about = workload.layer(direction, ties).facts(threads)
        able, _ = sort_out(about)
        kept = {backend: time for backend, time in times.items() if backend in able}
        if kept:
            yield Observation(about, kept, stage)


def _ties(row: Timing) -> Ties:
    return next((ties for ties in TIES if ties == row.ties), "first")


def of_file(path: Path) -> Iterator[Observation]:
    """What was measured of the design."""
    for row in _load(path)["rows"]:
        about = layer_of(row["layer"]).facts(row["threads"])
        yield Observation(about, {name: 1e-6 * us for name, us in row["us"].items()}, "design")


def _load(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"machine": data["machine"], "rows": list(data["rows"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} can't be read ({error}): python -m bench fit --fresh measures anew") from None


def measure_design(path: Path, fresh: bool, progress: Callable[[int, int], None], count: int | None = None) -> None:
    """Measure the design and write it to `path`, going on with what is there of the same machine."""
    todo = design()[:count]
    rows: list[dict[str, Any]] = []
    if path.exists() and not fresh:
        data = _load(path)
        rows = data["rows"] if data["machine"] == _machine(machine()) else []
    done = [(row["layer"], row["threads"]) for row in rows]
    most = pooling.get_num_threads()
    for i, (layer, threads) in enumerate(todo):
        progress(i, len(todo))
        entry = json.loads(json.dumps(data_of(layer)))
        if (entry, threads) in done or threads > most:
            continue
        about = layer.facts(threads)
        able, _ = sort_out(about)
        with using_threads(threads):
            outcome = measure(about, ranked(about, able), Clock(math.inf), Clock(LAYER_S))
        us = {name: float(f"{1e6 * times.quartiles[1]:.5g}") for name, times in outcome.times.items()}
        rows.append({"layer": entry, "threads": threads, "us": us})
        _save(path, rows)
    progress(len(todo), len(todo))


def _machine(found: Machine) -> dict[str, Any]:
    return {"cpu": found.cpu, "architecture": found.architecture, "usable_threads": found.usable_threads}


def _save(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_atomically(path, f'{{"machine": {json.dumps(_machine(machine()))}, "rows": [\n{lines}\n]}}\n')


def fit(observations: Iterable[Observation]) -> dict[str, Any]:
    """Prices by case, from how many bytes on each backend splits its work, and the shortest time that each took."""
    by_backend: dict[str, list[tuple[Facts, float]]] = defaultdict(list)
    for one in observations:
        for name, time in one.times.items():
            by_backend[name].append((one.facts, time))
    prices: dict[str, list[float]] = {}
    splits: dict[str, float] = {}
    for name in sorted(by_backend):
        rows = by_backend[name]
        fits = [(*_fit_backend(name, rows, split), split) for split in SPLITS]
        _, found, split = min(fits, key=lambda tried: tried[0])
        prices |= found
        if split is not None:
            splits[name] = split
    floors = {name: float(f"{min(time for _, time in rows):.4g}") for name, rows in sorted(by_backend.items())}
    return {"prices": prices, "splits": splits, "floors": floors}


def _fit_backend(
    name: str, rows: Sequence[tuple[Facts, float]], split: float | None
) -> tuple[float, dict[str, list[float]]]:
    """The sum of squared relative errors, and the prices of each case."""
    found = {}
    times = np.array([time for _, time in rows])
    work = np.array([_work(about, split) for about, _ in rows]) / times[:, None]
    scale = work.max(axis=0)
    scale[scale == 0] = 1.0
    of_rows = [cases(about, name) for about, _ in rows]
    for chain in sorted({its[i:] for its in of_rows for i in range(len(its))}):
        weights = np.array([_weight(chain, its) for its in of_rows])
        prices = _least_squares(work / scale, weights) / scale
        found[chain[0]] = [float(f"{1e9 * price:.4g}") for price in prices]
    given = {"prices": found, "splits": {} if split is None else {name: split}}
    return sum(math.log((seconds(about, name, given) or time) / time) ** 2 for about, time in rows), found


@lru_cache(maxsize=1 << 16)
def _weight(chain: tuple[str, ...], of_row: tuple[str, ...]) -> float:
    """How much a row counts for the first case of `chain`: in full if it is of that case, and less the further off it is."""
    return next((weight for case, weight in zip(chain, WEIGHTS, strict=False) if case in of_row), 0.0)


def _least_squares(work: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices, none below zero, with the least sum of squared relative errors, given work for each unit of time."""
    from scipy.optimize import nnls

    counted = weights > 0
    root = np.sqrt(weights[counted])
    return np.asarray(nnls(work[counted] * root[:, None], root)[0])


def _work(about: Facts, split: float | None) -> list[float]:
    calls, work = amounts(about)
    threads = about.threads if split is not None and about.nbytes > split else 1
    return [*calls, *(amount / threads for amount in work)]


@dataclass(frozen=True)
class Judged:
    """What the rule said of a problem that it was not fitted on."""

    observation: Observation
    pick: str
    expected: Mapping[str, float]

    @property
    def over(self) -> float:
        """The time of the pick over that of the fastest."""
        times = self.observation.times
        return times[self.pick] / min(times.values())


def cross_validate(observations: Sequence[Observation]) -> list[Judged]:
    """Judge each observation by a rule fitted on those of other groups."""
    groups = sorted({one.group for one in observations})
    folds = min(FOLDS, len(groups))
    fold = {group: i % folds for i, group in enumerate(groups)}
    judged = []
    for k in range(folds):
        given = fit(one for one in observations if fold[one.group] != k)
        for one in observations:
            if fold[one.group] == k:
                able = list(one.times)
                expected = {name: time for name in able if (time := seconds(one.facts, name, given)) is not None}
                judged.append(Judged(one, fastest(one.facts, able, given), expected))
    return judged


def write(found: Mapping[str, Any], observations: Sequence[Observation], path: Path = Path(rule.PATH)) -> None:
    """Write the rule, a case a line."""
    prices = ",\n".join(
        f"  {json.dumps(case)}: {json.dumps(values)}" for case, values in sorted(found["prices"].items())
    )
    parts = {"fitted on": len(observations), "splits": found["splits"], "floors": found["floors"]}
    head = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n" for name, value in parts.items())
    write_atomically(path, f'{{\n{head}"prices": {{\n{prices}\n}}\n}}\n')
