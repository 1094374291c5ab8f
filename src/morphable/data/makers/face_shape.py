"""FaceShapes: ICT-FaceKit's linear faces, and a nonlinear variant in which jaw and eyelids rotate
about their hinges.

A linear expression moves a vertex along a straight line. In the nonlinear variant, (a) the lower
jaw rotates about the jaw hinge and (b) the eyelids about the eyeballs, on arcs that end at the
artist's shape; (c) every displacement is transferred from the mean face to the individual by the
local deformation gradient between the two (Sumner & Popovic, "Deformation transfer for triangle
meshes", SIGGRAPH 2004); and (d) the sum of displacements saturates smoothly. Neutral faces are
identical in both variants, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morphable.data.makers.draws import in_blocks
from morphable.data.makers.ict import EYEBALLS, HEAD, IctModel
from morphable.mesh.topology import adjacency, triangulate, vertex_normals

JAW_ANGLE = np.radians(25.33)
JAW_HINGE = np.array([-5.5, 18.2])
"""(y, z) mm of the axis, parallel to x, about which jawOpen rotates the mean face's lower teeth."""
JAW_RANGE = (-0.1 * JAW_ANGLE, 1.05 * JAW_ANGLE)
LID_RANGE = (-np.radians(44), np.radians(44))
SATURATION = np.float32(16)
"""Upper limit, mm, that the length of a summed displacement approaches."""
BLOCK = 16


@dataclass(frozen=True, eq=False)
class Hinge:
    """One expression shape as a rotation about an axis parallel to x, plus a remainder.

    shape: number of the expression. vertices: (K,) the vertices that rotate. angles: (K,) radians
    at weight 1. center: (2,) position (y, z) of the axis on the mean face, mm. center_modes:
    (100, 2) its displacement per unit of each identity weight, mm. rest: (V, 3) the displacement at
    weight 1 that the rotation does not explain, mm.
    """

    shape: int
    vertices: np.ndarray
    angles: np.ndarray
    center: np.ndarray
    center_modes: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True, eq=False)
class Individual:
    """One person's face.

    neutral: (V, 3) mm. gradients: (V, 3, 3) deformation gradients from the mean face to it.
    centers: (H, 2) positions (y, z) of its hinges, mm.
    """

    neutral: np.ndarray
    gradients: np.ndarray
    centers: np.ndarray


class FaceShapes:
    """Makes meshes of the model's first `n_vertices` from identity and expression weights.

    linear: use the model's own straight-line expressions instead of the nonlinear variant.
    """

    def __init__(self, model: IctModel, n_vertices: int = HEAD, linear: bool = False) -> None:
        self.linear = linear
        self.n_vertices = n_vertices
        self.n_expressions = len(model.names)
        self.neutral = model.neutral[:n_vertices]
        self.modes = np.ascontiguousarray(model.identity_modes[:, :n_vertices]).reshape(
            len(model.identity_modes), -1
        )
        self.deltas = model.expressions[:, :n_vertices].reshape(self.n_expressions, -1).copy()
        self.hinges: tuple[Hinge, ...] = ()
        if not linear:
            inside = model.faces[model.faces.max(axis=1) < n_vertices]
            self.triangles = triangulate(inside, self.neutral)
            self.transfer = Transfer(self.neutral.astype(np.float64), self.triangles)
            self.hinges = fit_hinges(model, n_vertices, self.transfer.average)
            # A hinged shape is removed from the linear sum. Its remainder is added without
            # saturation, so that weight 1 gives exactly the artist's shape.
            self.deltas[[hinge.shape for hinge in self.hinges]] = 0
            self.rests = np.stack([hinge.rest.ravel() for hinge in self.hinges])

    def individual(self, identity: np.ndarray) -> Individual:
        """Make the person with identity weights (100,) in standard deviations."""
        offset = (identity.astype(np.float32) @ self.modes).reshape(-1, 3)
        neutral = self.neutral + offset
        if self.linear:
            return Individual(neutral, np.zeros((0, 3, 3), np.float32), np.zeros((0, 2)))
        centers = np.stack([hinge.center + identity @ hinge.center_modes for hinge in self.hinges])
        return Individual(neutral, self.transfer.gradients(neutral), centers)

    def express(self, person: Individual, weights: np.ndarray) -> np.ndarray:
        """Make one person's meshes (B, V, 3) float32 mm with expression weights (B, 53) in 0..1."""
        made = np.empty((len(weights), self.n_vertices, 3), np.float32)
        for rows in in_blocks(len(weights), BLOCK):
            made[rows] = self._express(person, weights[rows].astype(np.float32))
        return made

    def _express(self, person: Individual, weights: np.ndarray) -> np.ndarray:
        moved = (weights @ self.deltas).reshape(len(weights), -1, 3)
        if self.linear:
            return person.neutral + moved
        moved = _saturated(_transferred(person.gradients, moved))
        strength = weights[:, [hinge.shape for hinge in self.hinges]]
        moved += _transferred(person.gradients, (strength @ self.rests).reshape(moved.shape))
        for number, hinge in enumerate(self.hinges):
            arm = person.neutral[hinge.vertices, 1:] - person.centers[number].astype(np.float32)
            moved[:, hinge.vertices, 1:] += _turn(arm, strength[:, number, None] * hinge.angles)
        return person.neutral + moved


class Transfer:
    """Computes deformation gradients from a mean face to other faces, by sparse products that are
    prepared once per topology.

    At each vertex, the gradient is the 3x3 matrix that maps the mean face's two-ring edges and
    normal to the other face's, in the least-squares sense. Gradients are then averaged over
    neighbors three times.
    """

    def __init__(self, mean: np.ndarray, triangles: np.ndarray) -> None:
        count = len(mean)
        self.triangles = triangles
        ring = adjacency(triangles, count) + sp.identity(count)
        self.average = sp.csr_matrix(sp.diags(1 / np.asarray(ring.sum(axis=1)).ravel()) @ ring)
        pattern = (ring @ ring).tocoo()
        near = pattern.row != pattern.col
        row, col = pattern.row[near], pattern.col[near]
        edge = mean[col] - mean[row]
        normals = vertex_normals(mean, triangles)
        gram = np.zeros((count, 3, 3))
        np.add.at(gram, row, edge[:, :, None] * edge[:, None, :])
        scale = np.maximum(np.trace(gram, axis1=1, axis2=2) / 2, 1e-12)
        gram += scale[:, None, None] * normals[:, :, None] * normals[:, None, :]
        # If neighbors lie on one line or are missing, this keeps the gradient near the identity;
        # without it, it would be undefined.
        gram += 1e-6 * scale[:, None, None] * np.eye(3)
        inverse = np.linalg.inv(gram)
        share = np.einsum("eij,ej->ei", inverse[row], edge)
        shape = (count, count)
        self.edges = tuple(_differences(row, col, share[:, axis], shape) for axis in range(3))
        self.normal_share = scale[:, None] * np.einsum("vij,vj->vi", inverse, normals)
        self.slack = 1e-6 * scale[:, None, None] * inverse

    def gradients(self, vertices: np.ndarray) -> np.ndarray:
        """Compute the gradients (V, 3, 3) float32 from the mean face to a face (V, 3)."""
        points = vertices.astype(np.float64)
        normals = vertex_normals(points, self.triangles)
        gradient = np.stack([edges @ points for edges in self.edges], axis=-1)
        gradient += normals[:, :, None] * self.normal_share[:, None, :] + self.slack
        flat = gradient.reshape(len(points), 9)
        for _ in range(3):
            flat = self.average @ flat
        return flat.reshape(-1, 3, 3).astype(np.float32)


def fit_hinges(model: IctModel, n_vertices: int, average: sp.csr_matrix) -> tuple[Hinge, ...]:
    """Fit the jaw and the two eyelids to the artist's shapes on the mean face.

    average: (V, V) the sparse matrix that averages over neighbors.
    """
    points = model.neutral[:HEAD].astype(np.float64)
    # The model has no jaw joints, so the skin over them is used instead.
    near = np.linalg.norm(points[:, 1:] - JAW_HINGE, axis=1) < 20
    joint = np.flatnonzero(near & (np.abs(points[:, 0]) > 50))
    jaw_modes = model.identity_modes[:, joint, 1:].mean(axis=1, dtype=np.float64)
    two_ring = average @ average
    hinges = [
        _fit_hinge(model, n_vertices, "jawOpen", JAW_HINGE, jaw_modes, JAW_RANGE, [two_ring] * 2)
    ]
    for side, part in EYEBALLS.items():
        center = sphere_center(model.neutral[part].astype(np.float64))[1:]
        modes = model.identity_modes[:, part, 1:].mean(axis=1, dtype=np.float64)
        hinges.append(
            _fit_hinge(model, n_vertices, f"eyeBlink_{side}", center, modes, LID_RANGE, [])
        )
    return tuple(hinges)


def _fit_hinge(
    model: IctModel,
    n_vertices: int,
    name: str,
    center: np.ndarray,
    center_modes: np.ndarray,
    limits: tuple[float, float],
    smoothing: Sequence[sp.csr_matrix],
) -> Hinge:
    shape = model.names.index(name)
    delta = model.expressions[shape, :n_vertices].astype(np.float64)
    arm = model.neutral[:n_vertices, 1:].astype(np.float64) - center
    after = arm + delta[:, 1:]
    cross = arm[:, 0] * after[:, 1] - arm[:, 1] * after[:, 0]
    angles = np.clip(np.arctan2(cross, (arm * after).sum(axis=1)), *limits)
    for matrix in smoothing:
        angles = matrix @ angles
    rest = delta.copy()
    rest[:, 1:] -= _turn(arm, angles)
    vertices = np.flatnonzero(np.abs(angles) > 1e-5)
    return Hinge(
        shape,
        vertices,
        angles[vertices].astype(np.float32),
        center,
        center_modes,
        rest.astype(np.float32),
    )


def sphere_center(points: np.ndarray) -> np.ndarray:
    """Compute the center (3,) of the least-squares sphere through points (N, 3)."""
    middle = points.mean(axis=0)
    local = points - middle
    system = np.concatenate([2 * local, np.ones((len(local), 1))], axis=1)
    return middle + np.linalg.lstsq(system, (local**2).sum(axis=1), rcond=None)[0][:3]


def _turn(arm: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(..., K, 2) displacement of arms (K, 2) in (y, z) when rotated by angles (..., K) about +x;
    exactly zero if the angle is zero.
    """
    less, sine = np.cos(angles) - 1, np.sin(angles)
    y, z = arm[:, 0], arm[:, 1]
    return np.stack([less * y - sine * z, sine * y + less * z], axis=-1)


def _transferred(gradients: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """(B, V, 3) displacements multiplied by gradients (V, 3, 3)."""
    carried = moved[..., :1] * gradients[..., 0]
    carried += moved[..., 1:2] * gradients[..., 1]
    carried += moved[..., 2:] * gradients[..., 2]
    return carried


def _saturated(moved: np.ndarray) -> np.ndarray:
    """(B, V, 3) displacements whose lengths l are shortened to S tanh(l / S), S = SATURATION."""
    length = np.sqrt(np.einsum("bvi,bvi->bv", moved, moved)) / SATURATION
    factor = np.ones_like(length)
    np.divide(np.tanh(length), length, out=factor, where=length > 1e-6)
    return moved * factor[..., None]


def _differences(
    row: np.ndarray, col: np.ndarray, share: np.ndarray, shape: tuple[int, int]
) -> sp.csr_matrix:
    """The matrix whose product with x is, in each row, the sum of share * (x[col] - x[row])."""
    matrix = sp.csr_matrix((share, (row, col)), shape=shape)
    return sp.csr_matrix(matrix - sp.diags(np.bincount(row, weights=share, minlength=shape[0])))
