"""Section on where the errors are: on the surface, from both sides, and by region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from morphable.draw.blocks import (
    Block,
    Cell,
    ColorBar,
    Columns,
    Heading,
    Labeled,
    Picture,
    Section,
    Table,
    Text,
)
from morphable.draw.colors import css, heat_colors, region_colors, scale_end
from morphable.draw.numbers import DASH, interval, number
from morphable.evaluate.evaluation import MEAN_SHAPE, MODEL, PCA
from morphable.evaluate.measures import areas
from morphable.report.context import ReportContext
from morphable.report.scene import Scene

HEIGHT = 420
"""Pixels of one picture."""


def places(context: ReportContext) -> Section:
    """Show where on the surface the errors are."""
    scene = context.scene
    means = {m: scene.errors[m].mean(axis=0) for m in (MODEL, PCA) if m in scene.errors}
    limit = scale_end(np.stack(list(means.values())))
    columns: list[Sequence[Block]] = []
    for method, error in means.items():
        name = scene.method_name(method)
        sides = _both_sides(scene, heat_colors(error, limit), f"Mean error of {name}")
        columns.append([Heading(name), sides])
    lead = (
        f"The mean error of each vertex over {len(scene.meshes)} measured meshes, on the template, "
        "from both sides."
    )
    return Section(
        "Where the errors are",
        [
            Text(lead, "lead"),
            Columns(columns),
            ColorBar(limit, "mean distance to the true vertex"),
            *_regions(context),
        ],
    )


def _regions(context: ReportContext) -> list[Block]:
    template = context.model.template
    named = areas(template)
    if not named:
        return [Text("The template has no regions.", "note")]
    names = template.regions.names if template.regions is not None else ()
    colors = region_colors(len(names))
    swatches = {name: css(color) for name, color in zip(names, colors, strict=False)}
    rows: list[list[Cell]] = [
        [Labeled(name, color=swatches.get(name, "")), f"{len(vertices):,}", *_errors(context, name)]
        for name, vertices in named.items()
    ]
    header = ["region", "vertices", "mean, mm", "95 % interval", "95th perc.", "PCA", "mean shape"]
    table = Table(header, rows)
    if template.regions is None:
        return [table]
    sides = _both_sides(context.scene, colors[template.regions.labels], "The regions")
    return [Heading("By region"), Columns([[sides], [table]], "aside")]


def _errors(context: ReportContext, region: str) -> list[str]:
    """Return the cells of a region: the model's error, and the mean errors of the baselines."""

    def error(method: str) -> dict[str, Any]:
        return context.measures(method).get(f"vertex_error_mm/{region}", {})

    own = error(MODEL)
    spread = [number(own.get("mean")), interval(own.get("ci95")) or DASH, number(own.get("p95"))]
    return spread + [number(error(baseline).get("mean")) for baseline in (PCA, MEAN_SHAPE)]


def _both_sides(scene: Scene, colors: np.ndarray, text: str) -> Columns:
    """Show the template in colors (V, 3), from the front and the back."""
    template = scene.model.template.mesh.vertices
    sides = [
        Picture(scene.view.pixels(template, colors, yaw, HEIGHT), f"{text}, {side}")
        for side, yaw in (("front", 0), ("back", 180))
    ]
    return Columns([[side] for side in sides], "pair")
