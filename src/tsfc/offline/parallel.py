"""Tasks run in parallel, on the processors of this machine or on a Dask cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tsfc.offline.extras import advice
from tsfc.shell import signals

T = TypeVar("T")
R = TypeVar("R")

CONNECT_SECONDS = 10
"Timeout for the connection to a scheduler."


class ParallelError(Exception):
    """The tasks did not run to their end.

    Its text is one line: what failed, why, and what to do.
    """


def run_all(function: Callable[[T], R], tasks: Sequence[T], *, cluster: str | None) -> Iterator[R]:
    """Call a function with each task, and yield the results in order.

    Function and tasks must be picklable. Raise `ParallelError`. The work stops if the
    caller stops early, for example on a signal.
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
    with ProcessPoolExecutor(processes, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(function, tasks)
        except BaseException as error:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ParallelError(
                    "working in several processes: one of them was killed; check the memory"
                ) from error
            raise


def _end_with_parent() -> None:
    """End this process when its parent ends, however that ends."""
    signals.restore_defaults()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _on_cluster(function: Callable[[T], R], tasks: Sequence[T], cluster: str) -> Iterator[R]:
    """Run the tasks on a Dask cluster.

    If a worker dies, the scheduler gives its task to another one.
    """
    try:
        # The module is optional, slow to import, and untyped.
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise ParallelError(
            f"working on {cluster}: Dask is not installed; {advice('fleet')}"
        ) from error
    # The client warns of dead workers, although their tasks run again.
    logging.getLogger("distributed.client").setLevel(logging.ERROR)
    try:
        client = distributed.Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ParallelError(
            f"working on {cluster}: {type(error).__name__}: no Dask scheduler responds there;"
            " check that it runs, and its address"
        ) from error
    with client:
        futures = client.map(function, tasks, pure=False)
        try:
            for future in futures:
                yield future.result()
                future.release()
        except distributed.KilledWorker as error:
            raise ParallelError(
                f"working on {cluster}: several workers died during the same task; check the memory"
            ) from error
        finally:
            client.cancel(futures, force=True)
