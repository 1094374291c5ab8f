"""Sections on how local a LAMM's regions are: one learned token corrupted, one region drawn at
random (Tarasiou et al., CVPR 2024, supplement).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from morphable.draw.blocks import Cell, ColorBar, Labeled, Picture, Section, Table, Text
from morphable.draw.colors import heat_colors, scale_end
from morphable.draw.numbers import number
from morphable.edit.region import RegionEdit, edit_region, find_region
from morphable.mesh.topology import adjacency
from morphable.models.handles import RegionEditor
from morphable.models.lamm import Lamm
from morphable.report.context import ReportContext
from morphable.report.scene import Scene, middles

NOISE = 0.5
"""Standard deviation of the noise on each entry of a token. That of a fresh token is 1."""
DRAWS = 3
MAX_REGIONS = 11
COLUMNS = 4


def corrupted_tokens(context: ReportContext) -> Section | None:
    """Show where the surface moves if Gaussian noise is added to the learned token of one
    region.
    """
    model, scene = context.model, context.scene
    if not isinstance(model, Lamm) or not model.config.bottleneck:
        return None
    row = middles(len(scene.meshes), 1)
    shape, code = scene.meshes.vertices[row][0], scene.codes[torch.from_numpy(row)]
    movements = list(token_movements(model, code))
    limit = scale_end(np.stack(movements))
    touching = touching_regions(model)
    cells: list[Cell] = []
    named = list(zip(model.regions.names, movements, strict=True))[:MAX_REGIONS]
    for region, (name, movement) in enumerate(named):
        pixels = scene.view.pixels(shape, heat_colors(movement, limit))
        means = movement_by_place(model.regions.labels, touching, movement, region)
        described = f"token of {name}: movement"
        cells.append(Picture(pixels, described, _places(means), title=name))
    lines: list[list[Cell]] = [
        ["", *cells[start : start + COLUMNS]] for start in range(0, len(cells), COLUMNS)
    ]
    lead = (
        "Gaussian noise on the learned token of one region, and how far each vertex moves: on "
        "average inside the region, in those that touch it, and in the others. At the decoder's "
        "input only that region changes; other regions change only because the decoder mixes "
        "tokens."
    )
    table = Table([""] * (1 + COLUMNS), lines, "pictures")
    return Section("One token corrupted", [Text(lead, "lead"), table, ColorBar(limit, "movement")])


@torch.no_grad()
def token_movements(model: Lamm, code: Tensor) -> Iterator[np.ndarray]:
    """Yield, for each region, how far (V,) mm each vertex moves if its token is given noise.

    code: (1, L). The noise is drawn with a fixed seed, region by region, and the model itself is
    not changed.
    """
    generator = torch.Generator().manual_seed(0)
    code = code.to(model.device)
    before, learned = model.decode(code), model.network.learned_tokens
    for region in range(len(learned)):
        noise = NOISE * torch.randn(learned.shape[1], generator=generator)
        corrupted = learned.clone()
        corrupted[region] += noise.to(learned)
        yield (model.decode(code, corrupted) - before)[0].norm(dim=-1).cpu().numpy()


def drawn_regions(context: ReportContext) -> Section | None:
    """Show each region drawn at random on one mesh, without blend, and how far other regions move
    with it.
    """
    model, scene = context.model, context.scene
    if not isinstance(model, RegionEditor):
        return None
    shape = scene.meshes.vertices[int(middles(len(scene.meshes), 1)[0])]
    able = [region for region, controls in enumerate(model.regions.controls) if len(controls)]
    draws = {region: _random_edits(model, shape, region) for region in able}
    limit = scale_end(np.stack([edit.movement for edits in draws.values() for edit in edits]))
    touching = touching_regions(model)
    lines = [
        _drawn_row(scene, model, region, draws[region], touching, limit)
        for region in able[:MAX_REGIONS]
    ]
    lead = (
        "The handles of one region drawn from the Gaussian of its aligned displacements, without "
        "blend: shapes colored by how far they moved, the first draws, none left out. Below the "
        "name, how far vertices move on average inside the region, in those that touch it, and in "
        "the others: what moves together with the region is learned from the training shapes."
    )
    table = Table(["", *(f"draw {i + 1}" for i in range(DRAWS))], lines, "pictures")
    return Section(
        "Regions drawn at random", [Text(lead, "lead"), table, ColorBar(limit, "movement")]
    )


def _random_edits(model: RegionEditor, shape: np.ndarray, region: int) -> list[RegionEdit]:
    moves = model.handles.sample(region, DRAWS, torch.Generator().manual_seed(1))
    place = find_region(model, model.regions.names[region])
    return [edit_region(model, shape, place, moved, "none") for moved in moves]


def _drawn_row(
    scene: Scene,
    model: RegionEditor,
    region: int,
    edits: list[RegionEdit],
    touching: np.ndarray,
    limit: float,
) -> list[Cell]:
    name = model.regions.names[region]
    moved = np.mean([edit.movement for edit in edits], axis=0)
    means = movement_by_place(model.regions.labels, touching, moved, region)
    pictures = [
        scene.view.picture(
            edit.vertices, f"{name}, {place}: movement", heat_colors(edit.movement, limit)
        )
        for place, edit in enumerate(edits, start=1)
    ]
    return [Labeled(name, _places(means)), *pictures]


def _places(means: tuple[float, float, float]) -> str:
    inside, near, far = (number(mean, 2) for mean in means)
    return f"{inside} mm inside, {near} in neighbors, {far} elsewhere"


def touching_regions(model: RegionEditor) -> np.ndarray:
    """Return which regions share an edge of the surface, (R, R) bool."""
    labels = model.regions.labels
    pairs = adjacency(model.template.mesh.faces, len(labels)).tocoo()
    touching = np.zeros((len(model.regions.names),) * 2, bool)
    touching[labels[pairs.row], labels[pairs.col]] = True
    return touching


def movement_by_place(
    labels: np.ndarray, touching: np.ndarray, movement: np.ndarray, region: int
) -> tuple[float, float, float]:
    """Return the mean movement in mm in a region, in regions that touch it, and in all others; 0
    for a place without vertices.

    labels: (V,) region of each vertex. touching: (R, R) bool. movement: (V,) mm.
    """
    inside = labels == region
    near = touching[region][labels] & ~inside
    inner, neighbors, far = (
        float(movement[mask].mean()) if mask.any() else 0.0
        for mask in (inside, near, ~inside & ~near)
    )
    return inner, neighbors, far
