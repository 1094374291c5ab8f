"""GLB with named morph targets: re-read exactly, small where a target moves little, and opened by
another program.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh.io import Morphs, read_mesh, write_mesh
from morphable.mesh.topology import vertex_normals
from test_written_meshes import tube


def morphs(count: int = 10) -> Morphs:
    """Ten targets of a tube: each lifts one ring more than the one before, the last is zero."""
    vertices = tube().mesh.vertices
    heights = np.unique(vertices[:, 1])
    offsets = np.zeros((count, len(vertices), 3), np.float32)
    for number in range(count - 1):
        moved = vertices[:, 1] <= heights[number]
        offsets[number, moved] = vertices[moved] * 0.1 + [0, 0, number]
    return Morphs([f"shape {number}" for number in range(count)], offsets)


def document_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    return dict(json.loads(data[20 : 20 + size]))


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_ten_named_targets_are_read_back_exactly(tmp_path: Path, suffix: str) -> None:
    template, targets = tube(), morphs()
    path = tmp_path / f"a{suffix}"
    write_mesh(path, template.mesh, template.uv, template.uv_faces, unit="mm", morphs=targets)
    found = read_mesh(path)
    assert list(found.targets) == list(targets.names)
    for name, offset in zip(targets.names, targets.offsets, strict=True):
        np.testing.assert_array_equal(found.targets[name], offset)
    np.testing.assert_array_equal(found.mesh.vertices, template.mesh.vertices)
    assert found.uv is not None, "the seam is still there"


def test_in_meters_they_agree_to_float32(tmp_path: Path) -> None:
    targets = morphs()
    write_mesh(tmp_path / "a.glb", tube().mesh, morphs=targets)
    for offset, back in zip(
        targets.offsets, read_mesh(tmp_path / "a.glb").targets.values(), strict=True
    ):
        np.testing.assert_array_equal(back, (offset.astype(np.float64) / 1000).astype(np.float32))


def test_a_target_that_moves_little_is_stored_sparsely(tmp_path: Path) -> None:
    targets = morphs()
    write_mesh(tmp_path / "a.glb", tube().mesh, unit="mm", morphs=targets)
    document = document_of(tmp_path / "a.glb")
    stored = [target["POSITION"] for target in document["meshes"][0]["primitives"][0]["targets"]]
    first, *_, last = (document["accessors"][number] for number in stored)
    assert first["sparse"]["count"] == 16 and "bufferView" not in first
    assert "sparse" not in last and "bufferView" not in last, "all zero: no data at all"
    assert first["min"] == targets.offsets[0].min(axis=0).tolist()
    dense = Morphs(["all"], np.ones_like(targets.offsets[:1]))
    write_mesh(tmp_path / "b.glb", tube().mesh, unit="mm", morphs=dense)
    assert not any("sparse" in each for each in document_of(tmp_path / "b.glb")["accessors"])


def test_the_normals_follow(tmp_path: Path) -> None:
    """The normals of the file plus those of a target are the normals of the moved mesh."""
    from morphable.mesh.io.gltf_reader import _container, _Gltf

    mesh, targets = tube().mesh, morphs()
    path = tmp_path / "a.glb"
    write_mesh(path, mesh, unit="mm", morphs=targets)
    file = _Gltf(path, *_container(path, path.read_bytes()))
    primitive = file.document["meshes"][0]["primitives"][0]
    normals = file.accessor(primitive["attributes"]["NORMAL"], "VEC3")
    for target, offset in zip(primitive["targets"], targets.offsets, strict=True):
        turned = normals + file.accessor(target["NORMAL"], "VEC3")
        moved = np.asarray(mesh.vertices, np.float64) + offset
        np.testing.assert_allclose(turned, vertex_normals(moved, mesh.triangles), atol=1e-6)


def test_an_animation_is_written_as_weights_over_time(tmp_path: Path) -> None:
    from dataclasses import replace

    from morphable.mesh.io.gltf_reader import _container, _Gltf

    weights = np.array([[0, 0], [1, 0], [0, 1]], float)
    targets = replace(morphs(2), times=np.array([0.0, 0.5, 1.0]), weights=weights)
    path = tmp_path / "a.glb"
    write_mesh(path, tube().mesh, morphs=targets)
    file = _Gltf(path, *_container(path, path.read_bytes()))
    (animation,) = file.document["animations"]
    assert animation["channels"] == [{"sampler": 0, "target": {"node": 0, "path": "weights"}}]
    sampler = animation["samplers"][0]
    assert file.accessor(sampler["input"], "SCALAR")[:, 0].tolist() == [0, 0.5, 1]
    assert file.accessor(sampler["output"], "SCALAR")[:, 0].tolist() == [0, 0, 1, 0, 0, 1]
    assert file.document["accessors"][sampler["input"]]["max"] == [1.0]


def test_another_program_opens_it(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    write_mesh(tmp_path / "a.glb", tube().mesh, morphs=morphs())
    (seen,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    assert len(seen.vertices) == tube().n_vertices


def test_targets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    mesh, zeros = tube().mesh, np.zeros((2, tube().n_vertices, 3))
    with pytest.raises(InputError, match=r"a\.obj: only \.glb and \.gltf files can hold morph"):
        write_mesh(tmp_path / "a.obj", mesh, morphs=Morphs(["a", "b"], zeros))
    with pytest.raises(InputError, match="two have the name 'a'"):
        Morphs(["a", "a"], zeros)
    with pytest.raises(InputError, match="expected offsets of shape"):
        Morphs(["a"], zeros)
    with pytest.raises(InputError, match="expected weights of shape"):
        Morphs(["a", "b"], zeros, np.zeros(3), np.zeros((2, 2)))
    with pytest.raises(InputError, match="expected offsets of 320 vertices, got 7"):
        write_mesh(tmp_path / "a.glb", mesh, morphs=Morphs(["a", "b"], zeros[:, :7]))
    assert not list(tmp_path.iterdir())
