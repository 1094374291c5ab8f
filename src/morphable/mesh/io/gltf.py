"""Write glTF 2.0 (.glb, .gltf): triangles only, with the vertices in exact order."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphable.errors import InputError
from morphable.files import atomic_path
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import triangulate, vertex_normals

ORIGINAL = "_MORPHABLE_VERTEX"
"""The attribute that says which vertex of the mesh each vertex of the file is.

A vertex of glTF has one texture coordinate, so those on a seam are written several times. Readers
that do not know the attribute ignore it, and some programs keep it when they save the mesh.
"""
_FLOAT, _UINT32 = 5126, 5125  # component types of the glTF specification
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963  # buffer targets of the specification


@dataclass(frozen=True, eq=False)
class _Split:
    """A mesh whose vertices have one texture coordinate each.

    original: (W,) vertex of the mesh that each one is; the first V are 0..V-1. uv: (W, 2) or None.
    faces: (F, K).
    """

    original: np.ndarray
    uv: np.ndarray | None
    faces: np.ndarray


def write_gltf(
    path: Path, mesh: Mesh, uv: np.ndarray | None = None, uv_faces: np.ndarray | None = None
) -> None:
    """Write float32 positions, smooth normals, texture coordinates if given, and triangles; larger
    polygons are split. Vertices on a texture seam are repeated behind all others. A .gltf file
    holds its data inline.

    Raises InputError if there is no triangle, because the format cannot express that.
    """
    if not len(mesh.faces):
        raise InputError(f"{path}: glTF needs at least one triangle, the mesh has none")
    split = _split_seams(mesh, uv, uv_faces)
    positions = mesh.vertices[split.original]
    normals = vertex_normals(np.asarray(mesh.vertices, np.float64), mesh.triangles)
    # The format requires unit length, also of the normals at vertices without a face.
    normals[~normals.any(axis=1)] = (0, 0, 1)
    attributes = {"POSITION": positions, "NORMAL": normals[split.original]}
    if split.uv is not None:
        attributes["TEXCOORD_0"] = split.uv
        attributes[ORIGINAL] = split.original
    document, data = _document(attributes, triangulate(split.faces, positions))
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gltf":
            document["buffers"][0]["uri"] = (
                "data:application/octet-stream;base64," + base64.b64encode(data).decode()
            )
            temporary.write_text(json.dumps(document))
        else:
            temporary.write_bytes(_glb(json.dumps(document).encode(), data))


def _split_seams(mesh: Mesh, uv: np.ndarray | None, uv_faces: np.ndarray | None) -> _Split:
    count = len(mesh.vertices)
    if uv is None or uv_faces is None:
        return _Split(np.arange(count), None, mesh.faces)
    real = mesh.faces >= 0
    pairs, corners = np.unique(
        np.stack([mesh.faces[real], uv_faces[real]], axis=1), axis=0, return_inverse=True
    )
    vertex, coordinate = pairs.T
    repeated = np.append(False, vertex[1:] == vertex[:-1])  # pairs are sorted by vertex
    place = np.where(repeated, count + np.cumsum(repeated) - 1, vertex)
    original = np.append(np.arange(count), vertex[repeated])
    placed = np.zeros((len(original), 2))
    placed[place] = uv[coordinate] * (1, -1) + (0, 1)  # glTF counts v from the top
    faces = np.full_like(mesh.faces, -1)
    faces[real] = place[corners.ravel()]
    return _Split(original, placed, faces)


def _document(
    attributes: dict[str, np.ndarray], triangles: np.ndarray
) -> tuple[dict[str, Any], bytes]:
    """The JSON document and its buffer: attributes (W,) or (W, k), then triangles (T, 3)."""
    arrays = [values.astype("<f4") for values in attributes.values()]
    blocks = [*(array.tobytes() for array in arrays), triangles.astype("<u4").tobytes()]
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(block), "target": _VERTEX_BUFFER}
        for start, block in zip(starts, blocks, strict=False)
    ]
    views[-1]["target"] = _INDEX_BUFFER
    kinds = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}
    accessors: list[dict[str, Any]] = [
        {
            "bufferView": view,
            "componentType": _FLOAT,
            "count": len(array),
            "type": kinds[array[0].size],
        }
        for view, array in enumerate(arrays)
    ]
    positions, indices = arrays[0], len(arrays)
    accessors[0] |= {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    accessors.append(
        {
            "bufferView": indices,
            "componentType": _UINT32,
            "count": triangles.size,
            "type": "SCALAR",
        }
    )
    primitive = {
        "attributes": {name: number for number, name in enumerate(attributes)},
        "indices": indices,
        "material": 0,
    }
    document = {
        "asset": {"version": "2.0", "generator": "morphable"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        # Without a material, viewers show polished metal.
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
    return document, b"".join(blocks)


def _glb(text: bytes, data: bytes) -> bytes:
    """The binary container: a header, the JSON chunk padded with spaces to a multiple of four
    bytes, and the data chunk.
    """
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(data), b"BIN\0")
        + data
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
