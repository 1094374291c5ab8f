"""Write glTF 2.0 (.glb, .gltf): triangles only, with the vertices in exact order, and morph targets
with an animation.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
_FLOAT, _UINT32, _UINT16 = 5126, 5125, 5123  # component types of the glTF specification
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}  # names of the specification
_SPARSE_COST = 400
"""Bytes of JSON that a sparse accessor costs on top of a plain one."""
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


@dataclass(frozen=True, eq=False)
class Morphs:
    """Morph targets of a mesh (blend shapes, shape keys): a shape is the mesh plus
    the sum of weight times offset.

    names: (M,). offsets: (M, V, 3) in the unit of the mesh; a vertex that a target does not move
    has an offset of exactly zero, and is left out of the file if that makes it smaller. times: (T,)
    seconds, increasing, and weights: (T, M), an animation of the weights, which are interpolated
    linearly between the times; empty for none.

    Raises InputError if the sizes do not agree, or two targets have one name.
    """

    names: Sequence[str]
    offsets: np.ndarray
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.offsets.ndim != 3 or len(self.offsets) != count or self.offsets.shape[2] != 3:
            raise InputError(
                f"morph targets: expected offsets of shape ({count}, V, 3) for {count} names, got "
                f"{self.offsets.shape}"
            )
        repeated = [name for name in self.names if list(self.names).count(name) > 1]
        if repeated:
            raise InputError(f"morph targets: two have the name {repeated[0]!r}")
        if len(self.times) and self.weights.shape != (len(self.times), count):
            raise InputError(
                f"morph targets: expected weights of shape ({len(self.times)}, {count}), got "
                f"{self.weights.shape}"
            )

    def scaled(self, factor: float) -> Morphs:
        """The same targets in another unit."""
        return replace(self, offsets=np.asarray(self.offsets, np.float64) * factor)


def in_sequence(shapes: np.ndarray, seconds: float = 2.0) -> Morphs:
    """The morph targets of an animation that starts at the first of the shapes (S, V, 3) and passes
    through each of them in the given time, equally fast.

    >>> morphs = in_sequence(np.zeros((3, 5, 3)))
    >>> morphs.times.tolist(), morphs.weights.tolist()
    ([0.0, 1.0, 2.0], [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    """
    count = len(shapes) - 1
    names = [f"step {number}" for number in range(1, count + 1)]
    weights = np.eye(count + 1)[:, 1:]
    return Morphs(names, shapes[1:] - shapes[:1], np.linspace(0, seconds, count + 1), weights)


def write_gltf(
    path: Path,
    mesh: Mesh,
    uv: np.ndarray | None = None,
    uv_faces: np.ndarray | None = None,
    morphs: Morphs | None = None,
) -> None:
    """Write float32 positions, smooth normals, texture coordinates if given, and triangles; larger
    polygons are split. Vertices on a texture seam are repeated behind all others. A .gltf file
    holds its data inline.

    morphs: morph targets, in the unit of the mesh, with the change of the normals.

    Raises InputError if there is no triangle, because the format cannot express that.
    """
    if not len(mesh.faces):
        raise InputError(f"{path}: glTF needs at least one triangle, the mesh has none")
    split = _split_seams(mesh, uv, uv_faces)
    positions = mesh.vertices[split.original]
    normals = _normals(mesh)
    data = _Data()
    attributes = {
        "POSITION": data.add(positions, _VERTEX_BUFFER, bounded=True),
        "NORMAL": data.add(normals[split.original], _VERTEX_BUFFER),
    }
    if split.uv is not None:
        attributes["TEXCOORD_0"] = data.add(split.uv, _VERTEX_BUFFER)
        attributes[ORIGINAL] = data.add(split.original.astype(float), _VERTEX_BUFFER)
    corners = triangulate(split.faces, positions).ravel()
    document = _document(attributes, data.add(corners, _INDEX_BUFFER))
    if morphs is not None and len(morphs.names):
        _add_morphs(document, data, mesh, morphs, split.original)
    document |= {"accessors": data.accessors, "bufferViews": data.views}
    document["buffers"] = [{"byteLength": len(data.bytes)}]
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gltf":
            document["buffers"][0]["uri"] = (
                "data:application/octet-stream;base64," + base64.b64encode(data.bytes).decode()
            )
            temporary.write_text(json.dumps(document))
        else:
            temporary.write_bytes(_glb(json.dumps(document).encode(), bytes(data.bytes)))


def _normals(mesh: Mesh) -> np.ndarray:
    """(V, 3) unit normals. The format requires unit length, also at vertices without a face."""
    normals = vertex_normals(np.asarray(mesh.vertices, np.float64), mesh.triangles)
    normals[~normals.any(axis=1)] = (0, 0, 1)
    return normals


def _add_morphs(
    document: dict[str, Any], data: _Data, mesh: Mesh, morphs: Morphs, original: np.ndarray
) -> None:
    """Add the targets, their names and their animation to the only mesh of a document.

    original: (W,) the vertex of the mesh that each vertex of the file is.
    """
    # Triangles of the mesh itself: a quad that a target bends must not be split the other way.
    rest = Mesh(mesh.vertices, mesh.triangles)
    normals, targets = _normals(rest), []
    for offset in np.asarray(morphs.offsets, np.float64):
        turned = _normals(rest.moved(rest.vertices + offset)) - normals
        targets.append(
            {
                "POSITION": data.add_offsets(offset[original], bounded=True),
                "NORMAL": data.add_offsets(turned[original]),
            }
        )
    (entry,) = document["meshes"]
    entry["primitives"][0]["targets"] = targets
    entry["weights"] = [0.0] * len(targets)
    # Not in the specification, but where all programs look for the names.
    entry["extras"] = {"targetNames": list(morphs.names)}
    if len(morphs.times):
        sampler = {
            "input": data.add(morphs.times[:, None], bounded=True),
            "output": data.add(morphs.weights.reshape(-1, 1)),
            "interpolation": "LINEAR",
        }
        channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
        document["animations"] = [{"samplers": [sampler], "channels": [channel]}]


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


class _Data:
    """The accessors of a document, and the bytes that they refer to."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.bytes = bytearray()

    def view(self, values: np.ndarray, target: int | None = None) -> int:
        """Append numbers; returns the number of their buffer view."""
        self.bytes += bytes(-len(self.bytes) % 4)  # an accessor starts at a multiple of its number
        view = {"buffer": 0, "byteOffset": len(self.bytes), "byteLength": values.nbytes}
        self.views.append(view | ({"target": target} if target is not None else {}))
        self.bytes += values.tobytes()
        return len(self.views) - 1

    def add(self, values: np.ndarray, target: int | None = None, bounded: bool = False) -> int:
        """Append an accessor to (n,) or (n, k) numbers, float32 or uint32; returns its number.

        bounded: with the smallest and the largest values, which positions and times must have.
        """
        values = values.astype("<u4" if values.dtype.kind == "i" else "<f4")
        return self._accessor({"bufferView": self.view(values, target)}, values, bounded)

    def add_offsets(self, offsets: np.ndarray, bounded: bool = False) -> int:
        """Append an accessor to (W, 3) offsets, in the smallest form: all of them, or only those
        that are not zero.
        """
        values = offsets.astype("<f4")
        rows = np.flatnonzero(values.any(axis=1))
        numbers = "<u2" if len(values) <= 2**16 else "<u4"
        if not len(rows):
            return self._accessor({}, values, bounded)  # without data, all are zero
        if len(rows) * (12 + np.dtype(numbers).itemsize) + _SPARSE_COST >= values.nbytes:
            return self.add(values, _VERTEX_BUFFER, bounded)
        kind = _UINT16 if numbers == "<u2" else _UINT32
        sparse = {
            "count": len(rows),
            "indices": {"bufferView": self.view(rows.astype(numbers)), "componentType": kind},
            "values": {"bufferView": self.view(values[rows])},
        }
        return self._accessor({"sparse": sparse}, values, bounded)

    def _accessor(self, place: dict[str, Any], values: np.ndarray, bounded: bool) -> int:
        accessor = place | {
            "componentType": _UINT32 if values.dtype.kind == "u" else _FLOAT,
            "count": len(values),
            "type": _KINDS[values[0].size],
        }
        if bounded:
            accessor["min"] = np.atleast_1d(values.min(axis=0)).tolist()
            accessor["max"] = np.atleast_1d(values.max(axis=0)).tolist()
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _document(attributes: dict[str, int], corners: int) -> dict[str, Any]:
    """A scene of one mesh, whose attributes and corners are these accessors."""
    primitive = {"attributes": attributes, "indices": corners, "material": 0}
    return {
        "asset": {"version": "2.0", "generator": "morphable"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        # Without a material, viewers show polished metal.
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}}],
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
