"""Compare the faces of a mesh with those of the template that it should be registered to, and say
in words what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morphable.mesh.topology import edges, half_edges


@dataclass(frozen=True)
class FaceMatch:
    """Whether a mesh `fits` the template, and the `difference` in words; "" if there is none."""

    fits: bool
    difference: str = ""


def match_faces(faces: np.ndarray, own: np.ndarray) -> FaceMatch:
    """Compare faces (F, 3 or more, empty corners are -1) with the template's `own`.

    They fit if they are the same polygons, in any order, from any first corner and in either
    winding, or the same polygons split into triangles in any way: formats such as GLB hold
    triangles only.
    """
    if np.array_equal(faces, own):
        return FaceMatch(True)
    if own.shape[1] > 3 and faces.shape[1] == 3:
        found = _match_triangles(faces, own)
        if found is not None:
            return found
    if len(faces) == len(own) and np.array_equal(_sorted(_rolled(faces)), _sorted(_rolled(own))):
        return FaceMatch(
            True, "its faces are the template's, in another order or from another corner on"
        )

    mine, theirs = _sorted(_unwound(faces)), _sorted(_unwound(own))
    missing, extra = _without(theirs, mine), _without(mine, theirs)
    if not len(missing) and not len(extra):
        flipped = len(_without(_sorted(_rolled(faces)), _sorted(_rolled(own))))
        which = "all" if flipped == len(faces) else f"{flipped:,} of {len(faces):,}"
        return FaceMatch(True, f"its faces are the template's, {which} wound the other way")
    if not len(extra):
        return FaceMatch(
            False, f"{len(missing):,} of the template's {len(own):,} faces are missing"
        )
    if not len(missing):
        return FaceMatch(False, f"has {len(extra):,} faces that the template does not have")
    # A diagonal lies between two faces. On a closed surface nothing has an outline, so the edges
    # must tell a few other diagonals from other vertices.
    diagonals = len(_without(edges(own), edges(faces)))
    if diagonals < len(missing) and np.array_equal(_outline(missing), _outline(extra)):
        return FaceMatch(
            False,
            f"{len(extra):,} of its faces fill the outlines of the template's with other diagonals",
        )
    if len(faces) == len(own) and np.array_equal(_valences(faces), _valences(own)):
        return FaceMatch(
            False, "its faces are the template's with the vertices renumbered: another vertex order"
        )
    return FaceMatch(
        False,
        f"its faces are not the template's: {len(extra):,} of {len(faces):,} differ; the vertices "
        "were reordered or merged, or the topology is another",
    )


def _match_triangles(triangles: np.ndarray, own: np.ndarray) -> FaceMatch | None:
    """Compare triangles with polygons that they may fill; None if they are of another surface."""
    corners = (own >= 0).sum(axis=1)
    missing = int((corners - 2).sum()) - len(triangles)
    if not missing and _are_split(triangles, own, np.repeat(np.arange(len(own)), corners - 2)):
        return FaceMatch(True)
    owner = _owners(triangles, own)
    if not missing and _are_split(triangles, own, owner):
        return FaceMatch(True, "its triangles fill the template's faces, in another order")
    if missing > 0 and (owner >= 0).all():
        return FaceMatch(
            False, f"{missing:,} of the triangles that fill the template's faces are missing"
        )
    return None


def _are_split(triangles: np.ndarray, own: np.ndarray, owner: np.ndarray) -> bool:
    """Whether triangles fill the polygons that `owner` (T,) names."""
    # They do if each side of a polygon, and no other edge, belongs to one of its triangles only.
    corners = (own >= 0).sum(axis=1)
    return np.array_equal(
        _outlines(half_edges(triangles), np.repeat(owner, 3)),
        _outlines(half_edges(own), np.repeat(np.arange(len(own)), corners)),
    )


def _owners(triangles: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(T,) a polygon that has all three corners of each triangle; -1 if there is none."""
    count = 1 + max(int(triangles.max()), int(own.max()))
    shared = (_incidence(triangles, count) @ _incidence(own, count).T).tocoo()
    owner = np.full(len(triangles), -1, np.int64)
    owner[shared.row[shared.data == 3]] = shared.col[shared.data == 3]
    return owner


def _incidence(faces: np.ndarray, count: int) -> sp.csr_matrix:
    """(F, count) 1 where a face has a vertex."""
    rows = np.repeat(np.arange(len(faces)), (faces >= 0).sum(axis=1))
    columns = faces[faces >= 0]
    return sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(faces), count))


def _outlines(sides: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(S, 3) the number of a polygon and the two ends of a side, sorted, for the sides (H, 2) that
    the polygon `owner` (H,) has only once.
    """
    rows = np.column_stack([owner, np.sort(sides, axis=1)])
    unique, count = np.unique(rows, axis=0, return_counts=True)
    return unique[count == 1]


def _outline(faces: np.ndarray) -> np.ndarray:
    """The sides of the area that faces fill: the edges that only one of them has."""
    return _outlines(half_edges(faces), np.zeros((faces >= 0).sum(), np.int64))


def _rolled(faces: np.ndarray) -> np.ndarray:
    """Each face from its lowest vertex on."""
    rolled = np.full_like(faces, -1)
    corners = (faces >= 0).sum(axis=1)
    for count in np.unique(corners):
        own = faces[corners == count, :count]
        places = (own.argmin(axis=1)[:, None] + np.arange(count)) % count
        rolled[corners == count, :count] = np.take_along_axis(own, places, axis=1)
    return rolled


def _unwound(faces: np.ndarray) -> np.ndarray:
    """Each face from its lowest vertex on, towards the lower of that one's neighbors."""
    rolled = _rolled(faces)
    corners = (faces >= 0).sum(axis=1)
    last = np.take_along_axis(rolled, corners[:, None] - 1, axis=1)[:, 0]
    for count in np.unique(corners):
        turn = (corners == count) & (last < rolled[:, 1])
        rolled[turn, 1:count] = rolled[turn, 1:count][:, ::-1]
    return rolled


def _sorted(faces: np.ndarray) -> np.ndarray:
    """The faces in the order of their vertices."""
    return faces[np.lexsort(faces.T[::-1])]


def _without(faces: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The faces, with empty corners, that are not among the others."""
    width = max(faces.shape[1], others.shape[1])
    wide = [
        np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1)
        for part in (faces, others)
    ]
    both, which = np.unique(np.concatenate(wide), axis=0, return_inverse=True)
    among = np.isin(np.arange(len(both)), which[len(faces) :])
    return wide[0][~among[which[: len(faces)]]]


def _valences(faces: np.ndarray) -> np.ndarray:
    """How many faces the vertices have, sorted."""
    return np.sort(np.bincount(faces[faces >= 0]))
