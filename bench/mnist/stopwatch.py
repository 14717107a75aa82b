"""Seconds by layer and direction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Adds up the time spent under (layer, direction)."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    @contextmanager
    def time(self, layer: str, direction: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[layer, direction] += perf_counter() - start
