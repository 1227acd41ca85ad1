"""Work spread over the processors of this machine, or over a Dask cluster; its results in the order of the tasks."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, TypeVar

from tsfc.shell import signals

T = TypeVar("T")
R = TypeVar("R")

CONNECT_SECONDS = 10
"How long a scheduler may take to answer."


class ParallelError(Exception):
    """The work could not be spread, or not be ended; one line: what was tried, what went wrong, what to do."""


def run_all(function: Callable[[T], R], tasks: Sequence[T], *, cluster: str | None) -> Iterator[R]:
    """Returns what `function` makes of each task, in order. Function and tasks have to be such as can be pickled. Raises `ParallelError`.

    When the caller ends early, by a signal too, so does the work.
    """
    return (
        _on_this_machine(function, tasks)
        if cluster is None
        else _on_cluster(function, tasks, cluster)
    )


def _on_this_machine(function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    processes = min(len(tasks), len(os.sched_getaffinity(0)))
    if processes <= 1:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(processes, initializer=signals.uninstall) as pool:
        try:
            yield from pool.map(function, tasks)
        except BaseException as error:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ParallelError(
                    "working in several processes: one of them was killed; is there enough memory?"
                ) from error
            raise


def _on_cluster(function: Callable[[T], R], tasks: Sequence[T], cluster: str) -> Iterator[R]:
    """Has a Dask cluster do it. A worker that dies costs its task once more: the scheduler gives it to another."""
    try:
        distributed: Any = import_module(
            "distributed"
        )  # it is optional, slow to import, and has no types
    except ImportError as error:
        raise ParallelError(
            f"working on {cluster}: Dask is not installed; install tsfc[fleet]"
        ) from error
    logging.getLogger("distributed.client").setLevel(
        logging.ERROR
    )  # it warns of workers that died, whose tasks are done again
    try:
        client = distributed.Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ParallelError(
            f"working on {cluster}: {type(error).__name__}: no Dask scheduler answers there; see that it runs, and give its address"
        ) from error
    with client:
        futures = client.map(function, tasks, pure=False)
        try:
            for future in futures:
                yield future.result()
                future.release()
        except distributed.KilledWorker as error:
            raise ParallelError(
                f"working on {cluster}: a task's workers died one after the other; is there enough memory?"
            ) from error
        finally:
            client.cancel(futures, force=True)
