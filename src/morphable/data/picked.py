"""Read what a user knows of a target beside its mesh: landmarks as vertices of a template, and the
vertices that are to be trusted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from morphable.data.registered_mesh import check_scale
from morphable.errors import InputError
from morphable.files import map_npy, read_json
from morphable.mesh.io.landmarks import PickedPoints, read_landmarks
from morphable.mesh.io.meshfile import read_bytes, to_numbers
from morphable.mesh.landmarks import Landmarks
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters

NEAR = 0.1
"""A point picked on the template is at most this share of the template's size from a vertex."""
MASK_FORMATS = ".npy (V,) bool or vertex numbers, .json list of vertex numbers, .txt vertex numbers"


def landmarks_of(
    path: Path, template: Template, unit: str | None = None, on_template: Path | None = None
) -> Landmarks:
    """Read a landmark file as vertices of a template, with positions in mm.

    unit: of both files; None: mm. on_template: a landmark file with the same names, picked on the
    template. Without it, the file gives vertex numbers, or the template's own landmarks in order.

    Raises InputError, naming the file, if it does not tell the vertices, one does not exist, or the
    size shows that the unit is another one.
    """
    unit = unit or "mm"
    points = read_landmarks(path)
    positions = points.positions * millimeters(unit)
    if points.are_vertices:
        vertices = np.array([int(name) for name in points.names])
    elif on_template is not None:
        vertices = _picked_on(template, on_template, points, path, millimeters(unit))
    elif len(points.names) == len(template.landmarks):
        vertices = template.landmarks
    else:
        own = f"its {len(template.landmarks)} landmarks" if len(template.landmarks) else "any"
        raise InputError(
            f"{path}: names {len(points.names)} points, but not which vertices of the template "
            f"{template.name!r} they are ({own} would be taken in order); add a column `vertex`, "
            "or points of the same names picked on the template (`template_landmarks`)",
            "template_landmarks",
        )
    try:
        found = Landmarks(vertices, positions)
        found.check(template.n_vertices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if len(vertices) >= 3:
        _check_spread(found, template, str(path), unit)
    return found


def _picked_on(
    template: Template, path: Path, points: PickedPoints, target: Path, size: float
) -> np.ndarray:
    """The vertices of the template that are nearest to the points of the same names."""
    picked = read_landmarks(path)
    known = dict(zip(picked.names, picked.positions * size, strict=True))
    missing = [name for name in points.names if name not in known]
    if missing:
        raise InputError(f"{target}: {path} has no point {missing[0]!r}")
    vertices = np.asarray(template.mesh.vertices, np.float64)
    places = np.stack([known[name] for name in points.names])
    distance, row = cKDTree(vertices).query(places)
    limit = NEAR * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    if distance.max() > limit:
        worst = points.names[int(distance.argmax())]
        raise InputError(
            f"{path}: the point {worst!r} is {distance.max():.3g} mm from the template "
            f"{template.name!r}; was it picked on another one, or is the unit wrong?"
        )
    return np.asarray(row)


def _check_spread(found: Landmarks, template: Template, name: str, unit: str) -> None:
    """Raise InputError if landmarks (K, 3) mm are implausibly far apart for their vertices."""
    own = np.asarray(template.mesh.vertices)[found.vertices]
    check_scale(found.positions, template, name, unit, reference=own)


def read_mask(path: Path, n_vertices: int) -> np.ndarray:
    """Read the known vertices (V,) bool from a file in one of the MASK_FORMATS.

    Raises InputError, naming the file, if it does not fit the template or knows no vertex.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = np.array(map_npy(path))
    elif suffix == ".json":
        values = np.array(read_json(path))
    elif suffix in (".txt", ".csv"):
        values = to_numbers(path, "a vertex", read_bytes(path).replace(b",", b" ").split(), int)
    else:
        raise InputError(f"{path}: a mask is read from {MASK_FORMATS}")
    if values.dtype == bool and values.shape == (n_vertices,):
        mask = values
    elif values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
        wrong = values[(values < 0) | (values >= n_vertices)]
        if len(wrong):
            raise InputError(
                f"{path}: there is no vertex {wrong[0]}, the template has {n_vertices:,}"
            )
        mask = np.zeros(n_vertices, bool)
        mask[values] = True
    else:
        raise InputError(
            f"{path}: expected ({n_vertices},) bool or a list of vertex numbers, got "
            f"{values.dtype} {values.shape}"
        )
    if not mask.any():
        raise InputError(f"{path}: knows no vertex")
    return mask
