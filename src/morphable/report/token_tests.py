"""Sections on how local a LAMM's regions are: one learned token corrupted, one region drawn anew
(LAMM, supplement).
"""

from __future__ import annotations

from html import escape

import numpy as np
import torch

from morphable.draw.numbers import number
from morphable.draw.render import heat_colors
from morphable.edit.region import edit_region
from morphable.mesh.topology import adjacency
from morphable.models.handles import RegionEditor
from morphable.models.lamm import Lamm
from morphable.report.context import ReportContext, middles, scale_end
from morphable.report.gallery import HEIGHT
from morphable.report.section import Section, color_bar, image, paragraph, table

NOISE = 0.5
"""Standard deviation of what is added to a token's numbers, which start at 1."""
DRAWS = 3
MOST = 11
"""Regions shown."""
COLUMNS = 4


def corrupted_tokens(context: ReportContext) -> Section | None:
    """Where the surface moves when Gaussian noise is added to the learned token of one region."""
    model = context.model
    if not isinstance(model, Lamm) or not model.config.bottleneck:
        return None
    shape = context.test.vertices[[int(row) for row in middles(len(context.test), 1)]]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        code = model.encode(torch.from_numpy(shape).to(model.device))
        before, learned = model.decode(code), model.network.learned_tokens
        movements = []
        for region in range(len(model.regions.names)):
            noise = NOISE * torch.randn(learned.shape[1], generator=generator)
            corrupted = learned.clone()
            corrupted[region] += noise.to(learned)
            movement = (model.decode(code, corrupted) - before)[0].norm(dim=-1)
            movements.append(movement.cpu().numpy())
    limit = scale_end(np.stack(movements))
    cells, touching = [], touching_regions(model)
    for region, (name, movement) in enumerate(
        zip(model.regions.names[:MOST], movements, strict=False)
    ):
        picture = context.picture(shape[0], HEIGHT, heat_colors(movement, limit))
        said = _places(movement_by_place(model.regions.labels, touching, movement, region))
        cells.append(
            f'{escape(name)}<br>{image(picture, f"token of {name}: movement")}<span class="number">{said}</span>'
        )
    lines = [["", *cells[start : start + COLUMNS]] for start in range(0, len(cells), COLUMNS)]
    lead = (
        "Gaussian noise on the learned token of one region, and how far each vertex moves: on average inside the "
        "region, in those that touch it, and in the others. At the decoder's input only that region changes; what "
        "others do comes through the mixing of tokens."
    )
    html = table([""] * (1 + COLUMNS), lines, "pictures") + color_bar(limit, "movement")
    return Section("One token corrupted", paragraph(lead, "lead") + html)


def drawn_regions(context: ReportContext) -> Section | None:
    """Each region drawn at random on one mesh, without blend, and how far its neighbors move with
    it.
    """
    model = context.model
    if not isinstance(model, RegionEditor):
        return None
    shape = context.test.vertices[int(middles(len(context.test), 1)[0])]
    able = [region for region, controls in enumerate(model.regions.controls) if len(controls)]
    draws = {}
    for region in able:
        moves = model.handles.sample(region, DRAWS, torch.Generator().manual_seed(1))
        edits = [
            edit_region(model, shape, model.regions.names[region], moved, "none") for moved in moves
        ]
        draws[region] = [(edit.vertices, edit.movement) for edit in edits]
    limit = scale_end(np.stack([movement for found in draws.values() for _, movement in found]))
    lines, touching = [], touching_regions(model)
    for region in able[:MOST]:
        name, pairs = model.regions.names[region], draws[region]
        pictures = [
            context.picture(vertices, HEIGHT, heat_colors(movement, limit))
            for vertices, movement in pairs
        ]
        moved = np.mean([movement for _, movement in pairs], axis=0)
        means = movement_by_place(model.regions.labels, touching, moved, region)
        heading = f'{escape(name)}<span class="number">{_places(means)}</span>'
        lines.append(
            [
                heading,
                *(
                    image(picture, f"{name}, {i + 1}: movement")
                    for i, picture in enumerate(pictures)
                ),
            ]
        )
    lead = (
        "The handles of one region drawn from the Gaussian of its aligned displacements, without blend: shapes "
        "colored by how far they moved, the first draws, none left out. Beside the name how far vertices move on "
        "average inside the region, in those that touch it, and in the others: what follows the region is what the "
        "training shapes taught."
    )
    header = ["", *(f"draw {i + 1}" for i in range(DRAWS))]
    html = table(header, lines, "pictures") + color_bar(limit, "movement")
    return Section("Regions drawn at random", paragraph(lead, "lead") + html)


def _places(means: tuple[float, float, float]) -> str:
    inside, beside, far = (number(mean, 2) for mean in means)
    return f"{inside} mm inside, {beside} beside, {far} elsewhere"


def touching_regions(model: RegionEditor) -> np.ndarray:
    """(R, R) bool: which regions share an edge of the surface."""
    labels = model.regions.labels
    pairs = adjacency(model.template.mesh.faces, len(labels)).tocoo()
    touching = np.zeros((len(model.regions.names),) * 2, bool)
    touching[labels[pairs.row], labels[pairs.col]] = True
    return touching


def movement_by_place(
    labels: np.ndarray, touching: np.ndarray, movement: np.ndarray, region: int
) -> tuple[float, float, float]:
    """Mean of movement (V,) mm in the region, in regions that touch it, and in all others; 0 where
    there are none.
    """
    inside = labels == region
    near = touching[region][labels] & ~inside
    inner, beside, far = (
        float(movement[mask].mean()) if mask.any() else 0.0
        for mask in (inside, near, ~inside & ~near)
    )
    return inner, beside, far
