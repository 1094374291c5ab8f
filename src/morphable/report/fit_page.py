"""fit_page: a page that shows fits: each target, the fitted shape, how far they are apart and how sure
the fit is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

import morphable
from morphable.draw.blocks import (
    BigNumber,
    Block,
    Cell,
    ColorBar,
    Columns,
    Page,
    Section,
    Table,
    Text,
)
from morphable.draw.camera import view_for
from morphable.draw.colors import heat_colors, scale_end
from morphable.draw.numbers import number
from morphable.draw.view import View
from morphable.fitting.result import CONFIDENCE, Fit
from morphable.models.base import MorphableModel

MAX_SHOWN = 24
"""Targets with pictures; the table of numbers has all."""
MARKED = 0.03
"""Vertices nearer to a landmark than this share of the shape's size are marked."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """One target with its fit.

    name: of the file. kind: what the target is, in words. fit, row: where its fit is. points: (K,
    3) mm what was seen, where the target lies.
    """

    name: str
    kind: str
    fit: Fit
    row: int
    points: np.ndarray


def fit_page(model: MorphableModel, targets: Sequence[Fitted]) -> Page:
    """The page of fits of one model, as values."""
    shapes = [target.fit.vertices[target.row] for target in targets[:MAX_SHOWN]]
    view = View(view_for(model.template, shapes), model.template.mesh.triangles)
    errors = [float(np.nanmean(target.fit.residuals[target.row])) for target in targets]
    opening: list[Block] = [
        Columns(
            [
                [BigNumber(number(float(np.median(errors))), "mm")],
                [
                    Text(
                        "median over the targets of the mean distance between what was seen and "
                        "the fitted shape, in the size of the target"
                    )
                ],
            ]
        )
    ]
    return Page(
        title=f"Fits of {model.name}",
        above=f"Morphable model of class “{model.template.name}”, "
        f"{model.template.n_vertices:,} vertices",
        heading=f"Fits of {model.name}",
        below=f"{len(targets)} target{'s' * (len(targets) > 1)}. Latent size {model.latent}: "
        f"{model.parts.described}.",
        opening=opening,
        sections=[_numbers(targets), _pictures(view, targets[:MAX_SHOWN])],
        footer=f"Written by morphable {morphable.__version__}.",
    )


def _numbers(targets: Sequence[Fitted]) -> Section:
    header = [
        "target", "what it is", "seen", "mean residual, mm", "95 % below, mm", "largest, mm",
        "noise, mm", "90 % within, mm", "size", "steps",
    ]  # fmt: skip
    rows = []
    for target in targets:
        fit, row = target.fit, target.row
        residuals = fit.residuals[row][np.isfinite(fit.residuals[row])]
        rows.append(
            [
                target.name,
                target.kind,
                f"{len(residuals):,}",
                number(float(residuals.mean())),
                number(float(np.percentile(residuals, 95))),
                number(float(residuals.max())),
                number(float(fit.noise[row])),
                number(float(fit.uncertainty[row].mean())),
                number(1 / float(fit.map.scale[row])),
                str(int(fit.steps[row])),
            ]
        )
    note = (
        "Noise is the standard deviation per coordinate of what was seen about the model, as far as "
        f"it was estimated. The true vertex lies within the stated distance with {CONFIDENCE:.0%} "
        "probability, on average over the vertices. Size is that of the target relative to the "
        "model's frame; 1 if no size was fitted."
    )
    return Section("Numbers", [Table(header, rows, "named"), Text(note, "note")])


def _pictures(view: View, targets: Sequence[Fitted]) -> Section:
    apart = [_distances(target) for target in targets]
    unsure = [target.fit.uncertainty[target.row] for target in targets]
    known = np.concatenate([each[np.isfinite(each)] for each in apart])
    limit = max(scale_end(known), 1e-3)
    doubt = max(scale_end(np.stack(unsure)), 1e-3)
    rows: list[list[Cell]] = []
    for target, distance, uncertainty in zip(targets, apart, unsure, strict=True):
        shape = target.fit.vertices[target.row]
        colors = heat_colors(distance, limit)
        mean = number(float(np.nanmean(distance)))
        rows.append(
            [
                target.name,
                view.picture(shape, f"{target.name}: the fitted shape"),
                view.picture(shape, f"{target.name}: distances", colors, f"mean {mean} mm"),
                view.picture(
                    shape,
                    f"{target.name}: uncertainty",
                    heat_colors(uncertainty, doubt),
                    f"mean {number(float(uncertainty.mean()))} mm",
                ),
            ]
        )
    header = ["", "fitted", "distance to what was seen", f"within, with {CONFIDENCE:.0%}"]
    return Section(
        "Pictures",
        [
            Table(header, rows, "pictures"),
            ColorBar(limit, "distance to what was seen, mm"),
            ColorBar(doubt, "uncertainty, mm"),
            Text("Gray: not seen there.", "note"),
        ],
    )


def _distances(target: Fitted) -> np.ndarray:
    """(V,) mm from each vertex to the nearest thing that was seen; nan if that is far off."""
    placed = target.fit.placed[target.row].astype(np.float64)
    residuals = target.fit.residuals[target.row]
    if len(residuals) == len(placed) and len(target.points) == len(placed):
        return np.asarray(residuals)
    size = float(np.linalg.norm(np.ptp(placed, axis=0)))
    distance, row = cKDTree(target.points).query(placed, distance_upper_bound=MARKED * size)
    seen = np.isfinite(distance)
    result = np.full(len(placed), np.nan)
    result[seen] = residuals[row[seen]]
    return result
