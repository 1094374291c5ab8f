"""Read and write OFF (Geomview). Colors and normals of its variants are ignored."""

from __future__ import annotations

import re
from pathlib import Path

from morphable.errors import InputError
from morphable.files import atomic_path
from morphable.mesh.io.meshfile import (
    MeshFile,
    checked_vertices,
    pack_faces,
    read_bytes,
    text_rows,
    to_numbers,
    to_rows,
)
from morphable.mesh.mesh import Mesh


def read_off(path: Path) -> MeshFile:
    """Read an ascii OFF file (also COFF, NOFF, STOFF and their combinations); quads are kept.

    Raises InputError if the file is not OFF, its counts do not fit or a polygon is neither a
    triangle nor a quad.
    """
    lines = [line.partition(b"#")[0].split() for line in read_bytes(path).splitlines()]
    lines = [words for words in lines if words]
    if not lines or not re.fullmatch(rb"(ST)?C?N?OFF", lines[0][0]) or lines[0][1:2] == [b"BINARY"]:
        raise InputError(
            f"{path}: not an ascii OFF file of points in space, it does not begin with 'OFF'"
        )
    lines[0] = lines[0][1:]  # the counts may follow the keyword on the same line
    lines = lines if lines[0] else lines[1:]
    counts = to_numbers(path, "the counts", lines[0][:2] if lines else [], int)
    if len(counts) < 2 or (counts < 0).any():
        raise InputError(f"{path}: expected the numbers of vertices and faces after 'OFF'")
    n_vertices, n_faces = counts.tolist()
    if len(lines) - 1 != n_vertices + n_faces:
        raise InputError(
            f"{path}: announces {n_vertices} vertices and {n_faces} faces but has "
            f"{len(lines) - 1} lines for them, the file may be truncated"
        )
    rows, polygons = lines[1 : 1 + n_vertices], lines[1 + n_vertices :]
    vertices = checked_vertices(path, to_rows(path, "vertex", [row[:3] for row in rows], 3))
    sides = to_numbers(path, "the corner count of a face", (row[0] for row in polygons), int)
    short = next(
        (i for i, (row, n) in enumerate(zip(polygons, sides, strict=True)) if len(row) <= n), None
    )
    if short is not None:
        raise InputError(
            f"{path}: face {short} announces {sides[short]} corners but lists "
            f"{len(polygons[short]) - 1}"
        )
    words = (word for row, n in zip(polygons, sides, strict=True) for word in row[1 : 1 + n])
    corners = to_numbers(path, "a face corner", words, int)
    return MeshFile(Mesh(vertices, pack_faces(path, corners, sides, len(vertices))))


def write_off(path: Path, mesh: Mesh) -> None:
    """Write ascii OFF: positions that are exact in float32, and faces with their quads."""
    sides = (mesh.faces >= 0).sum(axis=1).tolist()
    rows = zip(mesh.faces.astype(str).tolist(), sides, strict=True)
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="ascii", newline="\n") as file,
    ):
        file.write(f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n")
        file.write(text_rows("", mesh.vertices))
        file.writelines(f"{n} {' '.join(row[:n])}\n" for row, n in rows)
