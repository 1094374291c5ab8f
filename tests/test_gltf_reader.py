"""glTF is read as a viewer shows it at rest: sparse and quantized numbers, morph weights, skins and
transforms are applied, and what is not known is refused by name.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh.io import read_mesh

POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]], np.float32)
CORNERS = np.array([0, 1, 2, 0, 2, 3])
FACES = CORNERS.reshape(-1, 3)
TYPES = {"f4": 5126, "i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125}
WIDTHS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Document:
    """A glTF document of one square, to which tests add."""

    def __init__(self) -> None:
        self.data = b""
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "accessors": [],
            "bufferViews": [],
            "meshes": [{"primitives": [{"attributes": {}}]}],
        }
        self.primitive["attributes"]["POSITION"] = self.add(POINTS)
        self.primitive["indices"] = self.add(CORNERS.astype(np.uint16)[:, None])

    @property
    def primitive(self) -> dict[str, Any]:
        return self.json["meshes"][0]["primitives"][0]

    @property
    def node(self) -> dict[str, Any]:
        return self.json["nodes"][0]

    @property
    def positions(self) -> dict[str, Any]:
        return self.json["accessors"][0]

    def view(self, values: np.ndarray) -> int:
        self.data += bytes(-len(self.data) % 4)
        self.json["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        )
        self.data += values.tobytes()
        return len(self.json["bufferViews"]) - 1

    def add(self, values: np.ndarray, **facts: Any) -> int:
        """Append an accessor to (n, k) numbers, and return its number."""
        kind = TYPES[values.dtype.str[1:]]
        accessor = {"bufferView": self.view(values), "componentType": kind, "count": len(values)}
        self.json["accessors"].append(accessor | {"type": WIDTHS[values.shape[1]]} | facts)
        return len(self.json["accessors"]) - 1

    def write(self, path: Path, uri: str | None = None) -> Path:
        text = json.dumps(self.json | {"buffers": [{"byteLength": len(self.data)}]}).encode()
        if path.suffix == ".gltf":
            buffer = {"byteLength": len(self.data)}
            buffer["uri"] = uri or "data:;base64," + base64.b64encode(self.data).decode()
            path.write_text(json.dumps(self.json | {"buffers": [buffer]}))
            return path
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text
        body += struct.pack("<I4s", len(self.data), b"BIN\0") + self.data
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
        return path


@pytest.fixture
def document() -> Document:
    return Document()


def check(path: Path, expected: np.ndarray = POINTS, faces: Any = FACES) -> None:
    mesh = read_mesh(path).mesh
    assert mesh.vertices.dtype == np.float32
    np.testing.assert_allclose(mesh.vertices, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, faces)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_plain(document: Document, tmp_path: Path, suffix: str) -> None:
    check(document.write(tmp_path / f"a{suffix}"))


def test_a_buffer_beside_the_file(document: Document, tmp_path: Path) -> None:
    (tmp_path / "my data.bin").write_bytes(document.data)
    check(document.write(tmp_path / "a.gltf", "my%20data.bin"))
    for uri, words in (
        ("none.bin", "none.bin: no such file"),
        ("https://example.org/a.bin", "expected a file beside it"),
        ("/etc/hostname", "expected a file beside it"),
        ("data:;base64,!!", "not valid base64"),
    ):
        with pytest.raises(InputError, match=words):
            read_mesh(document.write(tmp_path / "b.gltf", uri))


def test_a_sparse_accessor_overrides(document: Document, tmp_path: Path) -> None:
    moved = np.array([[5, 6, 7], [8, 9, 10]], np.float32)
    document.positions["sparse"] = {
        "count": 2,
        "indices": {
            "bufferView": document.view(np.array([1, 3], np.uint16)),
            "componentType": 5123,
        },
        "values": {"bufferView": document.view(moved)},
    }
    expected = POINTS.copy()
    expected[[1, 3]] = moved
    check(document.write(tmp_path / "a.glb"), expected)
    del document.positions["bufferView"]  # what is not overridden is zero
    expected[[0, 2]] = 0
    check(document.write(tmp_path / "b.glb"), expected)
    document.positions["sparse"]["count"] = 3
    with pytest.raises(InputError, match="shorter than its accessors"):
        read_mesh(document.write(tmp_path / "c.glb"))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize("normalized", [True, False])
def test_quantized_positions(
    document: Document, tmp_path: Path, dtype: str, normalized: bool
) -> None:
    top = np.iinfo(dtype).max
    stored = np.array([[0, 0, 0], [top, 0, 0], [top, 40, 0], [0, 60, 7]], dtype)
    document.json["extensionsRequired"] = ["KHR_mesh_quantization", "KHR_texture_transform"]
    number = document.add(stored, normalized=normalized)
    document.primitive["attributes"]["POSITION"] = number
    document.node.update(translation=[1, 2, 3], scale=[2, 2, 2])
    expected = stored.astype(float) / (top if normalized else 1)
    check(document.write(tmp_path / "a.glb"), 2 * expected + [1, 2, 3])


def test_the_lowest_signed_number_is_minus_one(document: Document, tmp_path: Path) -> None:
    stored = np.array([[-128, -127, 0], [127, 0, 0], [0, 127, 0], [0, 0, 0]], np.int8)
    document.primitive["attributes"]["POSITION"] = document.add(stored, normalized=True)
    check(document.write(tmp_path / "a.glb"), np.maximum(stored / 127, -1))


def test_rows_with_a_stride(document: Document, tmp_path: Path) -> None:
    rows = np.concatenate([POINTS, np.full((4, 3), 9, np.float32)], axis=1)
    view = document.view(rows)
    document.json["bufferViews"][view]["byteStride"] = 24
    document.positions["bufferView"] = view
    check(document.write(tmp_path / "a.glb"))


def test_transforms_of_a_chain_of_nodes(document: Document, tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    document.json["nodes"] = [
        {"children": [1], "rotation": [0, 0, half, half], "translation": [0, 0, 5]},
        {"mesh": 0, "matrix": [2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1]},
    ]
    inner = POINTS * [2, 3, 1] + [1, 0, 0]
    expected = np.stack([-inner[:, 1], inner[:, 0], inner[:, 2] + 5], axis=1)
    check(document.write(tmp_path / "a.glb"), expected)


def test_morph_weights_are_applied(document: Document, tmp_path: Path) -> None:
    offsets = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    document.primitive["targets"] = [{"POSITION": document.add(offset)} for offset in offsets]
    check(document.write(tmp_path / "none.glb"))
    document.json["meshes"][0]["weights"] = [0.5, 0]
    check(document.write(tmp_path / "mesh.glb"), POINTS + 0.5 * offsets[0])
    document.node["weights"] = [0, 2]
    check(document.write(tmp_path / "node.glb"), POINTS + 2 * offsets[1])
    document.node["weights"] = [1]
    with pytest.raises(InputError, match="has 1 weights for 2 morph targets"):
        read_mesh(document.write(tmp_path / "few.glb"))


def skinned(document: Document) -> None:
    """The first two vertices hang on one joint, the last two half on each; the node's own pose does
    not count.
    """
    document.json["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"children": [2], "translation": [1, 0, 0]},
        {"translation": [0, 2, 0], "scale": [2, 2, 2]},
    ]
    document.json["scenes"] = [{"nodes": [0, 1]}]
    inverse = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse[0, :3, 3] = [-1, 0, 0]
    matrices = inverse.transpose(0, 2, 1).reshape(2, 16)  # stored by column
    document.json["skins"] = [{"joints": [1, 2], "inverseBindMatrices": document.add(matrices)}]
    joints = np.array([[0, 1, 0, 0]] * 4, np.uint8)
    weights = np.array([[255, 0, 0, 0], [255, 0, 0, 0], [128, 128, 0, 0], [1, 1, 0, 0]], np.uint8)
    document.primitive["attributes"] |= {
        "JOINTS_0": document.add(joints),
        "WEIGHTS_0": document.add(weights, normalized=True),
    }


def test_a_skin_moves_the_vertices(document: Document, tmp_path: Path) -> None:
    skinned(document)
    far = 2 * POINTS + [1, 2, 0]
    expected = np.concatenate([POINTS[:2], (POINTS[2:] + far[2:]) / 2])
    check(document.write(tmp_path / "a.glb"), expected)
    document.json["skins"][0]["joints"] = [1]
    with pytest.raises(InputError, match="a joint that does not exist"):
        read_mesh(document.write(tmp_path / "b.glb"))


@pytest.mark.parametrize(
    ("mode", "corners", "faces"),
    [
        (4, [0, 1, 2, 0, 2, 3, 1], [[0, 1, 2], [0, 2, 3]]),  # the last corner makes no triangle
        (5, [0, 1, 3, 2], [[0, 1, 3], [3, 1, 2]]),
        (6, [0, 1, 2, 3], [[1, 2, 0], [2, 3, 0]]),
        (4, None, [[0, 1, 2]]),
        (5, None, [[0, 1, 2], [2, 1, 3]]),
        (6, None, [[1, 2, 0], [2, 3, 0]]),
    ],
)
def test_triangles_strips_and_fans(
    document: Document, tmp_path: Path, mode: int, corners: list[int] | None, faces: list[list[int]]
) -> None:
    document.primitive["mode"] = mode
    del document.primitive["indices"]
    if corners is not None:
        document.primitive["indices"] = document.add(np.array(corners, np.uint8)[:, None])
    check(document.write(tmp_path / "a.glb"), POINTS, faces)


@pytest.mark.parametrize("shared", [True, False])
def test_two_primitives(document: Document, tmp_path: Path, shared: bool) -> None:
    """Of two materials: they share their vertices, or the second's follow the first's."""
    other = {"attributes": dict(document.primitive["attributes"])}
    if not shared:
        other["attributes"]["POSITION"] = document.add(POINTS[:3] + np.float32(9))
    document.json["meshes"][0]["primitives"].append(other)
    points = POINTS if shared else np.concatenate([POINTS, POINTS[:3] + 9])
    last = [0, 1, 2] if shared else [4, 5, 6]
    check(document.write(tmp_path / "a.glb"), points, [[0, 1, 2], [0, 2, 3], last])


Change = Callable[[Document], object]
REFUSED: dict[str, tuple[Change, str]] = {
    "draco": (
        lambda d: d.json.update(extensionsRequired=["KHR_draco_mesh_compression"]),
        "needs the glTF extension KHR_draco_mesh_compression",
    ),
    "unknown": (lambda d: d.json.update(extensionsRequired=["VENDOR_x"]), "extension VENDOR_x"),
    "meshopt": (
        lambda d: d.json["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}),
        "EXT_meshopt_compression",
    ),
    "draco by its primitive": (
        lambda d: (
            d.positions.pop("bufferView"),
            d.primitive.update(extensions={"KHR_draco_mesh_compression": {}}),
        ),
        "KHR_draco_mesh_compression",
    ),
    "version 1": (lambda d: d.json["asset"].update(version="1.0"), "glTF version 1.0"),
    "pairs": (lambda d: d.positions.update(type="VEC2"), "accessors.0. has type VEC2"),
    "an unknown number": (lambda d: d.positions.update(componentType=1), "component type 1"),
    "no count": (lambda d: d.positions.pop("count"), "count None"),
    "a negative count": (lambda d: d.positions.update(count=-1), "count -1"),
    "a huge count": (lambda d: d.positions.update(count=10**12), "shorter than its accessors"),
    "a huge count of nothing": (
        lambda d: (d.positions.pop("bufferView"), d.positions.update(count=10**12)),
        "1000000000000 elements but no data",
    ),
    "a huge offset": (lambda d: d.positions.update(byteOffset=10**9), "shorter than"),
    "a negative offset": (lambda d: d.positions.update(byteOffset=-4), "cannot be"),
    "a missing view": (lambda d: d.positions.update(bufferView=9), "bufferViews.9., which does"),
    "a view by name": (lambda d: d.positions.update(bufferView="0"), "bufferViews.0., which does"),
    "no positions": (lambda d: d.primitive.update(attributes={}), "accessors.None., which does"),
    "a missing mesh": (lambda d: d.node.update(mesh=7), "meshes.7., which does not exist"),
    "no mesh": (lambda d: d.node.pop("mesh"), "expected one mesh, found 0"),
    "no primitive": (lambda d: d.json["meshes"][0].update(primitives=[]), "no triangle mesh"),
    "lines": (lambda d: d.primitive.update(mode=1), "mode 1, points or lines"),
    "corners beyond": (
        lambda d: d.primitive.update(indices=d.add(np.array([[0], [1], [4]], np.uint8))),
        "a vertex that does not exist, there are 4",
    ),
    "fractions for corners": (
        lambda d: d.primitive.update(indices=d.add(np.zeros((3, 1), np.float32))),
        "fractions",
    ),
    "a circle of nodes": (
        lambda d: d.json.update(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]),
        "its own ancestor",
    ),
    "two parents": (
        lambda d: d.json.update(nodes=[{"children": [2]}, {"children": [2]}, {"mesh": 0}]),
        "two parents",
    ),
    "a scene that is none": (lambda d: d.json.update(scene=5), "scenes.5., which does not exist"),
    "a matrix of five": (lambda d: d.node.update(matrix=[1] * 5), "not a readable glTF file"),
    "infinitely far": (lambda d: d.node.update(translation=[1e39, 0, 0]), "not finite"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_read_is_named(document: Document, tmp_path: Path, name: str) -> None:
    change, words = REFUSED[name]
    change(document)
    with pytest.raises(InputError, match=words) as caught:
        read_mesh(document.write(tmp_path / "a.glb"))
    assert "a.glb" in str(caught.value)


def test_every_truncation_is_noticed(document: Document, tmp_path: Path) -> None:
    whole = document.write(tmp_path / "a.glb").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "b.glb").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"b\.glb"):
            read_mesh(tmp_path / "b.glb")


def test_deep_and_endless_json(tmp_path: Path) -> None:
    for text in ("[" * 200_000, '{"asset": {"version": ' + "9" * 5000 + "}}", "[]", "{}"):
        (tmp_path / "a.gltf").write_text(text)
        with pytest.raises(InputError, match=r"a\.gltf"):
            read_mesh(tmp_path / "a.gltf")
