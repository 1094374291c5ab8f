"""Hands: repeatable, labelled so that every mesh can be made again, and shaped like right hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from morphable.data.labels import LabelTable
from morphable.data.makers.draws import subject_numbers
from morphable.data.makers.fingers import hand_axes, sample_grasps
from morphable.data.makers.hands import (
    PREFIX,
    hand_rig,
    hand_template,
    hands,
    pose_hands,
    rotation_labels,
)
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.topology import adjacency


def meshes(source: MeshSource) -> np.ndarray:
    return np.concatenate(list(source.blocks()))


def test_same_seed_same_bytes_and_another_seed_other_poses() -> None:
    first, again, other = hands(count=24), hands(count=24), hands(count=24, seed=4)
    assert meshes(first).tobytes() == meshes(again).tobytes() == meshes(first).tobytes()
    assert meshes(first).dtype == np.float32
    assert not np.array_equal(meshes(first), meshes(other))
    neutral = first.labels["neutral"]
    assert np.array_equal(meshes(first)[neutral], meshes(other)[neutral])


def test_adding_subjects_changes_none_of_the_others() -> None:
    few, many = hands(count=20), hands(count=40)
    assert np.array_equal(meshes(few), meshes(many)[:20])


@pytest.mark.parametrize(("count", "subjects"), [(1, 1), (12, 2), (1000, 200), (4000, 200)])
def test_meshes_spread_evenly_over_subjects(count: int, subjects: int) -> None:
    _, sizes = np.unique(hands(count=count).labels["subject"], return_counts=True)
    assert len(sizes) == subjects and sizes.max() - sizes.min() <= 1


def test_labels_are_complete_and_neutral_rows_are_neutral() -> None:
    source = hands(count=30)
    labels = source.labels
    phenotypes = ["gender", "age", "muscle", "weight", "height", "proportions"]
    for name in [
        "subject",
        "expression",
        "level",
        "neutral",
        "frame",
        *phenotypes,
        "finger2-1/x",
        "wrist/z",
    ]:
        assert name in labels
    assert sum("/" in name for name in labels.columns) == 60
    is_neutral = labels["expression"] == "neutral"
    assert np.array_equal(np.unique(labels["neutral"]), np.flatnonzero(is_neutral))
    assert np.array_equal(labels["subject"][labels["neutral"]], labels["subject"])
    assert (rotation_labels(labels)[is_neutral] == 0).all() and (
        labels["level"][is_neutral] == 0
    ).all()
    assert (labels["age"] >= 8).all() and (labels["age"] <= 76).all()


def test_labels_make_the_same_mesh_again_after_a_round_trip_through_csv(tmp_path: Path) -> None:
    source = hands(count=12)
    source.labels.write(tmp_path / "labels.csv")
    labels = LabelTable.read(tmp_path / "labels.csv")
    again = pose_hands(subject_numbers(PREFIX, labels["subject"]), rotation_labels(labels))
    assert np.array_equal(again, meshes(source))


def test_truth_of_a_swap_keeps_bone_lengths() -> None:
    """Another subject in this pose: every joint turns as much, but the hand is the other one's."""
    labels = hands(count=12).labels
    rotations = rotation_labels(labels)[[3]]
    rig = hand_rig()
    own, other = (pose_hands(np.array([s]), rotations)[0] for s in (0, 1))
    assert np.linalg.norm(own - other, axis=1).mean() > 0.5
    tip = np.flatnonzero(rig.weights[:, rig.joint("finger2-3.R")] > 0.999)
    for subject, posed in ((0, own), (1, other)):
        rest = rig.rest[subject]
        for mesh in (posed, rest):
            spread = np.linalg.norm(mesh[tip] - mesh[tip[0]], axis=1)
            np.testing.assert_allclose(
                spread, np.linalg.norm(rest[tip] - rest[tip[0]], axis=1), atol=1e-3
            )


def test_sizes_are_those_of_hands_in_millimeters() -> None:
    source = hands(count=1000)
    rows = np.flatnonzero((source.labels["expression"] == "neutral") & (source.labels["age"] >= 20))
    rig = hand_rig()
    adults = subject_numbers(PREFIX, source.labels["subject"][rows])
    rest = pose_hands(adults, np.zeros((len(adults), len(rig.joints) - 1, 3)))
    # From the wrist's rim to the tip of the middle finger; anatomical hand length (from the crease)
    # is a little less.
    length = np.ptp(rest[..., 1], axis=1)
    assert 175 < length.mean() < 205 and length.min() > 150 and length.max() < 230
    np.testing.assert_allclose(meshes(hands(count=10)).mean(axis=1), 0, atol=1e-3)


def test_it_is_a_right_hand_that_closes_towards_the_palm() -> None:
    template = hand_template()
    tips = template.mesh.vertices[template.landmarks[:5]]
    assert tips[0, 0] == tips[:, 0].max(), (
        "the thumb is on the subject's left when the palm faces forward"
    )
    assert tips[2, 1] == tips[:, 1].max(), "the middle finger is the longest"
    rig, axes = hand_rig(), hand_axes(hand_rig())
    np.testing.assert_allclose(np.stack([axes.side, axes.up, axes.palm]), np.eye(3), atol=1e-9)
    pose = np.zeros((1, 20, 3))
    pose[0, rig.joint("finger3-1.R") - 1] = 0.5 * axes.flexion[2]
    tip = template.landmarks[2]
    moved = (
        pose_hands(np.array([0]), pose)[0, tip]
        - pose_hands(np.array([0]), np.zeros((1, 20, 3)))[0, tip]
    )
    assert moved[2] > 20 and abs(moved[0]) < 10


def test_grasps_stay_within_the_range_of_fingers() -> None:
    grasp = sample_grasps(np.random.default_rng(0), 2000)
    degrees = np.degrees(grasp.bend)
    assert degrees.min() >= -10 and degrees.max() <= 100
    assert np.abs(np.degrees(grasp.spread)).max() <= 15 and grasp.spread[:, 0].max() == 0
    assert 0.4 < np.corrcoef(grasp.closed[:, 1], grasp.closed[:, 4])[0, 1] < 0.9, (
        "one synergy moves all fingers"
    )


def test_regions_cover_the_hand_and_are_connected() -> None:
    template = hand_template()
    assert template.regions is not None and len(template.regions.labels) == 1609
    assert template.regions.names == ("palm", "thumb", "index", "middle", "ring", "little")
    graph = adjacency(template.mesh.faces, template.n_vertices)
    for number, name in enumerate(template.regions.names):
        members = template.region(name)
        assert len(members) > 100
        assert connected_components(graph[members][:, members])[0] == 1
        assert len(np.unique(template.regions.controls[number])) == 8
    assert template.rigid is not None and np.array_equal(template.rigid, template.region("palm"))
    assert [template.regions.labels[tip] for tip in template.landmarks[:5]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": 0}, "`count` 0: expected"), ({"seed": -1}, "`seed` -1: expected")],
)
def test_wrong_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hands(**options)
