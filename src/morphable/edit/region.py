"""Edits of one region through its handles; a blend over a band at its border keeps all else exactly
in place.

What an edit changes is added to the input, so that detail the model does not know survives. The
band is inside the region: there the displacement is the smoothest (biharmonic) one between zero
outside and the edit within.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spsolve

from morphable.errors import InputError
from morphable.mesh.topology import adjacency
from morphable.models.base import MorphableModel
from morphable.models.handles import RegionEditor

BAND_RINGS = 3
"""Rings of vertices within the border over which a hard blend lets the displacement fall to zero.
"""

Blend = Literal["hard", "none"]


@dataclass(frozen=True, eq=False)
class RegionEdit:
    """vertices: (V, 3) mm, the edited shape. movement: (V,) mm each vertex went. inside: (V,) bool,
    the region.

    seam_mm: the largest difference between a border vertex's displacement and the mean of its
    neighbors'.
    """

    vertices: np.ndarray
    movement: np.ndarray
    inside: np.ndarray
    seam_mm: float

    @property
    def outside_mm(self) -> float:
        """How far the vertex outside the region moved that moved most; exactly 0 after a hard
        blend.
        """
        return float(self.movement[~self.inside].max(initial=0.0))


def region_editor(model: MorphableModel) -> RegionEditor:
    """The model, if its regions can be edited; InputError says which families' can."""
    if not isinstance(model, RegionEditor):
        raise InputError(
            f"{model.family} has no handles to edit regions by; lamm, lamm-mixer and region-pca have"
        )
    return model


def region_number(model: RegionEditor, name: str) -> int:
    """Position of a region among the model's; InputError where it is unknown or has no control
    vertices.
    """
    model.template.region(name)
    number = model.regions.names.index(name)
    if not len(model.regions.controls[number]):
        raise InputError(f"region {name!r}: has no control vertices, it cannot be edited")
    return number


@torch.no_grad()
def edit_region(
    model: RegionEditor,
    vertices: np.ndarray,
    region: str,
    moved: torch.Tensor,
    blend: Blend = "hard",
) -> RegionEdit:
    """Displace the handles of one region of a shape (V, 3) mm by `moved` (C, 3) mm.

    blend: `hard`, nothing outside the region moves at all; `none`, what the model says, which may
    carry beyond.
    """
    number = region_number(model, region)
    shape = torch.from_numpy(np.asarray(vertices, np.float32))[None].to(model.device)
    displacement = model.displacement(number, moved[None].to(shape))
    # The very same batch gives both, so that a displacement of nothing is a difference of exactly
    # nothing.
    both = model.edit(
        shape.repeat(2, 1, 1), torch.cat([torch.zeros_like(displacement), displacement])
    )
    change = (both[1] - both[0]).cpu().numpy().astype(np.float64)
    inside = model.regions.labels == number
    faces = model.template.mesh.faces
    if blend == "hard":
        change = blended(change, inside, faces)
    result = (vertices + change).astype(np.float32)
    result[~change.any(1)] = vertices[~change.any(1)]
    return RegionEdit(result, np.linalg.norm(change, axis=1), inside, seam(change, inside, faces))


def blended(
    change: np.ndarray, inside: np.ndarray, faces: np.ndarray, rings: int = BAND_RINGS
) -> np.ndarray:
    """(V, 3) zero outside, `change` (V, 3) deep inside, and between them the smoothest there is
    over `rings` rings.

    The band is narrower where the region is thin: its innermost vertices always keep their change.
    """
    graph = adjacency(faces, len(change)).tocsr()
    depth = ring_depth(graph, inside)
    within = depth[inside]
    deepest = int(within[np.isfinite(within)].max(initial=0))
    band = inside & (depth <= min(rings, deepest - 1))
    result = np.where(inside[:, None], change, 0.0)
    if not band.any():
        return result
    degree = np.asarray(graph.sum(1)).ravel()
    laplacian = sp.csr_matrix(
        sp.identity(len(change)) - sp.diags_array(1 / np.maximum(degree, 1)) @ graph
    )
    result[band] = 0.0
    free, known = laplacian[:, band], laplacian[:, ~band] @ result[~band]
    solved = spsolve(sp.csc_matrix(free.T @ free), -(free.T @ known))
    result[band] = solved.reshape(-1, 3)
    return result


def ring_depth(graph: sp.csr_matrix, inside: np.ndarray) -> np.ndarray:
    """(V,) edges from each vertex to the nearest one outside: 0 outside, 1 on the border; inf where
    there is no way.
    """
    depth = np.where(inside, np.inf, 0.0)
    front, ring = ~inside, 0
    while front.any():
        ring += 1
        front = (graph @ front.astype(np.float64) > 0) & np.isinf(depth)
        depth[front] = ring
    return depth


def seam(change: np.ndarray, inside: np.ndarray, faces: np.ndarray) -> float:
    """Largest distance (mm) between the displacement of a border vertex, of either side, and its
    neighbors' mean.
    """
    graph = adjacency(faces, len(change)).tocsr()
    mean = graph @ change / np.maximum(np.asarray(graph.sum(1)), 1)
    flag = inside.astype(np.float64)
    border = (inside & (graph @ (1 - flag) > 0)) | (~inside & (graph @ flag > 0))
    return float(np.linalg.norm(change - mean, axis=1)[border].max(initial=0.0))


def parse_moves(model: RegionEditor, region: str, texts: Iterable[str]) -> torch.Tensor:
    """`VERTEX:dx,dy,dz` texts as displacements (C, 3) mm of the region's handles; those not named
    follow.

    Raises InputError where a text has another form, or its vertex is no control vertex of the
    region.
    """
    number = region_number(model, region)
    controls = model.regions.controls[number].tolist()
    moves = {}
    for text in texts:
        vertex, _, values = text.partition(":")
        try:
            index, step = int(vertex), np.array([float(value) for value in values.split(",")])
        except ValueError:
            index, step = -1, np.zeros(0)
        if step.shape != (3,) or not all(map(math.isfinite, step)):
            raise InputError(
                f"--move {text}: expected VERTEX:dx,dy,dz in mm, as in {controls[0]}:0,0,2"
            )
        if index not in controls:
            listed = ", ".join(map(str, controls))
            raise InputError(f"--move {text}: the control vertices of {region!r} are {listed}")
        moves[index] = step
    return model.handles.complete(number, moves)
