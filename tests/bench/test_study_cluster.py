"""The study on a real Dask cluster of this machine, one of whose workers is killed in the middle."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy_study.engine import RESOURCE, WHOLE, Pool, cluster, perform
from bench.accuracy_study.runs import Row, Run
from bench.accuracy_study.store import Store, read
from bench.schema.results import ResultsError
from bench.training.train import Settings
from tests.digits_folder import folder

__all__ = ["folder"]  # a fixture

pytest.importorskip("distributed", reason="dask.distributed is not installed; pip install 'pooling[cluster]'")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own warnings are no failures of ours


def run(seed: int, epochs: int = 1, part: Any = "grid") -> Run:
    return Run(
        part, f"question avg {seed}", Settings("question", "avg", seed=seed, epochs=epochs, images=64, threads=1)
    )


def test_a_killed_worker_loses_nothing(tmp_path: Path, folder: Path) -> None:
    from distributed import Client, LocalCluster

    wanted = [run(0, epochs=500), run(1), run(2), run(3, part="timing")]
    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    killed: list[int] = []
    with (
        LocalCluster(**options, resources={RESOURCE: WHOLE}) as machines,
        Client(machines, set_as_default=False) as client,
        Store(tmp_path / "rows.jsonl") as store,
        cluster(machines.scheduler_address, str(folder)) as pool,
    ):
        assert pool.slots == 2

        def submit(one: Run) -> Future[Row]:
            future = pool.submit(one)
            if one is wanted[0]:
                at: list[str] = []
                while not at:  # until a worker has it
                    time.sleep(0.1)
                    at = [worker for worker, keys in client.processing().items() if keys]
                killed.append(client.run(os.getpid)[at[0]])
                os.kill(killed[0], signal.SIGKILL)  # at once: on a fast machine all of it is done a second later
            return future

        outcome = perform(wanted, store, Pool(submit, pool.slots, exclusive=False))
    assert killed
    assert sorted(row.seed for row in read(store.path)) == [0, 1, 2, 3]
    assert not outcome.failed
    assert all(row.worker.startswith("dask ") and row.host for row in outcome.done)
    assert str(killed[0]) not in next(row.worker for row in outcome.done if row.seed == 0)


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.accuracy_study.engine.CONNECT_S", 1.0)
    with pytest.raises(ResultsError, match="nobody answers"), cluster("tcp://127.0.0.1:9", None):
        pass


def test_a_timing_run_needs_a_machine_that_offers_itself(tmp_path: Path) -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as machines,
        cluster(machines.scheduler_address, None) as pool,
        pytest.raises(ResultsError, match="--resources 'machine=100'"),
    ):
        pool.submit(replace(run(0), part="timing"))
