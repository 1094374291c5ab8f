"""MeshFile: the content of one mesh file, and the steps that the readers of all formats share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import reading
from morphable.mesh.mesh import Mesh


@dataclass(frozen=True, eq=False)
class MeshFile:
    """The content of a mesh file, in the order and the unit of the file.

    mesh: vertices in the file's own precision (text counts as float64); quads and larger polygons
        are kept.
    uv, uv_faces: (U, 2) texture coordinates and (F, K) their indices per face corner, which keeps
        seams without splitting a vertex; None unless every face has them, all finite.
    groups: face indices (K,) of each named group.
    targets: offsets (V, 3) of each named morph target, which only glTF has.
    """

    mesh: Mesh
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def textured(
        cls,
        mesh: Mesh,
        uv: np.ndarray,
        uv_faces: np.ndarray,
        groups: Mapping[str, np.ndarray] | None = None,
    ) -> MeshFile:
        """The content with its texture coordinates, which some programs write as nan."""
        if not np.isfinite(uv).all():
            return cls(mesh, groups=groups or {})
        return cls(mesh, uv, uv_faces, groups or {})


MAX_CORNERS = 255
"""Corners of the largest polygon that can be read: what the usual PLY header can count."""
MAX_COORDINATE = 1e15
"""No mesh is this large in any unit, and the squares of larger numbers overflow in float32."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_bytes(path: Path) -> bytes:
    """Read the content of a file, without the byte order mark that some editors put before text.

    Raises InputError if it is missing, unreadable or empty.
    """
    with reading(path, "cannot be read"):
        data = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    if not data.strip():
        raise InputError(f"{path}: the file is empty")
    return data


def to_numbers(
    path: Path, what: str, words: Iterable[bytes], kind: type[int] | type[float]
) -> np.ndarray:
    """Parse n words as int64 or float64 (n,). Raises InputError, naming the first that is not a
    number and `what` it should be.
    """
    words = list(words)
    try:
        if b"_" in b" ".join(words):  # Python reads 3_0 as 30
            raise ValueError
        return np.fromiter(map(kind, words), np.int64 if kind is int else np.float64, len(words))
    except (ValueError, OverflowError):
        bad = next(word for word in words if not _is_number(word, kind))
        text = bad.decode(errors="replace")
        raise InputError(f"{path}: expected a number for {what}, got {text!r}") from None


def _is_number(word: bytes, kind: type[int] | type[float]) -> bool:
    try:
        number = kind(word)
    except ValueError:
        return False
    return b"_" not in word and (kind is float or abs(number) < 2**63)


def to_rows(path: Path, what: str, rows: list[list[bytes]], width: int) -> np.ndarray:
    """Parse rows of words as float64 (n, width). Raises InputError, naming the first row that is
    too short.
    """
    short = next((i for i, row in enumerate(rows) if len(row) < width), None)
    if short is not None:
        raise InputError(f"{path}: {what} {short} has {len(rows[short])} numbers, expected {width}")
    return to_numbers(path, what, chain.from_iterable(rows), float).reshape(-1, width)


def pack_faces(
    path: Path, corners: np.ndarray, counts: np.ndarray, n_points: int, what: str = "vertex"
) -> np.ndarray:
    """Build int64 faces (F, K) from the concatenated corners of all faces and the corner count (F,)
    of each, K being the largest. A polygon with fewer corners ends in -1.

    Raises InputError if a polygon has fewer than three or more than MAX_CORNERS corners, or an
    index is outside 0..n_points-1.
    """
    if corners.dtype.kind == "f":
        raise InputError(f"{path}: the corners of its faces are fractions, expected whole numbers")
    counts, corners = counts.astype(np.int64), corners.astype(np.int64)
    other = np.flatnonzero((counts < 3) | (counts > MAX_CORNERS))
    if len(other):
        sides = counts[other[0]]
        raise InputError(
            f"{path}: face {other[0]} has {sides} corners, only polygons with 3 to {MAX_CORNERS} "
            "can be read"
        )
    outside = np.flatnonzero((corners < 0) | (corners >= n_points))
    if len(outside):
        face = np.searchsorted(np.cumsum(counts), outside[0], side="right")
        raise InputError(
            f"{path}: face {face} refers to a {what} that does not exist, the file holds {n_points}"
        )
    width = int(counts.max(initial=3))
    faces = np.full((len(counts), width), -1, np.int64)
    faces[np.arange(width) < counts[:, None]] = corners
    return faces


def checked_vertices(path: Path, vertices: np.ndarray) -> np.ndarray:
    """Return the vertices (V, 3). Raises InputError if there are none, or one is not finite or
    absurdly far away.
    """
    if len(vertices) == 0:
        raise InputError(f"{path}: holds no vertices")
    for fault, bad in (
        ("are not finite", ~np.isfinite(vertices)),
        (f"have a coordinate beyond {MAX_COORDINATE:g}", np.abs(vertices) > MAX_COORDINATE),
    ):
        rows = np.flatnonzero(bad.any(axis=1))
        if len(rows):
            raise InputError(
                f"{path}: {len(rows)} of {len(vertices)} vertices {fault}, the first is vertex "
                f"{rows[0]}"
            )
    return vertices


def strip_triangles(strip: np.ndarray) -> np.ndarray:
    """The triangles (T, 3) of a strip (n,) of corners, alternately wound. Those with a corner twice
    are left out, because they only lead from one strip to the next.

    >>> strip_triangles(np.array([0, 1, 2, 3])).tolist()
    [[0, 1, 2], [2, 1, 3]]
    """
    triangles = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
    triangles[1::2] = triangles[1::2, [1, 0, 2]]
    a, b, c = triangles.T
    return triangles[(a != b) & (b != c) & (c != a)]


def text_rows(prefix: str, rows: np.ndarray) -> str:
    """Format one line per row; floats as the shortest text that gives the same float32 back."""
    words = (
        rows.astype(np.float32).astype(str)
        if np.issubdtype(rows.dtype, np.floating)
        else rows.astype(str)
    )
    return "".join(f"{prefix}{' '.join(row)}\n" for row in words.tolist())
