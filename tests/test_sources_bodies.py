"""Bodies: sequences that flow, poses that mirror, labels that make every mesh again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from morphable.data.labels import LabelTable
from morphable.data.makers.bodies import (
    PREFIX,
    bodies,
    body_rig,
    body_template,
    pose_bodies,
    pose_labels,
    slerp,
)
from morphable.data.makers.body_pose import GRASPS, TURNS, joint_rotations, sample_poses
from morphable.data.makers.draws import subject_numbers
from morphable.errors import InputError
from morphable.mesh.topology import adjacency, components


def mirrored(turns: np.ndarray, grasps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same pose seen in a mirror: sides swapped, turns about y and z reversed."""
    swapped = [
        name[:-1] + {"L": "R", "R": "L"}[name[-1]] if name[-2] == "." else name for name in TURNS
    ]
    return turns[:, [TURNS.index(name) for name in swapped]] * [1, -1, -1], grasps[:, ::-1]


def test_a_mirrored_pose_gives_a_mirrored_body() -> None:
    turns, grasps = sample_poses(np.random.default_rng(0), 2)
    subjects = np.array([2, 7])
    mirror = body_template().mirror
    assert mirror is not None
    posed = pose_bodies(subjects, turns, grasps)
    seen = pose_bodies(subjects, *mirrored(turns, grasps))[:, mirror] * np.array([-1, 1, 1])
    assert np.linalg.norm(posed - seen, axis=2).max() < 2.0


def test_the_rest_pose_stands_upright_and_faces_forward() -> None:
    template, rig = body_template(), body_rig()
    crown, nose, left_hand, _, left_foot, _ = template.mesh.vertices[template.landmarks]
    assert crown[1] > left_hand[1] > left_foot[1] and left_hand[0] > 300 and nose[2] > 0
    height = np.ptp(rig.rest[..., 1], axis=1)
    assert height.min() > 1400 and height.max() < 2100 and 1600 < height.mean() < 1800


def test_turns_do_what_their_names_say() -> None:
    still, rig = np.zeros((1, len(TURNS), 3)), body_rig()

    def moved(turn: str, vector: list[float], joint: str) -> np.ndarray:
        turns = still.copy()
        turns[0, TURNS.index(turn)] = vector
        tip = rig.weights[:, rig.joint(joint)] > 0.9
        before, after = (
            rig.pose(np.array([0]), joint_rotations(rig, t, np.zeros((1, 2))))
            for t in (still, turns)
        )
        return (after - before)[0, tip].mean(axis=0)

    assert moved("hip.L", [-0.6, 0, 0], "foot.L")[2] > 200, "hip flexion brings the foot forward"
    assert moved("knee.R", [0.6, 0, 0], "foot.R")[2] < -100, "knee flexion brings the foot back"
    assert moved("spine", [0.6, 0, 0], "head")[2] > 100, "a bow brings the head forward"
    assert np.abs(moved("neck", [0, 0.6, 0], "foot.L")).max() < 1e-3, (
        "the feet do not care about the neck"
    )


def test_angles_stay_within_human_ranges() -> None:
    turns, grasps = sample_poses(np.random.default_rng(1), 500)
    angle = dict(zip(TURNS, np.degrees(np.linalg.norm(turns, axis=2)).T, strict=True))
    assert angle["knee.L"].max() <= np.degrees(2.3) + 1e-6 and angle["elbow.R"].max() <= 135 + 1e-6
    assert angle["ankle.L"].max() <= 30 + 1e-6 and angle["clavicle.R"].max() <= 15 + 1e-6
    assert grasps.shape == (500, len(GRASPS)) and grasps.min() >= 0 and grasps.max() <= 1


def test_slerp_by_hand() -> None:
    a = np.zeros((2, 1, 3))
    b = np.zeros((2, 1, 3))
    a[:, 0, 2], b[:, 0, 2] = 0.2, 1.0
    np.testing.assert_allclose(slerp(a, b, np.array([0.25, 1.0]))[:, 0, 2], [0.4, 1.0])
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 1, 4, 3)) * 0.7
    half = slerp(a, b, np.array([0.5]))[0]
    start, middle, end = (Rotation.from_rotvec(v) for v in (a[0], half, b[0]))
    np.testing.assert_allclose(
        (start.inv() * middle).magnitude(), (middle.inv() * end).magnitude(), atol=1e-9
    )


def test_sequences_flow_and_subjects_share_motions() -> None:
    source = bodies(count=10 * (1 + 14 * 12))
    labels = source.labels
    turns, _ = pose_labels(labels)
    rows = np.flatnonzero(
        (labels["sequence"] == "motion03") & (labels["subject"] == labels["subject"][0])
    )
    assert np.array_equal(labels["frame"][rows], np.arange(12))
    step = np.abs(np.diff(turns[rows], axis=0)).max()
    assert 0 < step < 0.6 * np.ptp(turns[rows], axis=0).max()
    other = np.flatnonzero(
        (labels["sequence"] == "motion03") & (labels["subject"] != labels["subject"][0])
    )
    stranger = np.flatnonzero(
        (labels["sequence"] == "motion04") & (labels["subject"] != labels["subject"][0])
    )
    distance = [np.abs(turns[rows] - turns[o[:12]]).mean() for o in (other, stranger)]
    assert 0 < distance[0] < distance[1]


def test_labels_are_complete_and_make_the_same_mesh_again(tmp_path: Path) -> None:
    source = bodies(count=32)
    labels = source.labels
    assert len(labels.classes("subject").names) == 2 and len(labels.classes("sequence").names) == 14
    is_neutral = labels["expression"] == "neutral"
    assert np.array_equal(np.unique(labels["neutral"]), np.flatnonzero(is_neutral))
    assert np.array_equal(labels["subject"][labels["neutral"]], labels["subject"])
    assert {"gender", "age", "muscle", "weight", "height", "proportions", "level", "frame"} <= set(
        labels.columns
    )
    labels.write(tmp_path / "labels.csv")
    read = LabelTable.read(tmp_path / "labels.csv")
    made = np.concatenate(list(source.blocks()))
    again = pose_bodies(subject_numbers(PREFIX, read["subject"]), *pose_labels(read))
    assert (
        np.array_equal(again, made) and made.dtype == np.float32 and made.shape == (32, 13_718, 3)
    )
    assert made.tobytes() == np.concatenate(list(bodies(count=32).blocks())).tobytes()


def test_regions_cover_the_body_and_are_connected() -> None:
    template = body_template()
    assert template.regions is not None and len(template.regions.names) == 11
    island = components(template.mesh.faces, template.n_vertices)
    graph = adjacency(template.mesh.faces, template.n_vertices)
    for name in template.regions.names:
        for piece in np.unique(island[template.region(name)]):
            members = np.flatnonzero(
                (template.regions.labels == template.regions.number(name)) & (island == piece)
            )
            assert connected_components(graph[members][:, members])[0] == 1
    sizes = {name: len(template.region(name)) for name in template.regions.names}
    assert (
        sizes["thigh_left"] == pytest.approx(sizes["thigh_right"], rel=0.02)
        and min(sizes.values()) > 200
    )


def test_wrong_options_are_named() -> None:
    with pytest.raises(InputError, match="`count` -3: expected at least 1"):
        bodies(count=-3)
