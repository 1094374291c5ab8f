"""Neutral targets and levels: what a mesh's subject looks like without expression, and how far a
frame is from that.

COMA has no neutral scans; there the mean of each subject's first frames stands in, the rule of
WSDF's published code. Nor has it levels; there each frame is measured against its sequence, as in
the York group's public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.errors import InputError

OUTLYING = 3.0
"""Standard deviations above the mean of its sequence beyond which a frame does not say how far the
sequence goes.
"""
MIN_MOVE_MM = 1e-6


@dataclass(frozen=True, eq=False)
class NeutralTargets:
    """rows: (N,) the neutral mesh of each mesh, -1 where there is none: a row of the dataset, or of
    `computed`.

    computed: (M, V, 3) mm, or None where the neutral meshes are in the dataset.
    """

    rows: np.ndarray
    computed: np.ndarray | None = None


def neutral_targets(dataset: MeshDataset) -> NeutralTargets:
    """From the `neutral` column; where that knows none, from sequences: each subject's mean first
    frame.

    A sequence counts where its first frame in this dataset is as early as any of the subject's,
    since a split may have taken the start of one.
    """
    rows = dataset.neutral_rows()
    known = {"subject", "sequence", "frame"} <= set(dataset.labels.columns)
    if (rows >= 0).any() or not known:
        return NeutralTargets(rows)
    subjects = dataset.labels.classes("subject")
    starts = [
        _first_frames(dataset.labels, np.flatnonzero(subjects.numbers == number))
        for number in range(len(subjects.names))
    ]
    if not any(len(start) for start in starts):
        return NeutralTargets(rows)
    shape = dataset.vertices.shape[1:]
    means = [
        dataset.vertices[start].mean(0) if len(start) else np.full(shape, np.nan)
        for start in starts
    ]
    has_one = np.array([len(start) > 0 for start in starts])
    return NeutralTargets(
        np.where(has_one[subjects.numbers] & (subjects.numbers >= 0), subjects.numbers, -1),
        np.stack(means).astype(np.float32),
    )


def _first_frames(labels: LabelTable, rows: np.ndarray) -> np.ndarray:
    """Of one subject's rows, those that start a sequence, among the sequences that start earliest."""
    sequence, frame = labels["sequence"].astype(str)[rows], labels["frame"][rows]
    first = [
        named[frame[named].argmin()]
        for name in set(sequence) - {""}
        for named in [np.flatnonzero(sequence == name)]
    ]
    starts = np.sort(np.array(first, np.int64))
    return rows[starts[frame[starts] == frame[starts].min()]] if len(starts) else rows[:0]


def expression_levels(dataset: MeshDataset, targets: NeutralTargets) -> np.ndarray | None:
    """(N,) levels from 0 to 1: the `level` column; without one, from sequences; None where there
    are none either.

    Mean vertex distance to the neutral target as a share of the sequence's largest, which frames
    more than three standard deviations above its mean do not set. nan where a mesh has no sequence
    or no neutral target. The published rule measures from the sequence's first frame, which a split
    may have taken.
    """
    labels = dataset.labels
    if "level" in labels and any(labels["level"].astype(str)):
        return _known_levels(dataset.path, labels["level"])
    if not {"subject", "sequence"} <= set(labels.columns) or not (targets.rows >= 0).any():
        return None
    shapes = dataset.vertices if targets.computed is None else targets.computed
    sequence = np.char.add(
        np.char.add(labels["subject"].astype(str), "\n"), labels["sequence"].astype(str)
    )
    levels = np.full(len(dataset), np.nan)
    for name in np.unique(sequence[(labels["sequence"].astype(str) != "") & (targets.rows >= 0)]):
        rows = np.flatnonzero((sequence == name) & (targets.rows >= 0))
        moved = np.linalg.norm(dataset.vertices[rows] - shapes[targets.rows[rows]], axis=-1).mean(
            -1, dtype=np.float64
        )
        usual = moved[moved <= moved.mean() + OUTLYING * moved.std()]
        levels[rows] = np.clip(moved / max(float(usual.max()), MIN_MOVE_MM), 0, 1)
    return levels


def _known_levels(path: Path, column: np.ndarray) -> np.ndarray:
    levels = (
        column.astype(np.float64) if column.dtype.kind in "if" else np.full(len(column), np.inf)
    )
    if ((levels < 0) | (levels > 1)).any():
        raise InputError(
            f"{path / 'labels.csv'}: level: expected numbers from 0 to 1, or nothing where it is not known"
        )
    return levels


def require_neutral(path: Path, rows: np.ndarray) -> None:
    """InputError, saying what to add, where a mesh has no neutral target; rows: (N,), -1 where
    there is none.
    """
    missing = int((rows < 0).sum())
    if missing:
        raise InputError(
            f"{path}: {missing} of {len(rows)} training meshes have no neutral mesh, which this family learns from; "
            "add to labels.csv a column neutral (the row of the subject's neutral mesh), or subject, sequence "
            "and frame, whose first frames then count as neutral"
        )
