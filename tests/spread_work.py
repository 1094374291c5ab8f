"""What tests of `spread` have other processes do: a module that is quick to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from morphable.errors import InputError


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    raise InputError(f"item {number}: cannot be used")


def square_below_four(number: int) -> int:
    return square(number) if number < 4 else fail(number)


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def noted(item: tuple[Path, int]) -> tuple[int, int]:
    """Leave a note of the process that works on an item, then wait a moment."""
    folder, number = item
    (folder / f"{number}-{os.getpid()}").touch()
    time.sleep(0.3)
    return number, os.getpid()
