"""The study's page, drawn from its rows alone: the answers, the tables, learning curves with their bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.accuracy_study.answer import FAILED, GOAL, comparisons, labels, ladder, points, sentences, summary
from bench.accuracy_study.runs import NETWORKS, WINDOWS, Row
from bench.accuracy_study.statistics import Estimate
from bench.figures.drawing import Figure, house_style, without
from bench.figures.style import COLOURS, svg
from bench.files import write_atomically

NAME = "study.html"
CURVES = ("max first", "max split", "max all", "avg", "undivided")


@without("SOURCE_DATE_EPOCH")  # SciPy, too, can't be imported where it is no number
def write(rows: Sequence[Row], folder: Path) -> Path:
    """Write study.html, which needs nothing else, into `folder`; its path."""
    environment = Environment(
        loader=PackageLoader("bench.accuracy_study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "percent": percent}
    page = environment.get_template("study.html.j2").render(
        rows=rows,
        datasets=sorted({row.dataset for row in rows}),
        hosts=sorted({row.host for row in rows}),
        digests=sorted({row.digest for row in rows}),
        sentences=list(sentences(rows)),
        goal=GOAL,
        summaries=[summary(rows, label) for part in ("grid", "rates") for label in labels(rows, part)],
        comparisons=comparisons(rows),
        ladder=[rung for rung in ladder(rows) if rung.ours],
        timings=[row for row in rows if row.part == "timing"],
        curves=Markup(curves(rows)) if any(row.part == "grid" for row in rows) else "",
    )
    path = folder / NAME
    write_atomically(path, page)
    return path


def percent(estimate: Estimate) -> str:
    """An accuracy in percent, with its interval."""
    return points(Estimate(100 * estimate.mean, 100 * estimate.half, estimate.n))


def curves(rows: Sequence[Row]) -> str:
    """Test error by epoch, a panel for each network and window; a band is the 95% interval of the mean. Who learned
    nothing is left out."""
    with house_style():
        figure = Figure(figsize=(9.5, 6.0))
        axes = figure.subplots(len(NETWORKS), len(WINDOWS), squeeze=False)
        for i, network in enumerate(NETWORKS):
            for j, window in enumerate(WINDOWS):
                ax = axes[i, j]
                for kind, colour in zip(CURVES, COLOURS[::-1], strict=False):
                    own = [r.accuracy for r in rows if r.label == f"{network} {window} {kind}" and r.chosen >= FAILED]
                    if not own:
                        continue
                    length = min(map(len, own))
                    estimates = [Estimate.of([100 * (1 - run[e]) for run in own]) for e in range(length)]
                    mean = np.array([e.mean for e in estimates])
                    half = np.nan_to_num(np.array([e.half for e in estimates]))
                    epochs = np.arange(1, length + 1)
                    ax.plot(epochs, mean, color=colour, label=kind, marker="." if length < 12 else "")
                    ax.fill_between(
                        epochs, np.maximum(mean - half, 0.01), mean + half, color=colour, alpha=0.2, linewidth=0
                    )
                ax.set_yscale("log")
                ax.set_title(f"{network}, {window[0]}×{window[0]} windows, stride {window[-1]}", fontsize=9)
                ax.set_xlabel("epoch")
        for row_of_axes in axes:
            row_of_axes[0].set_ylabel("test error, %: lower is better")
        handles = {
            label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=5, fontsize=8)
        figure.set_layout_engine("constrained")
        return svg(figure)
