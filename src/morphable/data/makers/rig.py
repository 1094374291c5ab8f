"""Rig: pose rest meshes by forward kinematics along a joint tree and linear blend skinning.

Magnenat-Thalmann, Laperriere & Thalmann, "Joint-dependent local deformations for hand animation and
object grasping", Graphics Interface 1988.

Letters: S subjects, J joints, V vertices, B poses in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.spatial.transform import Rotation

from morphable.data.makers.draws import LABEL_DECIMALS
from morphable.errors import InputError
from morphable.files import read_npz

ASSETS = Path(__file__).parent.parent / "assets"
Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Turns axes with z up, facing -y (Blender's convention) to y up, facing +z."""


@dataclass(frozen=True, eq=False)
class Rig:
    """S subjects that share one mesh topology, one joint tree and one skinning.

    rest: (S, V, 3) rest meshes, mm. heads: (S, J, 3) position of each joint in them, mm.
    orientations: (S, J, 3, 3) rotation of each joint in the rest mesh.
    reference: (J, 3, 3) rotation of each joint in the common reference pose, which every subject
        takes if all pose rotations are zero.
    parents: (J,) number of the parent joint, smaller than the joint's own; -1 for the root.
    weights: (V, J) skinning weights; rows sum to one.
    triangles, uv, uv_faces: (T, 3), (U, 2) and (T, 3) topology and texture coordinates.
    joints: J names. subject_labels: name -> (S,) known facts about the subjects, such as age.
    """

    rest: np.ndarray
    heads: np.ndarray
    orientations: np.ndarray
    reference: np.ndarray
    parents: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    joints: tuple[str, ...]
    subject_labels: Mapping[str, np.ndarray]

    def joint(self, name: str) -> int:
        return self.joints.index(name)

    def rotated(self, frame: np.ndarray) -> Rig:
        """Return the rig in other axes: `frame` (3, 3) is a rotation with the new axes as rows."""
        return Rig(
            rest=(self.rest @ frame.T.astype(self.rest.dtype)),
            heads=self.heads @ frame.T,
            orientations=frame @ self.orientations,
            reference=frame @ self.reference,
            parents=self.parents,
            weights=self.weights,
            triangles=self.triangles,
            uv=self.uv,
            uv_faces=self.uv_faces,
            joints=self.joints,
            subject_labels=self.subject_labels,
        )

    def transforms(
        self, subjects: np.ndarray, rotations: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the affine maps from the rest mesh to the pose: linear parts (B, J, 3, 3) and
        offsets (B, J, 3), mm.

        rotations: (B, J, 3, 3), each about axes aligned with the world in the reference pose. For
        joint c with parent p, rotation D_c, reference U_c, orientation R_c and head h_c, the
        accumulated rotation is G_c = G_p D_c and the linear part A_c = G_c U_c R_c^T. The joint
        moves to t_c = t_p + A_p (h_c - h_p), and the offset is t_c - A_c h_c. The root joint stays
        at the origin.
        """
        heads, turned = self.heads[subjects], np.empty_like(rotations)
        linear, moved = np.empty_like(rotations), np.zeros_like(heads)
        settle = self.reference @ self.orientations[subjects].swapaxes(-1, -2)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                turned[:, joint] = rotations[:, joint]
            else:
                turned[:, joint] = turned[:, parent] @ rotations[:, joint]
                bone = heads[:, joint] - heads[:, parent]
                moved[:, joint] = moved[:, parent] + np.einsum(
                    "bij,bj->bi", linear[:, parent], bone
                )
            linear[:, joint] = turned[:, joint] @ settle[:, joint]
        return linear, moved - np.einsum("bcij,bcj->bci", linear, heads)

    def pose(self, subjects: np.ndarray, rotation_vectors: np.ndarray) -> np.ndarray:
        """Pose subjects: (B, V, 3) float32 mm, with the root joint at the origin.

        subjects: (B,) their numbers. rotation_vectors: (B, J, 3) joint rotations in radians; zero
        vectors give the reference pose.

        Raises InputError if a subject does not exist or a shape is wrong.
        """
        last = len(self.rest) - 1
        if len(subjects) and (subjects.min() < 0 or subjects.max() > last):
            raise InputError(
                f"subjects: expected numbers in 0..{last}, got {subjects.min()}..{subjects.max()}"
            )
        expected = (len(subjects), len(self.joints), 3)
        if rotation_vectors.shape != expected:
            raise InputError(
                f"rotation_vectors: expected shape {expected}, got {rotation_vectors.shape}"
            )
        matrices = (
            Rotation.from_rotvec(rotation_vectors.reshape(-1, 3)).as_matrix().reshape(*expected, 3)
        )
        linear, offset = self.transforms(subjects, matrices)
        affine = (
            np.concatenate([linear, offset[..., None]], axis=-1).swapaxes(-1, -2).astype(np.float32)
        )
        posed = np.empty((len(subjects), *self.rest.shape[1:]), np.float32)
        for subject in np.unique(subjects):
            rows = np.flatnonzero(subjects == subject)
            columns = affine[rows].transpose(1, 2, 0, 3).reshape(4 * len(self.joints), -1)
            posed[rows] = (
                (self.skinning(subject) @ columns).reshape(-1, len(rows), 3).swapaxes(0, 1)
            )
        return posed

    @cached_property
    def _pulls(self) -> sp.csr_matrix:
        return sp.csr_matrix(self.weights)

    def skinning(self, subject: int) -> sp.csr_matrix:
        """Build the linear map (V, 4 J) from one subject's joint transforms to its vertices.

        Row v holds w_vj (x, y, z, 1) for each joint j with a weight at the vertex, whose rest
        position is (x, y, z). One sparse product then skins any number of poses, and its additions
        have the same order for every number, so results do not depend on the batch.
        """
        weights, width = self._pulls, 4
        homogeneous = np.concatenate(
            [self.rest[subject], np.ones((len(self.weights), 1), np.float32)], axis=1
        )
        vertex = np.repeat(np.arange(len(self.weights)), np.diff(weights.indptr))
        data = weights.data[:, None] * homogeneous[vertex]
        columns = weights.indices[:, None] * width + np.arange(width)
        shape = (len(self.weights), width * len(self.joints))
        return sp.csr_matrix((data.ravel(), columns.ravel(), weights.indptr * width), shape=shape)

    def reference_pose(self) -> np.ndarray:
        """Pose every subject in the common reference pose: (S, V, 3) float32 mm."""
        subjects = np.arange(len(self.rest))
        still = np.zeros((1, len(self.joints), 3))
        return np.concatenate([self.pose(subjects[s : s + 1], still) for s in subjects])

    def reference_heads(self) -> np.ndarray:
        """Compute the mean joint positions (J, 3), mm, over the subjects in the reference pose,
        with the root joint at the origin.
        """
        subjects = np.arange(len(self.rest))
        still = np.broadcast_to(np.eye(3), (len(subjects), len(self.joints), 3, 3)).copy()
        linear, offset = self.transforms(subjects, still)
        return (np.einsum("scij,scj->sci", linear, self.heads) + offset).mean(axis=0)


def load_rig(path: Path) -> Rig:
    """Read a rig archive (meters, z up, facing -y; see assets/PROVENANCE.md) and convert it to mm,
    y up, facing +z.
    """
    arrays = read_npz(path)
    rest, poses = arrays["rest_vertices"], arrays["rest_bone_poses"].astype(np.float64)
    joints = tuple(str(name) for name in arrays["bone_names"])
    weights = np.zeros((rest.shape[1], len(joints)), np.float32)
    np.add.at(
        weights, (np.arange(len(weights))[:, None], arrays["skin_indices"]), arrays["skin_weights"]
    )
    known = dict(
        zip(
            arrays["phenotype_names"].tolist(),
            arrays["phenotypes"].T.astype(np.float64).round(LABEL_DECIMALS),
            strict=True,
        )
    )
    known["age"] = arrays["age_years"].astype(np.float64).round(2)
    rig = Rig(
        rest=rest * np.float32(1000),
        heads=poses[..., :3, 3] * 1000,
        orientations=poses[..., :3, :3],
        reference=arrays["reference_orientations"].astype(np.float64),
        parents=arrays["parents"].astype(np.int64),
        weights=weights,
        triangles=arrays["triangles"].astype(np.int64),
        uv=arrays["uv"],
        uv_faces=arrays["triangle_uv"].astype(np.int64),
        joints=joints,
        subject_labels=known,
    )
    return rig.rotated(Y_UP)
