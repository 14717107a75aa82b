"""Doing one run, wherever: in this process, in another, on another machine."""

from __future__ import annotations

import functools
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from bench.accuracy_study.runs import Row, Run
from bench.schema.environment import source
from bench.training.data import Dataset, load
from bench.training.train import History, train

KEPT_LOSSES = 100
"""Means of the loss that a row keeps, over as many steps as make about this number."""


@functools.lru_cache(maxsize=1)
def dataset(folder: str | None) -> Dataset:
    """The data set, loaded once by each process."""
    return load(Path(folder) if folder else None)


def do(run: Run, folder: str | None, note: str = "") -> Row:
    """Train, and tell what came of it. A training that diverges has come to an end too: its row says so.

    Parameters
    ----------
    folder
        Of the data set on the machine this runs on; None is :func:`bench.training.data.load`'s choice.
    note
        Kept as the row's `worker`, beside the process.
    """
    data, settings = dataset(folder), run.settings
    history = History()

    def remember(epoch: int, so_far: History) -> None:
        nonlocal history
        history = so_far

    diverged = False
    try:
        history = train(settings, data, on_epoch=remember)
    except FloatingPointError:
        diverged = True
    every = max(1, len(history.losses) // KEPT_LOSSES)
    losses = [history.losses[i : i + every] for i in range(0, len(history.losses), every)]
    return Row(
        key=run.key,
        part=run.part,
        label=run.label,
        network=settings.network,
        pool=settings.pool,
        ties=settings.ties,
        seed=settings.seed,
        epochs=settings.epochs,
        images=settings.parts(len(data.images))[0],
        rate=settings.learning_rate,
        threads=settings.threads,
        dataset=data.name,
        accuracy=history.accuracy,
        held_out=history.held_out,
        losses=[round(sum(part) / len(part), 6) for part in losses],
        seconds=[round(s, 3) for s in history.seconds],
        diverged=diverged,
        host=socket.gethostname(),
        worker=f"{note or 'process'} {os.getpid()}",
        digest=source().digest,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=data.classes,
    )
