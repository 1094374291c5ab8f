"""Whether the files of a dataset folder are those that were written: cheaply, by their sizes, their
headers and a sample of their bytes. The audit compares every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from morphable.errors import InputError
from morphable.files import reading

PIECES, PIECE_BYTES = 256, 4096
"""Bytes of each vertex file that are compared: this many evenly spread pieces of this size."""
LABELS = "labels.csv"


class DataChanged(InputError):
    """Raised if a dataset vanishes or changes while it is in use."""


@dataclass(frozen=True)
class FolderState:
    """The files of a dataset folder as they are at one moment.

    marks: size and time of the last change of each file. sampled_hash: of the labels, and of a
    sample of each vertex file.
    """

    marks: tuple[tuple[int, int], ...]
    sampled_hash: str

    @classmethod
    def of(cls, folder: Path, vertex_files: Sequence[str]) -> Self:
        """Raises InputError, naming the file, if one cannot be read."""
        return cls(_marks(folder, vertex_files), sampled_hash(folder, vertex_files))


def require_unchanged(folder: Path, vertex_files: Sequence[str], state: FolderState) -> None:
    """Raise DataChanged unless the folder still is as it was in `state`."""
    try:
        # A file whose size and time are the same is not read again.
        if _marks(folder, vertex_files) == state.marks:
            return
        same = sampled_hash(folder, vertex_files) == state.sampled_hash
    except InputError as error:
        raise DataChanged(f"{folder}: the dataset is no longer there ({error})") from error
    if not same:
        raise DataChanged(f"{folder}: the dataset was changed while it was in use")


def sampled_hash(folder: Path, vertex_files: Sequence[str]) -> str:
    """SHA-256 over labels.csv, and over the size and the PIECES of each vertex file, which include
    its header and its end.
    """
    digest = hashlib.sha256()
    with reading(folder / LABELS, "cannot be read"):
        digest.update((folder / LABELS).read_bytes())
    for name in vertex_files:
        with reading(folder / name, "cannot be read"), (folder / name).open("rb") as file:
            size = file.seek(0, 2)
            digest.update(f"{name} {size}".encode())
            last = max(0, size - PIECE_BYTES)
            for start in sorted({last * piece // (PIECES - 1) for piece in range(PIECES)}):
                file.seek(start)
                digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()


def _marks(folder: Path, vertex_files: Sequence[str]) -> tuple[tuple[int, int], ...]:
    marks = []
    for name in (LABELS, *vertex_files):
        with reading(folder / name, "cannot be read"):
            status = (folder / name).stat()
        marks.append((status.st_size, status.st_mtime_ns))
    return tuple(marks)
