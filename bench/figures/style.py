"""What all pictures have in common: colours, markers, order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import StringIO
from typing import Any

from bench.figures.drawing import Figure
from bench.schema.results import Results, Timing
from bench.schema.workloads import Direction

COLOURS = ("#000000", "#999999", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#009E73", "#D55E00")
"""Okabe and Ito's palette, which colour-blind people can tell apart, in the order of the registry."""

MARKERS = "xvs^Do*P"

PEER_COLOURS = ("#AA3377", "#661100", "#228833", "#332288", "#887711", "#117788", "#4477AA")
PEER_MARKERS = "sDo^v<>"
"""Frameworks are drawn hollow and with dashed lines: whatever is filled is ours."""

DIRECTION_NAMES: dict[Direction, str] = {
    "forward": "forward (inference)",
    "forward_train": "forward, keeping what backward needs",
    "backward": "backward",
    "step": "training step: forward + backward",
}


def svg(figure: Figure) -> str:
    """The figure as text, without a date."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = out.getvalue()
    return text[text.index("<svg") :]


def look(results: Results, name: str) -> dict[str, Any]:
    """Colour, marker and line of a contender."""
    kind = next(entrant.kind for entrant in results.entrants if entrant.name == name)
    i = [entrant.name for entrant in results.entrants if entrant.kind == kind].index(name)
    if kind == "backend":
        return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
    colour = PEER_COLOURS[i % len(PEER_COLOURS)]
    marker = PEER_MARKERS[i % len(PEER_MARKERS)]
    return {"color": colour, "marker": marker, "markerfacecolor": "none", "linestyle": "--"}


def ranked(results: Results, rows: Sequence[Timing]) -> list[str]:
    """Contenders, fastest first: by the geometric mean of their time over the fastest's at each workload."""
    fastest: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row.workload, row.direction)
        fastest[key] = min(fastest.get(key, math.inf), row.median_s)
    logs: dict[str, list[float]] = {}
    for row in rows:
        logs.setdefault(row.contender, []).append(math.log(row.median_s / fastest[row.workload, row.direction]))
    return sorted(logs, key=lambda name: sum(logs[name]) / len(logs[name]))
