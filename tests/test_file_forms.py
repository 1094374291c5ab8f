"""Mesh files in every form that their formats allow, and the slips that programs make in them: read
rightly or refused, never read as another mesh.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from morphable.errors import InputError
from morphable.mesh.io import read_mesh, read_vertices, write_mesh
from morphable.mesh.mesh import Mesh

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.5], [0, 1, -2.5]])
FACES = [[0, 1, 2, 3], [0, 2, 3, -1]]
BOM = b"\xef\xbb\xbf"


def check(path: Path, content: str | bytes, faces: list[list[int]] = FACES) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    mesh = read_mesh(path).mesh
    np.testing.assert_array_equal(mesh.vertices, SQUARE)
    assert mesh.faces.tolist() == faces
    np.testing.assert_array_equal(read_vertices(path), SQUARE)


# OBJ

VERTICES = "v 0 0 0\nv 1 0 0\nv 1 1 0.5\nv 0 1 -2.5\n"
OBJ: dict[str, str | bytes] = {
    "byte order mark": BOM + (VERTICES + "f 1 2 3 4\nf 1 3 4\n").encode(),
    "a comment that ends in a backslash": VERTICES + "# from C:\\tmp\\\nf 1 2 3 4\nf 1 3 4\n",
    "a backslash above the first vertex": "# from C:\\\r\n" + VERTICES + "f 1 2 3 4\nf 1 3 4\n",
    "a comment behind a face": VERTICES + "f 1 2 3 4 # C:\\\nf 1 3 4\n",
    "a material that ends in a backslash": VERTICES + "usemtl C:\\\nf 1 2 3 4\ng \\\nf 1 3 4\n",
    "text without a mark": VERTICES + "saved in C:\\\nf 1 2 3 4\nf 1 3 4\n",
    "a face that ends in a backslash": VERTICES + "f 1 2 3 4 \\\nf 1 3 4\\\n",
    "continued": VERTICES + "f 1 2 \\\n3 4\nf 1\\\n 3 \\\r\n 4\n",
    "continued behind a blank": VERTICES + "f 1 2 \\  \n3 4\nf 1 \\\t\n# why\n\n 3 4\n",
    "weights": "v 0 0 0 7\nv 2 0 0 2\nv 1 1 0.5 1\nv 0 -2 5 -2\nf 1 2 3 4\nf 1 3 4\n",
    "colors": VERTICES.replace("\n", " 0.5 0.5 0.5\n") + "f 1 2 3 4\nf 1 3 4\n",
    "zeros at the end": VERTICES + "f 1 2 3 4\nf 1 3 4\n\0\0\0",
    "lines that end in a return": (VERTICES + "f 1 2 3 4\nf 1 3 4\n").replace("\n", "\r"),
}


@pytest.mark.parametrize("name", list(OBJ))
def test_obj(tmp_path: Path, name: str) -> None:
    check(tmp_path / "a.obj", OBJ[name])


# OFF

ROWS = "0 0 0\n1 0 0\n1 1 0.5\n0 1 -2.5\n"
POLYGONS = "4 0 1 2 3\n3 0 2 3\n"


def binary_off(keyword: bytes, extra: int) -> bytes:
    body = struct.pack(">3i", 4, 2, 0)
    for row in SQUARE:
        body += struct.pack(f">{3 + extra}f", *row, *[0.5] * extra)
    return (
        keyword
        + b" BINARY\n"
        + body
        + struct.pack(">6i", 4, 0, 1, 2, 3, 0)
        + struct.pack(">5i2f", 3, 0, 2, 3, 2, 1, 1)
    )


OFF: dict[str, str | bytes] = {
    "plain": "OFF\n4 2 0\n" + ROWS + POLYGONS,
    "byte order mark": BOM + ("OFF\n4 2 0\n" + ROWS + POLYGONS).encode(),
    "counts glued to the keyword": "OFF4 2 0\n" + ROWS + POLYGONS,
    "no keyword": "# a square\n4 2 0\n" + ROWS + POLYGONS,
    "no edges": "OFF\n4 2\n" + ROWS + POLYGONS,
    "rows that share a line": "OFF 4 2 0 0 0 0 1 0 0\n1 1 0.5 0 1 -2.5 4 0 1\n2 3 3 0 2 3",
    "rows over two lines": "OFF\n4\n2 0\n0\n0 0\n1 0 0\n1 1 0.5\n0 1\n-2.5\n4 0\n1 2 3\n3 0 2\n3\n",
    "as many lines as rows": "OFF\n4 2 0\n0 0 0 1 0\n0\n1 1 0.5\n0 1 -2.5\n" + POLYGONS,
    "vertices on one line, faces with colors": "OFF\n4 2 0\n"
    + ROWS.replace("\n", " ")
    + "\n4 0 1 2 3 255 0 0\n3 0 2 3 0.5 0.5 0.5\n",
    "colors without a keyword for them": "OFF\n4 2 0\n"
    + ROWS.replace("\n", " 255 0 0\n")
    + POLYGONS,
    "normals, rows that share a line": "NOFF 4 2 0 "
    + ROWS.replace("\n", " 0 0 1 ")
    + POLYGONS.replace("\n", " "),
    "binary": binary_off(b"OFF", 0),
    "binary with texture, colors and normals": binary_off(b"# a\nSTCNOFF", 9),
    "zeros at the end": "OFF\n4 2 0\n" + ROWS + POLYGONS + "\0\0",
}


@pytest.mark.parametrize("name", list(OFF))
def test_off(tmp_path: Path, name: str) -> None:
    check(tmp_path / "a.off", OFF[name])


@pytest.mark.parametrize("faces", [0, 1, 2])
@pytest.mark.parametrize("shift", [-2, -1, 1, 2])
def test_off_with_shifted_counts(tmp_path: Path, shift: int, faces: int) -> None:
    """Whether the number of faces makes up for the shift or not."""
    rows = "".join(f"{i % 4} {i // 4} {i * i % 5}\n" for i in range(16))
    polygons = "".join(f"3 {i} {(i + 1) % 16} {(i + 5) % 16}\n" for i in range(18))
    number = {0: 18 - shift, 1: 18, 2: 18 + shift}[faces]
    (tmp_path / "a.off").write_text(f"OFF\n{16 + shift} {number} 0\n{rows}{polygons}")
    with pytest.raises(InputError, match=r"a\.off"):
        read_mesh(tmp_path / "a.off")


@pytest.mark.parametrize("cut", [0, 3, 30, 59, 60, 70, 92, 100])
def test_truncated_binary_off(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.off").write_bytes(b"OFF BINARY\n" + binary_off(b"OFF", 0)[11:][:cut])
    with pytest.raises(InputError, match=r"a\.off"):
        read_mesh(tmp_path / "a.off")


# PLY

HEADER = (
    "ply\nformat FORMAT 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    "property float z\nelement face 2\nproperty list uchar int vertex_indices\nend_header\n"
)


def ply(header: str = HEADER, form: str = "binary_little_endian", corner: str = "i") -> bytes:
    order = "<" if "little" in form else ">"
    if form == "ascii":
        body = (ROWS + POLYGONS).encode()
    else:
        body = struct.pack(f"{order}12f", *SQUARE.ravel())
        body += struct.pack(f"{order}B4{corner}", 4, 0, 1, 2, 3)
        body += struct.pack(f"{order}B3{corner}", 3, 0, 2, 3)
    return header.replace("FORMAT", form).encode() + body


PLY: dict[str, bytes] = {
    "ascii": ply(form="ascii"),
    "big endian": ply(form="binary_big_endian"),
    "byte order mark": BOM + ply(form="ascii"),
    "blanks behind the lines": ply(HEADER.replace("\n", "  \n")),
    "a blank behind ply": ply(HEADER.replace("ply\n", "ply \n")),
    "blanks and returns": ply(HEADER.replace("\n", " \r\n")),
    "returns behind the first line only": ply(HEADER.replace("ply\n", "ply\r\n")),
    "returns behind all lines but the last": ply(
        HEADER.replace("\n", "\r\n").removesuffix("\r\n") + "\n"
    ),
    "lines that end in a return": ply(HEADER.replace("\n", "\r")),
    "zeros at the end": ply() + b"\0" * 7,
    "zeros at the end of text": ply(form="ascii") + b"\0\0",
    "int64 corners": ply(HEADER.replace("uchar int", "uchar int64"), corner="q"),
    "uint64 corners": ply(HEADER.replace("uchar int", "uchar uint64"), corner="Q"),
}


@pytest.mark.parametrize("name", list(PLY))
def test_ply(tmp_path: Path, name: str) -> None:
    check(tmp_path / "a.ply", PLY[name])


def test_a_body_that_begins_with_a_line_feed_byte(tmp_path: Path) -> None:
    """After lines that end in a return alone, such a byte belongs to the first number."""
    square = SQUARE.astype("<f4")
    square[0, 0] = np.frombuffer(b"\n\n\n@", "<f4")[0]
    content = HEADER.replace("FORMAT", "binary_little_endian").replace("face 2", "face 0")
    path = tmp_path / "a.ply"
    path.write_bytes(content.replace("\n", "\r").encode() + square.tobytes())
    np.testing.assert_array_equal(read_mesh(path).mesh.vertices, square)


@pytest.mark.parametrize("strips", ["8 0 1 3 2 -1 2 3 0", "4 0 1 3 2\n3 2 3 0", "6 0 1 3 2 2 2"])
def test_triangle_strips(tmp_path: Path, strips: str) -> None:
    n = strips.count("\n") + 1
    header = HEADER.replace("face 2", f"tristrips {n}").replace("uchar", "int")
    path = tmp_path / "a.ply"
    path.write_text(header.replace("FORMAT", "ascii") + ROWS + strips + "\n")
    expected = [[0, 1, 3], [3, 1, 2], *([[2, 3, 0]] if "0 1 3 2 2" not in strips else [])]
    assert read_mesh(path).mesh.faces.tolist() == expected


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_a_list_of_negative_length(tmp_path: Path, form: str) -> None:
    """The lengths of faces, and of a property that is not read."""
    for header in (HEADER, HEADER.replace("vertex_indices", "other")):
        header = header.replace("uchar int", "int int").replace("face 2", "face 1")
        body = ROWS.encode() + b"-1\n"
        if form != "ascii":
            order = "<" if "little" in form else ">"
            body = struct.pack(f"{order}12fi", *SQUARE.ravel(), -1)
        (tmp_path / "a.ply").write_bytes(header.replace("FORMAT", form).encode() + body)
        with pytest.raises(InputError, match=r"a\.ply: a list '.*' has the length -1"):
            read_mesh(tmp_path / "a.ply")


# Polygons with more than four corners


def ring(n: int) -> np.ndarray:
    angle = np.arange(n) * 2 * np.pi / n
    return np.stack([np.cos(angle), np.sin(angle), np.zeros(n)], axis=1).astype(np.float32)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off"])
def test_polygons_of_any_size_come_back(tmp_path: Path, suffix: str) -> None:
    faces = np.full((4, 255), -1)
    for row, n in zip(faces, (3, 5, 255, 4), strict=True):
        row[:n] = np.arange(n)
    path = tmp_path / f"a{suffix}"
    write_mesh(path, Mesh(ring(300), faces))
    np.testing.assert_array_equal(read_mesh(path).mesh.faces, faces)
    text = f"{VERTICES}f {' '.join(['1 2 3 4'] * 64)}\n"
    (tmp_path / "many.obj").write_text(text)
    with pytest.raises(InputError, match="face 0 has 256 corners, only polygons with 3 to 255"):
        read_mesh(tmp_path / "many.obj")


def test_an_obj_of_polygons_keeps_its_seams(tmp_path: Path) -> None:
    uv = ring(5)[:, :2]
    mesh = Mesh(ring(5), np.arange(5)[None])
    write_mesh(tmp_path / "a.obj", mesh, uv, np.array([[4, 0, 1, 2, 3]]))
    found = read_mesh(tmp_path / "a.obj")
    assert found.uv_faces is not None and found.uv_faces.tolist() == [[4, 0, 1, 2, 3]]
    assert found.mesh.faces.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("row", [[0, 1, -1, 2, 3], [0, 1, 2, -1, 3], [0, 1, 2, 3, -2]])
def test_only_the_end_of_a_row_may_be_empty(row: list[int]) -> None:
    with pytest.raises(InputError, match="mesh faces"):
        Mesh(ring(5), np.array([row]))
