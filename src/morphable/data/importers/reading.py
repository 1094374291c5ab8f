"""Read mesh files once, whatever their number: into a folder of work, from which an interrupted
import resumes, or again at each use if there is no such folder.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from morphable.data.mesh_stack import MeshStack
from morphable.data.registered_mesh import Registered
from morphable.errors import InputError
from morphable.files import content_hash, writing
from morphable.lock import locked
from morphable.mesh.placement import shape_size

JOURNAL, VERTICES = "journal.jsonl", "vertices.f32"
FLUSH = 64
"""Files that are read between two entries on disk."""


@dataclass(frozen=True)
class Reading:
    """How an import reads its files.

    work: a folder for the vertices that were read, which outlives an interruption; None: files are
    read again whenever they are needed. on_file: called with the number of files read so far and
    that of all.
    """

    work: Path | None = None
    on_file: Callable[[int, int], None] | None = None

    @classmethod
    @contextlib.contextmanager
    def beside(cls, out: Path, on_file: Callable[[int, int], None] | None = None) -> Iterator[Self]:
        """A reading that works in a folder next to the dataset `out`. The folder stays if the
        process is killed or interrupted, and is removed otherwise.
        """
        work = out.absolute().parent / f".{out.name}.importing"
        try:
            with locked(work):
                try:
                    yield cls(work, on_file)
                except KeyboardInterrupt:
                    raise
                except BaseException:
                    _clear(work)
                    raise
                _clear(work)
        finally:
            with contextlib.suppress(OSError):  # not there, or holds what an interruption left
                work.rmdir()


READ_AGAIN = Reading()
"""Without a folder of work."""


def _clear(work: Path) -> None:
    for name in (JOURNAL, VERTICES):
        (work / name).unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class MeshFiles:
    """The mesh files that fit a template, and sentences about those that do not.

    stack: (N, V, 3) mm, their vertices. mean: (V, 3) mm, of these meshes. size: mm, the mean of
    their sizes.
    """

    files: list[Path]
    bad: list[str]
    stack: MeshStack
    mean: np.ndarray
    size: float

    def without(self, rows: Sequence[int], why: Sequence[str]) -> MeshFiles:
        """These files but for some rows, with a sentence for each of those."""
        kept = np.setdiff1d(np.arange(len(self.files)), rows)
        if not len(kept):
            raise InputError(f"{self.files[0].parent}: no mesh is left; the first: {why[0]}")
        out = self.stack[list(rows)].astype(np.float64)
        count = len(self.files)
        mean = (self.mean * count - out.sum(axis=0)) / len(kept)
        size = (self.size * count - sum(map(shape_size, out))) / len(kept)
        return MeshFiles(
            [self.files[row] for row in kept],
            [*self.bad, *why],
            self.stack.select(kept),
            mean,
            float(size),
        )


class FilesAgain:
    """Looks like an array (N, V, 3) of the vertices of mesh files, which it reads at each use."""

    def __init__(self, files: list[Path], read: Callable[[Path], Registered], n: int) -> None:
        self.files, self.read, self.shape = files, read, (len(files), n, 3)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        meshes = [self.read(self.files[row]).vertices for row in rows]
        return np.stack(meshes) if meshes else np.zeros((0, *self.shape[1:]), np.float32)


def read_files(
    files: list[Path],
    read: Callable[[Path], Registered],
    n_vertices: int,
    reading: Reading,
    skip_bad: bool,
    settings: Any,
) -> MeshFiles:
    """Read every file once. settings: whatever changes what is read, as a value of JSON; an
    interrupted reading with other settings is not resumed.

    Warns once per way in which the faces of usable files differ from the template's.
    """
    store = _Store.opened(reading.work, files, n_vertices, settings) if reading.work else None
    total, size = np.zeros((n_vertices, 3)), 0.0
    good: list[Path] = []
    bad: list[str] = []
    notes: dict[str, list[Path]] = {}
    with contextlib.ExitStack() as closing:
        if store:
            closing.enter_context(contextlib.closing(store))
        for number, path in enumerate(files):
            try:
                vertices, note = store.get(path, read) if store else read(path)
            except InputError as error:
                if not skip_bad:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=2)
                bad.append(str(error))
                continue
            good.append(path)
            total += vertices
            size += shape_size(vertices)
            if note:
                notes.setdefault(note, []).append(path)
            if reading.on_file:
                reading.on_file(number + 1, len(files))
    for note, paths in notes.items():
        more = f" and {len(paths) - 1:,} more files" if len(paths) > 1 else ""
        warnings.warn(f"{paths[0]}{more}: {note}; accepted", stacklevel=2)
    if not good:
        raise InputError(
            f"{files[0].parent}: none of the {len(files)} mesh files can be used; the first: {bad[0]}"
        )
    array: Any = store.array(len(good)) if store else FilesAgain(good, read, n_vertices)
    name = str(files[0].parent)
    return MeshFiles(good, bad, MeshStack([array], name=name), total / len(good), size / len(good))


class _Store:
    """Vertices of the files that were read, one after another, and a journal of the files: name,
    size, time, and its note or fault. An entry without its vertices does not count.
    """

    def __init__(self, work: Path, n_vertices: int, known: list[dict[str, Any]]) -> None:
        self.work, self.n_vertices, self.known = work, n_vertices, known
        self.place = 0
        self.good = 0
        self.done = sum(entry["fault"] is None for entry in known)
        self.journal: IO[str] = (work / JOURNAL).open("a", encoding="utf-8")
        self.vertices: IO[bytes] = (work / VERTICES).open("ab")
        self.pending: list[str] = []
        self.resumed = self.array(self.done) if self.done else None

    @classmethod
    def opened(cls, work: Path, files: list[Path], n_vertices: int, settings: Any) -> _Store:
        """The store in a folder, with what an interrupted reading of the same files left there."""
        head = content_hash(json.dumps([settings, n_vertices, list(map(str, files))]))
        row = n_vertices * 12
        with writing(work):
            known = _entries(work / JOURNAL, head)
            held = (work / VERTICES).stat().st_size // row if (work / VERTICES).exists() else 0
            kept: list[dict[str, Any]] = []
            good = 0
            for path, entry in zip(files, known, strict=False):
                if entry["file"] != _mark(path) or good + (entry["fault"] is None) > held:
                    break
                kept.append(entry)
                good += entry["fault"] is None
            with (work / JOURNAL).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in [{"head": head}, *kept])
            with (work / VERTICES).open("ab") as stored:
                stored.truncate(good * row)
        if kept:
            warnings.warn(
                f"resuming: {len(kept):,} of {len(files):,} files were read before", stacklevel=3
            )
        return cls(work, n_vertices, kept)

    def get(self, path: Path, read: Callable[[Path], Registered]) -> Registered:
        """The content of the next file: as it was stored, or read and stored now."""
        if self.place < len(self.known):
            entry = self.known[self.place]
            self.place += 1
            if entry["fault"] is not None:
                raise InputError(entry["fault"])
            assert self.resumed is not None
            self.good += 1
            return Registered(np.asarray(self.resumed[self.good - 1]), entry["note"])
        self.place += 1
        entry = {"file": _mark(path), "note": "", "fault": None}
        try:
            found = read(path)
        except InputError as error:
            self._note(entry | {"fault": str(error)})
            raise
        with writing(self.work / VERTICES):
            self.vertices.write(np.ascontiguousarray(found.vertices, "<f4").data)
        self._note(entry | {"note": found.note})
        return found

    def _note(self, entry: dict[str, Any]) -> None:
        self.pending.append(json.dumps(entry) + "\n")
        if len(self.pending) >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        # The vertices first: an entry of the journal then never lacks them.
        with writing(self.work / VERTICES):
            self.vertices.flush()
            self.journal.writelines(self.pending)
            self.journal.flush()
        self.pending = []

    def close(self) -> None:
        self._flush()
        self.journal.close()
        self.vertices.close()

    def array(self, count: int) -> np.ndarray:
        shape = (count, self.n_vertices, 3)
        return np.memmap(self.work / VERTICES, "<f4", "r", shape=shape)


def _mark(path: Path) -> list[Any]:
    """What tells a file from a changed one."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _entries(path: Path, head: str) -> list[dict[str, Any]]:
    """The whole lines of a journal with this head."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        first, *entries = [json.loads(line) for line in lines] or [{}]
    except ValueError:
        return []
    return entries if first.get("head") == head else []


def sound_files(found: MeshFiles, broken: Sequence[tuple[int, str]]) -> MeshFiles:
    """The files without those that the audit found broken, each of which is warned of."""
    if not broken:
        return found
    why = [f"{found.files[row]}: {text}" for row, text in broken]
    for sentence in why:
        warnings.warn(f"left out: {sentence}", stacklevel=3)
    return found.without([row for row, _ in broken], why)
