"""``python -m bench train``: a progress bar, and a table of where the time went."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.mnist.data import Dataset
from bench.mnist.networks import DESIGNS
from bench.mnist.train import History, Settings, train
from pooling import PoolingError, backend
from pooling.backend import TIES


def run(dataset: Dataset, **options: Any) -> History:
    """Train and print.

    Raises
    ------
    PoolingError
        An option has a value that isn't one of its own.
    """
    for name, choices in (("network", tuple(DESIGNS)), ("pool", ("max", "avg")), ("ties", TIES)):
        if options[name] not in choices:
            raise PoolingError(f"--{name} {options[name]}: choose one of {', '.join(choices)}")
    if options["backend"] != "auto":
        backend(options["backend"])  # raises for an unknown name
    settings = Settings(**options)
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
