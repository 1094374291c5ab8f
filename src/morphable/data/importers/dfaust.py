"""Dynamic FAUST (Bogo et al. 2017): bodies of 10 people in 130 sequences, 6,890 vertices in meters,
from the official HDF5 files or the pair of .npy files that Neural3DMM publishes a layout for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.importers.files_source import StackInMm, stack_in_mm
from morphable.data.importers.labeling import completed
from morphable.data.importers.mesh_files import Placing, finished_source, read_template
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.source import MeshSource
from morphable.data.splits import MAX_VALIDATION, Split, sequence_split
from morphable.errors import InputError
from morphable.files import reading as reading_file
from morphable.mesh.io import read_stack
from morphable.mesh.io.linear_model import import_h5py
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters

LICENCE = "Dynamic FAUST: research only, see dfaust.is.tue.mpg.de"
SEQUENCE = re.compile(r"([0-9]{5})_(\w+)")
PUBLISHED = ("train.npy", "test.npy")


def dfaust(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str = "m",
    template: Path | None = None,
    name: str = "body",
    licence: str = LICENCE,
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
    seed: int = 0,
) -> MeshSource:
    """A folder with registrations_f.hdf5 and registrations_m.hdf5 (either or both), or with
    train.npy and test.npy (N, V, 3), which need `template` for the faces.

    Of the HDF5 files the keys decide which sequences there are (130 in all, 14 a person at most).
    The split `sequence` holds out whole sequences, 10 % for testing and 10 % for validation, drawn
    with `seed`. Of the pair the split is `published`: the last hundred of train.npy are for
    validation. Which meshes the published pair holds out is not in any paper or code.
    """
    placing = Placing.of(align, align_on, mirror)
    pair = [raw / name for name in PUBLISHED]
    if all(path.is_file() for path in pair):
        return _pair_source(pair, unit, template, name, licence, placing)
    files = sorted(path for path in raw.glob("*.hdf5") if path.is_file()) if raw.is_dir() else []
    if not files:
        raise InputError(
            f"{raw}: expected registrations_f.hdf5 and registrations_m.hdf5, or train.npy and "
            "test.npy"
        )
    frames = _Frames(files)
    stack = stack_in_mm(frames, unit, name=str(raw))
    table = completed(frames.labels())
    if template is not None:
        shown = read_template(template, millimeters(unit))
    else:
        shown = Template(Mesh(stack[0], frames.faces))
    shown = replace(shown, name=name)
    _require_count(shown, stack, raw)
    info = {"licence": licence, "unit": unit, "source": "Dynamic FAUST, registrations"}
    source = finished_source(shown, table, stack, info, placing, named=template is not None)
    if mirror or len(frames.entries) < 3:
        return source
    return replace(source, splits={"sequence": sequence_split(table, seed)})


@dataclass(frozen=True)
class _Entry:
    """One sequence: its place in a file and its number of frames."""

    file: Path
    key: str
    subject: str
    sequence: str
    count: int


class _Frames:
    """Looks like an array (N, V, 3) of the frames of all sequences, in meters. Each is stored as
    (V, 3, T), so a whole sequence is read at once and kept until another is asked for.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.entries: list[_Entry] = []
        self.faces = np.zeros((0, 3), np.int64)
        sizes = set()
        for path in files:
            with _hdf5(path) as file:
                for key in sorted(file):
                    match = SEQUENCE.fullmatch(key)
                    if match and file[key].ndim == 3 and file[key].shape[1] == 3:
                        count = file[key].shape[2]
                        self.entries.append(_Entry(path, key, match[1], match[2], count))
                        sizes.add(file[key].shape[0])
                if "faces" in file:
                    self.faces = np.asarray(file["faces"]).astype(np.int64)
        if not self.entries or len(sizes) != 1 or not len(self.faces):
            raise InputError(
                f"{files[0]}: expected the faces and sequences such as 50002_chicken_wings of shape "
                "(V, 3, T), all with the same V"
            )
        self.entries.sort(key=lambda entry: (entry.subject, entry.sequence))
        self.starts = np.cumsum([0] + [entry.count for entry in self.entries])
        self.shape = (int(self.starts[-1]), sizes.pop(), 3)
        self.held: tuple[int, np.ndarray] = (-1, np.zeros(0))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        meshes = np.empty((len(rows), *self.shape[1:]), np.float32)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(owner).tolist():
            here = owner == number
            meshes[here] = self.sequence(number)[rows[here] - self.starts[number]]
        return meshes

    def sequence(self, number: int) -> np.ndarray:
        """(T, V, 3) of one sequence."""
        if self.held[0] != number:
            entry = self.entries[number]
            with _hdf5(entry.file) as file:
                frames = np.asarray(file[entry.key], np.float32)
            self.held = (number, np.ascontiguousarray(frames.transpose(2, 0, 1)))
        return self.held[1]

    def labels(self) -> LabelTable:
        """Subject, sequence and frame of every mesh."""
        counts = [entry.count for entry in self.entries]
        columns = {
            "subject": np.repeat([entry.subject for entry in self.entries], counts),
            "sequence": np.repeat([entry.sequence for entry in self.entries], counts),
            "frame": np.concatenate([np.arange(count) for count in counts]),
        }
        return LabelTable(columns, len(self))


@contextlib.contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    """An open file. Raises InputError if it is damaged or h5py is missing."""
    h5py = import_h5py(path)
    with (
        reading_file(path, "not a readable HDF5 file, it may be truncated"),
        h5py.File(path, "r") as file,
    ):
        yield file


def _pair_source(
    pair: list[Path],
    unit: str,
    template: Path | None,
    name: str,
    licence: str,
    placing: Placing,
) -> MeshSource:
    """train.npy followed by test.npy, with the split that they are."""
    if template is None:
        raise InputError(f"{pair[0]}: has no faces, name a mesh file with `template`", "template")
    shown = replace(read_template(template, millimeters(unit)), name=name)
    train, test = (read_stack(path) for path in pair)
    for path, stack in zip(pair, (train, test), strict=True):
        if stack.shape[1] != shown.n_vertices:
            raise InputError(
                f"{path}: expected {shown.n_vertices} vertices as in the template, got "
                f"{stack.shape[1]}"
            )
    shards: list[Any] = [
        StackInMm(stack, unit, "y", shown, str(path))
        for path, stack in zip(pair, (train, test), strict=True)
    ]
    count = len(train) + len(test)
    n_val = max(1, min(MAX_VALIDATION, len(train) // 10))
    split = Split(
        np.arange(len(train) - n_val),
        np.arange(len(train) - n_val, len(train)),
        np.arange(len(train), count),
    )
    table = LabelTable({"row_in_file": np.r_[: len(train), : len(test)]}, count)
    info = {"licence": licence, "unit": unit, "source": "Dynamic FAUST, a published pair of stacks"}
    source = finished_source(shown, table, MeshStack(shards), info, placing)
    return source if placing.mirror else replace(source, splits={"published": split})


def _require_count(template: Template, stack: MeshStack, raw: Path) -> None:
    if template.n_vertices != stack.shape[1]:
        raise InputError(
            f"{raw}: expected {template.n_vertices} vertices as in the template, got "
            f"{stack.shape[1]}"
        )
