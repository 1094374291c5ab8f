import struct
from pathlib import Path

import igl
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphable.errors import InputError
from morphable.mesh.io import (
    MESH_SUFFIXES,
    MeshFile,
    read_mesh,
    read_stack,
    read_vertices,
    write_mesh,
)
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import triangulate

# A cube's corners in awkward numbers, then a vertex no face uses, then a copy of vertex 0 that a
# face does use.
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [
    0.1,
    1 / 3,
    1e-7,
] + [1e3, -2, 5e-9]
VERTICES = np.concatenate([CORNERS, [[7, 8, 9]], CORNERS[:1]]).astype(np.float32)
TRIANGLES = np.array([[0, 1, 3], [9, 3, 2], [4, 6, 7], [7, 5, 4]])
QUADS = np.array([[9, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1]])
MIXED = np.array([[9, 1, 3, 2], [4, 6, 7, -1], [0, 4, 5, 1], [2, 3, 7, -1]])
TOPOLOGIES = {"triangles": TRIANGLES, "quads": QUADS, "mixed": MIXED}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("faces", TOPOLOGIES.values(), ids=TOPOLOGIES.keys())
@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_round_trip_keeps_every_vertex_in_its_place(
    tmp_path: Path, suffix: str, faces: np.ndarray
) -> None:
    path = tmp_path / f"mesh{suffix}"
    mesh = Mesh(VERTICES, faces)
    write_mesh(path, mesh, unit="mm")
    for found in (read_mesh(path).mesh.vertices, read_vertices(path)):
        assert found.shape == VERTICES.shape
        np.testing.assert_array_equal(found.astype(np.float32), VERTICES)
    expected = mesh.triangles if suffix in (".glb", ".gltf") else faces
    np.testing.assert_array_equal(read_mesh(path).mesh.faces, expected)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off"])
def test_libigl_reads_what_we_write(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_mesh(path, Mesh(VERTICES, TRIANGLES), np.zeros((1, 2)), np.zeros_like(TRIANGLES))
    vertices, faces = igl.read_triangle_mesh(str(path))
    np.testing.assert_array_equal(vertices.astype(np.float32), VERTICES)
    np.testing.assert_array_equal(faces, TRIANGLES)


def test_precision_is_that_of_the_file(tmp_path: Path) -> None:
    for suffix, dtype in (
        (".ply", np.float32),
        (".glb", np.float32),
        (".obj", np.float64),
        (".off", np.float64),
    ):
        write_mesh(tmp_path / f"a{suffix}", Mesh(VERTICES, TRIANGLES))
        assert read_mesh(tmp_path / f"a{suffix}").mesh.vertices.dtype == dtype


def test_floats_of_any_size_survive_text(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(5000, 3)) * 10.0 ** generator.integers(-20, 15, (5000, 3))
    vertices = numbers.astype(np.float32)
    write_mesh(tmp_path / "a.obj", Mesh(vertices, TRIANGLES))
    np.testing.assert_array_equal(read_vertices(tmp_path / "a.obj").astype(np.float32), vertices)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sides=st.lists(st.sampled_from([3, 4]), min_size=1, max_size=8),
    seed=st.integers(0, 2**16),
    suffix=st.sampled_from([".ply", ".obj", ".off"]),
)
def test_any_mixture_of_polygons_round_trips(
    tmp_path: Path, sides: list[int], seed: int, suffix: str
) -> None:
    generator = np.random.default_rng(seed)
    faces = np.full((len(sides), max(sides)), -1)
    for face, n in zip(faces, sides, strict=True):
        face[:n] = generator.choice(10, n, replace=False)
    vertices = generator.normal(size=(10, 3)).astype(np.float32)
    write_mesh(tmp_path / f"a{suffix}", Mesh(vertices, faces))
    found = read_mesh(tmp_path / f"a{suffix}").mesh
    np.testing.assert_array_equal(found.vertices.astype(np.float32), vertices)
    np.testing.assert_array_equal(found.faces, faces)


# PLY


def big_endian_ply() -> bytes:
    """Doubles out of order, extra properties before and after, an element to skip, lists of two
    lengths.
    """
    header = (
        "ply\r\nformat binary_big_endian 1.0\r\ncomment made by hand\r\nelement camera 2\r\nproperty uchar id\r\n"
        "property list uchar short values\r\nelement vertex 5\r\nproperty uchar red\r\nproperty double z\r\n"
        "property double x\r\nproperty double y\r\nproperty float quality\r\nelement face 2\r\nproperty float area\r\n"
        "property list uint8 uint32 vertex_index\r\nproperty list uchar float texcoord\r\nend_header\r\n"
    )
    body = struct.pack(">BBhh", 1, 2, -5, 6) + struct.pack(">BB", 2, 0)
    for i in range(5):
        body += struct.pack(">Bdddf", 255, i + 0.3, i + 0.1, i + 0.2, 0.5)
    body += struct.pack(">fB4IB2f", 1.5, 4, 0, 1, 2, 4, 2, 0.1, 0.2) + struct.pack(
        ">fB3IB", 2.5, 3, 4, 3, 1, 0
    )
    return header.encode() + body


def test_big_endian_ply_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ply", big_endian_ply())
    mesh = read_mesh(path).mesh
    np.testing.assert_array_equal(mesh.vertices, np.arange(5)[:, None] + np.array([0.1, 0.2, 0.3]))
    assert mesh.vertices.dtype == np.float64 and mesh.vertices.dtype.isnative
    assert mesh.faces.tolist() == [[0, 1, 2, 4], [4, 3, 1, -1]]
    np.testing.assert_array_equal(read_vertices(path), mesh.vertices)


def test_ascii_ply_with_faces_first(tmp_path: Path) -> None:
    text = (
        "ply\nformat ascii 1.0\nobj_info nothing\nelement face 2\nproperty list uchar int vertex_indices\n"
        "element vertex 4\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\nend_header\n"
        "3 0 1 2\n4 0 1 2 3\n0 0 0.1 255\n1 0 0 255\n1 1e0 0 255\n0 1 -2.5 255\n"
    )
    mesh = read_mesh(write(tmp_path / "a.ply", text)).mesh
    assert mesh.vertices.tolist() == [[0, 0, 0.1], [1, 0, 0], [1, 1, 0], [0, 1, -2.5]]
    assert mesh.faces.tolist() == [[0, 1, 2, -1], [0, 1, 2, 3]]
    np.testing.assert_array_equal(read_vertices(tmp_path / "a.ply"), mesh.vertices)


def test_ascii_ply_with_odd_but_harmless_content(tmp_path: Path) -> None:
    text = (
        "ply\rformat ascii 1.0\rcomment caf\x85\xe9\r"
        "element nothing 7\relement vertex 3\rproperty int x\rproperty int y\r"
        "property int z\rproperty uchar red\relement face 1\rproperty list uchar int vertex_index\rend_header\r"
        "0 0 0 255.0\r1 0 0 ?\r0 1 0 0\r3 0 1 2\r"
    )
    mesh = read_mesh(write(tmp_path / "a.ply", text.encode("latin-1"))).mesh
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]] and mesh.faces.tolist() == [
        [0, 1, 2]
    ]
    assert np.issubdtype(read_vertices(tmp_path / "a.ply").dtype, np.floating)


def test_a_ply_without_faces_is_a_point_set(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.ply", Mesh(VERTICES, np.zeros((0, 3), int)))
    assert read_mesh(tmp_path / "a.ply").mesh.faces.shape == (0, 3)


def test_every_truncation_of_a_ply_is_noticed(tmp_path: Path) -> None:
    whole = big_endian_ply()
    for end in range(len(whole)):
        with pytest.raises(InputError, match=r"a\.ply"):
            read_mesh(write(tmp_path / "a.ply", whole[:end]))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    where=st.integers(0, 10**6),
    value=st.integers(0, 255),
    name=st.sampled_from(["a.ply", "b.ply", "c.obj", "d.off"]),
)
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path: Path, where: int, value: int, name: str
) -> None:
    path = tmp_path / name
    if name == "a.ply":
        write(path, big_endian_ply())
    else:
        write_mesh(path, Mesh(VERTICES, MIXED))
    content = bytearray(path.read_bytes())
    content[where % len(content)] = value
    path.write_bytes(content)
    try:
        assert isinstance(read_mesh(path), MeshFile)
    except InputError as error:
        assert name in str(error)


PLY = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("solid cube", "does not begin with 'ply'"),
        ("ply\nformat ascii 1.0\nelement vertex 3\n", "header does not end"),
        ("ply\nelement vertex 0\nend_header\n", "names no format"),
        (
            "ply\nformat ascii 1.0\nelement vertex many\nend_header\n",
            "'element vertex many' is not understood",
        ),
        (
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0",
            "do not have one x, y and z each",
        ),
        ("ply\nformat ascii 1.0\nelement face 0\nend_header\n", "do not have one x, y and z each"),
        (
            PLY.replace("property float y", "property list uchar float y")
            + "end_header\n"
            + "0 0 0\n" * 3,
            "one x, y and z each",
        ),
        (PLY.replace("3", "0") + "end_header\n", "holds no vertices"),
        (
            PLY + FACE + "3 0 1 3\n",
            "face 0 refers to a vertex that does not exist, the file holds 3",
        ),
        (PLY + FACE + "3 0 1 -1\n", "face 0 refers to a vertex that does not exist"),
        (PLY + FACE.replace("int v", "float v") + "3 0 1 2\n", "expected whole numbers"),
        (PLY + FACE + "2 0 1\n", "face 0 has 2 corners, only polygons with 3 to 255"),
        (PLY + FACE + "-1\n", "'vertex_indices' has the length -1"),
        (PLY.replace("3", "9" * 5000) + FACE, "is not understood"),
        (PLY + "property float x\n" + FACE, "property of 'vertex' 'x' twice"),
        (PLY + FACE.replace("1 0 0", "1 0 3_0.0") + "3 0 1 2\n", "got '3_0.0'"),
        (PLY + FACE.replace("1 0 0", "1 0 1e30") + "3 0 1 2\n", "beyond 1e\\+15.*vertex 1"),
        (PLY + FACE + "3 0 1\n", "ends before its 1 rows of 'face'"),
        (PLY + FACE + "3 0 1 2\n3 0 1 2", "goes on after the last element"),
        (PLY + FACE + "3 0 1 x\n", "expected a number for property vertex_indices, got 'x'"),
        (PLY + FACE.replace("1 0 0", "1 nan 0") + "3 0 1 2\n", "not finite, the first is vertex 1"),
    ],
)
def test_bad_ply(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_mesh(write(tmp_path / "bad.ply", content))
    assert "bad.ply" in str(caught.value)


# OBJ

SEAM = """# a folded strip whose middle edge is a texture seam
mtllib none.mtl
o strip
v 0 0 0 0.5 0.5 0.5
v 1 0 0 0.5 0.5 0.5
v 1 1 0
v 0 1 0
v 2 0 0.25
v 9 9 9
vt 0 0
vt 0.5 0 0
vt 0.5 1
vt 0 1
vn 0 0 1
g left
f 1/1/1 2/2/1 3/3/1 4/4/1 # a quad
vt 0.75
g right side
usemtl skin
f -5/-1/1 5/2/1 \\
  3/3/1
"""


def test_obj_by_hand(tmp_path: Path) -> None:
    found = read_mesh(write(tmp_path / "a.obj", SEAM))
    assert found.mesh.vertices.tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [0, 1, 0],
        [2, 0, 0.25],
        [9, 9, 9],
    ]
    assert found.mesh.faces.tolist() == [[0, 1, 2, 3], [1, 4, 2, -1]]
    assert found.uv is not None and found.uv_faces is not None
    assert found.uv.tolist() == [[0, 0], [0.5, 0], [0.5, 1], [0, 1], [0.75, 0]]
    assert found.uv_faces.tolist() == [[0, 1, 2, 3], [4, 1, 2, -1]]
    assert {name: faces.tolist() for name, faces in found.groups.items()} == {
        "left": [0],
        "right": [1],
        "side": [1],
    }


def test_seams_survive_an_obj_round_trip(tmp_path: Path) -> None:
    first = read_mesh(write(tmp_path / "a.obj", SEAM))
    write_mesh(tmp_path / "b.obj", first.mesh, first.uv, first.uv_faces)
    second = read_mesh(tmp_path / "b.obj")
    for name in ("uv", "uv_faces"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.mesh.vertices, second.mesh.vertices)
    np.testing.assert_array_equal(first.mesh.faces, second.mesh.faces)


@pytest.mark.parametrize("corner", ["{}", "{}/", "{}//1", "{}//"])
def test_obj_corners_without_texture(tmp_path: Path, corner: str) -> None:
    face = " ".join(corner.format(i) for i in (1, 2, 3))
    found = read_mesh(write(tmp_path / "a.obj", f"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf {face}\n"))
    assert found.mesh.faces.tolist() == [[0, 1, 2]]
    assert found.uv is None and found.uv_faces is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing here\n", "holds no vertices"),
        ("v 0 0 0\nv 1 0\n", "vertex 1 has 2 numbers, expected 3"),
        ("v 0 0 zero\n", "expected a number for a vertex, got 'zero'"),
        ("v 0 0 3_0.0\n", "expected a number for a vertex, got '3_0.0'"),
        ("v 0 0 1 0\n", "vertex 0 has weight 0"),
        ("v 0 0 0\nv 1 0 0 red\n", "got 'red'"),
        ("v 0 0 inf\n", "1 of 1 vertices are not finite"),
        ("v 0 0 0\nf 1 1 2\n", "face 0 refers to a vertex that does not exist, the file holds 1"),
        ("v 0 0 0\nf 1 1 -2\n", "face 0 refers to a vertex that does not exist"),
        ("v 0 0 0\nf 0 1 1\n", "OBJ counts from 1"),
        ("v 0 0 0\nf 1 1\n", "face 0 has 2 corners"),
        (
            "v 0 0 0\nvt 0 0\nf 1/1 1/1 1/2\n",
            "face 0 refers to a texture coordinate that does not exist",
        ),
        ("v 0 0 0\nf 1 1 99999999999999999999\n", "expected a number for a face corner"),
        (b"v 0\0 1 1", "it is binary"),
    ],
)
def test_bad_obj(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_mesh(write(tmp_path / "bad.obj", content))
    assert "bad.obj" in str(caught.value)


# OFF


@pytest.mark.parametrize(
    "header", ["OFF\n4 2 5\n", "COFF 4 2 0\n", "# hello\nSTCNOFF # what\n\n4 2 0\n"]
)
def test_off_variants(tmp_path: Path, header: str) -> None:
    extra = " 255 0 0 255" if "C" in header else ""
    rows = "".join(f"{xyz}{extra}\n" for xyz in ("0 0 0", "1 0 0", "1 1 0", "0 1 0"))
    mesh = read_mesh(
        write(tmp_path / "a.off", f"{header}{rows}4 0 1 2 3 0.5 0.5 0.5\n3 0 2 3\n")
    ).mesh
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2, 3], [0, 2, 3, -1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ply\n", "does not begin with 'OFF'"),
        ("4OFF\n1 0 0\n0 0 0 1\n", "not an OFF file of points in space"),
        ("OFF BINARY\n1 0 0\n", "does not hold what its counts announce"),
        ("OFF\n", "expected the numbers of vertices and faces"),
        ("OFF\n2 0 0\n0 0 0\n", "announces 2 vertices and 0 faces, what follows does not"),
        ("OFF\n1 1 0\n0 0 0\n3 0 0\n", "face 0 announces 3 corners but lists 2"),
        ("OFF\n1 1 0\n0 0 0\n3 0 0 1\n", "refers to a vertex that does not exist"),
        ("OFF\n1 0 0\n0 0\n", "the counts may be wrong or the file truncated"),
        ("OFF\n1 0 0\n0 0 0 1\n", "vertex 0 has 4 numbers, expected 3; the counts may be wrong"),
        ("OFF\n1 0 0\n0 0 3_0.0\n", "expected a number for vertex, got '3_0.0'"),
        ("OFF\n0 0 0\n", "holds no vertices"),
    ],
)
def test_bad_off(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_mesh(write(tmp_path / "bad.off", content))


# glTF


def test_glb_container_by_hand(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.glb", Mesh(VERTICES, QUADS), unit="mm")
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and len(data) % 4 == 0
    json_length = struct.unpack_from("<I", data, 12)[0]
    assert json_length % 4 == 0 and data[20 + json_length + 4 :][:4] == b"BIN\0"
    binary = data[20 + json_length + 8 :]
    np.testing.assert_array_equal(np.frombuffer(binary, "<f4", VERTICES.size), VERTICES.ravel())
    triangles = np.frombuffer(binary[-4 * 6 * len(QUADS) :], "<u4").reshape(-1, 3)
    np.testing.assert_array_equal(triangles, triangulate(QUADS, VERTICES))


def test_gltf_applies_the_pose_of_its_node_and_wants_one_mesh(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    write_mesh(path, Mesh(VERTICES, TRIANGLES), unit="mm")
    plain = path.read_text()
    moved = write(
        path,
        plain.replace('{"mesh": 0}', '{"mesh": 0, "translation": [1, 2, 3], "scale": [2, 2, 2]}'),
    )
    np.testing.assert_allclose(read_vertices(moved), 2 * VERTICES + np.array([1, 2, 3]), rtol=1e-6)
    double = plain.replace('{"mesh": 0}', '{"mesh": 0}, {"mesh": 0}').replace(
        '"nodes": [0]', '"nodes": [0, 1]'
    )
    with pytest.raises(InputError, match="expected one mesh, found 2"):
        read_mesh(write(path, double))


def test_bad_gltf(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable glTF file"):
        read_mesh(write(tmp_path / "bad.glb", b"glTF"))
    with pytest.raises(InputError, match="is glTF version 1953849888"):
        read_mesh(write(tmp_path / "bad.glb", b"glTF but not really"))
    with pytest.raises(InputError, match="at least one triangle"):
        write_mesh(tmp_path / "none.glb", Mesh(VERTICES, np.zeros((0, 3), int)))


# The rest


def test_unknown_suffix_missing_file_and_stl(tmp_path: Path) -> None:
    mesh = Mesh(VERTICES, TRIANGLES)
    with pytest.raises(
        InputError, match=r"unknown mesh suffix '\.fbx', expected one of \.ply \.obj"
    ):
        write_mesh(tmp_path / "a.fbx", mesh)
    with pytest.raises(InputError, match="vertex order is lost"):
        read_mesh(tmp_path / "a.stl")
    for suffix in MESH_SUFFIXES:
        with pytest.raises(InputError, match="no such file"):
            read_vertices(tmp_path / f"none{suffix}")


def test_texture_coordinates_must_fit(tmp_path: Path) -> None:
    mesh, uv = Mesh(VERTICES, QUADS), np.zeros((4, 2))
    with pytest.raises(InputError, match="must be given together"):
        write_mesh(tmp_path / "a.obj", mesh, uv)
    with pytest.raises(InputError, match=r"uv_faces of shape \(3, 4\), got \(3, 3\)"):
        write_mesh(tmp_path / "a.obj", mesh, uv, QUADS[:, :3])
    with pytest.raises(InputError, match=r"must lie in 0\.\.3"):
        write_mesh(tmp_path / "a.obj", mesh, uv, QUADS)
    with pytest.raises(InputError, match=r"shape \(U, 2\), got \(4, 3\)"):
        write_mesh(tmp_path / "a.obj", mesh, np.zeros((4, 3)), QUADS)


def test_stack_is_memory_mapped_or_read(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", stack)
    np.savez(tmp_path / "a.npz", vertices=stack, faces=TRIANGLES)
    assert isinstance(read_stack(tmp_path / "a.npy"), np.memmap)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(read_stack(tmp_path / name), stack)


def test_bad_stack(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((3, 15)))
    np.save(tmp_path / "whole.npy", np.zeros((3, 5, 3), int))
    np.savez(tmp_path / "other.npz", shapes=np.zeros((3, 5, 3)))
    np.save(tmp_path / "cut.npy", np.zeros((3, 5, 3)))
    write(tmp_path / "cut.npy", (tmp_path / "cut.npy").read_bytes()[:-1])
    for name, message in (
        ("flat.npy", r"expected floats of shape \(N, V, 3\), got float64 \(3, 15\)"),
        ("whole.npy", "got int64"),
        ("other.npz", "expected an array 'vertices', it holds shapes"),
        ("cut.npy", "may be truncated"),
        ("none.npy", "no such file"),
        ("a.csv", r"in \.npy or \.npz, got \.csv"),
    ):
        with pytest.raises(InputError, match=message):
            read_stack(tmp_path / name)
