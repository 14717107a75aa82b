"""Pictures, drawn from the results alone: SVG, the same bytes from the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.figures.drawing import Figure, house_style
from bench.figures.style import DIRECTION_NAMES, look, ranked, svg
from bench.report.curves import by_kernel, by_threads, caches, roof, size_axis
from bench.schema.results import Bandwidth, Results, Timing, Training
from bench.schema.workloads import Direction

LAYERS = ("conv", "pool", "relu", "full", "rest")
LAYER_COLOURS = ("#56B4E9", "#D55E00", "#F0E442", "#009E73", "#999999")


def pictures(results: Results) -> Iterator[tuple[str, str]]:
    """Name and SVG of every picture that the results suffice for."""
    for name, there, draw in drawings(results):
        if there:
            with house_style():  # not across the yield: the style would be the reader's, too
                picture = svg(draw())
            yield name, picture


def drawings(results: Results) -> Iterator[tuple[str, bool, Callable[[], Figure]]]:
    """Every picture's name, whether the results suffice for it, and what draws it."""
    workloads = bool(results.of(Timing, stage="workloads"))
    yield "steps", workloads, lambda: by_workload(results, ("step",))
    yield "workloads", workloads, lambda: by_workload(results, ("forward_train", "backward"))
    yield "sizes", bool(results.of(Timing, stage="sizes")), lambda: by_size(results)
    yield "roofline", bool(results.of(Bandwidth)), lambda: roof(results)
    yield "threads", bool(results.of(Timing, stage="threads")), lambda: by_threads(results)
    yield "kernels", bool(results.of(Timing, stage="kernels")), lambda: by_kernel(results)
    yield "epochs", bool(results.of(Training, stage="epoch")), lambda: epochs(results)
    yield "accuracy", bool(results.of(Training, stage="accuracy")), lambda: accuracy(results)


def by_workload(results: Results, directions: Sequence[Direction]) -> Figure:
    """A line for each workload, a mark for each contender, time to the right; frameworks in a lane of their own below."""
    rows = [row for row in results.of(Timing, stage="workloads") if row.direction in directions]
    kinds = [kind for kind in ("backend", "peer") if any(row.kind == kind for row in rows)]
    lanes = {"backend": -0.17, "peer": 0.17} if len(kinds) > 1 else dict.fromkeys(kinds, 0.0)
    workloads = list(dict.fromkeys(row.workload for row in rows))
    figure = Figure(figsize=(9.5, 1.3 + 0.3 * len(kinds) + (0.22 + 0.12 * len(kinds)) * len(workloads)))
    axes = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for ax, direction in zip(axes, directions, strict=True):
        shown = [row for row in rows if row.direction == direction]
        for y, workload in enumerate(workloads):
            for kind in kinds:
                times = [1e3 * row.median_s for row in shown if row.workload == workload and row.kind == kind]
                if times:
                    ax.plot([min(times), max(times)], [y + lanes[kind]] * 2, color="#cccccc", linewidth=1, zorder=1)
        for entrant in results.entrants:
            own = [row for row in shown if row.contender == entrant.name]
            if own:
                ax.plot(
                    [1e3 * row.median_s for row in own],
                    [workloads.index(row.workload) + lanes[entrant.kind] for row in own],
                    markersize=5,
                    label=entrant.name,
                    zorder=2,
                    **(look(results, entrant.name) | {"linestyle": "none"}),
                )
        ax.set_xscale("log")
        ax.set_xlabel("ms, log scale: left is better")
        ax.set_title(DIRECTION_NAMES[direction], fontsize=10)
        ax.set_yticks(range(len(workloads)), [results.workloads[w].label for w in workloads], fontsize=7.5)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    by_name = dict(zip(labels, handles, strict=True))
    figure.set_layout_engine("constrained")
    titles = {"backend": "backends, fastest first", "peer": "frameworks, fastest first"}
    for kind in reversed(kinds):  # what is placed first lies outermost, at the top
        names = [name for name in ranked(results, [row for row in rows if row.kind == kind]) if name in by_name]
        figure.legend(
            [by_name[name] for name in names],
            names,
            loc="outside upper center" if kind == kinds[0] else "outside lower center",
            ncols=min(len(names), 8),
            fontsize=8,
            title=titles[kind],
        )
    return figure


def by_size(results: Results) -> Figure:
    """Time for a kilobyte against the size of x, with the sizes of the caches."""
    rows = results.of(Timing, stage="sizes")
    figure = Figure(figsize=(9.5, 3.8))
    directions: tuple[Direction, ...] = ("forward_train", "backward")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, direction in zip(axes, directions, strict=True):
        shown = [row for row in rows if row.direction == direction]
        for name in ranked(results, rows):
            own = sorted(
                (results.workloads[row.workload].nbytes, row.median_s) for row in shown if row.contender == name
            )
            ax.plot(
                [size for size, _ in own],
                [1e9 * s / (size / 1024) for size, s in own],
                label=name,
                linewidth=1.3,
                markersize=4,
                **look(results, name),
            )
        caches(ax, results)
        size_axis(ax, 28)
        ax.set_xlabel("size of x")
        ax.set_title(DIRECTION_NAMES[direction], fontsize=10)
    axes[0].set_ylabel("ns per KB of x: lower is better")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=8, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure


def layer_group(layer: str) -> str:
    """conv1, pool2, relu_full1, full1 ... -> a group of LAYERS."""
    return next((group for group in LAYERS if layer.startswith(group)), "rest")


def epochs(results: Results) -> Figure:
    """Seconds that an epoch of 60,000 images takes, stacked by layer, a bar for each backend."""
    rows = sorted(results.of(Training, stage="epoch"), key=lambda row: sum(row.seconds), reverse=True)
    figure = Figure(figsize=(9.5, 1.2 + 0.34 * len(rows)))
    ax = figure.subplots()
    for y, row in enumerate(rows):
        scale = 60_000 / row.images
        left = 0.0
        for group, colour in zip(LAYERS, LAYER_COLOURS, strict=True):
            seconds = scale * sum(t.seconds for t in row.layers if layer_group(t.layer) == group)
            ax.barh(y, seconds, left=left, color=colour, label=group if y == 0 else None, height=0.7)
            if group == "pool":
                ax.text(left + seconds / 2, y, f"{seconds:.1f}", ha="center", va="center", fontsize=7.5)
            left += seconds
        ax.text(left, y, f" {scale * sum(row.seconds):.1f} s", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), [f"{row.backend} ({row.ties})" for row in rows])
    ax.set_xlabel(f"seconds an epoch of 60,000 images, measured on {rows[0].images:,}")
    ax.set_xlim(0, 1.12 * max(sum(r.seconds) * 60_000 / r.images for r in rows))
    ax.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=5, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure


def accuracy(results: Results) -> Figure:
    """Learning curves: the loss of each step, smoothed, and the accuracy after each epoch."""
    rows = results.of(Training, stage="accuracy")
    figure = Figure(figsize=(9.5, 3.4))
    left, right = figure.subplots(1, 2)
    for row in rows:
        style = {
            "color": "#D55E00" if row.pool == "max" else "#0072B2",
            "linestyle": "-" if row.network == "lenet" else "--",
            "label": f"{row.network}, {row.pool}",
        }
        steps = [(i + 0.5) * row.loss_every for i in range(len(row.losses))]
        left.plot(steps, row.losses, linewidth=1.1, **style)
        right.plot(range(1, len(row.accuracy) + 1), [100 * a for a in row.accuracy], marker="o", markersize=4, **style)
    left.set_yscale("log")
    left.set_xlabel("step")
    left.set_ylabel("training loss, log scale")
    right.set_xlabel("epochs")
    right.set_ylabel(f"test accuracy on {rows[0].dataset}, %")
    right.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure
