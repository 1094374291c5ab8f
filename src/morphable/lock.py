"""One process at a time trains into a run folder: a lock file in it names the process.

The operating system holds the lock and drops it when the process ends, however it ends. So a file
that a crashed process left behind locks nothing, even if its process id is in use again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from morphable.errors import InputError
from morphable.files import writing

LOCK = "training.lock"
ATTEMPTS = 5
"""A process that only asks whether a folder is in use holds its lock for an instant."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it is not there, while the block runs. Folders
    that were made for the lock and are still empty afterwards are removed.

    Raises InputError if another process holds the lock or the folder cannot be written to.
    """
    with contextlib.ExitStack() as undo:
        for parent in reversed([folder, *folder.parents]):
            if not parent.exists():
                with writing(folder):
                    parent.mkdir(exist_ok=True)
                undo.callback(_remove_if_empty, parent)
        file = undo.enter_context(_locked_file(folder))
        # The file is removed before it is unlocked: see `_locked_file`.
        undo.callback((folder / LOCK).unlink, missing_ok=True)
        with writing(folder / LOCK):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
        yield


def require_idle(folder: Path) -> None:
    """Raise InputError, naming the process, if one trains into `folder` at this moment."""
    try:
        file = (folder / LOCK).open("r+", encoding="utf-8")
    except OSError:  # there is no lock, or a folder that may not be written to
        return
    with file:
        if not _lock(file):
            raise InputError(_in_use(folder, file))


@contextlib.contextmanager
def _locked_file(folder: Path) -> Iterator[IO[str]]:
    for attempt in range(ATTEMPTS):
        with writing(folder / LOCK):
            file = (folder / LOCK).open("a+", encoding="utf-8")
        with file:
            if _lock(file):
                # Whoever held the lock may have removed the file between our opening and locking
                # it; then this lock is on a file that nobody else will find.
                if _is_at(folder / LOCK, file):
                    yield file
                    return
            elif attempt == ATTEMPTS - 1:
                raise InputError(_in_use(folder, file))
        time.sleep(0.02)
    raise InputError(f"{folder}: other processes start and end in this folder; try again")


def _in_use(folder: Path, file: IO[str]) -> str:
    file.seek(0)
    holder = file.readline().strip() or "another process"
    return f"{folder}: {holder} is training in this folder; wait until it ends, or stop it first"


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> bool:
        """Lock the file until it is closed; False if another process has locked it."""
        file.seek(1 << 30)  # a byte that nobody reads
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        """Lock the file until it is closed; False if another process has locked it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems have no locks; a run there goes unprotected.
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True
