"""Write glTF 2.0 (.glb, .gltf), triangles only, in exact vertex order."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from morphable.errors import InputError
from morphable.files import atomic_path
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import vertex_normals

_FLOAT, _UINT32 = 5126, 5125  # component types of the glTF specification
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963  # buffer targets of the specification


def write_gltf(path: Path, mesh: Mesh) -> None:
    """Write float32 positions, smooth normals and triangles; larger polygons are split. A .gltf
    file holds its data inline.

    Raises InputError if there is no triangle, because the format cannot express that.
    """
    triangles = mesh.triangles
    if len(triangles) == 0:
        raise InputError(f"{path}: glTF needs at least one triangle, the mesh has none")
    positions = mesh.vertices.astype("<f4")
    normals = vertex_normals(np.asarray(mesh.vertices, np.float64), triangles).astype("<f4")
    # The format requires unit length, also of the normals at vertices without a face.
    normals[~normals.any(axis=1)] = (0, 0, 1)
    blocks = [positions.tobytes(), normals.tobytes(), triangles.astype("<u4").tobytes()]
    document = _document(positions, triangles.size, [len(block) for block in blocks])
    data = b"".join(blocks)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gltf":
            document["buffers"][0]["uri"] = (
                "data:application/octet-stream;base64," + base64.b64encode(data).decode()
            )
            temporary.write_text(json.dumps(document))
        else:
            temporary.write_bytes(_glb(json.dumps(document).encode(), data))


def _document(positions: np.ndarray, n_corners: int, sizes: list[int]) -> dict[str, Any]:
    starts = np.cumsum([0, *sizes]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": size, "target": target}
        for start, size, target in zip(
            starts, sizes, (_VERTEX_BUFFER, _VERTEX_BUFFER, _INDEX_BUFFER), strict=False
        )
    ]
    count = len(positions)
    box = {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    return {
        "asset": {"version": "2.0", "generator": "morphable"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": _FLOAT, "count": count, "type": "VEC3", **box},
            {"bufferView": 1, "componentType": _FLOAT, "count": count, "type": "VEC3"},
            {"bufferView": 2, "componentType": _UINT32, "count": n_corners, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }


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
