"""Read mesh files that must fit a template, and write shapes with the template's faces and texture
coordinates.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from morphable.data.face_match import FaceMatch, match_faces
from morphable.errors import InputError
from morphable.mesh.io import Morphs, read_mesh, read_vertices, write_mesh
from morphable.mesh.scan import Scan
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters, unit_of

PLAUSIBLE_RATIO = 8.0
"""A mesh that is this many times larger or smaller than the template must be in another unit."""


class Registered(NamedTuple):
    """A mesh in correspondence with a template.

    vertices: (V, 3) float32 mm, y up. note: how its faces differ from the template's, although they
    are the same surface; "" if they do not.
    """

    vertices: np.ndarray
    note: str


def read_registered(
    path: Path, template: Template, unit: str | None = None, y_up: bool = True
) -> np.ndarray:
    """Read a mesh file in correspondence with the template: (V, 3) float32 mm, y up.

    Raises InputError and takes arguments as `registered` does. Warns if the faces differ in order
    or winding.
    """
    vertices, note = registered(path, template, unit, y_up)
    if note:
        warnings.warn(f"{path}: {note}; accepted", stacklevel=2)
    return vertices


def registered(
    path: Path,
    template: Template,
    unit: str | None = None,
    y_up: bool = True,
    check_faces: bool = True,
    mesh_name: str | None = None,
) -> Registered:
    """Read a mesh file in correspondence with the template.

    unit: the unit of the file; None: mm, or m for glTF. y_up: whether the file has y up; otherwise
    it has z up. check_faces: if False, any faces are accepted, and the template's are used.
    mesh_name: the mesh to read of a glTF file that holds several.

    Raises InputError, naming the file, if the vertex count or the faces differ, a coordinate is not
    finite, or the size shows that the unit is another one.
    """
    unit = unit_of(path, unit)
    mesh = read_mesh(path, mesh_name).mesh
    if len(mesh.vertices) != template.n_vertices:
        expected, got = template.n_vertices, len(mesh.vertices)
        raise InputError(
            f"{path}: expected {expected} vertices as in the template {template.name!r}, got {got}"
        )
    match = FaceMatch(True)
    if len(mesh.faces) and check_faces:
        match = match_faces(mesh.faces, template.mesh.faces)
    if not match.fits:
        raise InputError(f"{path}: {match.difference}")
    vertices = np.asarray(mesh.vertices, np.float64) * millimeters(unit)
    if not y_up:
        vertices = z_up_to_y_up(vertices)
    check_scale(vertices, template, str(path), unit)
    return Registered(vertices.astype(np.float32), match.difference)


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


def read_scan(path: Path, template: Template, unit: str | None = None) -> Scan:
    """Read a mesh file as a scan: its vertices in any number and order, with normals if it has
    faces.

    unit: the unit of the file; None: mm, or m for glTF. Raises InputError as `read_points`.
    """
    unit = unit_of(path, unit)
    mesh = read_mesh(path).mesh
    points = np.asarray(mesh.vertices, np.float64) * millimeters(unit)
    check_scale(points, template, str(path), unit)
    try:
        return Scan.of_mesh(points, mesh.faces)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_scale(
    vertices: np.ndarray,
    template: Template,
    name: str,
    unit: str,
    reference: np.ndarray | None = None,
) -> None:
    """Raise InputError if the size of vertices (V, 3) mm is implausible for the template.

    name: what the error calls the mesh. unit: the unit that it was read in. reference: (K, 3) mm
    the part of the template that is shown; None: the whole.
    """
    size = np.linalg.norm(np.ptp(vertices, axis=0))
    shown = template.mesh.vertices if reference is None else reference
    expected = np.linalg.norm(np.ptp(shown, axis=0))
    if not expected / PLAUSIBLE_RATIO < size < expected * PLAUSIBLE_RATIO:
        raise InputError(
            f"{name}: is {size:.3g} mm across when read in {unit}, the template {template.name!r} is "
            f"{expected:.3g} mm across{_times(float(size), float(expected))}; is the unit right?"
        )


def _times(size: float, expected: float) -> str:
    """How many times too large or too small a size is; a power of ten if it is near to one."""
    if not size or not expected:
        return ""
    ratio = max(size / expected, expected / size)
    power = 10.0 ** round(float(np.log10(ratio)))
    ratio = power if abs(np.log10(ratio / power)) < 0.2 else ratio
    return f", about {ratio:,.0f} times {'less' if size > expected else 'more'}"


def z_up_to_y_up(vertices: np.ndarray) -> np.ndarray:
    """Turn right-handed points (..., 3) from z up to y up."""
    return np.stack([vertices[..., 0], vertices[..., 2], -vertices[..., 1]], -1)


def write_shape(
    path: Path,
    vertices: np.ndarray,
    template: Template,
    unit: str | None = None,
    morphs: Morphs | None = None,
) -> None:
    """Write one shape (V, 3) mm in the format that the suffix names, with the template's faces, and
    its texture coordinates if the format can hold them.

    unit: the unit of the file; None: mm, or m for glTF. morphs: morph targets in mm, for glTF only.
    """
    mesh = template.mesh.moved(np.asarray(vertices))
    write_mesh(path, mesh, template.uv, template.uv_faces, unit=unit, morphs=morphs)
