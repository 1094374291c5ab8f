"""Neutral targets: for every mesh, what its subject looks like without expression, from a scan or from sequences.

COMA has no neutral scans; there the mean of each subject's first frames stands in, the rule of WSDF's published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.errors import InputError


@dataclass(frozen=True, eq=False)
class NeutralTargets:
    """rows: (N,) the neutral mesh of each mesh, -1 where there is none: a row of the dataset, or of `computed`.

    computed: (M, V, 3) mm, or None where the neutral meshes are in the dataset.
    """

    rows: np.ndarray
    computed: np.ndarray | None = None


def neutral_targets(dataset: MeshDataset) -> NeutralTargets:
    """From the `neutral` column; where that knows none, from sequences: each subject's mean first frame.

    A sequence counts where its first frame in this dataset is as early as any of the subject's, since a split may have
    taken the start of one.
    """
    rows = dataset.neutral_rows()
    known = {"subject", "sequence", "frame"} <= set(dataset.labels.columns)
    if (rows >= 0).any() or not known:
        return NeutralTargets(rows)
    subject, names = dataset.labels.classes("subject")
    starts = [_first_frames(dataset.labels, np.flatnonzero(subject == number)) for number in range(len(names))]
    if not any(len(start) for start in starts):
        return NeutralTargets(rows)
    shape = dataset.vertices.shape[1:]
    means = [dataset.vertices[start].mean(0) if len(start) else np.full(shape, np.nan) for start in starts]
    has_one = np.array([len(start) > 0 for start in starts])
    return NeutralTargets(np.where(has_one[subject] & (subject >= 0), subject, -1), np.stack(means).astype(np.float32))


def _first_frames(labels: LabelTable, rows: np.ndarray) -> np.ndarray:
    """Of one subject's rows, those that start a sequence, among the sequences that start earliest."""
    sequence, frame = labels["sequence"].astype(str)[rows], labels["frame"][rows]
    first = [
        named[frame[named].argmin()] for name in set(sequence) - {""} for named in [np.flatnonzero(sequence == name)]
    ]
    starts = np.sort(np.array(first, np.int64))
    return rows[starts[frame[starts] == frame[starts].min()]] if len(starts) else rows[:0]


def require_neutral(path: Path, rows: np.ndarray) -> None:
    """InputError, saying what to add, where a mesh has no neutral target; rows: (N,), -1 where there is none."""
    missing = int((rows < 0).sum())
    if missing:
        raise InputError(
            f"{path}: {missing} of {len(rows)} training meshes have no neutral mesh, which this family learns from; "
            "add to labels.csv a column neutral (the row of the subject's neutral mesh), or subject, sequence "
            "and frame, whose first frames then count as neutral"
        )
