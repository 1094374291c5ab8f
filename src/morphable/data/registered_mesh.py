"""Registered meshes as files: reading one that must fit a template, and writing shapes back with
its faces and uv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.mesh.io import read_mesh, read_vertices, write_mesh
from morphable.mesh.template import Template
from morphable.mesh.topology import half_edges

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimeters in one unit."""
PLAUSIBLE_RATIO = 8.0
"""A mesh this many times larger or smaller than the template came in another unit."""


def millimeters(unit: str) -> float:
    if unit not in UNITS:
        raise InputError(f"`unit` {unit}: expected one of {', '.join(UNITS)}", "unit")
    return UNITS[unit]


def read_registered(
    path: Path, template: Template, unit: str = "mm", y_up: bool = True
) -> np.ndarray:
    """(V, 3) float32 mm of a mesh file in correspondence with the template.

    Raises InputError, naming the file, where the vertex count or the faces differ, where a
    coordinate is not finite, or where the size tells that the unit is another one.
    """
    mesh = read_mesh(path).mesh
    if len(mesh.vertices) != template.n_vertices:
        expected, found = template.n_vertices, len(mesh.vertices)
        raise InputError(
            f"{path}: expected {expected} vertices as in the template {template.name!r}, got {found}"
        )
    if len(mesh.faces) and not same_faces(mesh.faces, template):
        raise InputError(
            f"{path}: its faces are not the template's; vertices were reordered, merged or re-exported"
        )
    vertices = np.asarray(mesh.vertices, np.float64) * millimeters(unit)
    if not y_up:
        vertices = z_up_to_y_up(vertices)
    check_scale(vertices, template, str(path), unit)
    return vertices.astype(np.float32)


def read_points(path: Path, template: Template, unit: str = "mm") -> np.ndarray:
    """(P, 3) float32 mm: the vertices of any mesh file, in any number and order, for models that
    read clouds.

    Raises InputError, naming the file, where a coordinate is not finite or the size tells that the
    unit is another one.
    """
    points = np.asarray(read_vertices(path), np.float64) * millimeters(unit)
    if not np.isfinite(points).all():
        raise InputError(f"{path}: has a coordinate that is not finite")
    check_scale(points, template, str(path), unit)
    return points.astype(np.float32)


def same_faces(faces: np.ndarray, template: Template) -> bool:
    """Whether faces are the template's, or its polygons split into triangles in any way (GLB holds
    triangles only).
    """
    own = template.mesh.faces
    if np.array_equal(faces, own):
        return True
    corners = (own >= 0).sum(axis=1)
    if own.shape[1] == 3 or faces.shape[1] != 3 or len(faces) != (corners - 2).sum():
        return False
    # Triangles fill a polygon if each of its sides, and no other edge, belongs to one of them only.
    triangles = _outlines(half_edges(faces), np.repeat(np.arange(len(own)), 3 * (corners - 2)))
    return np.array_equal(
        triangles, _outlines(half_edges(own), np.repeat(np.arange(len(own)), corners))
    )


def _outlines(sides: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(S, 3) the number of a polygon and the two ends of a side, sorted, for the sides (H, 2) that
    the polygon `owner` (H,) has only once.
    """
    rows = np.column_stack([owner, np.sort(sides, axis=1)])
    unique, count = np.unique(rows, axis=0, return_counts=True)
    return unique[count == 1]


def check_scale(vertices: np.ndarray, template: Template, name: str, unit: str) -> None:
    size = np.linalg.norm(np.ptp(vertices, axis=0))
    expected = np.linalg.norm(np.ptp(template.mesh.vertices, axis=0))
    if not expected / PLAUSIBLE_RATIO < size < expected * PLAUSIBLE_RATIO:
        raise InputError(
            f"{name}: is {size:.3g} mm across when read in {unit}, the template is {expected:.3g} mm across; "
            "is the unit right?"
        )


def z_up_to_y_up(vertices: np.ndarray) -> np.ndarray:
    """(..., 3) right-handed, z up -> right-handed, y up."""
    return np.stack([vertices[..., 0], vertices[..., 2], -vertices[..., 1]], -1)


def write_shape(path: Path, vertices: np.ndarray, template: Template) -> None:
    """Write one shape (V, 3) mm in the format of the suffix, with the template's faces, and its uv
    where they fit.
    """
    write_mesh(path, template.mesh.moved(np.asarray(vertices)), template.uv, template.uv_faces)
