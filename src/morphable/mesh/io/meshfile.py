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

    mesh: vertices in the file's own precision (text counts as float64); quads are kept.
    uv, uv_faces: (U, 2) texture coordinates and (F, 3 or 4) their indices per face corner, which
        keeps seams without splitting a vertex; None unless every face has them.
    groups: face indices (K,) of each named group.
    """

    mesh: Mesh
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_bytes(path: Path) -> bytes:
    """Read the content of a file. Raises InputError if it is missing, unreadable or empty."""
    with reading(path, "cannot be read"):
        data = path.read_bytes()
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
        return np.fromiter(map(kind, words), np.int64 if kind is int else np.float64, len(words))
    except (ValueError, OverflowError):
        bad = next(word for word in words if not _is_number(word, kind))
        text = bad.decode(errors="replace")
        raise InputError(f"{path}: expected a number for {what}, got {text!r}") from None


def _is_number(word: bytes, kind: type[int] | type[float]) -> bool:
    try:
        return not isinstance(number := kind(word), int) or abs(number) < 2**63
    except ValueError:
        return False


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
    """Build int64 faces (F, 3 or 4) from the concatenated corners of all faces and the corner count
    (F,) of each. A triangle among quads has -1 as its fourth entry.

    Raises InputError if a polygon has fewer than three or more than four corners, or an index is
    outside 0..n_points-1.
    """
    if corners.dtype.kind == "f":
        raise InputError(f"{path}: the corners of its faces are fractions, expected whole numbers")
    counts, corners = counts.astype(np.int64), corners.astype(np.int64)
    other = np.flatnonzero((counts < 3) | (counts > 4))
    if len(other):
        sides = counts[other[0]]
        raise InputError(
            f"{path}: face {other[0]} has {sides} corners, only triangles and quads can be read"
        )
    outside = np.flatnonzero((corners < 0) | (corners >= n_points))
    if len(outside):
        face = np.searchsorted(np.cumsum(counts), outside[0], side="right")
        raise InputError(
            f"{path}: face {face} refers to a {what} that does not exist, the file holds {n_points}"
        )
    width = 4 if (counts == 4).any() else 3
    faces = np.full((len(counts), width), -1, np.int64)
    faces[np.arange(width) < counts[:, None]] = corners
    return faces


def checked_vertices(path: Path, vertices: np.ndarray) -> np.ndarray:
    """Return the vertices (V, 3). Raises InputError if there are none or one is not finite."""
    if len(vertices) == 0:
        raise InputError(f"{path}: holds no vertices")
    bad = np.flatnonzero(~np.isfinite(vertices).all(axis=1))
    if len(bad):
        raise InputError(
            f"{path}: {len(bad)} of {len(vertices)} vertices are not finite, the first is vertex "
            f"{bad[0]}"
        )
    return vertices


def text_rows(prefix: str, rows: np.ndarray) -> str:
    """Format one line per row; floats as the shortest text that gives the same float32 back."""
    words = (
        rows.astype(np.float32).astype(str)
        if np.issubdtype(rows.dtype, np.floating)
        else rows.astype(str)
    )
    return "".join(f"{prefix}{' '.join(row)}\n" for row in words.tolist())
