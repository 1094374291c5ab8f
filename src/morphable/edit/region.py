"""Edits one region of a shape by moving its handles, and keeps everything outside the region
exactly in place.

An edit adds the change that the model predicts to the input shape, so details that the model cannot
represent are kept. In a band inside the region's border, the displacement is the smoothest
(biharmonic) one between zero outside the region and the full edit further inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spsolve

from morphable.errors import InputError
from morphable.mesh.regions import handle_list
from morphable.mesh.topology import adjacency
from morphable.models.base import MorphableModel
from morphable.models.handles import RegionEditor

BAND_RINGS = 3
"""Width of the band in which a hard blend lets the displacement fall to zero, in rings of vertices.
"""

Blend = Literal["hard", "none"]


@dataclass(frozen=True, eq=False)
class Region:
    """A region of a model's template that can be edited.

    number: its position among the model's regions. inside: (V,) bool. controls: (C,) its control
    vertices: handle 0, 1, ... of the region. neighbors: (V, V) sparse adjacency of the whole
    template.
    """

    name: str
    number: int
    inside: np.ndarray
    controls: np.ndarray
    neighbors: sp.csr_matrix

    def handle(self, text: str) -> int:
        """The control vertex that a user names: `h3` is handle 3 of this region, `v791` is vertex
        791, and a plain number is whichever of the two exists.

        Raises InputError, listing the handles, if there is none, or if a plain number is both.
        """
        kind, digits = (text[:1], text[1:]) if text[:1] in ("h", "v") else ("", text)
        number = int(digits) if digits.isascii() and digits.isdecimal() else -1
        found = []
        if kind != "v" and 0 <= number < len(self.controls):
            found.append(int(self.controls[number]))
        if kind != "h" and number in self.controls:
            found.append(number)
        if not found:
            raise InputError(
                f"`move` {text}: region {self.name!r} has no such handle; its handles and their "
                f"vertices are {handle_list(self.controls)}",
                "move",
            )
        if len(set(found)) > 1:
            raise InputError(
                f"`move` {text}: handle {number} of {self.name!r} is vertex {found[0]}, and vertex "
                f"{number} is a handle too; write h{number} or v{number}",
                "move",
            )
        return found[0]


@dataclass(frozen=True, eq=False)
class RegionEdit:
    """An edited shape, and measures of the edit.

    vertices: (V, 3) mm. movement: (V,) mm, the distance that each vertex moved. inside: (V,) bool,
    the vertices of the region. seam_mm: the largest distance between the displacement of a border
    vertex and the mean displacement of its neighbors.
    """

    vertices: np.ndarray
    movement: np.ndarray
    inside: np.ndarray
    seam_mm: float

    @property
    def outside_mm(self) -> float:
        """The largest movement of a vertex outside the region. It is exactly 0 after a hard blend."""
        return float(self.movement[~self.inside].max(initial=0.0))


def require_editor(model: MorphableModel) -> RegionEditor:
    """Return the model if its regions can be edited.

    Otherwise raises InputError, which names the families whose regions can be edited.
    """
    if not isinstance(model, RegionEditor):
        raise InputError(
            f"{model.family} has no handles to edit regions by; "
            "lamm, lamm-mixer and region-pca have"
        )
    return model


def find_region(model: RegionEditor, name: str) -> Region:
    """The model's region of this name.

    Raises InputError if there is none, or if it has no control vertices.
    """
    model.template.region(name)
    number = model.regions.names.index(name)
    controls = model.regions.controls[number]
    if not len(controls):
        raise InputError(f"region {name!r}: has no control vertices, so it cannot be edited")
    mesh = model.template.mesh
    neighbors = adjacency(mesh.faces, len(mesh.vertices)).tocsr()
    return Region(name, number, model.regions.labels == number, controls, neighbors)


def complete_moves(
    model: RegionEditor, region: Region, move: Mapping[int, np.ndarray]
) -> torch.Tensor:
    """(C, 3) mm displacements of all handles of a region, if some of them are known.

    move: (3,) mm by vertex number, the known displacements. The other handles get their most likely
    displacement. Raises InputError if a vertex is not a control vertex of the region.
    """
    for vertex in move:
        region.handle(f"v{vertex}")
    return model.handles.complete(region.number, move)


@torch.no_grad()
def edit_region(
    model: RegionEditor,
    vertices: np.ndarray,
    region: Region,
    moved: torch.Tensor,
    blend: Blend = "hard",
) -> RegionEdit:
    """Displace the handles of one region of a shape (V, 3) mm by `moved` (C, 3) mm.

    blend: with `hard`, nothing outside the region moves. `none` gives the unchanged prediction of
    the model, which may also move vertices outside.
    """
    shape = torch.from_numpy(np.asarray(vertices, np.float32))[None].to(model.device)
    displacement = model.displacement(region.number, moved[None].to(shape))
    # Decode the unedited and the edited shape in one batch. Batches of different sizes differ in
    # the last bits, and then a displacement of zero would not give a change of exactly zero.
    both = model.edit(
        shape.repeat(2, 1, 1), torch.cat([torch.zeros_like(displacement), displacement])
    )
    change = (both[1] - both[0]).cpu().numpy().astype(np.float64)
    if blend == "hard":
        change = confine(change, region.inside, region.neighbors)
    result = (vertices + change).astype(np.float32)
    # Vertices that do not move keep their input bits, whatever the precision of the input is.
    result[~change.any(1)] = vertices[~change.any(1)]
    return RegionEdit(
        result,
        np.linalg.norm(change, axis=1),
        region.inside,
        seam(change, region.inside, region.neighbors),
    )


def confine(
    change: np.ndarray, inside: np.ndarray, neighbors: sp.csr_matrix, rings: int = BAND_RINGS
) -> np.ndarray:
    """Restrict displacements `change` (V, 3) to a region. The result is zero outside, `change` deep
    inside, and as smooth as possible in a band of `rings` rings between.

    The band is narrower if the region is thin, so that its innermost vertices keep their change.
    """
    depth = ring_depth(neighbors, inside)
    within = depth[inside]
    deepest = int(within[np.isfinite(within)].max(initial=0))
    band = inside & (depth <= min(rings, deepest - 1))
    result = np.where(inside[:, None], change, 0.0)
    if not band.any():
        return result
    degree = np.asarray(neighbors.sum(1)).ravel()
    laplacian = sp.csr_matrix(
        sp.identity(len(change)) - sp.diags_array(1 / np.maximum(degree, 1)) @ neighbors
    )
    # In the band, minimize |L x|^2 for the graph Laplacian L, with all other displacements fixed.
    result[band] = 0.0
    free, known = laplacian[:, band], laplacian[:, ~band] @ result[~band]
    solved = spsolve(sp.csc_matrix(free.T @ free), -(free.T @ known))
    result[band] = solved.reshape(-1, 3)
    return result


def ring_depth(neighbors: sp.csr_matrix, inside: np.ndarray) -> np.ndarray:
    """(V,) number of edges from each vertex to the nearest vertex outside the region.

    It is 0 outside, 1 on the border, and inf if no path leads outside.
    """
    depth = np.where(inside, np.inf, 0.0)
    front, ring = ~inside, 0
    while front.any():
        ring += 1
        front = (neighbors @ front.astype(np.float64) > 0) & np.isinf(depth)
        depth[front] = ring
    return depth


def seam(change: np.ndarray, inside: np.ndarray, neighbors: sp.csr_matrix) -> float:
    """The largest distance (mm) between the displacement of a border vertex, on either side of the
    border, and the mean displacement of its neighbors.
    """
    mean = neighbors @ change / np.maximum(np.asarray(neighbors.sum(1)), 1)
    flag = inside.astype(np.float64)
    border = (inside & (neighbors @ (1 - flag) > 0)) | (~inside & (neighbors @ flag > 0))
    return float(np.linalg.norm(change - mean, axis=1)[border].max(initial=0.0))
