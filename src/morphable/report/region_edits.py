"""Section on edits by region, for models with handles: edited shapes, and how far they moved."""

from __future__ import annotations

import numpy as np

from morphable.draw.blocks import Block, Cell, ColorBar, Heading, Section, Table, Text
from morphable.draw.colors import heat_colors, scale_end
from morphable.draw.numbers import millimeters, number
from morphable.edit.region import Blend, RegionEdit, edit_region, find_region
from morphable.evaluate.measure_table import MEASURES
from morphable.models.handles import RegionEditor
from morphable.report.context import ReportContext
from morphable.report.scene import Scene, middles

FAVORITES = ("nose", "mouth", "chin", "forehead", "thumb", "index", "middle", "head", "chest")
SHOWN = 5
LEAD = (
    "Each row gives one test mesh a region of another person, aligned at its border, through the "
    "region's handles. The heat maps show how far each vertex moves; below them the mean movement "
    "inside the region, the largest outside, and the largest jump at the border. With a hard blend "
    "nothing outside moves at all."
)
MEASURED = (
    "control_error_mm",
    "control_moved_mm",
    "other_error_mm",
    "other_moved_mm",
    "locality",
)


def region_edits(context: ReportContext) -> Section | None:
    """Show one test mesh with one region of another, region by region: with a hard blend, and
    without, which shows what the model itself moves.
    """
    model, scene = context.model, context.scene
    if not isinstance(model, RegionEditor) or len(scene.meshes) < 2:
        return None
    source, other = scene.meshes.vertices[middles(len(scene.meshes), 2)]
    edits = {
        name: (
            _edited(model, source, other, name, "hard"),
            _edited(model, source, other, name, "none"),
        )
        for name in chosen_regions(model)
    }
    limit = scale_end(np.stack([hard.movement for hard, _ in edits.values()]))
    lines: list[list[Cell]] = [
        ["before", scene.view.picture(source, "the mesh that is edited"), "", ""]
    ]
    for name, (hard, free) in edits.items():
        edited = scene.view.picture(hard.vertices, f"{name} of another")
        hard_map = _movement(scene, source, hard, f"{name} moves, hard blend", limit)
        free_map = _movement(scene, source, free, f"{name} moves, no blend", limit)
        lines.append([name, edited, hard_map, free_map])
    header = ["", "edited", "movement, hard blend", "movement, no blend"]
    table = Table(header, lines, "pictures")
    blocks = [Text(LEAD, "lead"), table, ColorBar(limit, "movement"), *_measures(context)]
    return Section("Edits by region", blocks)


def chosen_regions(model: RegionEditor) -> list[str]:
    """Return at most SHOWN regions that have handles, those with familiar names first."""
    able = [
        name
        for name, controls in zip(model.regions.names, model.regions.controls, strict=True)
        if len(controls)
    ]
    known = [name for word in FAVORITES for name in able if word in name]
    return list(dict.fromkeys([*known, *able]))[:SHOWN]


def _edited(
    model: RegionEditor, source: np.ndarray, other: np.ndarray, name: str, blend: Blend
) -> RegionEdit:
    region = find_region(model, name)
    moved = model.handles.swap(region.number, source, other)
    return edit_region(model, source, region, moved, blend)


def _movement(scene: Scene, source: np.ndarray, edit: RegionEdit, what: str, limit: float) -> Cell:
    inside = float(edit.movement[edit.inside].mean())
    caption = (
        f"{millimeters(inside)} inside, {number(edit.outside_mm, 2)} outside, "
        f"seam {number(edit.seam_mm, 2)}"
    )
    colors = heat_colors(edit.movement, limit)
    return scene.view.picture(source, f"where editing {what}", colors, caption)


def _measures(context: ReportContext) -> list[Block]:
    """Show the measures of edits by the model and by region-PCA, if there are any."""
    rows = []
    for title, measures in (
        (context.scene.name, context.measures()),
        ("region-PCA", context.measures("region_pca")),
    ):
        if MEASURED[0] in measures:
            rows.append([title, *(number(measures[key]) for key in MEASURED)])
    if not rows:
        return []
    header = ["", *(_head(key) for key in MEASURED)]
    lead = "All handles of one test mesh moved to where another's are, over pairs of test meshes."
    return [Heading("Held-out pairs"), Text(lead), Table(header, rows)]


def _head(key: str) -> str:
    measure = MEASURES[key]
    return f"{measure.title}, {measure.unit}" if measure.unit else measure.title
