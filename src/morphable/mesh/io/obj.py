"""Read and write Wavefront OBJ. Vertex order, polygons and texture seams are kept, because positions
and texture coordinates stay separate lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
    to_rows,
)
from morphable.mesh.mesh import Mesh


@dataclass
class _Statements:
    """The words of an OBJ file, sorted by kind of statement."""

    positions: list[list[bytes]] = field(default_factory=list)
    uv: list[list[bytes]] = field(default_factory=list)
    corners: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    # Numbers of positions and of uv that precede each face, for indices that count back.
    before: list[tuple[int, int]] = field(default_factory=list)
    # First face and names of each group.
    groups: list[tuple[int, list[bytes]]] = field(default_factory=list)


def read_obj(path: Path) -> MeshFile:
    """Read an OBJ file. Normals, materials, lines and vertex colors are ignored; `g` and `o` become
    groups. A vertex with a fourth number, its weight, is divided by it.

    Raises InputError if the file is not OBJ or an index is out of range.
    """
    statements = _Statements()
    for words in _lines(path):
        match words[0]:
            case b"v":
                statements.positions.append(words[1:])
            case b"vt":
                statements.uv.append([*words[1:], b"0"][:2])
            case b"f":
                statements.corners += words[1:]
                statements.counts.append(len(words) - 1)
                statements.before.append((len(statements.positions), len(statements.uv)))
            case b"g":
                statements.groups.append((len(statements.counts), words[1:]))
            case b"o":
                statements.groups.append((len(statements.counts), [b" ".join(words[1:])]))
    vertices = _vertices(path, statements.positions)
    counts = np.array(statements.counts, np.int64)
    corners = [corner.split(b"/") for corner in statements.corners]
    before = np.repeat(np.array(statements.before, np.int64).reshape(-1, 2), counts, axis=0)
    indices = _zero_based(path, [corner[0] for corner in corners], before[:, 0])
    mesh = Mesh(vertices, pack_faces(path, indices, counts, len(vertices)))
    groups = _groups(statements.groups, len(counts))
    if not corners or not all(len(corner) > 1 and corner[1] for corner in corners):
        return MeshFile(mesh, groups=groups)
    uv = to_rows(path, "texture coordinate", statements.uv, 2)
    indices = _zero_based(path, [corner[1] for corner in corners], before[:, 1])
    uv_faces = pack_faces(path, indices, counts, len(uv), "texture coordinate")
    return MeshFile.textured(mesh, uv, uv_faces, groups)


def read_obj_vertices(path: Path) -> np.ndarray:
    """Read only the positions (V, 3); faces are neither parsed nor checked. Raises InputError as
    `read_obj`.
    """
    return _vertices(path, [words[1:] for words in _lines(path) if words[0] == b"v"])


def write_obj(
    path: Path, mesh: Mesh, uv: np.ndarray | None = None, uv_faces: np.ndarray | None = None
) -> None:
    """Write positions (exact in float32), faces and, if given, texture coordinates
    with their seams.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="ascii", newline="\n") as file,
    ):
        file.write(text_rows("v ", mesh.vertices))
        if uv is None or uv_faces is None:
            corners = (mesh.faces + 1).astype(str)
        else:
            file.write(text_rows("vt ", uv))
            corners = np.strings.add(
                np.strings.add((mesh.faces + 1).astype(str), "/"), (uv_faces + 1).astype(str)
            )
        count = (mesh.faces >= 0).sum(axis=1).tolist()
        file.writelines(
            f"f {' '.join(row[:n])}\n" for row, n in zip(corners.tolist(), count, strict=True)
        )


_CONTINUED = {b"v", b"vt", b"vn", b"vp", b"f", b"l", b"p"}


def _lines(path: Path) -> Iterator[list[bytes]]:
    """Yield the words of each non-empty line, with continued lines joined and comments removed.

    Only numbers can be continued. A backslash at the end of a comment or of a name, such as a
    folder of Windows, must not swallow the statement below it.
    """
    data = read_bytes(path).rstrip(b"\0")
    if b"\0" in data:
        raise InputError(f"{path}: not an OBJ file, it is binary")
    begun: list[bytes] = []
    for line in data.splitlines():
        words = line.partition(b"#")[0].split()
        if not words:
            continue
        if begun and words[0].isalpha():
            yield begun
            begun = []
        words = begun + words
        begun = []
        if words[0] in _CONTINUED and words[-1].endswith(b"\\"):
            last = words.pop().removesuffix(b"\\")
            begun = [*words, last] if last else words
        else:
            yield words
    if begun:
        yield begun


def _vertices(path: Path, rows: list[list[bytes]]) -> np.ndarray:
    """Positions (V, 3) of the words after each `v`: x y z, then a weight, a color or both."""
    to_numbers(path, "a vertex", chain.from_iterable(rows), float)
    vertices = to_rows(path, "vertex", [row[:3] for row in rows], 3)
    weighted = [i for i, row in enumerate(rows) if len(row) == 4]
    if weighted:
        weights = to_numbers(path, "a vertex", (rows[i][3] for i in weighted), float)
        if (weights == 0).any():
            first = weighted[int(np.argmax(weights == 0))]
            raise InputError(f"{path}: vertex {first} has weight 0, it is infinitely far away")
        vertices[weighted] /= weights[:, None]
    return checked_vertices(path, vertices)


def _zero_based(path: Path, words: list[bytes], before: np.ndarray) -> np.ndarray:
    """Parse indices and make them zero-based. A negative index counts back from the last of the
    `before` elements that precede its face in the file.
    """
    stated = to_numbers(path, "a face corner", words, int)
    if (stated == 0).any():
        raise InputError(f"{path}: a face refers to index 0, OBJ counts from 1")
    return np.where(stated > 0, stated - 1, before + stated)


def _groups(starts: list[tuple[int, list[bytes]]], n_faces: int) -> dict[str, np.ndarray]:
    members: dict[str, list[np.ndarray]] = {}
    ends = [start for start, _ in starts[1:]] + [n_faces]
    for (start, names), end in zip(starts, ends, strict=False):
        for name in names if end > start else []:
            members.setdefault(name.decode(errors="replace"), []).append(np.arange(start, end))
    return {name: np.concatenate(faces) for name, faces in members.items()}
