"""How good the rule is, said of problems that it was not fitted on: for the terminal, and for the page with a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.fit import Judged


def describe_fit(judged: Sequence[Judged]) -> Iterator[str]:
    """A line for each kind of problem."""
    for name, of in kinds(judged).items():
        if of:
            mean = math.exp(sum(math.log(one.over) for one in of) / len(of))
            hits = sum(one.over <= 1.0 for one in of)
            worst = max(of, key=lambda one: one.over)
            yield (
                f"{name}: {len(of)} problems, the fastest at {hits}; time over the fastest's: geometric mean {mean:.3f}, "
                f"worst {worst.over:.2f} ({worst.pick} at {worst.observation.facts.key})"
            )


def kinds(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """All, and by direction and source."""
    found = {"all": list(judged)}
    for direction in ("training", "inference"):
        found[direction] = [one for one in judged if one.observation.facts.direction == direction]
    for source in ("workloads", "sizes", "threads", "design"):
        found[source] = [one for one in judged if one.observation.source == source]
    return found
