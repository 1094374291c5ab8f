"""Read VRML 2.0 files (.wrl): the points and polygons of the first indexed face set, as the scans and
registered meshes of BU-3DFE are stored.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.mesh.io.meshfile import (
    MeshFile,
    checked_vertices,
    pack_faces,
    read_bytes,
    to_numbers,
)
from morphable.mesh.mesh import Mesh

_COMMENT = re.compile(rb"#[^\n]*")


def read_wrl(path: Path) -> MeshFile:
    """Read the first `point` list and the first `coordIndex` list. Transforms, colors and textures
    are ignored.

    Raises InputError if the file is no VRML or damaged.
    """
    data = read_bytes(path)
    if not data.lstrip().startswith(b"#VRML"):
        raise InputError(f"{path}: not a VRML file, it does not start with #VRML")
    data = _COMMENT.sub(b"", data)
    numbers = to_numbers(path, "a coordinate", _words(path, data, b"point"), float)
    if len(numbers) % 3:
        raise InputError(f"{path}: its points have {len(numbers)} numbers, no multiple of 3")
    points = checked_vertices(path, numbers.reshape(-1, 3))
    if b"coordIndex" not in data:
        return MeshFile(Mesh(points, np.zeros((0, 3), np.int64)))
    corners = to_numbers(path, "a corner", _words(path, data, b"coordIndex"), int)
    if len(corners) and corners[-1] != -1:
        corners = np.append(corners, -1)
    ends = np.flatnonzero(corners == -1)
    counts = np.diff(ends, prepend=-1) - 1
    faces = pack_faces(path, corners[corners != -1], counts, len(points))
    return MeshFile(Mesh(points, faces))


def _words(path: Path, data: bytes, name: bytes) -> list[bytes]:
    """The words of the first list `name [ ... ]`."""
    match = re.search(rb"\b" + name + rb"\s*\[([^\]]*)(\])?", data)
    if match is None or match[2] is None:
        raise InputError(f"{path}: has no complete list {name.decode()!r}, it may be truncated")
    return match[1].replace(b",", b" ").split()
