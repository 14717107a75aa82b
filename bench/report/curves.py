"""Pictures of the studies: what memory allows, threads, kernel sizes."""

from __future__ import annotations

from typing import Any

from bench.experiments.studies import LAYOUTS, PASSES, SUBJECT
from bench.figures.drawing import Axes, Figure, FuncFormatter, LogLocator, NullLocator
from bench.figures.style import look, ranked
from bench.schema.environment import size_text
from bench.schema.results import Bandwidth, Results, Timing

ROOFS = {"read": ":", "write": "--", "copy": "-"}
COLOURS = ("#0072B2", "#D55E00")


def size_axis(ax: Axes, last: int) -> None:
    """Bytes, from a kilobyte to 2 to the power of `last`."""
    powers = range(10, last + 1, 3)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks([2**n for n in powers], [size_text(2**n) for n in powers])
    ax.minorticks_off()


def time_axis(ax: Axes) -> None:
    """Milliseconds, with numbers for people: 1, 2, 5, 10 ..."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def caches(ax: Axes, results: Results) -> None:
    """A dotted line at the size of each cache."""
    for cache, size in results.machine.caches.items():
        ax.axvline(size, color="#555555", linewidth=0.8, linestyle=":")
        ax.text(size, 0.99, f" {cache}", transform=ax.get_xaxis_transform(), va="top", fontsize=8, color="#555555")


def roof(results: Results) -> Figure:
    """GB/s that the subject reaches against the bytes it moves, under the measured bandwidth of memory."""
    figure = Figure(figsize=(9.5, 4.2))
    ax = figure.subplots()
    bandwidths = [row for row in results.of(Bandwidth) if not row.workload]
    for kind, line in ROOFS.items():
        points = sorted((row.nbytes, row.gb_per_s) for row in bandwidths if row.kind == kind)
        ax.plot([n for n, _ in points], [rate for _, rate in points], color="#333333", linestyle=line, label=kind)
    for direction, colour in zip(PASSES, COLOURS, strict=True):
        for layout in LAYOUTS:
            own = [
                row
                for row in results.of(Timing, direction=direction, contender=SUBJECT)
                if row.stage in ("workloads", "beyond") and results.workloads[row.workload].data_format == layout
            ]
            style: dict[str, Any] = {"color": colour, "marker": "o" if layout == "channels_first" else "s"}
            style["markerfacecolor"] = colour if layout == "channels_first" else "none"
            if own:
                ax.plot(
                    [row.bytes_moved for row in own],
                    [row.gb_per_s for row in own],
                    linestyle="none",
                    markersize=5,
                    label=f"{SUBJECT}, {direction}, {layout}",
                    **style,
                )
    size_axis(ax, 28)
    caches(ax, results)
    ax.set_xlim(left=2**15)
    ax.set_xlabel("bytes read and written, each array once")
    ax.set_ylabel("GB/s: higher is better")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure


def by_threads(results: Results) -> Figure:
    """Training step against threads, a panel for each workload; dotted, what twice the threads in half the time would be."""
    rows = results.of(Timing, stage="threads")
    workloads = list(dict.fromkeys(row.workload for row in rows))
    figure = Figure(figsize=(9.5, 3.4))
    axes = figure.subplots(1, len(workloads), squeeze=False)[0]
    counts = sorted({row.threads for row in rows})
    for ax, workload in zip(axes, workloads, strict=True):
        for name in ranked(results, rows):
            own = {
                row.threads: 1e3 * row.median_s for row in rows if row.workload == workload and row.contender == name
            }
            style = look(results, name)
            ax.plot(list(own), list(own.values()), label=name, markersize=5, **style)
            if 1 in own:
                ax.plot(list(own), [own[1] / n for n in own], color=style["color"], linewidth=0.9, linestyle=":")
        ax.set_xscale("log", base=2)
        time_axis(ax)
        ax.set_xticks(counts, list(map(str, counts)))
        ax.xaxis.minorticks_off()
        ax.set_xlabel("threads")
        ax.set_title(results.workloads[workload].label, fontsize=8)
    axes[0].set_ylabel("ms a training step: lower is better")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure


def by_kernel(results: Results) -> Figure:
    """Training step against kernel size, a panel for each layout."""
    rows = results.of(Timing, stage="kernels", direction="step")
    figure = Figure(figsize=(9.5, 3.6))
    axes = figure.subplots(1, len(LAYOUTS), sharey=True)
    sizes = sorted({results.workloads[row.workload].window.kernel_size[0] for row in rows})
    for ax, layout in zip(axes, LAYOUTS, strict=True):
        shown = [row for row in rows if results.workloads[row.workload].data_format == layout]
        for name in ranked(results, shown):
            own = sorted(
                (results.workloads[row.workload].window.kernel_size[0], 1e3 * row.median_s)
                for row in shown
                if row.contender == name
            )
            ax.plot([k for k, _ in own], [ms for _, ms in own], label=name, markersize=5, **look(results, name))
        ax.set_xscale("log", base=2)
        time_axis(ax)
        ax.set_xticks(sizes, [f"{k}×{k}" for k in sizes], fontsize=8)
        ax.xaxis.minorticks_off()
        ax.set_xlabel("kernel")
        ax.set_title(layout, fontsize=10)
    axes[0].set_ylabel("ms a training step: lower is better")
    by_name = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(by_name.values()), list(by_name), loc="outside upper center", ncols=4, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure
