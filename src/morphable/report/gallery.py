"""Sections of pictures that every model has: reconstructions, best and worst cases, latent walks
and samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from morphable.draw.blocks import Block, Cell, ColorBar, Picture, Section, Sheet, Table, Text
from morphable.draw.colors import heat_colors, scale_end
from morphable.draw.numbers import millimeters
from morphable.draw.pictures import sheet
from morphable.errors import InputError
from morphable.evaluate.evaluation import MODEL, PCA
from morphable.report.context import ReportContext
from morphable.report.latent import STEPS, Walk
from morphable.report.scene import Scene, middles

SHOWN = 6
"""Meshes in the table of reconstructions."""
EXTREMES = 3
HERO_SHAPES, HERO_HEIGHT = 4, 420


def reconstructions(context: ReportContext) -> Section:
    """Show some measured meshes with their reconstructions by the model and by PCA."""
    scene = context.scene
    rows = middles(len(scene.meshes), SHOWN)
    partial = len(rows) < len(scene.meshes)
    chosen = "chosen evenly over the test set, not by result" if partial else "all there are"
    measured = len(context.result.evaluation.measured)
    lead = (
        f"{len(rows)} of {measured} measured meshes, {chosen}. Numbers are mean vertex errors in "
        "mm."
    )
    return Section("Reconstructions", [Text(lead, "lead"), *_comparison(scene, rows)])


def extremes(context: ReportContext) -> Section | None:
    """Show the meshes with the smallest and the largest errors."""
    scene = context.scene
    if len(scene.meshes) < 2 * EXTREMES:
        return None
    order = np.argsort(scene.mesh_errors(MODEL), kind="stable")
    rows = np.concatenate([order[:EXTREMES], order[-EXTREMES:]])
    names = ["best", "second best", "third best", "third worst", "second worst", "worst"]
    lead = (
        f"The smallest mean errors (left) and the largest (right) of {len(scene.meshes)} "
        "measured meshes."
    )
    return Section("Best and worst", [Text(lead, "lead"), *_comparison(scene, rows, names)])


def _comparison(scene: Scene, rows: np.ndarray, ranks: Sequence[str] = ()) -> list[Block]:
    """Compare drawn meshes, one per column: input, reconstruction and errors, then those of PCA."""
    view, limit = scene.view, scene.error_limit
    names = [scene.caption(row) for row in rows]
    heads = [f"{rank}\n{name}" for rank, name in zip(ranks, names, strict=True)] if ranks else names
    names = [head.replace("\n", ", ") for head in heads]
    lines = [view.row("Input", scene.meshes.vertices[rows], names)]
    for method in [MODEL] if scene.pca is None else [MODEL, PCA]:
        title, shapes = scene.method_name(method), scene.reconstructions(rows, method)
        errors = scene.errors[method][rows]
        lines.append(view.row(title, shapes, names))
        lines.append(view.distance_row(f"Error of {title}", shapes, errors, names, limit))
    return [Table(["", *heads], lines, "pictures"), ColorBar(limit, "distance to the true vertex")]


def walks(context: ReportContext) -> Section | None:
    """Show how the shape changes along the principal directions of the prior."""
    scene = context.scene
    if not scene.walks:
        return None
    limit = scale_end(np.stack([walk.movement for walk in scene.walks]))
    lines = [_walk_row(scene, walk, limit) for walk in scene.walks]
    lead = (
        "Each row follows one principal direction of the prior within a part of the code; all else "
        "is at the prior's mean. Directions are ordered by how far they move the surface. Last "
        f"column: how far each vertex moves from {_deviations(STEPS[0])} to "
        f"{_deviations(STEPS[-1])} (sd: standard deviations), and the root mean square of that."
    )
    steps = [_deviations(step) if step else "mean code" for step in STEPS]
    table = Table(["", *steps, "movement"], lines, "pictures walk")
    bar = ColorBar(limit, "movement between both ends")
    return Section("Latent walks", [Text(lead, "lead"), table, bar])


def _walk_row(scene: Scene, walk: Walk, limit: float) -> list[Cell]:
    places = [f"{walk.title} at {step:+g} standard deviations" for step in STEPS]
    pairs = zip(walk.shapes, places, strict=True)
    pictures = [scene.view.picture(shape, place) for shape, place in pairs]
    typical = millimeters(float(np.sqrt(np.square(walk.movement).mean())))
    movement = scene.view.picture(
        walk.shapes[len(STEPS) // 2],
        f"{walk.title}: where it moves, root mean square {typical}",
        heat_colors(walk.movement, limit),
        typical,
    )
    return [walk.title, *pictures, movement]


def _deviations(step: float) -> str:
    return f"{step:+g} sd".replace("-", "−")


def samples(context: ReportContext) -> Section:
    """Show random draws from the prior."""
    scene = context.scene
    pictures = [
        scene.view.picture(shape, f"Random sample {number}")
        for number, shape in enumerate(scene.samples, start=1)
    ]
    lead = f"The first {len(pictures)} draws from the prior with seed 0, none left out."
    specificity = context.measures().get("specificity_mm")
    if specificity is not None:
        lead += (
            f" On average, a sample lies {millimeters(specificity)} from the nearest training mesh "
            "(specificity)."
        )
    return Section("Random samples", [Text(lead, "lead"), Sheet(pictures)])


def hero(scene: Scene) -> list[Block]:
    """Return the picture at the head of the page: samples, or measured meshes if the model cannot
    be sampled.
    """
    try:
        shapes, text = scene.samples[:HERO_SHAPES], "Four random samples"
    except InputError:
        rows = middles(len(scene.meshes), HERO_SHAPES)
        shapes, text = scene.meshes.vertices[rows], "Meshes of the test set"
    pictures = [scene.view.pixels(shape, height=HERO_HEIGHT) for shape in shapes]
    return [Picture(sheet(pictures, len(pictures)), text), Text(text, "note")]
