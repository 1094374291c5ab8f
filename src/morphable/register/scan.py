"""register_scan: bring one scan onto a template: a pose, then a shape, then the rest.

With a model as the prior, its shape is fitted to the scan first (`morphable.fitting`), then let go.
Without one, the pose of the template comes from landmarks or from a search over rotations. In both
cases non-rigid iterated closest points do the rest (`morphable.mesh.nonrigid`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from morphable.fitting.fit import fit
from morphable.fitting.start import Reference, first_poses, refine_start
from morphable.mesh.align import Similarity, after, inverse, procrustes
from morphable.mesh.landmarks import Landmarks
from morphable.mesh.nonrigid import LET_GO, STIFFNESS, Target, deform, match_target
from morphable.mesh.placement import align_shape
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel
from morphable.register.card import NEAR, Card, judge

ALIGNED_BY_MODEL = "model fitted, then deformed (non-rigid)"
ALIGNED_BY_LANDMARKS = "template placed by landmarks, then deformed (non-rigid)"
ALIGNED_BY_SEARCH = "template placed by a search of poses, then deformed (non-rigid)"


@dataclass(frozen=True, eq=False)
class Registration:
    """A scan in correspondence with a template.

    vertices: (V, 3) float32 mm in the frame of the template or the prior. map: what brings the scan
    there. distance: (V,) mm in that frame from each vertex to the scan, nan where the scan shows
    nothing. card: what it is worth.
    """

    vertices: np.ndarray
    map: Similarity
    distance: np.ndarray
    card: Card

    @property
    def placed(self) -> np.ndarray:
        """(V, 3) float32 mm, the mesh where the scan lies."""
        return inverse(self.map).apply(self.vertices)


def register_scan(
    template: Template,
    target: Target,
    *,
    prior: MorphableModel | None = None,
    landmarks: Landmarks | None = None,
    pose: Literal["rigid", "similarity"] = "similarity",
) -> Registration:
    """Register a scan that lies anywhere.

    prior: a model of the template's topology. landmarks: of the scan, where it lies; three or more
    make the search of the pose unnecessary. pose: rigid keeps the scan's size, similarity brings it
    to the template's.

    Raises InputError if the prior shows nothing of the scan.
    """
    seen = landmarks or Landmarks.none()
    seen.check(template.n_vertices)
    schedule: tuple[float, ...]
    if prior is not None:
        found = fit(prior, target.scan, landmarks=landmarks, pose=pose)
        start, schedule, how = np.asarray(found.vertices[0]), LET_GO, ALIGNED_BY_MODEL
        rotation, translation, scale = found.map.rotation, found.map.translation, found.map.scale
        map = Similarity(rotation[0], translation[0], scale[0])
    else:
        start, schedule = np.asarray(template.mesh.vertices), STIFFNESS
        how = ALIGNED_BY_LANDMARKS if len(seen.vertices) >= 3 else ALIGNED_BY_SEARCH
        map = _template_pose(template, target, seen, scale=pose == "similarity")
    moved = Target(target.scan.moved(map), target.triangles, target.on_border)
    there = Landmarks(seen.vertices, map.apply(seen.positions))
    mesh, triangles = template.mesh, template.mesh.triangles
    vertices = deform(start, mesh.faces, triangles, moved, schedule, there)
    card = judge(template, start, vertices, moved, float(map.scale), how)
    matched = match_target(moved, vertices, triangles)
    size = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    covered = matched.usable & (matched.distance < NEAR * size)
    distance = np.where(covered, matched.distance, np.nan)
    # The shape has changed since the pose was found.
    settle = align_shape(vertices, np.asarray(start, np.float64), scale=pose == "similarity")
    return Registration(
        settle.apply(vertices).astype(np.float32), after(settle, map), distance, card
    )


def _template_pose(
    template: Template, target: Target, landmarks: Landmarks, *, scale: bool
) -> Similarity:
    vertices = np.asarray(template.mesh.vertices, np.float64)
    rigid = np.zeros((len(vertices), 3, 0))
    reference = Reference.of(vertices, template.mesh.triangles, rigid)
    if len(landmarks.vertices) >= 3:
        rough = procrustes(landmarks.positions, vertices[landmarks.vertices], scale=scale)
        return refine_start(target.scan, reference, rough, scale=scale).map
    return first_poses(target.scan, reference, 1, scale=scale)[0].map
