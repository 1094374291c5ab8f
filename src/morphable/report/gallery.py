"""Picture sections: reconstructions with their errors, best and worst cases, latent walks, samples,
errors by place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from morphable.draw.numbers import interval, millimeters, number
from morphable.draw.region_map import region_colors
from morphable.draw.render import heat_colors
from morphable.errors import InputError
from morphable.evaluate.measures import areas
from morphable.report.context import MODEL, PCA, SHOWN, ReportContext, middles, scale_end
from morphable.report.latent import STEPS
from morphable.report.section import Section, color_bar, image, paragraph, table

HEIGHT = 300
"""Pixels of one picture in a table; it is shown at about half of that, so that it is crisp on dense
screens.
"""
LARGE = 420
"""Pixels of one picture at the head and of the template."""
EXTREMES = 3


def reconstructions(context: ReportContext) -> Section:
    rows = middles(len(context.test), SHOWN)
    chosen = (
        "chosen evenly over the test set, not by result"
        if len(rows) < len(context.test)
        else "all there are"
    )
    lead = f"{len(rows)} of {len(context.measured)} measured meshes, {chosen}. Numbers are mean vertex errors in mm."
    return Section("Reconstructions", paragraph(lead, "lead") + _compared(context, rows))


def extremes(context: ReportContext) -> Section | None:
    """The meshes with the smallest and the largest error."""
    if len(context.test) < 2 * EXTREMES:
        return None
    order = np.argsort(context.mesh_errors(MODEL), kind="stable")
    rows = np.concatenate([order[:EXTREMES], order[-EXTREMES:]])
    names = ["best", "second best", "third best", "third worst", "second worst", "worst"]
    lead = f"Left the smallest, right the largest mean errors among {len(context.test)} measured meshes."
    return Section("Best and worst", paragraph(lead, "lead") + _compared(context, rows, names))


def _compared(context: ReportContext, rows: np.ndarray, names: Sequence[str] = ()) -> str:
    """Pictures of test meshes, one a column: input, reconstruction, errors, and PCA's."""
    inputs = context.test.vertices[rows]
    methods = [MODEL] if context.pca is None else [MODEL, PCA]
    errors = {method: context.errors[method][rows] for method in methods}
    limit = context.error_limit
    captions = [context.caption(row) for row in rows]
    heads = [f"{names[i]}<br>{escape(c)}" if names else escape(c) for i, c in enumerate(captions)]
    captions = [f"{names[i]}, {c}" if names else c for i, c in enumerate(captions)]
    lines = [picture_row(context, "Input", inputs, captions)]
    for method in methods:
        title, results = context.method_name(method), context.reconstruct(rows, method)
        lines.append(picture_row(context, title, results, captions))
        heat = [heat_colors(error, limit) for error in errors[method]]
        numbers = [millimeters(float(error.mean())) for error in errors[method]]
        lines.append(picture_row(context, f"Error of {title}", results, captions, heat, numbers))
    return table(["", *heads], lines, "pictures") + color_bar(limit, "distance to the true vertex")


def picture_row(
    context: ReportContext,
    title: str,
    shapes: np.ndarray,
    captions: Sequence[str],
    colors: Sequence[np.ndarray] | None = None,
    numbers: Sequence[str] | None = None,
) -> list[str]:
    """A line of a table of pictures: its heading, then one picture a shape (n, V, 3) mm."""
    cells = [escape(title)]
    for i, shape in enumerate(shapes):
        text = f"{title}: {captions[i]}" + (f", mean {numbers[i]}" if numbers else "")
        cell = image(context.picture(shape, HEIGHT, colors[i] if colors else None), text)
        cells.append(cell + (f'<span class="number">{numbers[i]}</span>' if numbers else ""))
    return cells


def error_row(
    context: ReportContext,
    title: str,
    shapes: np.ndarray,
    truth: np.ndarray,
    captions: Sequence[str],
    limit: float,
) -> list[str]:
    """Pictures of shapes (n, V, 3) mm colored by their distance to `truth`, the mean below."""
    errors = np.linalg.norm(shapes - truth, axis=-1)
    colors = [heat_colors(error, limit) for error in errors]
    return picture_row(
        context, title, shapes, captions, colors, [millimeters(float(e.mean())) for e in errors]
    )


def walks(context: ReportContext) -> Section | None:
    found = context.walks
    if not found:
        return None
    limit = scale_end(np.stack([walk.movement for walk in found]))
    lines = []
    for walk in found:
        texts = [f"{walk.title} at {step:+g} standard deviations" for step in STEPS]
        cells = [escape(walk.title)]
        cells += [
            image(context.picture(s, HEIGHT), text)
            for s, text in zip(walk.shapes, texts, strict=True)
        ]
        typical = millimeters(float(np.sqrt(np.square(walk.movement).mean())))
        picture = context.picture(
            walk.shapes[len(STEPS) // 2], HEIGHT, heat_colors(walk.movement, limit)
        )
        cells.append(
            image(picture, f"{walk.title}: where it moves, root mean square {typical}")
            + f'<span class="number">{typical}</span>'
        )
        lines.append(cells)
    lead = (
        "Each row follows one principal direction of the prior within a part of the code, all else at the prior's "
        "mean; directions are ordered by how far they move the surface. Last column: how far each vertex moves from "
        f"{_sd(STEPS[0])} to {_sd(STEPS[-1])}, and the root mean square of that."
    )
    header = ["", *(_sd(step) if step else "mean code" for step in STEPS), "movement"]
    bar = color_bar(limit, "movement between both ends")
    return Section(
        "Latent walks", paragraph(lead, "lead") + table(header, lines, "pictures walk") + bar
    )


def _sd(step: float) -> str:
    return f"{step:+g} sd".replace("-", "−")


def samples(context: ReportContext) -> Section:
    shapes = context.samples
    pictures = [
        image(context.picture(s, HEIGHT), f"Random sample {i + 1}") for i, s in enumerate(shapes)
    ]
    measured = context.evaluation.get("model", {}).get("specificity_mm")
    lead = f"{len(shapes)} draws from the prior, the first ones of seed 0, none left out."
    if measured is not None:
        lead += f" On average a sample lies {millimeters(measured)} from the nearest training mesh (specificity)."
    return Section(
        "Random samples", paragraph(lead, "lead") + f'<div class="sheet">{"".join(pictures)}</div>'
    )


def places(context: ReportContext) -> Section:
    """Where on the surface the errors are, from both sides, and by region."""
    means = {
        name: context.errors[name].mean(axis=0) for name in (MODEL, PCA) if name in context.errors
    }
    limit = scale_end(np.stack(list(means.values())))
    titles = {MODEL: context.name, PCA: f"PCA, {context.latent} latents"}
    html = ""
    for name, error in means.items():
        heat = heat_colors(error, limit)
        sides = _both_sides(context, heat, f"Mean error of {titles[name]}")
        html += f"<div><h3>{escape(titles[name])}</h3>{sides}</div>"
    html = f'<div class="two">{html}</div>' + color_bar(limit, "mean distance to the true vertex")
    lead = f"The mean error of each vertex over {len(context.test)} measured meshes, on the template, from both sides."
    return Section("Where the errors are", paragraph(lead, "lead") + html + _region_table(context))


def _region_table(context: ReportContext) -> str:
    template, evaluation = context.model.template, context.evaluation
    named = areas(template)
    if not named:
        return paragraph("The template has no regions.", "note")
    colors = region_colors(len(template.region_names))
    rows = []
    for name, vertices in named.items():
        key = f"vertex_error_mm/{name}"
        index = template.region_names.index(name) if name in template.region_names else None
        swatch = (
            f'<span class="swatch" style="background:{_rgb(colors[index])}"></span>'
            if index is not None
            else ""
        )
        own = evaluation.get("model", {}).get(key, {})
        baselines = [
            number(_baseline(evaluation, baseline, key)) for baseline in ("pca", "mean_shape")
        ]
        spread_ = [number(own.get("mean")), interval(own.get("ci95")), number(own.get("p95"))]
        rows.append([swatch + escape(name), f"{len(vertices):,}", *spread_, *baselines])
    header = ["region", "vertices", "mean, mm", "95 % interval", "95th perc.", "PCA", "mean shape"]
    result = table(header, rows)
    if template.regions is None:
        return result
    pictures = _both_sides(context, colors[template.regions], "The regions")
    return f'<h3>By region</h3><div class="aside">{pictures}{result}</div>'


def _both_sides(context: ReportContext, colors: np.ndarray, text: str) -> str:
    """The template in colors (V, 3), from the front and the back."""
    template = context.model.template.mesh.vertices
    views = [
        (side, context.picture(template, LARGE, colors, yaw))
        for side, yaw in (("front", 0), ("back", 180))
    ]
    figures = [f"<figure>{image(picture, f'{text}, {side}')}</figure>" for side, picture in views]
    return f'<div class="pair">{"".join(figures)}</div>'


def _baseline(evaluation: Mapping[str, Any], baseline: str, key: str) -> Any:
    return evaluation.get("baselines", {}).get(baseline, {}).get(key, {}).get("mean")


def _rgb(color: np.ndarray) -> str:
    return "rgb({},{},{})".format(*np.round(255 * color).astype(int))


def hero(context: ReportContext) -> str:
    """The picture at the head of the page: samples, or test meshes of a model that cannot be
    sampled.
    """
    try:
        shapes, text = context.samples[:4], "Four random samples"
    except InputError:
        shapes, text = (
            context.test.vertices[middles(len(context.test), 4)],
            "Meshes of the test set",
        )
    pictures = [context.picture(shape, LARGE) for shape in shapes]
    figure = image(np.concatenate(pictures, axis=1), text)
    return f"<figure>{figure}<figcaption>{text}</figcaption></figure>"
