"""Neutral targets: from the neutral column, else from first frames, or a message that says what to
add.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.neutral import expression_levels, neutral_targets, require_neutral
from morphable.errors import InputError
from morphable.train.batches import TrainingData


def labelled(hands: MeshDataset, **columns: list[object]) -> MeshDataset:
    """A small dataset whose mesh i has all coordinates i."""
    count = len(next(iter(columns.values())))
    meshes = (
        np.ones((count, 1609, 3), np.float32) * np.arange(count, dtype=np.float32)[:, None, None]
    )
    labels = LabelTable({name: np.array(values) for name, values in columns.items()}, count)
    return replace(hands, vertices=MeshStack([meshes]), labels=labels, rows=np.arange(count))


def test_the_neutral_column_comes_first(hands: MeshDataset) -> None:
    part = hands.select(np.arange(7, 30))
    found = neutral_targets(part)
    assert not found.computed
    known = found.index >= 0
    assert known.any()
    assert not known.all(), "the first rows' neutral mesh is not in the selection"
    assert (part.rows[found.index[known]] == part.labels["neutral"][known]).all()
    rows = np.flatnonzero(known)
    whole_rows = part.labels["neutral"][rows]
    np.testing.assert_array_equal(found.of(rows), hands.vertices[whole_rows])


def test_the_mean_first_frame_where_there_is_no_scan(hands: MeshDataset) -> None:
    made = labelled(
        hands,
        subject=["a", "a", "a", "a", "b", "b", "b", "c"],
        sequence=["smile", "smile", "yawn", "yawn", "smile", "smile", "yawn", ""],
        frame=[2, 1, 1, 7, 5, 3, 9, 0],
    )
    found = neutral_targets(made)
    assert found.computed
    # a: frame 1 of both sequences, rows 1 and 2. b: the yawn's start is missing, so frame 3 of the
    # smile, row 5.
    assert found.meshes[:2][:, 0, 0].tolist() == [1.5, 5.0]
    assert found.index.tolist() == [0, 0, 0, 0, 1, 1, 1, -1]
    data = TrainingData.of(made, ("subject",))
    assert data.neutral.computed
    joined = data.with_neutral_meshes()
    assert len(joined) == 8 + 2 and not joined.neutral.computed, "c has no neutral mesh"
    for row, target in enumerate(data.neutral.index):
        if target < 0:
            assert joined.neutral.index[row] == -1
        else:
            assert np.array_equal(
                joined.vertices[int(joined.neutral.index[row])], data.neutral.meshes[int(target)]
            )
    assert joined.neutral.index[8:].tolist() == [8, 9], "their own neutral meshes"
    assert np.isfinite(joined.vertices[:]).all()
    assert joined.labels["subject"].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, -1, -1]


def test_a_frame_that_is_not_known_starts_no_sequence(hands: MeshDataset) -> None:
    made = labelled(
        hands, subject=["a"] * 3, sequence=["smile"] * 3, frame=[np.nan, 2.0, 1.0]
    )  # fmt: skip
    found = neutral_targets(made)
    assert found.index.tolist() == [0, 0, 0] and found.meshes[:1][0, 0, 0] == 2


def test_a_message_that_says_what_to_add(hands: MeshDataset) -> None:
    targets = neutral_targets(labelled(hands, subject=["a", "b"]))
    with pytest.raises(
        InputError, match=r"2 of 2 training meshes have no neutral mesh.*column neutral"
    ):
        require_neutral(Path("data"), targets)


def levels_of(made: MeshDataset) -> list[float]:
    found = expression_levels(made, neutral_targets(made))
    assert found is not None
    return [float(level) for level in np.round(found, 6)]


def test_levels_are_the_column_where_there_is_one(hands: MeshDataset) -> None:
    made = labelled(hands, subject=["a", "a"], sequence=["s", "s"], frame=[0, 1], level=[0, 1])
    assert levels_of(made) == [0, 1]
    data = TrainingData.of(made, ("level",))
    assert data.labels["level"].dtype == np.float32, "whole numbers are levels too, not classes"


def test_an_empty_level_column_is_none(hands: MeshDataset) -> None:
    made = labelled(hands, subject=["a", "a"], sequence=["s", "s"], frame=[0, 1], level=["", ""])
    assert levels_of(made) == [0, 1]
    assert (
        "level"
        not in TrainingData.of(
            labelled(hands, subject=["a"], level=[""]), ("subject", "level")
        ).labels
    )


@pytest.mark.parametrize("column", [[0.5, 60.0], [-0.1, 0.2], ["low", "high"]])
def test_levels_that_are_none(hands: MeshDataset, column: list[object]) -> None:
    with pytest.raises(InputError, match=r"labels\.csv: level: expected numbers from 0 to 1"):
        TrainingData.of(labelled(hands, subject=["a", "a"], level=column), ("level",))


def test_levels_from_sequences_by_hand(hands: MeshDataset) -> None:
    """Mesh i has all coordinates i: distances are sqrt(3) times differences. The neutral mesh is
    that of 0 and 3.
    """
    made = labelled(
        hands,
        subject=["a", "a", "a", "a", "a", "b"],
        sequence=["smile", "smile", "smile", "yawn", "yawn", ""],
        frame=[0, 1, 2, 0, 1, 0],
    )
    # Distances from 1.5: 1.5, 0.5, 0.5 and 1.5, 2.5.
    levels = levels_of(made)
    assert levels[:5] == pytest.approx([1, 1 / 3, 1 / 3, 0.6, 1])
    assert np.isnan(levels[5])
    assert (
        expression_levels(labelled(hands, subject=["a"], frame=[0]), neutral_targets(made)) is None
    )


def test_one_broken_frame_does_not_set_the_scale(hands: MeshDataset) -> None:
    frames = list(range(30))
    made = labelled(hands, subject=["a"] * 30, sequence=["s"] * 30, frame=frames)
    meshes = made.vertices[:]
    meshes[:, :, 1:] = 0
    meshes[17] = 1e4
    levels = levels_of(replace(made, vertices=MeshStack([meshes])))
    assert levels[17] == 1
    assert levels[:17] == pytest.approx([i / 29 for i in range(17)], abs=1e-6)


def test_a_sequence_that_stands_still_has_level_zero(hands: MeshDataset) -> None:
    made = labelled(hands, subject=["a"] * 3, sequence=["s"] * 3, frame=[0, 1, 2])
    assert levels_of(replace(made, vertices=MeshStack([np.ones((3, 1609, 3), np.float32)]))) == [
        0,
        0,
        0,
    ]
