"""``python -m bench train``: a progress bar, and a table of where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.peers import versions as peer_versions
from bench.schema.environment import machine, source, versions
from bench.training.data import Dataset, named
from bench.training.ladder import FASTEST, LADDER
from bench.training.networks import POOLS, design_of
from bench.training.train import History, Settings, train
from pooling import AvgPool, MaxPool, PoolingError, get_backend
from pooling.geometry.problem import TIES

if TYPE_CHECKING:
    from bench.training.outcome import Race

RUNG_STEPS = 200
"""What the slower rungs do of an epoch: enough for their times, and all of what losses are compared over."""


def check(options: dict[str, Any]) -> None:
    """PoolingError where an option has a value that isn't one of its own."""
    design_of(options["network"])
    for name, choices in (("pool", POOLS), ("ties", TIES), ("rung", tuple(LADDER))):
        if name in options and options[name] not in choices:
            raise PoolingError(f"--{name} {options[name]}: choose one of {', '.join(choices)}")
    name = options.get("backend", "auto")
    if name == "auto":
        return
    chosen = get_backend(name)  # raises for an unknown name
    operator = MaxPool(2, ties=options["ties"]) if options["pool"] == "max" else AvgPool(2)
    reason = chosen.why_not((1, 1, 4, 4), "float32", operator)
    if reason is not None and name != LADDER[options["rung"]].backend:  # a rung's own does what it can
        raise PoolingError(f"--backend {name} can't do this: {reason}; choose auto, or another one")


def run(dataset: Dataset, **options: Any) -> History:
    """Train and print.

    Raises
    ------
    PoolingError
        An option has a value that isn't one of its own, or the network does not do for the data.
    """
    check(options)
    settings = Settings(**options)
    settings.check(dataset)
    console = Console()
    console.print(f"{dataset.name}: {dataset.note}", highlight=False)
    images = min(settings.images or len(dataset.images), len(dataset.images))
    steps = -(-images // settings.batch_size)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("epoch 1", total=steps * settings.epochs)

        def on_step(step: int, loss: float) -> None:
            bar.update(task, advance=1, description=f"epoch {step // steps + 1}  loss {loss:.4f}")

        def on_epoch(epoch: int, history: History) -> None:
            mean = sum(history.losses[-steps:]) / steps
            console.print(
                f"epoch {epoch + 1}: mean loss {mean:.4f}, test accuracy {history.accuracy[-1]:.2%}, "
                f"{history.seconds[-1]:.1f} s",
                highlight=False,
            )

        history = train(settings, dataset, on_step, on_epoch)
    console.print(table_of(history))
    console.print(f"Pooling took {history.pooling_share():.1%} of the time.", highlight=False)
    return history


def table_of(history: History) -> Table:
    """Seconds by layer and direction."""
    table = Table("layer", "forward, s", "backward, s", "share")
    total = sum(history.stopwatch.seconds.values())
    for layer in dict.fromkeys(layer for layer, _ in history.stopwatch.seconds):
        both = [history.stopwatch.seconds.get((layer, direction), 0.0) for direction in ("forward", "backward")]
        table.add_row(layer, *(f"{s:.2f}" if s else "" for s in both), f"{sum(both) / total:.1%}")
    return table


def race(
    dataset: Dataset,
    out: Path,
    options: dict[str, Any],
    rungs: list[str],
    steps: int | None,
    compiled: bool,
    memory: bool,
    data_dir: Path | None,
    rung_steps: int | None = None,
) -> Path:
    """Train in turns, print what came of it, and keep it as JSON; the file's path.

    Parameters
    ----------
    steps
        Of each; None is an epoch, of which rungs other than the last do at most `rung_steps`: RUNG_STEPS, unless told.
    """
    from bench.training.duel import AGREED, GENTLE, agreement, apart, duel, peak_mb
    from bench.training.framework import FORMS
    from bench.training.outcome import Race, path_of, save

    rungs = list(LADDER) if rungs == ["all"] else rungs or [FASTEST]
    for rung in rungs:
        check(options | {"rung": rung})
    if find_spec("torch") is None:
        raise PoolingError("race needs PyTorch: pip install torch, or make peers")
    settings = Settings(**options)
    settings.check(dataset)
    forms = FORMS if compiled else FORMS[:2]
    console = Console(stderr=True)
    with Progress(TextColumn("racing"), BarColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        found = duel(
            settings,
            dataset,
            rungs,
            forms,
            steps=steps,
            rung_steps=(rung_steps or RUNG_STEPS) if steps is None else None,
            progress=lambda part: bar.update(task, completed=part),
        )
    if memory:
        folder = named(data_dir)  # a whole path: the processes work in another folder
        for one in found:
            one.peak_mb = round(peak_mb(one.name, settings, str(folder) if folder else None), 1)
    images = min(settings.images or len(dataset.images), len(dataset.images))
    outcome = Race(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings,
        dataset=dataset.name,
        machine=machine(),
        source=source(),
        versions=versions() | peer_versions(),
        blas=kernels(),
        epoch_steps=-(-images // settings.batch_size),
        agreed=AGREED,
        gentle=GENTLE,
        agreement=agreement(settings, dataset, rungs, FORMS[:2]),
        apart=apart(found),
        contestants=found,
    )
    path = path_of(out, settings)
    save(outcome, path)
    for line in told(outcome):
        console.print(line, highlight=False, soft_wrap=isinstance(line, str))
    console.print(f"On the page, too, after: python -m bench plots --out {out}", highlight=False, soft_wrap=True)
    return path


def told(race: Race) -> Iterator[Table | str]:
    """What came of a race, for a terminal."""
    rival, steps = race.rival, race.epoch_steps
    table = Table("who", "steps", "step, ms", "epoch, s", f"of {rival.name}'s", "test accuracy", "peak, MB")
    for c in race.contestants:
        table.add_row(
            c.name,
            f"{len(c.losses)} of {steps}",
            f"{c.steps_ms[0]:.2f} ({c.steps_ms[1]:.2f} to {c.steps_ms[2]:.2f})",
            f"{c.epoch_s:.2f}",
            f"{c.epoch_s / rival.epoch_s:.2f}",
            f"{c.accuracy:.2%}" if c.accuracy is not None else "",
            "" if c.peak_mb is None else f"{c.peak_mb:.0f}",
        )
    yield table
    compared = min(race.agreed, steps)
    for pair, difference in race.agreement.items():
        yield f"Losses of {pair}: at most {difference:.1e} apart in {compared} gentle steps."
    for pair, difference in race.apart.items():
        yield f"Losses of {pair}: at most {difference:.1e} apart in {compared} steps of the race."
    profile = Table("who", "layer", "forward, ms", "backward, ms")
    for c in race.contestants:
        by = {(layer, direction): 1e3 * s for layer, direction, s in c.layers}
        for layer in dict.fromkeys(layer for layer, _ in by):
            both = (by.get((layer, d)) for d in ("forward", "backward"))
            profile.add_row(c.name, layer, *("" if ms is None else f"{ms:.3f}" for ms in both))
    yield profile
    for target in race.targets():
        verdict = {True: "met", False: "missed", None: "not known"}[target.met]
        yield f"Aimed at {target.what}: {verdict} ({target.found})."


def kernels() -> list[str]:
    """Which kernels BLAS has chosen for this processor."""
    from threadpoolctl import threadpool_info

    return [f"{p['internal_api']} {p.get('architecture', '')}" for p in threadpool_info() if p["user_api"] == "blas"]
