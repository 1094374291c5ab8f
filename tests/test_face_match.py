"""What differs between two sets of faces is told truly, and only what is the same surface fits."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import ball_template
from morphable.data.face_match import FaceMatch, match_faces
from morphable.mesh.topology import triangulate

N = 6
GRID = np.array(
    [
        [i * N + j, (i + 1) * N + j, (i + 1) * N + j + 1, i * N + j + 1]
        for i in range(N - 1)
        for j in range(N - 1)
    ]
)
TRIANGLES = np.concatenate([GRID[:, [0, 1, 3]], GRID[:, [1, 2, 3]]])
OTHERS = np.concatenate([GRID[:, [0, 1, 2]], GRID[:, [0, 2, 3]]])
MIXED = np.array([[0, 1, 2, 3, 4], [4, 3, 5, 6, -1], [0, 4, 6, -1, -1]])
SURFACES = {
    "triangles": TRIANGLES,
    "quads": GRID,
    "mixed": MIXED,
    "ball": ball_template(42).mesh.faces,
}


def flipped(faces: np.ndarray) -> np.ndarray:
    corners = (faces >= 0).sum(axis=1)
    return np.array(
        [[*face[:count][::-1], *face[count:]] for face, count in zip(faces, corners, strict=True)]
    )


@pytest.mark.parametrize("faces", SURFACES.values(), ids=SURFACES.keys())
def test_the_same_surface_fits_with_a_note(faces: np.ndarray, rng: np.random.Generator) -> None:
    assert match_faces(faces, faces) == FaceMatch(True)
    for other, words in (
        (faces[rng.permutation(len(faces))], "in another order"),
        (np.where(faces[:, -1:] >= 0, np.roll(faces, 1, axis=1), faces), "in another order"),
        (flipped(faces), "all wound the other way"),
        (np.concatenate([flipped(faces[:2]), faces[2:]])[::-1], f"2 of {len(faces)} wound"),
    ):
        found = match_faces(other, faces)
        if not np.array_equal(other, faces):
            assert found.fits and words in found.difference, found


@pytest.mark.parametrize("faces", [GRID, MIXED])
def test_polygons_may_be_split_in_any_way_and_order(faces: np.ndarray) -> None:
    split = triangulate(faces)
    assert match_faces(split, faces) == FaceMatch(True)
    assert match_faces(split[::-1], faces).fits
    assert "in another order" in match_faces(split[::-1], faces).difference
    assert match_faces(split[1:], faces).difference.startswith("1 of the triangles that fill")
    assert not match_faces(split[:-1], faces).fits


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        (OTHERS, "50 of its faces fill the outlines of the template's with other diagonals"),
        (
            np.concatenate([OTHERS[:1], OTHERS[25:26], np.delete(TRIANGLES, [0, 25], axis=0)]),
            "2 of its faces fill the outlines",
        ),
        (TRIANGLES[:-2], "2 of the template's 50 faces are missing"),
        (TRIANGLES[5:][::-1], "5 of the template's 50 faces are missing"),
        (np.concatenate([TRIANGLES, [[0, 7, 20]]]), "has 1 faces that the template does not have"),
        (
            np.random.default_rng(0).permutation(N * N)[TRIANGLES],
            "vertices renumbered: another vertex order",
        ),
        (TRIANGLES[:, [0, 1, 1]] + [0, 0, 5], "its faces are not the template's"),
    ],
)
def test_another_surface_is_refused_with_its_reason(faces: np.ndarray, words: str) -> None:
    found = match_faces(faces, TRIANGLES)
    assert not found.fits and words in found.difference, found


def test_a_closed_surface_with_its_vertices_renumbered() -> None:
    """Nothing has an outline there, so other diagonals have to be told by the edges."""
    ball = ball_template(42).mesh.faces
    found = match_faces((ball + 1) % 42, ball)
    assert not found.fits and "another vertex order" in found.difference
