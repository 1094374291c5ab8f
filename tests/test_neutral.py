"""Neutral targets: from the neutral column, else from first frames, or a message that says what to add."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from morphable.data.dataset import MeshDataset, MeshStack
from morphable.data.labels import LabelTable
from morphable.data.neutral import neutral_targets, require_neutral
from morphable.errors import InputError
from morphable.train.feed import TrainingData


def labelled(hands: MeshDataset, **columns: list[object]) -> MeshDataset:
    """A small dataset whose mesh i has all coordinates i."""
    count = len(next(iter(columns.values())))
    meshes = np.ones((count, 1609, 3), np.float32) * np.arange(count, dtype=np.float32)[:, None, None]
    labels = LabelTable({name: np.array(values) for name, values in columns.items()}, count)
    return replace(hands, vertices=MeshStack([meshes]), labels=labels, rows=np.arange(count))


def test_the_neutral_column_comes_first(hands: MeshDataset) -> None:
    part = hands.select(np.arange(7, 30))
    found = neutral_targets(part)
    assert found.computed is None
    known = found.rows >= 0
    assert known.any()
    assert not known.all(), "the first rows' neutral mesh is not in the selection"
    assert (part.rows[found.rows[known]] == part.labels["neutral"][known]).all()


def test_the_mean_first_frame_where_there_is_no_scan(hands: MeshDataset) -> None:
    made = labelled(
        hands,
        subject=["a", "a", "a", "a", "b", "b", "b", "c"],
        sequence=["smile", "smile", "yawn", "yawn", "smile", "smile", "yawn", ""],
        frame=[2, 1, 1, 7, 5, 3, 9, 0],
    )
    found = neutral_targets(made)
    assert found.computed is not None
    # a: frame 1 of both sequences, rows 1 and 2. b: the yawn's start is missing, so frame 3 of the smile, row 5.
    assert found.computed[:2, 0, 0].tolist() == [1.5, 5.0]
    assert found.rows.tolist() == [0, 0, 0, 0, 1, 1, 1, -1]
    data = TrainingData.of(made)
    assert data.neutral_shapes is not None


def test_a_message_that_says_what_to_add(hands: MeshDataset) -> None:
    rows = neutral_targets(labelled(hands, subject=["a", "b"])).rows
    with pytest.raises(InputError, match=r"2 of 2 training meshes have no neutral mesh.*column neutral"):
        require_neutral(Path("data"), rows)
