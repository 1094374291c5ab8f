"""Report section of models with handles: one shape with one region after another edited, and where
it moved.
"""

from __future__ import annotations

from html import escape

import numpy as np

from morphable.draw.numbers import millimeters, number
from morphable.draw.render import heat_colors
from morphable.edit.region import RegionEdit, edit_region
from morphable.models.handles import RegionEditor
from morphable.report.context import ReportContext, middles, scale_end
from morphable.report.section import Section, color_bar, image, paragraph, table

FAVORITES = ("nose", "mouth", "chin", "forehead", "thumb", "index", "middle", "head", "chest")
SHOWN = 5
HEIGHT = 300


def region_edits(context: ReportContext) -> Section | None:
    """One test mesh with the region of another, region by region, hard blend beside what the model
    alone says.
    """
    model = context.model
    if not isinstance(model, RegionEditor) or len(context.test) < 2:
        return None
    rows = middles(len(context.test), 2)
    source, other = (context.test.vertices[int(row)] for row in rows)
    names = chosen_regions(model)
    hard = {name: _edited(model, source, other, name, "hard") for name in names}
    free = {name: _edited(model, source, other, name, "none") for name in names}
    limit = scale_end(np.stack([edit.movement for edit in hard.values()]))
    lines = []
    for name in names:
        cells = [
            escape(name),
            image(context.picture(hard[name].vertices, HEIGHT), f"{name} of another"),
        ]
        for edit, kind in ((hard[name], "hard blend"), (free[name], "no blend")):
            picture = context.picture(source, HEIGHT, heat_colors(edit.movement, limit))
            inside = float(edit.movement[edit.inside].mean())
            cells.append(
                image(picture, f"where editing {name} moves, {kind}")
                + f'<span class="number">{millimeters(inside)} inside, {number(edit.outside_mm, 2)} outside, '
                f"seam {number(edit.seam_mm, 2)}</span>"
            )
        lines.append(cells)
    lead = (
        "Each row gives one test mesh a region of another person, aligned at its border, through the region's handles. "
        "The heat maps show how far each vertex moves: mean inside the region, the most outside, and the largest jump "
        "at the border. With a hard blend nothing outside moves at all."
    )
    start = image(context.picture(source, HEIGHT), "the mesh that is edited")
    header = ["", "edited", "movement, hard blend", "movement, no blend"]
    body = table(header, [["before", start, "", ""], *lines], "pictures")
    return Section(
        "Edits by region",
        paragraph(lead, "lead") + body + color_bar(limit, "movement") + _measures(context),
    )


def chosen_regions(model: RegionEditor) -> list[str]:
    """At most SHOWN regions that have handles, those that people know first."""
    able = [
        name
        for name, controls in zip(model.regions.names, model.regions.controls, strict=True)
        if len(controls)
    ]
    known = [name for word in FAVORITES for name in able if word in name]
    return list(dict.fromkeys([*known, *able]))[:SHOWN]


def _edited(
    model: RegionEditor, source: np.ndarray, other: np.ndarray, name: str, blend: str
) -> RegionEdit:
    region = model.regions.names.index(name)
    moved = model.handles.swap(region, source, other)
    return edit_region(model, source, name, moved, "hard" if blend == "hard" else "none")


def _measures(context: ReportContext) -> str:
    """Control and other errors beside region-PCA's, where they were measured."""
    rows = []
    for title, found in (
        (context.name, context.evaluation.get("model", {})),
        ("region-PCA", context.evaluation.get("baselines", {}).get("region_pca", {})),
    ):
        if "control_error_mm" in found:
            keys = (
                "control_error_mm",
                "control_moved_mm",
                "other_error_mm",
                "other_moved_mm",
                "locality",
            )
            rows.append([escape(title), *(number(found[key]) for key in keys)])
    if not rows:
        return ""
    header = ["", "error at handles, mm", "of moved", "error at others, mm", "of moved", "locality"]
    lead = (
        "All handles of one test mesh moved to where another's are. Locality: movement outside an edited region as a "
        "share of that inside, without blend."
    )
    return "<h3>Held-out pairs</h3>" + paragraph(lead) + table(header, rows)
