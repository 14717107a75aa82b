"""Means with their intervals, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.accuracy_study.runs import Row


@dataclass(frozen=True)
class Estimate:
    """A mean, half the width of its 95% interval (Student's t; not a number from one value), and of how many it is."""

    mean: float
    half: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.n > 1 and abs(self.mean) > self.half

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of a sample.

        Examples
        --------
        >>> Estimate.of([1.0, 2.0, 3.0]).half.__round__(3)
        2.484
        """
        from scipy.stats import t

        n = len(values)
        if n < 2:
            return cls(float(values[0]), math.nan, n)
        spread = float(np.std(values, ddof=1))
        return cls(float(np.mean(values)), float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n), n)


def by_seed(rows: Sequence[Row], label: str) -> dict[int, Row]:
    """The runs of a label."""
    return {row.seed: row for row in rows if row.label == label}


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Mean of a - b over the seeds that both have; None where there is none."""
    seeds = sorted(set(a) & set(b))
    return Estimate.of([a[seed] - b[seed] for seed in seeds]) if seeds else None


def epochs_to(row: Row, accuracy: float) -> float:
    """Epochs until test accuracy is reached, by interpolation from the one before; infinite where it is not.

    Before the first epoch it counts as chance: 10%.
    """
    before = 0.1
    for epoch, value in enumerate(row.accuracy):
        if value >= accuracy:
            return epoch + (accuracy - before) / (value - before) if value > before else epoch + 1.0
        before = value
    return math.inf
