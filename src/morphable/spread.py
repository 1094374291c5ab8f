"""spread: call a function for many items over processes of this machine, or over the workers of a
Dask cluster. Results come as they are ready, each exactly once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from morphable.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_JOBS = 1024
CONNECT_SECONDS = 10


def check_spread(jobs: int, scheduler: str | None) -> None:
    """Raise InputError if the number of processes or the scheduler's address cannot be used."""
    if not 1 <= jobs <= MAX_JOBS:
        raise InputError(f"`jobs` {jobs}: expected at least 1, at most {MAX_JOBS:,}", "jobs")
    if scheduler is not None and jobs > 1:
        raise InputError("`jobs` and `scheduler`: give one of the two", "jobs", "scheduler")
    if scheduler is not None:
        with _client(scheduler):
            pass


def spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (number of the item, its result) for every item, in the order in which they are ready.

    function: defined at the top of a module; it is called in another process unless `jobs` is 1 and
    no scheduler is given. scheduler: the address of a Dask scheduler, whose workers have the same
    version of this package and see the same files. The items of a worker that dies are given to
    another.

    Raises InputError if the scheduler cannot be reached or a process of this machine was killed,
    and whatever `function` raises.
    """
    if scheduler is not None:
        yield from _over_cluster(function, items, scheduler)
    elif jobs == 1 or len(items) < 2:
        yield from ((number, function(item)) for number, item in enumerate(items))
    else:
        yield from _over_processes(function, items, jobs)


def _over_processes(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Iterator[tuple[int, Result]]:
    # A fork of a process in which torch has started threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(items)), context)
    try:
        numbers = {pool.submit(function, item): number for number, item in enumerate(items)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BrokenProcessPool:
        raise InputError(
            f"one of {jobs} processes was killed, perhaps for lack of memory; run the same command "
            "again with fewer `jobs`, it goes on where it stopped",
            "jobs",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _over_cluster(
    function: Callable[[Item], Result], items: Sequence[Item], scheduler: str
) -> Iterator[tuple[int, Result]]:
    with _client(scheduler) as client:
        from distributed import KilledWorker
        from distributed import as_completed as completed
        from distributed.client import FutureCancelledError

        # Without `pure`, equal items of two calls would share a result that Dask remembers.
        futures = client.map(function, items, pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        try:
            for future in completed(futures, loop=client.loop):
                yield numbers[future.key], future.result()
                future.release()
        except KilledWorker:
            raise InputError(
                f"`scheduler` {scheduler}: several workers were killed by the same item, perhaps "
                "for lack of memory; run the same command again, it goes on where it stopped",
                "scheduler",
            ) from None
        except FutureCancelledError:
            raise InputError(
                f"`scheduler` {scheduler}: the scheduler was lost; run the same command again, it "
                "goes on where it stopped",
                "scheduler",
            ) from None


@contextlib.contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "`scheduler`: needs Dask; pip install 'morphable[cluster]'", "scheduler"
        ) from None
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"`scheduler` {scheduler}: no Dask scheduler answers there ({reason})", "scheduler"
        ) from None
    with client:
        yield client
