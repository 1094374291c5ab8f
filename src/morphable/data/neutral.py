"""Neutral targets, the shape of a mesh's subject without expression, and levels, the distance of a
mesh from that.

COMA has no neutral scans; the mean of each subject's first frames replaces them, as in WSDF's
published code. It has no levels either; each frame is measured relative to its sequence, as in the
York group's public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.errors import InputError

OUTLYING = 3.0
"""A frame that is more than this many standard deviations above the mean of its sequence is not
used as the sequence's maximum.
"""
MIN_MOVE_MM = 1e-6


@dataclass(frozen=True, eq=False)
class NeutralTargets:
    """The neutral mesh of each mesh of one dataset, from the dataset or computed.

    index: (N,) for each row of the dataset, the entry of `meshes` that is its neutral mesh; -1 if
    it has none. meshes: (M, V, 3) mm, either those of the dataset in their order or computed ones.
    computed: whether they were computed.
    """

    index: np.ndarray
    meshes: MeshStack
    computed: bool = False

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Return which of these rows of the dataset have a neutral mesh, (n,) bool."""
        return self.index[rows] >= 0

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the neutral meshes (n, V, 3) mm of rows of the dataset; all must have one."""
        return self.meshes[self.index[rows]]


def neutral_targets(dataset: MeshDataset) -> NeutralTargets:
    """Find the neutral mesh of each mesh: from the `neutral` column or, if that names none, as the
    mean of the first frames of the subject's sequences.

    A sequence is used only if its first frame in this dataset has the lowest number of all first
    frames of the subject, because the start of a sequence may be in another subset of a split.
    """
    index = _neutral_column(dataset)
    named = {"subject", "sequence", "frame"} <= set(dataset.labels.columns)
    if (index >= 0).any() or not named:
        return NeutralTargets(index, dataset.vertices)
    subjects = dataset.labels.classes("subject")
    starts = [
        _first_frames(dataset.labels, np.flatnonzero(subjects.numbers == number))
        for number in range(len(subjects.names))
    ]
    if not any(len(start) for start in starts):
        return NeutralTargets(index, dataset.vertices)
    shape = dataset.vertices.shape[1:]
    means = [
        dataset.vertices[start].mean(0) if len(start) else np.full(shape, np.nan)
        for start in starts
    ]
    has_one = np.array([len(start) > 0 for start in starts])
    numbers = subjects.numbers
    index = np.where(has_one[numbers] & (numbers >= 0), numbers, -1)
    return NeutralTargets(index, MeshStack([np.stack(means).astype(np.float32)]), computed=True)


def _neutral_column(dataset: MeshDataset) -> np.ndarray:
    """(N,) row in this dataset of each mesh's neutral mesh; -1 if it is unknown or not selected.

    The column holds rows of the folder, so they are translated to rows of this dataset.
    """
    if "neutral" not in dataset.labels:
        return np.full(len(dataset), -1)
    position = {int(row): number for number, row in enumerate(dataset.rows)}
    return np.array([position.get(int(row), -1) for row in dataset.labels["neutral"]], np.int64)


def _first_frames(labels: LabelTable, rows: np.ndarray) -> np.ndarray:
    """The first rows of one subject's sequences, of those sequences whose first frame is lowest.

    Meshes whose frame is unknown are ignored.
    """
    rows = rows[np.isfinite(labels["frame"][rows])]
    sequence, frame = labels["sequence"].astype(str)[rows], labels["frame"][rows]
    first = [
        named[frame[named].argmin()]
        for name in set(sequence) - {""}
        for named in [np.flatnonzero(sequence == name)]
    ]
    starts = np.sort(np.array(first, np.int64))
    return rows[starts[frame[starts] == frame[starts].min()]] if len(starts) else rows[:0]


def expression_levels(dataset: MeshDataset, targets: NeutralTargets) -> np.ndarray | None:
    """Return levels (N,) from 0 to 1: the `level` column or, without one, computed from sequences;
    None if there are no sequences either.

    A computed level is the mean vertex distance to the neutral target, divided by the maximum of
    the sequence. Frames more than three standard deviations above the sequence's mean are excluded
    from the maximum. The level is nan if a mesh has no sequence or no neutral target. The published
    rule measures from the sequence's first frame, but that may be in another subset of a split.
    """
    labels = dataset.labels
    if "level" in labels and any(labels["level"].astype(str)):
        return _known_levels(dataset.path, labels["level"])
    known = targets.index >= 0
    if not {"subject", "sequence"} <= set(labels.columns) or not known.any():
        return None
    subject, sequence = labels["subject"].astype(str), labels["sequence"].astype(str)
    names = np.char.add(np.char.add(subject, "\n"), sequence)
    levels = np.full(len(dataset), np.nan)
    for name in np.unique(names[(sequence != "") & known]):
        rows = np.flatnonzero((names == name) & known)
        distance = np.linalg.norm(dataset.vertices[rows] - targets.of(rows), axis=-1)
        moved = distance.mean(-1, dtype=np.float64)
        usual = moved[moved <= moved.mean() + OUTLYING * moved.std()]
        levels[rows] = np.clip(moved / max(float(usual.max()), MIN_MOVE_MM), 0, 1)
    return levels


def _known_levels(path: Path, column: np.ndarray) -> np.ndarray:
    levels = (
        column.astype(np.float64) if column.dtype.kind in "if" else np.full(len(column), np.inf)
    )
    if ((levels < 0) | (levels > 1)).any():
        raise InputError(
            f"{path / 'labels.csv'}: level: expected numbers from 0 to 1, or no text if a level is "
            "unknown"
        )
    return levels


def require_neutral(path: Path, targets: NeutralTargets) -> None:
    """Raise InputError, naming the columns to add, if a mesh of the dataset at `path` has no
    neutral mesh.
    """
    missing = int((targets.index < 0).sum())
    if missing:
        raise InputError(
            f"{path}: {missing} of {len(targets.index)} training meshes have no neutral mesh, "
            "which this family learns from; import them with labels that have a column neutral "
            "(the row of the subject's neutral mesh), or subject, sequence and frame, whose first "
            "frames then count as neutral"
        )
