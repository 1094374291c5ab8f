"""Read and write mesh files with exact vertex order: no vertex is merged, split, dropped or moved
to another place in the list.

Positions are returned as stored. Mesh files do not name their unit, except glTF, whose unit is the
meter; the caller converts to millimeters (`mesh/units.py`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.mesh.io.gltf import Morphs, in_sequence, write_gltf
from morphable.mesh.io.gltf_reader import read_gltf
from morphable.mesh.io.meshfile import MeshFile
from morphable.mesh.io.obj import read_obj, read_obj_vertices, write_obj
from morphable.mesh.io.off import read_off, write_off
from morphable.mesh.io.ply import read_ply, read_ply_vertices, write_ply
from morphable.mesh.io.stack import read_stack
from morphable.mesh.io.wrl import read_wrl
from morphable.mesh.mesh import Mesh
from morphable.mesh.units import millimeters, unit_of

__all__ = [
    "MESH_SUFFIXES",
    "READ_SUFFIXES",
    "MeshFile",
    "Morphs",
    "in_sequence",
    "read_mesh",
    "read_stack",
    "read_vertices",
    "write_mesh",
]

_READERS = {
    ".ply": read_ply,
    ".obj": read_obj,
    ".off": read_off,
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".wrl": read_wrl,
}
_WRITERS = {".ply": write_ply, ".obj": write_obj}
_VERTEX_READERS = {".ply": read_ply_vertices, ".obj": read_obj_vertices}

READ_SUFFIXES = tuple(_READERS)
MESH_SUFFIXES = tuple(suffix for suffix in _READERS if suffix != ".wrl")
"""Formats that can be written too."""


def read_mesh(path: Path | str, mesh: str | None = None) -> MeshFile:
    """Read a mesh file in the format that its suffix names.

    mesh: the name of the mesh to read of a glTF file that holds several.

    Raises InputError if the suffix is unknown, the file is missing or damaged, an index is out of
    range or a position is not finite.
    """
    path = Path(path)
    suffix = _suffix(path)
    if mesh is not None:
        if suffix not in (".glb", ".gltf"):
            raise InputError(f"{path}: `mesh` names a mesh of a glTF file, this is none", "mesh")
        return read_gltf(path, mesh)
    return _READERS[suffix](path)


def read_vertices(path: Path | str) -> np.ndarray:
    """Read only the positions (V, 3), as fast as the format allows. Use it for many files that are
    known to have the same faces.

    The rest of the file may remain unread and unchecked. Raises InputError as `read_mesh`.
    """
    path = Path(path)
    quick = _VERTEX_READERS.get(_suffix(path))
    return quick(path) if quick else read_mesh(path).mesh.vertices


def write_mesh(
    path: Path | str,
    mesh: Mesh,
    uv: np.ndarray | None = None,
    uv_faces: np.ndarray | None = None,
    *,
    unit: str | None = None,
    morphs: Morphs | None = None,
) -> None:
    """Write a mesh in float32 and atomically, in the format that the suffix names.

    uv, uv_faces: (U, 2) texture coordinates and, in the shape of the faces, their indices. OFF
    cannot hold them. PLY, OBJ and OFF keep quads and larger polygons; glTF gets them split into
    triangles, and its vertices on a texture seam repeated. unit: the unit of the file, mm, cm or m;
    None: mm, or m for glTF, which defines it. morphs: named morph targets in the unit of the mesh,
    mm, which only glTF can hold.

    Raises InputError if the suffix or the unit is unknown, the texture coordinates or the morph
    targets do not fit, or the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix not in MESH_SUFFIXES:
        raise InputError(
            f"{path}: {suffix} files can be read, but not written; choose one of "
            f"{' '.join(MESH_SUFFIXES)}"
        )
    _check_uv(mesh, uv, uv_faces)
    if morphs is not None and morphs.offsets.shape[1] != len(mesh.vertices):
        raise InputError(
            f"morph targets: expected offsets of {len(mesh.vertices)} vertices, got "
            f"{morphs.offsets.shape[1]}"
        )
    size = millimeters(unit_of(path, unit))
    if size != 1:
        mesh = mesh.moved(np.asarray(mesh.vertices, np.float64) / size)
        morphs = morphs.scaled(1 / size) if morphs else None
    if suffix in (".glb", ".gltf"):
        write_gltf(path, mesh, uv, uv_faces, morphs)
    elif morphs is not None:
        raise InputError(f"{path}: only .glb and .gltf files can hold morph targets")
    elif suffix == ".off":
        write_off(path, mesh)
    else:
        _WRITERS[suffix](path, mesh, uv, uv_faces)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".stl":
        raise InputError(
            f"{path}: STL stores loose triangles, so the vertex order is lost; use the original as "
            "PLY or OBJ"
        )
    if suffix not in _READERS:
        raise InputError(
            f"{path}: unknown mesh suffix {suffix!r}, expected one of {' '.join(READ_SUFFIXES)}"
        )
    return suffix


def _check_uv(mesh: Mesh, uv: np.ndarray | None, uv_faces: np.ndarray | None) -> None:
    if uv is None and uv_faces is None:
        return
    if uv is None or uv_faces is None:
        raise InputError("texture coordinates: uv and uv_faces must be given together")
    if uv.ndim != 2 or uv.shape[1] != 2:
        raise InputError(f"texture coordinates: expected uv of shape (U, 2), got {uv.shape}")
    if uv_faces.shape != mesh.faces.shape:
        raise InputError(
            f"texture coordinates: expected uv_faces of shape {mesh.faces.shape}, got "
            f"{uv_faces.shape}"
        )
    real = uv_faces[mesh.faces >= 0]
    if real.min(initial=0) < 0 or real.max(initial=-1) >= len(uv):
        raise InputError(f"texture coordinates: uv_faces must lie in 0..{len(uv) - 1}")
