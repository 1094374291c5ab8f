"""Edits one region of a shape by moving its handles, and keeps everything outside the region
exactly in place. It works with every family: a model whose handles were trained says how the region
follows; with any other model, its code is fitted to the moved handles.

An edit adds the change that the model predicts to the input shape, so details that the model cannot
represent are kept. In a band inside the region's border, the displacement is the smoothest
(biharmonic) one between zero outside the region and the full edit further inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu
from torch import Tensor

from morphable.edit.handle_fit import HandleFit
from morphable.errors import InputError
from morphable.mesh.automatic_regions import template_regions
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions, border_vertices, handle_list
from morphable.mesh.topology import adjacency
from morphable.models.base import MorphableModel
from morphable.models.handles import RegionEditor, aligned_displacement

BAND_RINGS = 3
"""Width of the band in which a hard blend lets the displacement fall to zero, in rings of vertices.
"""

Blend = Literal["hard", "none"]

Response = Callable[[np.ndarray], np.ndarray]
"""How a model answers to moved handles: displacements (K, 3) mm of K handles -> displacements (V, 3)
mm of the whole shape, before they are confined to the region.
"""


@dataclass(frozen=True, eq=False)
class Region:
    """A region of a template that can be edited.

    number: its position among the regions. inside: (V,) bool. controls: (C,) its control vertices:
    handle 0, 1, ... of the region. border: its vertices by which it is aligned to the region of
    another shape. neighbors: (V, V) sparse adjacency of the whole template.
    """

    name: str
    number: int
    inside: np.ndarray
    controls: np.ndarray
    border: np.ndarray
    neighbors: sp.csr_matrix

    @cached_property
    def confinement(self) -> Confinement:
        return Confinement(self.inside, self.neighbors)

    def edited(self, vertices: np.ndarray, change: np.ndarray, blend: Blend = "hard") -> RegionEdit:
        """The shape (V, 3) mm after displacements `change` (V, 3) mm, blended."""
        if blend == "hard":
            change = self.confinement(change)
        result = (vertices + change).astype(np.float32)
        # Vertices that do not move keep their input bits, whatever the precision of the input is.
        result[~change.any(1)] = vertices[~change.any(1)]
        return RegionEdit(result, change, self.inside, seam(change, self.inside, self.neighbors))

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

    vertices: (V, 3) mm. change: (V, 3) mm, the displacement of each vertex. inside: (V,) bool, the
    vertices of the region. seam_mm: the largest distance between the displacement of a border
    vertex and the mean displacement of its neighbors.
    """

    vertices: np.ndarray
    change: np.ndarray
    inside: np.ndarray
    seam_mm: float

    @cached_property
    def movement(self) -> np.ndarray:
        """(V,) mm, the distance that each vertex moved."""
        distance: np.ndarray = np.linalg.norm(self.change, axis=1)
        return distance

    @property
    def outside_mm(self) -> float:
        """The largest movement of a vertex outside the region. It is exactly 0 after a hard blend."""
        return float(self.movement[~self.inside].max(initial=0.0))


def regions_of(model: MorphableModel) -> Regions:
    """The regions in which shapes of a model can be edited: the model's own, else those of its
    template, else automatic ones.
    """
    return model.regions if isinstance(model, RegionEditor) else template_regions(model.template)


def find_region(model: MorphableModel, name: str) -> Region:
    """The region of this name, among those of `regions_of`.

    Raises InputError if there is none, or if it has no control vertices.
    """
    return region_of(model.template.mesh, regions_of(model), name)


def region_of(mesh: Mesh, regions: Regions, name: str) -> Region:
    """One region of a template with this mesh. Raises InputError as `find_region`."""
    number = regions.number(name)
    controls = regions.controls[number]
    if not len(controls):
        raise InputError(f"region {name!r}: has no control vertices, so it cannot be edited")
    inside = regions.labels == number
    border = border_vertices(mesh.faces, regions.labels, number)
    # A region without a border, such as a separate eyeball, is aligned by all its vertices.
    border = border if len(border) else np.flatnonzero(inside)
    neighbors = adjacency(mesh.faces, len(mesh.vertices)).tocsr()
    return Region(name, number, inside, controls, border, neighbors)


def trained_editor(model: MorphableModel) -> RegionEditor | None:
    """The model, if it has learned how regions follow their handles."""
    return model if isinstance(model, RegionEditor) and model.handles_trained else None


def answer(
    model: MorphableModel,
    vertices: np.ndarray,
    region: Region,
    handles: np.ndarray,
    code: Tensor | None = None,
) -> Response:
    """How a model answers when some handles of one region of a shape are moved.

    With trained handles, the region's other handles get their most likely displacement, and the
    model predicts the rest. Otherwise the code changes by the most likely step that brings the
    handles to their goals.

    vertices: (V, 3) mm. handles: (K,) control vertices of the region. code: (L,) that of the shape;
    None: the model encodes the shape. Raises InputError if a vertex is not a handle of the region.
    """
    for vertex in handles:
        region.handle(f"v{vertex}")
    editor = trained_editor(model)
    if editor is not None:
        return _trained_answer(editor, vertices, region, handles)
    if code is None:
        with torch.no_grad():
            code = model.encode(_batch(model, vertices))[0]
    return HandleFit.of(model, code, handles).change


def _trained_answer(
    model: RegionEditor, vertices: np.ndarray, region: Region, handles: np.ndarray
) -> Response:
    with torch.no_grad():
        code = model.encode(_batch(model, vertices))
    # The most likely displacement of the other handles is linear in that of the moved ones.
    axes = np.eye(3 * len(handles)).reshape(-1, len(handles), 3)
    follow = torch.stack(
        [complete_moves(model, region, dict(zip(handles, axis, strict=True))) for axis in axes]
    ).to(code)

    rest = _displaced(model, code, region, torch.zeros(len(region.controls), 3))

    def respond(moved: np.ndarray) -> np.ndarray:
        amounts = torch.as_tensor(moved, dtype=torch.float32).to(code).ravel()
        displaced = _displaced(model, code, region, torch.tensordot(amounts, follow, 1))
        return np.asarray(displaced - rest, np.float64)

    return respond


@torch.no_grad()
def _displaced(model: RegionEditor, code: Tensor, region: Region, moved: Tensor) -> np.ndarray:
    """(V, 3) mm: the shape of a code (1, L) after all handles of one region are displaced by `moved`
    (C, 3) mm.
    """
    # Always in a batch of one: batches of different sizes differ in the last bits, and then a
    # displacement of zero would not give a change of exactly zero.
    displacement = model.displacement(region.number, moved[None].to(code))
    shape: np.ndarray = model.decode(model.displace(code, displacement))[0].cpu().numpy()
    return shape


def _batch(model: MorphableModel, vertices: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(vertices, np.float32))[None].to(model.device)


def move_handles(
    model: MorphableModel,
    vertices: np.ndarray,
    region: Region,
    moves: Mapping[int, np.ndarray],
    blend: Blend = "hard",
) -> RegionEdit:
    """Move handles of one region of a shape (V, 3) mm, with a model of any family.

    moves: (3,) mm by vertex number. Raises InputError as `answer`.
    """
    handles = np.array(list(moves))
    respond = answer(model, vertices, region, handles)
    return region.edited(vertices, respond(np.stack(list(moves.values()))), blend)


def swap_moves(region: Region, source: np.ndarray, target: np.ndarray) -> dict[int, np.ndarray]:
    """Moves of all handles that replace a region of `source` (V, 3) mm by that of `target` (V, 3)
    mm, after aligning the borders.
    """
    moved, _ = aligned_displacement(source[None], target[None], region.border, region.controls)
    return dict(zip(region.controls.tolist(), moved[0], strict=True))


@torch.no_grad()
def sample_moves(
    model: MorphableModel,
    region: Region,
    vertices: np.ndarray,
    count: int,
    generator: torch.Generator,
    scale: float = 1.0,
) -> list[dict[int, np.ndarray]]:
    """Random moves of all handles of one region of a shape (V, 3) mm.

    With trained handles, they are drawn from how the region differs between people. Otherwise they
    replace the region by that of a random shape. scale: multiplies the standard deviation. Raises
    InputError if the model has neither trained handles nor a prior.
    """
    editor = trained_editor(model)
    if editor is None:
        drawn = model.sample(count, generator, scale=scale).cpu().numpy()
        return [swap_moves(region, vertices, other) for other in drawn]
    moved = editor.handles.sample(region.number, count, generator, scale).numpy()
    return [dict(zip(region.controls.tolist(), one, strict=True)) for one in moved]


def complete_moves(model: RegionEditor, region: Region, move: Mapping[int, np.ndarray]) -> Tensor:
    """(C, 3) mm displacements of all handles of a region, if some of them are known.

    move: (3,) mm by vertex number, the known displacements. The other handles get their most likely
    displacement. Raises InputError if a vertex is not a control vertex of the region.
    """
    for vertex in move:
        region.handle(f"v{vertex}")
    return model.handles.complete(region.number, move)


def edit_region(
    model: RegionEditor,
    vertices: np.ndarray,
    region: Region,
    moved: Tensor,
    blend: Blend = "hard",
) -> RegionEdit:
    """Displace all handles of one region of a shape (V, 3) mm by `moved` (C, 3) mm, with a model
    whose handles are trained.

    blend: with `hard`, nothing outside the region moves. `none` gives the unchanged prediction of
    the model, which may also move vertices outside.
    """
    with torch.no_grad():
        code = model.encode(_batch(model, vertices))
    change = _displaced(model, code, region, moved).astype(np.float64)
    change -= _displaced(model, code, region, torch.zeros_like(moved))
    return region.edited(vertices, change, blend)


class Confinement:
    """Restricts displacements (V, 3) to a region. The result is zero outside, unchanged deep
    inside, and as smooth as possible in a band of `rings` rings between.

    The band is narrower if the region is thin, so that its innermost vertices keep their change.
    What depends on the region alone is computed once.
    """

    def __init__(
        self, inside: np.ndarray, neighbors: sp.csr_matrix, rings: int = BAND_RINGS
    ) -> None:
        depth = ring_depth(neighbors, inside)
        within = depth[inside]
        deepest = int(within[np.isfinite(within)].max(initial=0))
        self.inside = inside
        self.band = inside & (depth <= min(rings, deepest - 1))
        degree = np.asarray(neighbors.sum(1)).ravel()
        laplacian = sp.csr_matrix(
            sp.identity(len(inside)) - sp.diags_array(1 / np.maximum(degree, 1)) @ neighbors
        )
        # In the band, minimize |L x|^2 for the graph Laplacian L, with all other displacements
        # fixed.
        free = laplacian[:, self.band]
        # Rows that no vertex of the band takes part in do not matter.
        rows = np.flatnonzero(np.diff(free.tocsr().indptr))
        self._transposed = sp.csr_matrix(free[rows].T)
        self._known = sp.csr_matrix(laplacian[rows])
        self._factor = splu(sp.csc_matrix(free.T @ free)) if self.band.any() else None

    def __call__(self, change: np.ndarray) -> np.ndarray:
        result = np.where(self.inside[:, None], change, 0.0)
        if self._factor is not None:
            result[self.band] = 0.0
            result[self.band] = self._factor.solve(-(self._transposed @ (self._known @ result)))
        return result


def confine(
    change: np.ndarray, inside: np.ndarray, neighbors: sp.csr_matrix, rings: int = BAND_RINGS
) -> np.ndarray:
    """Restrict displacements `change` (V, 3) to a region, as `Confinement`."""
    return Confinement(inside, neighbors, rings)(change)


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
