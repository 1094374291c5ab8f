"""Decimation with caps: the border of an open mesh stays where it is."""

from __future__ import annotations

import numpy as np

from conftest import ball_template
from morphable.mesh.capped import decimate_capped
from morphable.mesh.decimate import decimate
from morphable.mesh.topology import boundary_edges


def tube() -> tuple[np.ndarray, np.ndarray]:
    """An open cylinder of 24 rings with 32 vertices, of radius 1, from z = 0 to 3."""
    around, along = np.linspace(0, 2 * np.pi, 32, endpoint=False), np.linspace(0, 3, 24)
    z, a = np.meshgrid(along, around, indexing="ij")
    vertices = np.stack([np.cos(a), np.sin(a), z], -1).reshape(-1, 3)
    index = np.arange(len(vertices)).reshape(24, 32)
    ahead = np.roll(index, -1, axis=1)
    first = np.stack([index[:-1], ahead[:-1], ahead[1:]], -1).reshape(-1, 3)
    second = np.stack([index[:-1], ahead[1:], index[1:]], -1).reshape(-1, 3)
    return vertices, np.concatenate([first, second])


def test_borders_stay_in_place() -> None:
    vertices, triangles = tube()
    plain, capped = (make(vertices, triangles, 100) for make in (decimate, decimate_capped))
    heights = [
        vertices[made.kept[np.unique(boundary_edges(made.triangles))], 2]
        for made in (plain, capped)
    ]
    assert not np.isin(heights[0], (0, 3)).all(), "plain decimation leaves a ragged border"
    assert np.isin(heights[1], (0, 3)).all() and set(heights[1]) == {0, 3}
    assert abs(len(capped.kept) - 100) <= 2 and capped.kept.max() < len(vertices)
    assert np.array_equal(np.unique(capped.triangles), np.arange(len(capped.kept)))


def test_a_closed_mesh_is_decimated_as_ever() -> None:
    mesh = ball_template(200).mesh
    vertices, triangles = mesh.vertices, mesh.triangles
    assert not len(boundary_edges(triangles))
    one, other = (make(vertices, triangles, 60) for make in (decimate, decimate_capped))
    assert np.array_equal(one.kept, other.kept)
    assert np.array_equal(one.triangles, other.triangles)
