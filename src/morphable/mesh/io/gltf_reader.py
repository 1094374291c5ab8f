"""Read glTF 2.0 (.glb, .gltf): the positions as a viewer shows them at rest, with texture
coordinates and morph targets. That takes sparse and quantized accessors, the weights of morph
targets, skins and the transforms of nodes.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote

import numpy as np

from morphable.errors import InputError
from morphable.files import reading
from morphable.mesh.io.gltf import ORIGINAL
from morphable.mesh.io.meshfile import (
    MeshFile,
    checked_vertices,
    pack_faces,
    read_bytes,
    strip_triangles,
)
from morphable.mesh.mesh import Mesh

# Component types and widths of the specification.
_NUMBERS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MAX_COUNT = 100_000_000  # elements of an accessor without data, which costs no bytes of the file
_QUANTIZED = "KHR_mesh_quantization"
# Required extensions with these names change how a mesh looks, but no vertex.
_HARMLESS = (_QUANTIZED, "KHR_materials_", "KHR_texture_", "EXT_texture_", "KHR_lights_", "KHR_xmp")
_DRACO, _MESHOPT = "KHR_draco_mesh_compression", "meshopt_compression"


def read_gltf(path: Path, mesh: str | None = None) -> MeshFile:
    """Read the single mesh of a glTF file, or the one called `mesh` if there are several, in float32,
    posed as its scene shows it at rest. The vertices of its primitives follow one another, except
    where primitives share them. Vertices that were repeated when the file was written, because of
    texture seams, are one vertex again.

    Raises InputError if the file is damaged, needs an extension that is not known here, or does not
    hold exactly one mesh of triangles, or exactly one with this name.
    """
    data = read_bytes(path)
    with reading(path, "not a readable glTF file"):
        return _Gltf(path, *_container(path, data)).mesh(mesh)


def _container(path: Path, data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON document and the binary chunk, if there is one."""
    chunks: dict[bytes, bytes] = {}
    if data.startswith(b"glTF"):
        _, version, length = struct.unpack_from("<4sII", data)
        if version != 2:
            raise InputError(f"{path}: is glTF version {version}, only version 2 can be read")
        if length > len(data):
            raise InputError(f"{path}: ends after {len(data)} of {length} bytes, it is truncated")
        position = 12
        while position + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, position)
            chunks.setdefault(kind, data[position + 8 : position + 8 + size])
            position += 8 + size
    document = json.loads(chunks[b"JSON"] if chunks else data)
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a glTF file, its JSON is not an object")
    version = str(document.get("asset", {}).get("version", "unknown"))
    if not version.startswith("2."):
        raise InputError(f"{path}: is glTF version {version}, only version 2 can be read")
    return document, chunks.get(b"BIN\0")


class _Gltf:
    """A parsed document with its buffers."""

    def __init__(self, path: Path, document: dict[str, Any], chunk: bytes | None) -> None:
        self.path, self.document, self.chunk = path, document, chunk
        self.buffers: dict[int, bytes] = {}
        needed = [str(name) for name in document.get("extensionsRequired", [])]
        unknown = [name for name in needed if not name.startswith(_HARMLESS)]
        if unknown:
            raise self.fault(
                f"needs the glTF extension {', '.join(unknown)}, which cannot be read; save it "
                "without it, uncompressed"
            )

    def fault(self, text: str) -> InputError:
        return InputError(f"{self.path}: {text}")

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry `index` of a top-level list, such as "accessors"."""
        entries = self.document.get(kind, [])
        if not _is_whole(index) or index >= len(entries) or not isinstance(entries[index], dict):
            raise self.fault(f"refers to {kind}[{index}], which does not exist")
        return entries[index]

    # Numbers

    def buffer(self, index: Any) -> bytes:
        entry = self.entry("buffers", index)
        if index not in self.buffers:
            uri = entry.get("uri")
            if uri is None and index == 0 and self.chunk is not None:
                self.buffers[index] = self.chunk
            elif uri is None:
                raise self.fault(f"buffers[{index}] has no data")
            else:
                self.buffers[index] = self.linked(str(uri))
        return self.buffers[index]

    def linked(self, uri: str) -> bytes:
        """The content of a data URI or of a file beside this one."""
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error:
                raise self.fault("a buffer within it is not valid base64") from None
        if "://" in uri or "\0" in unquote(uri) or Path(unquote(uri)).is_absolute():
            raise self.fault(f"a buffer lies at {uri[:80]!r}, expected a file beside it")
        return read_bytes(self.path.parent / unquote(uri))

    def elements(self, place: dict[str, Any], number: str, count: int, width: int) -> np.ndarray:
        """(count, width) numbers at the buffer view and offset that `place` names."""
        view = self.entry("bufferViews", place.get("bufferView"))
        if any(_MESHOPT in name for name in view.get("extensions", {})):
            raise self.fault("is compressed with EXT_meshopt_compression, save it uncompressed")
        data, dtype = self.buffer(view.get("buffer")), np.dtype(number)
        row = dtype.itemsize * width
        start, size = view.get("byteOffset", 0), view.get("byteLength")
        offset, stride = place.get("byteOffset", 0), view.get("byteStride", row)
        numbers = (start, size, offset, stride)
        if not all(map(_is_whole, numbers)) or stride < row:
            raise self.fault("a buffer view has offsets, lengths or strides that cannot be")
        if count and (offset + stride * (count - 1) + row > size or start + size > len(data)):
            raise self.fault("a buffer is shorter than its accessors, the file may be truncated")
        first = start + offset if count else 0
        return np.ndarray((count, width), dtype, data, first, (stride, dtype.itemsize))

    def accessor(self, index: Any, wanted: str) -> np.ndarray:
        """(count, width) numbers of an accessor: float64 if they are fractions, else int64.

        wanted: the type of its elements, such as "VEC3".
        """
        entry = self.entry("accessors", index)
        kind, number, count = (entry.get(key) for key in ("type", "componentType", "count"))
        if kind != wanted or number not in _NUMBERS or not _is_whole(count):
            raise self.fault(
                f"accessors[{index}] has type {kind}, component type {number} and count {count}, "
                f"expected {wanted} of numbers"
            )
        dtype, width = _NUMBERS[number], _WIDTHS[kind]
        if "bufferView" in entry:
            values = self.elements(entry, dtype, count, width)
        elif count > _MAX_COUNT:
            raise self.fault(f"accessors[{index}] has {count} elements but no data")
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in entry:
            values = self.overridden(values, entry["sparse"], dtype)
        if np.dtype(dtype).kind == "f":
            return values.astype(np.float64)
        if entry.get("normalized", False):
            return np.maximum(values / np.iinfo(dtype).max, -1.0)
        return values.astype(np.int64)

    def overridden(self, values: np.ndarray, sparse: dict[str, Any], dtype: str) -> np.ndarray:
        """The values with those that a sparse accessor states one by one."""
        count, places = sparse.get("count"), sparse["indices"]
        number = _NUMBERS.get(places.get("componentType"), "")
        if not _is_whole(count) or number[1:2] != "u":
            raise self.fault("a sparse accessor has no count or indices")
        rows = self.elements(places, number, count, 1)[:, 0].astype(np.int64)
        if (rows >= len(values)).any():
            raise self.fault("a sparse accessor overrides an element that does not exist")
        values = values.copy()
        values[rows] = self.elements(sparse["values"], dtype, count, values.shape[1])
        return values

    # The scene

    def mesh(self, name: str | None) -> MeshFile:
        parents = self.parents()
        holders = self.holders(name)
        node = self.entry("nodes", holders[0])
        entry = self.entry("meshes", node["mesh"])
        weights = node.get("weights", entry.get("weights", []))
        joints = self.joints(node["skin"], parents) if "skin" in node else None
        pose = self.world(holders[0], parents)
        points = np.zeros((0, 3))
        triangles: list[np.ndarray] = []
        coordinates: list[np.ndarray | None] = []
        originals: list[np.ndarray | None] = []
        offsets: list[np.ndarray] = []
        rows: dict[str, slice] = {}  # of the vertices that primitives share
        for primitive in entry.get("primitives", []):
            shared = json.dumps([primitive.get("attributes"), primitive.get("targets")])
            if shared not in rows:
                more = self.positions(primitive, weights, joints, pose)
                rows[shared] = slice(len(points), len(points) + len(more))
                points = np.concatenate([points, more])
                coordinates.append(self.optional(primitive, "TEXCOORD_0", "VEC2", len(more)))
                originals.append(self.optional(primitive, ORIGINAL, "SCALAR", len(more)))
                offsets.append(self.offsets(primitive, len(more), joints, pose))
            start, stop = rows[shared].start, rows[shared].stop
            triangles.append(start + self.triangles(primitive, stop - start))
        if not triangles:
            raise self.fault("holds no triangle mesh")
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            points = checked_vertices(self.path, points.astype(np.float32))
        corners = np.concatenate(triangles)
        sides = np.full(len(corners), 3)
        faces = pack_faces(self.path, corners.ravel(), sides, len(points))
        uv, original = _joined(coordinates), _joined(originals)
        uv_faces = faces
        moved = self.joined_offsets(offsets)
        if original is not None:
            first = self.first_of_each(points, original[:, 0])
            points, moved = points[first], moved[:, first]
            faces = original[:, 0].astype(np.int64)[faces]
        targets = dict(zip(_target_names(entry, len(moved)), moved, strict=True))
        if uv is None or not len(faces):
            return MeshFile(Mesh(points, faces), targets=targets)
        textured = MeshFile.textured(Mesh(points, faces), uv * (1, -1) + (0, 1), uv_faces)
        return replace(textured, targets=targets)

    def holders(self, name: str | None) -> list[int]:
        """The node of the mesh with this name, or of the only mesh."""
        holders = [node for node in self.shown() if "mesh" in self.entry("nodes", node)]
        names = [self.names(node) for node in holders]
        chosen = [
            node for node, own in zip(holders, names, strict=True) if name is None or name in own
        ]
        if len(chosen) == 1:
            return chosen
        listed = ", ".join(own[0] for own in names if own) or "without names"
        if name is not None:
            raise InputError(
                f"{self.path}: `mesh` {name}: expected one mesh of this name, found {len(chosen)}; "
                f"the meshes are {listed}",
                "mesh",
            )
        choose = f" ({listed}); choose one with `mesh`" if len(holders) > 1 else ""
        raise InputError(
            f"{self.path}: expected one mesh, found {len(holders)}{choose}; there is no vertex "
            "order across meshes",
            "mesh",
        )

    def names(self, node: int) -> list[str]:
        """The names of a node and of its mesh, as far as they have one."""
        entry = self.entry("nodes", node)
        found = [entry.get("name"), self.entry("meshes", entry["mesh"]).get("name")]
        return [str(name) for name in found if name]

    def optional(
        self, primitive: dict[str, Any], name: str, kind: str, count: int
    ) -> np.ndarray | None:
        """(count, width) float64 numbers of an attribute that a primitive need not have."""
        if name not in primitive["attributes"]:
            return None
        values = self.accessor(primitive["attributes"][name], kind).astype(np.float64)
        if len(values) != count:
            raise self.fault(f"{name} has {len(values)} rows for {count} vertices")
        return values

    def first_of_each(self, points: np.ndarray, original: np.ndarray) -> np.ndarray:
        """(V,) the first of the points (W, 3) of each number in `original` (W,)."""
        numbers, first = np.unique(original, return_index=True)
        if not np.array_equal(numbers, np.arange(len(numbers))):
            raise self.fault(f"{ORIGINAL} does not number its vertices, some may be missing")
        apart = np.abs(points[first[original.astype(np.int64)]] - points).max(initial=0)
        if apart > 1e-5 * np.ptp(points, axis=0).max(initial=0):
            raise self.fault(f"{ORIGINAL} gives one number to vertices that lie apart")
        return first

    def positions(
        self,
        primitive: dict[str, Any],
        weights: list[float],
        joints: np.ndarray | None,
        pose: np.ndarray,
    ) -> np.ndarray:
        """(V, 3) positions of a primitive, morphed by the weights and moved by its skin, or else by
        its node.
        """
        attributes, targets = primitive["attributes"], primitive.get("targets", [])
        place = self.entry("accessors", attributes.get("POSITION"))
        if _DRACO in primitive.get("extensions", {}) and "bufferView" not in place:
            raise self.fault(f"is compressed with {_DRACO}, save it uncompressed")
        points = self.accessor(attributes["POSITION"], "VEC3").astype(np.float64)
        if weights and len(weights) != len(targets):
            raise self.fault(f"has {len(weights)} weights for {len(targets)} morph targets")
        for weight, target in zip(weights, targets, strict=False):
            if weight != 0 and "POSITION" in target:
                offsets = self.accessor(target["POSITION"], "VEC3")
                self.require_count(offsets, points, "a morph target")
                points = points + weight * offsets
        return self.posed(primitive, points, joints, pose)

    def offsets(
        self, primitive: dict[str, Any], count: int, joints: np.ndarray | None, pose: np.ndarray
    ) -> np.ndarray:
        """(M, V, 3) offsets of the morph targets of a primitive of `count` vertices, as its skin or
        its node turns and scales them.
        """
        found = []
        joints = None if joints is None else _without_shift(joints)
        pose = _without_shift(pose)
        for target in primitive.get("targets", []):
            moved = np.zeros((count, 3))
            if "POSITION" in target:
                moved = self.accessor(target["POSITION"], "VEC3").astype(np.float64)
                self.require_count(moved, np.zeros(count), "a morph target")
            found.append(self.posed(primitive, moved, joints, pose))
        return np.stack(found) if found else np.zeros((0, count, 3))

    def joined_offsets(self, offsets: list[np.ndarray]) -> np.ndarray:
        """(M, V, 3) float32 offsets of all primitives together. Raises InputError if a primitive
        has another number of targets, or an offset is not finite.
        """
        counts = sorted({len(each) for each in offsets})
        if len(counts) > 1:
            raise self.fault(f"its primitives have {counts[0]} and {counts[-1]} morph targets")
        with np.errstate(over="ignore"):
            joined = np.concatenate(offsets, axis=1).astype(np.float32)
        if not np.isfinite(joined).all():
            raise self.fault("a morph target has an offset that is not finite")
        return joined

    def posed(
        self,
        primitive: dict[str, Any],
        points: np.ndarray,
        joints: np.ndarray | None,
        pose: np.ndarray,
    ) -> np.ndarray:
        """(V, 3) points moved by the skin of a primitive, or else by its node."""
        attributes = primitive["attributes"]
        if joints is None:
            return _moved(points, pose)
        total, moved = np.zeros(len(points)), np.zeros_like(points)
        number = 0
        while f"JOINTS_{number}" in attributes:
            chosen = self.accessor(attributes[f"JOINTS_{number}"], "VEC4")
            share = self.accessor(attributes[f"WEIGHTS_{number}"], "VEC4")
            self.require_count(chosen, points, "the joints of the skin")
            self.require_count(share, points, "the weights of the skin")
            for joint, part in zip(chosen.T, share.T, strict=True):
                if joint.max(initial=0) >= len(joints):
                    raise self.fault("its skin refers to a joint that does not exist")
                moved += part[:, None] * _moved(points, joints[joint])
                total += part
            number += 1
        if not (total > 0).all():
            raise self.fault("has a vertex without weight in its skin")
        return moved / total[:, None]

    def require_count(self, values: np.ndarray, points: np.ndarray, what: str) -> None:
        if len(values) != len(points):
            raise self.fault(f"{what} has {len(values)} rows for {len(points)} vertices")

    def triangles(self, primitive: dict[str, Any], count: int) -> np.ndarray:
        """(T, 3) triangles of a primitive with `count` vertices."""
        mode = primitive.get("mode", _TRIANGLES)
        if "indices" in primitive:
            corners = self.accessor(primitive["indices"], "SCALAR")[:, 0]
            if corners.dtype.kind == "f":
                raise self.fault("the corners of its faces are fractions, expected whole numbers")
            if corners.max(initial=0) >= count or corners.min(initial=0) < 0:
                raise self.fault(
                    f"a face refers to a vertex that does not exist, there are {count}"
                )
        else:
            corners = np.arange(count)
        match mode:
            case 4:
                return corners[: len(corners) // 3 * 3].reshape(-1, 3)
            case 5:
                return strip_triangles(corners)
            case 6:
                first = np.broadcast_to(corners[:1], max(len(corners) - 2, 0))
                return np.stack([corners[1:-1], corners[2:], first], axis=1)
        raise self.fault(f"a primitive has mode {mode}, points or lines; expected triangles")

    # Nodes

    def parents(self) -> dict[int, int]:
        """The parent of each node that has one. Raises InputError if the nodes form no tree."""
        parents: dict[int, int] = {}
        count = len(self.document.get("nodes", []))
        for number in range(count):
            for child in self.entry("nodes", number).get("children", []):
                self.entry("nodes", child)
                if child in parents:
                    raise self.fault(f"nodes[{child}] has two parents")
                parents[child] = number
        roots = [node for node in range(count) if node not in parents]
        if len(self.descendants(roots)) < count:
            raise self.fault("a node is its own ancestor")
        return parents

    def shown(self) -> list[int]:
        """The nodes of the default scene, or all of them if there is no scene."""
        scenes = self.document.get("scenes", [])
        if not scenes:
            return list(range(len(self.document.get("nodes", []))))
        return self.descendants(
            self.entry("scenes", self.document.get("scene", 0)).get("nodes", [])
        )

    def descendants(self, roots: list[int]) -> list[int]:
        """The roots and all nodes below them."""
        found = list(roots)
        for node in found:  # grows while it is read
            found += self.entry("nodes", node).get("children", [])
        return found

    def world(self, node: int, parents: dict[int, int]) -> np.ndarray:
        """The (4, 4) matrix from the coordinates of a node to those of the scene."""
        matrix = self.local(node)
        while node in parents:
            node = parents[node]
            matrix = self.local(node) @ matrix
        return matrix

    def local(self, node: int) -> np.ndarray:
        entry = self.entry("nodes", node)
        if "matrix" in entry:
            return np.array(entry["matrix"], np.float64).reshape(4, 4).T  # stored by column
        x, y, z, w = np.array(entry.get("rotation", [0, 0, 0, 1]), np.float64)
        scale = np.array(entry.get("scale", [1, 1, 1]), np.float64).reshape(3)
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        matrix[:3, :3] *= scale
        matrix[:3, 3] = np.array(entry.get("translation", [0, 0, 0]), np.float64).reshape(3)
        return matrix

    def joints(self, skin: Any, parents: dict[int, int]) -> np.ndarray:
        """(J, 4, 4) matrices that move the vertices of a skin with its joints."""
        entry = self.entry("skins", skin)
        for joint in entry["joints"]:
            self.entry("nodes", joint)
        worlds = np.array([self.world(joint, parents) for joint in entry["joints"]])
        if "inverseBindMatrices" not in entry:
            return worlds
        inverse = self.accessor(entry["inverseBindMatrices"], "MAT4").reshape(-1, 4, 4)
        if len(inverse) < len(worlds):
            raise self.fault(f"its skin has {len(worlds)} joints but {len(inverse)} matrices")
        return worlds @ inverse[: len(worlds)].transpose(0, 2, 1)


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """The rows of all parts, if each is there."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _target_names(mesh: dict[str, Any], count: int) -> list[str]:
    """The names of `count` morph targets: those that the file states if they differ, else numbers."""
    extras = mesh.get("extras")
    stated = extras.get("targetNames") if isinstance(extras, dict) else None
    if isinstance(stated, list) and len({str(name) for name in stated}) == count == len(stated):
        return [str(name) for name in stated]
    return [f"target {number}" for number in range(count)]


def _without_shift(matrix: np.ndarray) -> np.ndarray:
    """Matrices (..., 4, 4) for differences of points: without their translation."""
    matrix = matrix.copy()
    matrix[..., :3, 3] = 0
    return matrix


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (V, 3) under one matrix (4, 4), or one of its own each (V, 4, 4)."""
    return np.squeeze(matrix[..., :3, :3] @ points[:, :, None], -1) + matrix[..., :3, 3]
