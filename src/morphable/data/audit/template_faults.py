"""Faults of the template: its faces and its regions."""

from __future__ import annotations

import numpy as np

from morphable.data.audit.finding import Finding
from morphable.data.audit.usual import face_normals
from morphable.mesh.template import Template
from morphable.mesh.topology import boundary_edges, inconsistent_edges, nonmanifold_edges

DEGENERATE = 1e-6
"""A face of the template is degenerate if its area is below this share of the median."""


def template_faults(template: Template) -> list[Finding]:
    """Non-manifold edges, unused vertices, faces without area, inconsistent or inward orientation."""
    faces, vertices = template.mesh.faces, np.asarray(template.mesh.vertices, np.float64)
    texts = []
    nonmanifold = len(nonmanifold_edges(faces))
    if nonmanifold:
        texts.append(f"the template has {nonmanifold} non-manifold edges")
    unused = template.n_vertices - len(np.unique(faces[faces >= 0]))
    if unused:
        texts.append(f"{unused} vertices of the template belong to no face")
    repeated = sum(len(np.unique(face[face >= 0])) < (face >= 0).sum() for face in faces)
    if repeated:
        texts.append(f"{repeated} faces of the template have a corner twice")
    twice = len(faces) - len(np.unique(np.sort(faces, axis=1), axis=0))
    if twice:
        texts.append(f"{twice} faces of the template occur twice")
    if not len(faces):
        return [Finding("template", text) for text in texts]
    triangles = template.mesh.triangles
    areas = face_normals(vertices, triangles)[1]
    flat = int((areas < DEGENERATE * np.median(areas)).sum())
    if flat:
        texts.append(f"{flat} triangles of the template have no area")
    turned = len(inconsistent_edges(faces))
    if turned:
        texts.append(
            f"the faces of the template are not oriented alike: {turned} edges have the same "
            "direction in two faces"
        )
    elif not len(boundary_edges(faces)) and _volume(vertices, triangles) < 0:
        texts.append("the faces of the template are turned inside out: its volume is negative")
    return [Finding("template", text) for text in texts]


def _volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (vertices[triangles[:, corner]] - vertices.mean(axis=0) for corner in range(3))
    return float(np.einsum("tx,tx->", a, np.cross(b, c)) / 6)
