"""Doing many runs: by processes of this machine or by workers of a Dask cluster, through the same few lines.

Either gives an executor as in :mod:`concurrent.futures`. So many runs are under way as there are workers for; each that is
done is on disk before the next is begun; one that crashed is tried again; after the time budget nothing new is begun.

A worker that dies takes its process with it. Dask gives its runs to others. Of local processes all die with the first, and
new ones are made.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.accuracy_study.runs import Row, Run
from bench.accuracy_study.store import Store
from bench.accuracy_study.work import do
from bench.schema.results import ResultsError

TRIES = 3
"""How often a run is begun before it is given up."""

WHOLE = 100
"""Of a worker's resource "machine": all of it goes to a timing run, an equal share for each of its threads to another."""

RESOURCE = "machine"

CONNECT_S = 20.0
"""How long to wait for a scheduler's answer."""


@dataclass
class Pool:
    """Somebody who does runs.

    Parameters
    ----------
    submit
        Begins a run, and gives the future of its row.
    slots
        How many runs are worth having under way at a time.
    renew
        Called when the pool has broken.
    exclusive
        Whether a timing run has to wait here until nothing else is under way; a cluster sees to that itself.
    """

    submit: Callable[[Run], Future[Row]]
    slots: int
    renew: Callable[[], None] = lambda: None
    exclusive: bool = True


@dataclass
class Outcome:
    """How it went: runs done, left, and given up with the last error of each."""

    done: list[Row] = field(default_factory=list)
    left: list[Run] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@contextmanager
def local(workers: int, folder: str | None) -> Iterator[Pool]:
    """Processes of this machine, made anew and not forked: threads don't survive that."""
    context = multiprocessing.get_context("spawn")
    pools: list[Executor] = []

    def renew() -> None:
        if pools:
            pools[-1].shutdown(wait=False, cancel_futures=True)
        pools.append(ProcessPoolExecutor(workers, mp_context=context))

    renew()
    try:
        yield Pool(lambda run: pools[-1].submit(do, run, folder, "process"), workers, renew)
    finally:
        pools[-1].shutdown(wait=True, cancel_futures=True)


@contextmanager
def cluster(address: str, folder: str | None) -> Iterator[Pool]:
    """The workers of a Dask cluster. Each holds WHOLE of the resource "machine", or none; then it has no timing runs.

    Raises
    ------
    ResultsError
        dask.distributed is not installed, nobody answers at `address`, or there are no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ResultsError("--scheduler needs dask.distributed: pip install 'pooling[cluster]'") from None
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ResultsError(f"--scheduler {address}: nobody answers ({error}); start one: dask scheduler") from None
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise ResultsError(
                f"--scheduler {address} has no workers; start some: dask worker {address} --resources '{RESOURCE}={WHOLE}'"
            )
        threads = min(worker["nthreads"] for worker in workers.values())
        able = all(worker["resources"].get(RESOURCE, 0) >= WHOLE for worker in workers.values())
        some = any(worker["resources"].get(RESOURCE, 0) >= WHOLE for worker in workers.values())

        def submit(run: Run) -> Future[Row]:
            if run.part == "timing" and not some:
                raise ResultsError(
                    f"{run.key} needs a machine to itself; start a worker with --resources '{RESOURCE}={WHOLE}'"
                )
            need = WHOLE if run.part == "timing" else WHOLE / threads
            resources = {RESOURCE: need} if able or run.part == "timing" else None
            task = client.submit(do, run, folder, "dask", pure=False, resources=resources, retries=TRIES)
            return _followed(task)

        yield Pool(submit, sum(worker["nthreads"] for worker in workers.values()), exclusive=False)
    finally:
        client.close()


def perform(
    runs: Sequence[Run],
    store: Store,
    pool: Pool,
    *,
    budget_s: float | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Outcome:
    """Do the runs that have no row yet.

    Parameters
    ----------
    store
        Entered; each row is in it, and on disk, as soon as it is there.
    budget_s
        After so many seconds no run is begun any more; those under way are waited for.
    on_row
        Called with each new row.
    """
    began = time.monotonic()
    outcome = Outcome()
    waiting = [run for run in runs if run.key not in store.rows]
    tries: dict[str, int] = {}
    under_way: dict[Future[Row], Run] = {}
    while waiting or under_way:
        late = budget_s is not None and time.monotonic() - began > budget_s
        while waiting and not late and len(under_way) < pool.slots:
            if pool.exclusive and under_way and (waiting[0].part == "timing" or _timing(under_way.values())):
                break  # a timing run has all of this machine
            run = waiting.pop(0)
            tries[run.key] = tries.get(run.key, 0) + 1
            try:
                under_way[pool.submit(run)] = run
            except BrokenProcessPool:
                pool.renew()
                waiting.insert(0, run)
        if not under_way:
            break
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            if future not in under_way:  # lost with another
                continue
            run = under_way.pop(future)
            error = future.exception()
            if error is None:
                row = future.result()
                if store.add(row):
                    outcome.done.append(row)
                    on_row(row)
                continue
            broken = isinstance(error, BrokenProcessPool)
            if broken:  # all that were under way are lost, whoever of them it was
                lost = [run, *under_way.values()]
                under_way.clear()
                pool.renew()
            else:
                lost = [run]
            for one in lost:
                if tries[one.key] < TRIES:
                    waiting.insert(0, one)
                else:
                    outcome.failed[one.key] = f"{type(error).__name__}: {error}"
    outcome.left = waiting
    return outcome


def _timing(runs: Any) -> bool:
    return any(run.part == "timing" for run in runs)


def _followed(task: Any) -> Future[Row]:
    """A future of the usual kind that ends as Dask's does; it holds on to that, which is otherwise given up."""
    future: Future[Row] = Future()

    def end(_: Any) -> None:
        if task.cancelled():
            future.set_exception(RuntimeError("the scheduler has cancelled it"))
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    task.add_done_callback(end)
    return future
