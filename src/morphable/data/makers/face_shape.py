"""FaceShapes: ICT-FaceKit's linear faces, and a curved variant in which jaw and eyelids turn about
their hinges.

A linear expression moves a vertex along a straight chord. Here (a) the lower jaw turns about the
jaw hinge and (b) the eyelids about the eyeballs, so that they travel on arcs that end where the
artist's shape ends; (c) every displacement is carried from the mean face to the individual by the
local deformation gradient between the two (Sumner & Popovic, "Deformation transfer for triangle
meshes", SIGGRAPH 2004); and (d) stacked displacements saturate softly. A neutral face is the same
to the bit in both variants.
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
"""(y, z) mm of the axis, parallel to x, about which the lower teeth turn under jawOpen on the mean
face.
"""
JAW_RANGE = (-0.1 * JAW_ANGLE, 1.05 * JAW_ANGLE)
LID_RANGE = (-np.radians(44), np.radians(44))
SATURATION = np.float32(16)
"""mm that stacked displacements approach but never pass."""
BLOCK = 16


@dataclass(frozen=True, eq=False)
class Hinge:
    """One expression shape as a turn about an axis parallel to x, plus what the turn leaves over.

    shape: number of the expression; vertices: (K,) that it turns; angles: (K,) radians at weight 1;
    center: (2,) its (y, z) mm on the mean face; center_modes: (100, 2) how identity moves it;
    rest: (V, 3) mm at weight 1 that the turn does not explain.
    """

    shape: int
    vertices: np.ndarray
    angles: np.ndarray
    center: np.ndarray
    center_modes: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True, eq=False)
class Individual:
    """A neutral face (V, 3) mm, its deformation gradients from the mean face (V, 3, 3), its hinges'
    centers (H, 2).
    """

    neutral: np.ndarray
    gradients: np.ndarray
    centers: np.ndarray


class FaceShapes:
    """Meshes of the first `n_vertices` of the model from identity and expression weights."""

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
            # A hinged shape leaves the linear stack; its remainder is added unsaturated, so that
            # weight 1 is exact.
            self.deltas[[hinge.shape for hinge in self.hinges]] = 0
            self.rests = np.stack([hinge.rest.ravel() for hinge in self.hinges])

    def individual(self, identity: np.ndarray) -> Individual:
        """The neutral face of identity weights (100,) in standard deviations."""
        offset = (identity.astype(np.float32) @ self.modes).reshape(-1, 3)
        neutral = self.neutral + offset
        if self.linear:
            return Individual(neutral, np.zeros((0, 3, 3), np.float32), np.zeros((0, 2)))
        centers = np.stack([hinge.center + identity @ hinge.center_modes for hinge in self.hinges])
        return Individual(neutral, self.transfer.gradients(neutral), centers)

    def express(self, person: Individual, weights: np.ndarray) -> np.ndarray:
        """(B, V, 3) float32 mm: one individual with expression weights (B, 53) in 0..1."""
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
    """Deformation gradients from a mean face to other faces, as fixed sparse products (prepared
    once per topology).

    At each vertex the gradient is the least-squares 3x3 matrix that maps the mean face's two-ring
    edges, and its normal, onto the other face's; gradients are then averaged over neighbors three
    times.
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
        # Where vertices lie on one line, or alone, the gradient stays near the identity rather than
        # undefined.
        gram += 1e-6 * scale[:, None, None] * np.eye(3)
        inverse = np.linalg.inv(gram)
        share = np.einsum("eij,ej->ei", inverse[row], edge)
        shape = (count, count)
        self.edges = tuple(_differences(row, col, share[:, axis], shape) for axis in range(3))
        self.normal_share = scale[:, None] * np.einsum("vij,vj->vi", inverse, normals)
        self.slack = 1e-6 * scale[:, None, None] * inverse

    def gradients(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3, 3) float32 gradients towards the face (V, 3)."""
        points = vertices.astype(np.float64)
        normals = vertex_normals(points, self.triangles)
        gradient = np.stack([edges @ points for edges in self.edges], axis=-1)
        gradient += normals[:, :, None] * self.normal_share[:, None, :] + self.slack
        flat = gradient.reshape(len(points), 9)
        for _ in range(3):
            flat = self.average @ flat
        return flat.reshape(-1, 3, 3).astype(np.float32)


def fit_hinges(model: IctModel, n_vertices: int, average: sp.csr_matrix) -> tuple[Hinge, ...]:
    """The jaw and the two lids, each fitted to the artist's shape on the mean face."""
    points = model.neutral[:HEAD].astype(np.float64)
    # Skin over the two jaw joints stands in for the joints, which the model does not have.
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
    """(3,) center of the least-squares sphere through points (N, 3)."""
    middle = points.mean(axis=0)
    local = points - middle
    system = np.concatenate([2 * local, np.ones((len(local), 1))], axis=1)
    return middle + np.linalg.lstsq(system, (local**2).sum(axis=1), rcond=None)[0][:3]


def _turn(arm: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(..., K, 2) how far arms (K, 2) in (y, z) move when turned by angles (..., K) about +x;
    exactly zero at zero.
    """
    less, sine = np.cos(angles) - 1, np.sin(angles)
    y, z = arm[:, 0], arm[:, 1]
    return np.stack([less * y - sine * z, sine * y + less * z], axis=-1)


def _transferred(gradients: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """(B, V, 3) displacements carried over by gradients (V, 3, 3)."""
    carried = moved[..., :1] * gradients[..., 0]
    carried += moved[..., 1:2] * gradients[..., 1]
    carried += moved[..., 2:] * gradients[..., 2]
    return carried


def _saturated(moved: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("bvi,bvi->bv", moved, moved)) / SATURATION
    factor = np.ones_like(length)
    np.divide(np.tanh(length), length, out=factor, where=length > 1e-6)
    return moved * factor[..., None]


def _differences(
    row: np.ndarray, col: np.ndarray, share: np.ndarray, shape: tuple[int, int]
) -> sp.csr_matrix:
    """The matrix that sums share * (x[col] - x[row]) for each row."""
    matrix = sp.csr_matrix((share, (row, col)), shape=shape)
    return sp.csr_matrix(matrix - sp.diags(np.bincount(row, weights=share, minlength=shape[0])))
