"""Read and write OFF (Geomview). Colors and normals of its variants are ignored."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import atomic_path
from morphable.mesh.io.meshfile import (
    MeshFile,
    checked_vertices,
    pack_faces,
    read_bytes,
    text_rows,
    to_numbers,
)
from morphable.mesh.mesh import Mesh

_KEYWORD = re.compile(
    rb"(?:\s*#[^\r\n]*[\r\n])*\s*(ST)?(C)?(N)?OFF(?![A-Za-z])([ \t]+BINARY[ \t]*(?:\r\n|\r|\n))?"
)
_Rows = list[list[bytes]]


def read_off(path: Path) -> MeshFile:
    """Read an OFF file (also COFF, NOFF, STOFF and their combinations), text or binary. The keyword
    may be missing or glued to the counts; rows may be split over lines or share one.

    Raises InputError if the file is not OFF, its counts do not fit or an index is out of range.
    """
    data = read_bytes(path)
    keyword = _KEYWORD.match(data)
    extra = 0  # numbers of a vertex after its position: texture coordinates, color and normal
    if keyword:
        data = data[keyword.end() :]
        sizes = zip((2, 4, 3), keyword.groups(), strict=False)
        extra = sum(size for size, letters in sizes if letters)
        if keyword[4]:
            return _read_binary(path, data, 3 + extra)
    lines = [line.partition(b"#")[0].split() for line in data.rstrip(b"\0").splitlines()]
    lines = [words for words in lines if words]
    if not keyword and not (lines and lines[0][0].isdigit()):
        raise InputError(
            f"{path}: not an OFF file of points in space, it does not begin with 'OFF'"
        )
    n_vertices, n_faces = _take_counts(path, lines)
    # A line of one or two words is part of a row.
    if len(lines) == n_vertices + n_faces and all(len(words) > 2 for words in lines):
        rows, polygons = lines[:n_vertices], lines[n_vertices:]
        _check_widths(path, rows, plain=not extra)
    else:
        rows, polygons = _free_rows(path, lines, n_vertices, n_faces, 3 + extra)
    words = chain.from_iterable(row[:3] for row in rows)
    vertices = checked_vertices(path, to_numbers(path, "vertex", words, float).reshape(-1, 3))
    sides = to_numbers(path, "the corner count of a face", (row[0] for row in polygons), int)
    short = next(
        (i for i, (row, n) in enumerate(zip(polygons, sides, strict=True)) if len(row) <= n), None
    )
    if short is not None:
        raise InputError(
            f"{path}: face {short} announces {sides[short]} corners but lists "
            f"{len(polygons[short]) - 1}"
        )
    words = chain.from_iterable(row[1 : 1 + n] for row, n in zip(polygons, sides, strict=True))
    corners = to_numbers(path, "a face corner", words, int)
    return MeshFile(Mesh(vertices, pack_faces(path, corners, sides, len(vertices))))


def write_off(path: Path, mesh: Mesh) -> None:
    """Write ascii OFF: positions that are exact in float32, and faces with all their corners."""
    sides = (mesh.faces >= 0).sum(axis=1).tolist()
    rows = zip(mesh.faces.astype(str).tolist(), sides, strict=True)
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="ascii", newline="\n") as file,
    ):
        file.write(f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n")
        file.write(text_rows("", mesh.vertices))
        file.writelines(f"{n} {' '.join(row[:n])}\n" for row, n in rows)


def _take_counts(path: Path, lines: _Rows) -> list[int]:
    """Remove the counts of vertices, faces and edges from the lines. The edges may be left out."""
    taken: list[bytes] = []
    wanted = 2 if lines and len(lines[0]) == 2 else 3
    while lines and len(taken) < wanted:
        missing = wanted - len(taken)
        taken += lines[0][:missing]
        lines[0] = lines[0][missing:]
        if not lines[0]:
            del lines[0]
    counts = to_numbers(path, "the counts", taken, int)
    if len(counts) < 2 or (counts < 0).any():
        raise InputError(f"{path}: expected the numbers of vertices and faces after 'OFF'")
    return counts[:2].tolist()


def _check_widths(path: Path, rows: _Rows, plain: bool) -> None:
    """Raise InputError if the rows of the vertices differ in width. plain: if the keyword announces
    nothing but positions; some programs then write colors all the same.
    """
    expected = len(rows[0]) if rows else 3
    if plain and expected not in (3, 6, 7):
        expected = 3
    other = next((i for i, row in enumerate(rows) if len(row) != expected), None)
    if other is not None:
        raise InputError(
            f"{path}: vertex {other} has {len(rows[other])} numbers, expected {expected}; the "
            "counts may be wrong"
        )


def _free_rows(
    path: Path, lines: _Rows, n_vertices: int, n_faces: int, width: int
) -> tuple[_Rows, _Rows]:
    """The rows of vertices and faces, wherever the lines break. A face has a color only if it ends
    its line.
    """
    wrong = InputError(
        f"{path}: announces {n_vertices} vertices and {n_faces} faces, what follows does not hold "
        "just these; the counts may be wrong or the file truncated"
    )
    words = list(chain.from_iterable(lines))
    start = n_vertices * width
    if start > len(words) or n_faces > len(words):
        raise wrong
    rows = [words[i : i + width] for i in range(0, start, width)]
    faces: _Rows = []
    position = start
    for _ in range(n_faces):
        if position == len(words) or not words[position].isdigit():
            break
        end = position + 1 + int(words[position][:9])
        face = words[position:end]
        if not 3 < len(face) == end - position == 1 + len(set(face[1:])):
            break
        faces.append(face)
        position = end
    if len(faces) == n_faces and position == len(words):
        return rows, faces
    for number, line in enumerate(lines):
        if start < len(line):
            polygons = [line[start:], *lines[number + 1 :]]
            break
        start -= len(line)
    else:
        polygons = []
    if len(polygons) != n_faces:
        raise wrong
    return rows, polygons


def _read_binary(path: Path, data: bytes, width: int) -> MeshFile:
    """Read what follows the keyword of a binary file: big-endian words of four bytes. A face is its
    corner count, the corners, and the count and numbers of its color.
    """
    whole = np.frombuffer(data, ">i4", len(data) // 4)
    truncated = InputError(f"{path}: does not hold what its counts announce, it may be truncated")
    if len(whole) < 3 or (whole[:2] < 0).any():
        raise truncated
    n_vertices, n_faces = whole[:2].tolist()
    position = 3 + n_vertices * width
    if position + 2 * n_faces > len(whole):
        raise truncated
    numbers = whole[3:position].view(">f4").reshape(n_vertices, width)
    vertices = checked_vertices(path, numbers[:, :3].astype(np.float32))
    corners, sides = [], []
    for _ in range(n_faces):
        n = int(whole[position]) if position < len(whole) else -1
        color = position + 1 + n
        if n < 0 or color >= len(whole) or whole[color] < 0:
            raise truncated
        corners.append(whole[position + 1 : color])
        sides.append(n)
        position = color + 1 + int(whole[color])
    if position > len(whole) or data[4 * position :].strip(b"\0\r\n "):
        raise truncated
    joined = np.concatenate([np.zeros(0, np.int64), *corners])
    return MeshFile(Mesh(vertices, pack_faces(path, joined, np.array(sides, np.int64), n_vertices)))
