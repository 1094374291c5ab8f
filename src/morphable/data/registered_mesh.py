"""Read mesh files that must fit a template, and write shapes with the template's faces and texture
coordinates.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.mesh.io import read_mesh, read_vertices, write_mesh
from morphable.mesh.template import Template
from morphable.mesh.topology import half_edges
from morphable.mesh.units import millimeters, unit_of

PLAUSIBLE_RATIO = 8.0
"""A mesh that is this many times larger or smaller than the template must be in another unit."""


def read_registered(
    path: Path, template: Template, unit: str | None = None, y_up: bool = True
) -> np.ndarray:
    """Read a mesh file in correspondence with the template: (V, 3) float32 mm, y up.

    unit: the unit of the file; None: mm, or m for glTF. y_up: whether the file has y up; otherwise it has z up.

    Raises InputError, naming the file, if the vertex count or the faces differ, a coordinate is not
    finite, or the size shows that the unit is another one.
    """
    unit = unit_of(path, unit)
    mesh = read_mesh(path).mesh
    if len(mesh.vertices) != template.n_vertices:
        expected, got = template.n_vertices, len(mesh.vertices)
        raise InputError(
            f"{path}: expected {expected} vertices as in the template {template.name!r}, got {got}"
        )
    if len(mesh.faces) and not same_faces(mesh.faces, template):
        raise InputError(
            f"{path}: its faces are not the template's; vertices were reordered, merged or "
            "re-exported"
        )
    vertices = np.asarray(mesh.vertices, np.float64) * millimeters(unit)
    if not y_up:
        vertices = z_up_to_y_up(vertices)
    check_scale(vertices, template, str(path), unit)
    return vertices.astype(np.float32)


def read_points(path: Path, template: Template, unit: str | None = None) -> np.ndarray:
    """Read the vertices of any mesh file as a point cloud (P, 3) float32 mm, in any number and
    order.

    unit: the unit of the file; None: mm, or m for glTF.

    Raises InputError, naming the file, if a coordinate is not finite or the size shows that the
    unit is another one.
    """
    unit = unit_of(path, unit)
    points = np.asarray(read_vertices(path), np.float64) * millimeters(unit)
    if not np.isfinite(points).all():
        raise InputError(f"{path}: has a coordinate that is not finite")
    check_scale(points, template, str(path), unit)
    return points.astype(np.float32)


def same_faces(faces: np.ndarray, template: Template) -> bool:
    """Whether faces are the template's, or its polygons split into triangles in any way, because
    formats such as GLB hold triangles only.
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
    """Raise InputError if the size of vertices (V, 3) mm is implausible for the template.

    name: what the error calls the mesh. unit: the unit that it was read in.
    """
    size = np.linalg.norm(np.ptp(vertices, axis=0))
    expected = np.linalg.norm(np.ptp(template.mesh.vertices, axis=0))
    if not expected / PLAUSIBLE_RATIO < size < expected * PLAUSIBLE_RATIO:
        raise InputError(
            f"{name}: is {size:.3g} mm across when read in {unit}, the template is "
            f"{expected:.3g} mm across; is the unit right?"
        )


def z_up_to_y_up(vertices: np.ndarray) -> np.ndarray:
    """Turn right-handed points (..., 3) from z up to y up."""
    return np.stack([vertices[..., 0], vertices[..., 2], -vertices[..., 1]], -1)


def write_shape(
    path: Path, vertices: np.ndarray, template: Template, unit: str | None = None
) -> None:
    """Write one shape (V, 3) mm in the format that the suffix names, with the template's faces, and
    its texture coordinates if the format can hold them.

    unit: the unit of the file; None: mm, or m for glTF.
    """
    mesh = template.mesh.moved(np.asarray(vertices))
    write_mesh(path, mesh, template.uv, template.uv_faces, unit=unit)
