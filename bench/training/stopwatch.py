"""Seconds by layer and direction."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter


class Stopwatch:
    """Adds up the time spent under (layer, direction): of each, since the lap before."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._since = perf_counter()

    def start(self) -> None:
        """The next lap begins now."""
        self._since = perf_counter()

    def lap(self, layer: str, direction: str) -> None:
        """What has been done since the last lap, or the start, was this."""
        now = perf_counter()
        self.seconds[layer, direction] += now - self._since
        self._since = now
