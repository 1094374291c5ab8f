"""Sections on parts that a model found by itself: their weights, single parts on the way from one
mesh to another, and what exchanging parts adds to the space of codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from morphable.draw.axes import Axis
from morphable.draw.blocks import Block, Cell, ColorBar, Columns, Heading, Section, Table, Text
from morphable.draw.charts import Chart, Series
from morphable.draw.colors import heat_colors, mixed_colors, region_colors, scale_end, share_colors
from morphable.draw.numbers import DASH, millimeters, number
from morphable.evaluate.measure_table import MEASURES
from morphable.evaluate.part_measures import Diversity, diversity
from morphable.mesh.distance import point_to_surface
from morphable.models.batched import decode_all
from morphable.models.local_weights import LocalWeights
from morphable.report.context import ReportContext
from morphable.report.scene import Scene, middles

YAWS = {"front": 0, "side": 90, "back": 180}
POSITIONS = np.arange(1, 9) / 9
"""The places between two meshes that the paper shows."""
ELLIPSE = 2.0
"""Ellipses are drawn at this many standard deviations."""
SPACE = (
    ("area of the ellipse", "area", "held_out_area", "1"),
    ("spread", "spread", "held_out_spread", "1"),
    ("coverage", "coverage", None, "training_coverage"),
    ("novelty", "novelty", "1", None),
)
"""Rows of the table: the measure of syntheses and mixtures, of held-out meshes and of training
meshes. A number stands for itself: these values are what the others are relative to.
"""


def part_weights(context: ReportContext) -> Section | None:
    """Show the weights on the template, all parts in one picture and each part from three sides."""
    model, scene = context.model, context.scene
    if not isinstance(model, LocalWeights):
        return None
    weights, colors = model.weights, region_colors(model.weights.shape[1])
    lines = [_sides(scene, "all parts", mixed_colors(weights, colors), "")]
    for name, own, color in zip(model.parts, weights.T, colors, strict=True):
        share = f"{100 * own.mean():.0f} % of all weight"
        lines.append(_sides(scene, f"part {name}", share_colors(own, color), share))
    return Section(
        "Parts found in the data",
        [
            Text(_weights_lead(model), "lead"),
            Table(["", *YAWS], lines, "pictures"),
            *_locality(context.measures(), model),
        ],
    )


def _weights_lead(model: LocalWeights) -> str:
    error, dead = float(model.factorization_error), int(model.dead_parts)
    restarted = int(model.restarted_parts)
    aligned = "aligned " if model.config.displacement == "aligned" else ""
    lead = (
        f"Nobody drew these {len(model.parts)} parts: a sparse non-negative factorization of how far "
        f"the vertices of the {aligned}training meshes move found them, with a relative error of "
        f"{error:.2f}. "
        "The more a vertex belongs to a part, the stronger its color."
    )
    if restarted or dead:
        lead += f" Parts that died were started again {restarted} times; {dead} stayed dead."
    return lead


def _sides(scene: Scene, title: str, colors: np.ndarray, caption: str) -> list[Cell]:
    template = np.asarray(scene.model.template.mesh.vertices)
    cells: list[Cell] = [f"{title}\n{caption}" if caption else title]
    for side, yaw in YAWS.items():
        cells.append(scene.view.picture(template, f"{title} from the {side}", colors, yaw=yaw))
    return cells


def _locality(measures: Mapping[str, Any], model: LocalWeights) -> list[Block]:
    """A table of how local each part is, if that was measured."""
    if "part_locality" not in measures:
        return []
    rows: list[list[Cell]] = [
        [f"part {name}", _with_interval(measures[f"part_locality/{name}"])] for name in model.parts
    ]
    rows.append(["all parts", _with_interval(measures["part_locality"])])
    rows.append(["overlap of parts", number(measures["part_overlap"], 2)])
    meaning = MEASURES["part_locality"].meaning
    return [
        Heading("How local the parts are"),
        Text(f"Locality: {meaning}. The overlap is 0 if no vertex belongs to two parts."),
        Table(["", "locality"], rows),
    ]


def part_interpolations(context: ReportContext) -> Section | None:
    """Show one mesh, a single part of which goes to that of another, for each part; and where the
    first and the last shape differ.
    """
    model, scene = context.model, context.scene
    if not isinstance(model, LocalWeights) or len(scene.meshes) < 2:
        return None
    first, second = middles(len(scene.meshes), 2)
    source, target = scene.codes[int(first)], scene.codes[int(second)]
    ends = np.array([first, second])
    whole = scene.reconstructions(ends)
    rows = {name: _way(model, source, target, name) for name in model.parts}
    distances = {name: _surface(shapes, scene) for name, shapes in rows.items()}
    limit = scale_end(np.stack([own for own, _ in distances.values()]))

    lines: list[list[Cell]] = []
    for name, shapes in rows.items():
        away, hausdorff = distances[name]
        names = [f"{position:.2f} of the way" for position in POSITIONS]
        cells = scene.view.row(f"part {name}", shapes, names)
        caption = f"Hausdorff {millimeters(hausdorff)}"
        what = f"where part {name} of the last shape differs from the first"
        colors = heat_colors(away, limit)
        lines.append([*cells, scene.view.picture(shapes[-1], what, colors, caption)])
    header = ["", *(f"{position * 9:.0f}/9" for position in POSITIONS), "first to last"]
    lead = (
        "The code of one part goes from that of one test mesh to that of another, all others stay. "
        "The last column colors the last shape by its distance to the surface of the first; below "
        "it the Hausdorff distance, the largest in either direction."
    )
    pair = ["one mesh", "the other mesh"]
    return Section(
        "Interpolation of single parts",
        [
            Text(lead, "lead"),
            Table(["", *pair], [scene.view.row("reconstructed", whole, pair)], "pictures"),
            Table(header, lines, "pictures"),
            ColorBar(limit, "distance to the surface of the first shape"),
        ],
    )


def _way(model: LocalWeights, source: torch.Tensor, target: torch.Tensor, part: str) -> np.ndarray:
    """(P, V, 3) mm: shapes at POSITIONS between two codes (L,) of which only one part changes."""
    codes = source.repeat(len(POSITIONS), 1)
    place = model.parts[part]
    share = torch.from_numpy(POSITIONS)[:, None].to(source)
    codes[:, place] += share * (target - source)[place]
    return decode_all(model, codes)


def _surface(shapes: np.ndarray, scene: Scene) -> tuple[np.ndarray, float]:
    """(V,) mm from the vertices of the last shape to the surface of the first, and the Hausdorff
    distance of the two.
    """
    triangles = scene.model.template.mesh.triangles
    first, last = shapes[0].astype(np.float64), shapes[-1].astype(np.float64)
    away = point_to_surface(last, first, triangles)
    back = point_to_surface(first, last, triangles)
    return away, float(max(away.max(), back.max()))


def diversity_plot(context: ReportContext) -> Section | None:
    """Show the codes of training meshes, held-out meshes and part syntheses, by PCA and by t-SNE,
    with their ellipses and the numbers behind them.
    """
    model = context.model
    if not isinstance(model, LocalWeights) or len(context.result.evaluation.codes) < 4:
        return None
    found = diversity(context.result.evaluation, model)[0]
    mean, axes = found.plane()
    flat = {name: (codes - mean) @ axes.T for name, codes in _sets(found).items()}
    sizes = {name: len(codes) for name, codes in flat.items()}
    lead = (
        f"The codes z of {sizes['training']} training meshes, {sizes['held out']} held-out meshes "
        f"and {sizes['syntheses']} syntheses: a few held-out meshes with each part of others, "
        "decoded and encoded again. The ellipses are at two standard deviations."
    )
    charts = [
        [Heading("In the training codes' plane"), _chart(flat, "principal direction")],
        [Heading("By t-SNE"), _chart(_embedded(found), "t-SNE")],
    ]
    return Section(
        "Diversity of part syntheses",
        [Text(lead, "lead"), Columns(charts), *_space(context.measures())],
    )


def _sets(found: Diversity) -> dict[str, np.ndarray]:
    return {
        "training": found.training,
        "held out": found.held_out,
        "syntheses": found.syntheses,
    }


def _embedded(found: Diversity) -> dict[str, np.ndarray]:
    """The codes in the plane, by t-SNE of all sets together."""
    from sklearn.manifold import TSNE

    sets = _sets(found)
    together = np.concatenate(list(sets.values()))
    perplexity = min(30.0, (len(together) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(together)
    ends = np.cumsum([len(codes) for codes in sets.values()])[:-1]
    return dict(zip(sets, np.split(points, ends), strict=True))


def _chart(points: Mapping[str, np.ndarray], axis: str) -> Chart:
    """The sets as clouds of points, each with its ellipse."""
    series = []
    for color, (name, cloud) in enumerate(points.items()):
        series.append(Series(name, cloud[:, 0], cloud[:, 1], "points", color))
        outline = _ellipse(cloud)
        series.append(Series("", outline[:, 0], outline[:, 1], "line", color))
    text = f"codes of {', '.join(points)} with their ellipses"
    return Chart(series, Axis(f"{axis} 1"), Axis(f"{axis} 2"), text)


def _ellipse(points: np.ndarray) -> np.ndarray:
    """(n, 2) outline of the covariance ellipse of points (N, 2)."""
    values, vectors = np.linalg.eigh(np.cov(points.T))
    angle = np.linspace(0, 2 * np.pi, 61)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return points.mean(0) + ELLIPSE * circle * np.sqrt(np.maximum(values, 0)) @ vectors.T


def _space(measures: Mapping[str, Any]) -> list[Block]:
    """A table of the numbers, with confidence intervals over draws of sources and targets."""
    if "synthesis_area" not in measures:
        return []

    def cell(key: str | None) -> str:
        if key is None or key not in measures:
            return DASH if key is None else key
        value = measures[key]
        return _with_interval(value) if isinstance(value, Mapping) else number(value, 2)

    rows: list[list[Cell]] = [
        [
            title,
            cell(f"synthesis_{measure}"),
            cell(f"mixture_{measure}"),
            cell(held_out),
            cell(training),
        ]
        for title, measure, held_out, training in SPACE
    ]
    note = (
        "Area and spread are relative to the training codes'. Coverage is the share of held-out "
        "meshes that have a code of the set nearer than their fifth neighbor. Novelty is the "
        "distance to the nearest training code, relative to that of held-out meshes. In mixtures, "
        "every part comes from a held-out mesh of its own. Intervals: 95 % confidence, over ten "
        "draws of sources and targets."
    )
    return [Table(["", "syntheses", "mixtures", "held out", "training"], rows), Text(note, "note")]


def _with_interval(value: Mapping[str, Any]) -> str:
    """A mean with its confidence interval, if there is one."""
    mean, bounds = number(value["mean"], 3), value.get("ci95")
    if bounds is None:
        return mean
    return f"{mean} ({number(bounds[0], 3)} to {number(bounds[1], 3)})"
