"""spread: every item once, over processes and over a cluster, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from morphable.errors import InputError
from morphable.spread import check_spread, spread
from spread_work import die, fail, noted, square, square_below_four


def test_in_this_process_items_are_taken_one_by_one() -> None:
    taken: list[int] = []
    results = spread(lambda number: taken.append(number) or number, range(3))
    assert next(results) == (0, 0) and taken == [0]
    assert list(results) == [(1, 1), (2, 2)]


def test_over_processes_every_item_comes_once() -> None:
    found = {}
    with pytest.raises(InputError, match="item 4: cannot be used"):
        for number, result in spread(square_below_four, range(5), jobs=2):
            assert number not in found
            found[number] = result
    assert found.items() <= {n: n * n for n in range(4)}.items()
    assert dict(spread(square, [3, 4], jobs=2)) == {0: 9, 1: 16}


def test_a_killed_process_is_told() -> None:
    with pytest.raises(InputError, match=r"one of 2 processes was killed.*fewer `jobs`"):
        list(spread(die, range(2), jobs=2))


@pytest.mark.parametrize(
    ("jobs", "scheduler", "message"),
    [
        (0, None, "`jobs` 0: expected at least 1"),
        (5000, None, "`jobs` 5000: expected at least 1, at most 1,024"),
        (2, "tcp://127.0.0.1:1", "`jobs` and `scheduler`: give one of the two"),
    ],
)
def test_wrong_settings(jobs: int, scheduler: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_spread(jobs, scheduler)


def test_over_a_cluster_a_killed_worker_costs_no_item(cluster: str, tmp_path: Path) -> None:
    count, seen, killed = 10, [], 0
    for number, (item, process) in spread(
        noted, [(tmp_path, number) for number in range(count)], scheduler=cluster
    ):
        assert number == item
        seen.append(number)
        if len(seen) == 3:
            killed = process
            os.kill(killed, signal.SIGKILL)
    assert sorted(seen) == list(range(count)), "every item once"
    workers = {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}
    assert len(workers) == 2 and killed in workers


def test_over_a_cluster_errors_come_back(cluster: str) -> None:
    with pytest.raises(InputError, match="item 0: cannot be used"):
        list(spread(fail, [0], scheduler=cluster))


def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphable.spread.CONNECT_SECONDS", 1)
    pytest.importorskip("distributed", reason="dask is not installed")
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(InputError, match=f"`scheduler` {address}: no Dask scheduler answers"):
            check_spread(1, address)
