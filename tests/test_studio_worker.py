"""The studio's thread: the newest request wins, order is kept, and no error ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from morphable.errors import InputError
from morphable.studio.worker import Newest


class Said:
    def __init__(self) -> None:
        self.refused: list[str] = []
        self.failed: list[str] = []
        self.idle = 0

    def rest(self) -> None:
        self.idle += 1


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def work(said: Said) -> Iterator[Newest]:
    made = Newest(said.refused.append, said.failed.append, said.rest)
    yield made
    made.close()


def test_the_newest_of_a_kind_wins_and_kinds_keep_their_order(work: Newest, said: Said) -> None:
    hold, started, done = threading.Event(), threading.Event(), []
    work.submit("first", lambda: (started.set(), hold.wait(10)))  # type: ignore[arg-type, return-value]
    assert started.wait(10)
    for value in range(1000):
        work.submit("slider", lambda value=value: done.append(value))  # type: ignore[misc]
    work.submit("undo", lambda: done.append("undo"))
    hold.set()
    assert work.wait(10)
    assert done == [999, "undo"]


def test_what_was_asked_for_last_is_done_last(work: Newest, said: Said) -> None:
    hold, started, done = threading.Event(), threading.Event(), []
    work.submit("first", lambda: (started.set(), hold.wait(10)))  # type: ignore[arg-type, return-value]
    assert started.wait(10)
    work.submit("slider", lambda: done.append(1))
    work.submit("reset", lambda: done.append("reset"))
    work.submit("slider", lambda: done.append(2))
    hold.set()
    assert work.wait(10)
    assert done == ["reset", 2]


def test_errors_are_told_and_the_thread_lives(
    work: Newest, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    done = []

    def refuse() -> None:
        raise InputError("a.ply: expected 5 vertices")

    work.submit(1, refuse)
    work.submit(2, lambda: [][0])
    work.submit(3, lambda: done.append(3))
    assert work.wait(10)
    assert said.refused == ["a.ply: expected 5 vertices"]
    assert said.failed == ["IndexError: list index out of range"]
    assert done == [3] and "IndexError" in capfd.readouterr().err
    assert said.idle >= 1
