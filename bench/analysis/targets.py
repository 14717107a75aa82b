"""Targets, and what a run reaches of them: geometric mean and worst case, met or missed.

The aims are the project's own, for float32 and two threads; a run on other machines is judged by them all the same. What was
tried where one is missed is told in ``docs/targets.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from bench.analysis.versus import geometric_mean
from bench.experiments import roofline
from bench.experiments.studies import LAYOUTS, SUBJECT, of_kernel
from bench.schema.results import Bandwidth, Results, Timing
from bench.schema.workloads import Direction
from pooling.operators.base import DataFormat

FIRST, LAST = LAYOUTS

INFERRING = ("onnxruntime", "openvino", "onednn")


@dataclass(frozen=True)
class Aim:
    """To be so many times as fast as the fastest of `rivals`, in the mean and at the worst workload."""

    what: str
    rivals: tuple[str, ...]
    layout: DataFormat
    direction: Direction
    mean: float
    worst: float


AIMS = (
    Aim("PyTorch", ("pytorch",), FIRST, "step", 8.0, 2.0),
    Aim("PyTorch's channels_last", ("pytorch_channels_last",), LAST, "step", 4.0, 1.5),
    Aim("oneDNN", ("onednn",), FIRST, "step", 8.0, 2.0),
    Aim("oneDNN", ("onednn",), LAST, "step", 2.5, 1.3),
    Aim("the fastest of ONNX Runtime, OpenVINO and oneDNN", INFERRING, FIRST, "forward", 2.5, 1.2),
    Aim("the fastest of ONNX Runtime, OpenVINO and oneDNN", INFERRING, LAST, "forward", 2.5, 1.2),
    Aim("strided_slices", ("strided_slices",), FIRST, "step", 5.0, 1.0),
    Aim("strided_slices", ("strided_slices",), LAST, "step", 5.0, 1.0),
)

ROOF_MEAN, ROOF_WORST = 0.80, 0.65
"""Parts of what memory allows, where no cache holds the arrays."""

FLAT, FLAT_TO, FLAT_FROM = 2.0, (13, 31), 3
"""How many times as long as with the smallest of these kernels a pass with the largest may take."""


@dataclass(frozen=True)
class Outcome:
    """An aim, what was reached, and where it was worst. Where less is better, there is no mean."""

    what: str
    layout: str
    direction: Direction
    aimed_mean: float | None
    mean: float | None
    aimed_worst: float
    worst: float
    at: str
    met: bool
    part: bool = False
    """Whether the numbers are parts of a whole, and not times."""


def judged(
    what: str,
    layout: str,
    direction: Direction,
    found: Sequence[tuple[float, str]],
    mean: float,
    worst: float,
    part: bool = False,
) -> Outcome:
    least, at = min(found)
    reached = geometric_mean([value for value, _ in found])
    return Outcome(what, layout, direction, mean, reached, worst, least, at, reached >= mean and least >= worst, part)


def outcomes(results: Results) -> Iterator[Outcome]:
    """Of every aim that the run has the timings for."""
    for aim in AIMS:
        times: dict[str, dict[str, float]] = {}
        for row in results.of(Timing, stage="workloads", direction=aim.direction):
            workload = results.workloads[row.workload]
            if workload.data_format == aim.layout and workload.dtype == "float32":
                times.setdefault(row.workload, {})[row.contender] = row.median_s
        found = [
            (min(by[name] for name in aim.rivals if name in by) / by[SUBJECT], results.workloads[workload].label)
            for workload, by in times.items()
            if SUBJECT in by and any(name in by for name in aim.rivals)
        ]
        if found:
            yield judged(aim.what, aim.layout, aim.direction, found, aim.mean, aim.worst)
    roof = results.of(Bandwidth)
    beyond = [row for row in results.of(Timing, stage="beyond") if row.threads in {r.threads for r in roof}]
    if beyond:
        workloads = [results.workloads[row.workload] for row in beyond]
        reached = [roofline.fraction(row, workload, roof) for row, workload in zip(beyond, workloads, strict=True)]
        parts = [(part, of.label) for part, of in zip(reached, workloads, strict=True) if part is not None]
    if beyond and parts:
        yield judged("what memory allows, beyond the caches", "both", "step", parts, ROOF_MEAN, ROOF_WORST, part=True)
    passes: tuple[Direction, ...] = ("forward_train", "step")
    for layout, direction in product(LAYOUTS, passes):
        own = results.of(Timing, stage="kernels", contender=SUBJECT, direction=direction)
        by = {row.workload: row.median_s for row in own}
        small = by.get(of_kernel(FLAT_FROM, layout).id)
        large = {size: by[name] for size in FLAT_TO if (name := of_kernel(size, layout).id) in by}
        if small and large:
            ratio, size = max((seconds / small, size) for size, seconds in large.items())
            what = f"kernels of {' and '.join(map(str, large))} over {FLAT_FROM}, at most"
            yield Outcome(what, layout, direction, None, None, FLAT, ratio, f"{size}×{size}", ratio <= FLAT)
