"""Chart sections: how the errors are spread, PCA's error by code length, compactness, and the
course of training.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from morphable.draw.charts import Axis, Series, chart
from morphable.draw.numbers import millimeters, number
from morphable.evaluate.evaluation import MEAN_SHAPE, METHODS, MODEL, PCA
from morphable.report.context import ReportContext
from morphable.report.headline import setting
from morphable.report.section import Section, paragraph

COLORS = {MODEL: 0, PCA: 1, MEAN_SHAPE: 2}


def distributions(context: ReportContext) -> Section:
    errors = context.errors
    compared = [errors[name] for name in (MODEL, PCA) if name in errors]
    most = float(np.percentile(np.stack(compared), 99.5)) or 1.0
    grid = np.linspace(0, most, 121)
    names = {method: context.method_name(method) for method in METHODS}
    shares = [
        Series(names[n], grid, 100 * _share_below(e, grid), "line", COLORS[n])
        for n, e in errors.items()
    ]
    cumulative = chart(
        shares,
        Axis("vertex error up to, mm", low=0, high=most),
        Axis("share of vertices, %", low=0, high=100),
        f"Cumulative distribution of vertex errors of {', '.join(names[n] for n in errors)}",
    )
    lead = f"Over {len(context.test)} of {len(context.measured)} measured meshes. Higher and further left is better."
    other = PCA if PCA in errors else MEAN_SHAPE
    own, reference = context.mesh_errors(MODEL), context.mesh_errors(other)
    wins = int((own < reference).sum())
    end = 1.05 * max(own.max(), reference.max()) or 1.0
    scatter = chart(
        [Series("one mesh", reference, own, "points", 0)],
        Axis(f"mean error of {names[other]}, mm", low=0, high=end),
        Axis(f"mean error of {names[MODEL]}, mm", low=0, high=end),
        f"Mean error of each mesh: {names[MODEL]} against {names[other]}",
        diagonal=True,
    )
    note = f"{names[MODEL]} is nearer than {names[other]} on {wins} of {len(own)} meshes (below the dashed line)."
    left = f"<div><h3>Vertices</h3>{cumulative}</div>"
    right = f"<div><h3>Meshes</h3>{scatter}{paragraph(note, 'note')}</div>"
    return Section(
        "How the errors are spread",
        paragraph(lead, "lead") + f'<div class="two">{left}{right}</div>',
    )


def _share_below(errors: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(errors, axis=None), grid, side="right") / errors.size


def code_length(context: ReportContext) -> Section | None:
    """PCA's error by number of latents with the model beside it, and how much the model's own
    directions explain.
    """
    drawn = [part for part in (_pca_curve(context), _compactness(context)) if part]
    return (
        Section("Length of the code", f'<div class="two">{"".join(drawn)}</div>') if drawn else None
    )


def _pca_curve(context: ReportContext) -> str:
    curve = {int(k): float(v) for k, v in context.evaluation.get("pca_curve", {}).items()}
    own = context.evaluation.get("model", {}).get("vertex_error_mm")
    if len(curve) < 2 or own is None:
        return ""
    latents = sorted(curve)
    means = [curve[k] for k in latents]
    series = [Series("PCA", latents, means, "line", 1), Series("", latents, means, "points", 1)]
    mark = Series(
        f"{context.name}, {context.latent} latents",
        [context.latent],
        [own["mean"]],
        "mark",
        0,
        np.array([own["ci95"]]),
    )
    ends = [*latents, context.latent]
    axis = Axis("latents", True, min(ends) / 1.15, max(ends) * 1.15, tuple(sorted(set(ends))))
    drawn = chart(
        [*series, mark],
        axis,
        Axis("mean vertex error, mm", low=0),
        "Mean vertex error of PCA by number of latents",
    )
    needed = "" if context.pca is None else _pca_latents_needed(curve, own["mean"])
    note = paragraph(f"The error of PCA {setting(context)} by number of latents. {needed}", "note")
    return f"<div><h3>Against PCA of every length</h3>{drawn}{note}</div>"


def _pca_latents_needed(curve: Mapping[int, float], error: float) -> str:
    """Between which measured sizes PCA reaches an error."""
    latents = sorted(curve)
    reached = [k for k in latents if curve[k] <= error]
    if not reached:
        return f"PCA does not reach the model's error with {latents[-1]} latents."
    before = [k for k in latents if k < reached[0]]
    if not before:
        return f"PCA reaches the model's error with {reached[0]} latent."
    return f"PCA needs between {before[-1]} and {reached[0]} latents for the model's error."


def training(context: ReportContext) -> Section | None:
    rows = [row for row in context.metrics if row.get("validation_mm") is not None]
    if not rows:
        return None
    epochs = [row["epoch"] for row in rows]
    terms = sorted({key for row in rows for key in row if key.startswith("train/")})[:8]
    lines = [
        Series(
            t.removeprefix("train/"),
            epochs,
            [row.get(t, np.nan) for row in rows],
            "line",
            (0, 3, 4, 5, 6, 7, 1, 2)[i],
        )
        for i, t in enumerate(terms)
    ]
    objective = chart(
        lines, Axis("epoch"), _loss_axis(lines), "Terms of the training objective by epoch"
    )
    values = [row["validation_mm"] for row in rows]
    best = int(np.argmin(values))
    mark = Series(
        f"best: {millimeters(values[best])}, epoch {epochs[best]}",
        [epochs[best]],
        [values[best]],
        "mark",
        0,
    )
    validation = Series("validation", epochs, values, "line", 0)
    axis = Axis("validation vertex error, mm", log=_wide(values))
    error = chart(
        [validation, mark],
        Axis("epoch"),
        axis,
        f"Validation error by epoch, best {millimeters(values[best])}",
    )
    seconds = rows[-1].get("seconds")
    lead = (
        f"{len(rows)} epochs"
        + (f" in {_duration(seconds)} of training" if seconds else "")
        + ". The best epoch is kept."
    )
    left = f"<div><h3>Objective</h3>{objective}</div>"
    return Section(
        "Training",
        paragraph(lead, "lead")
        + f'<div class="two">{left}<div><h3>Validation</h3>{error}</div></div>',
    )


def _loss_axis(lines: list[Series]) -> Axis:
    values = [v for line in lines for v in np.asarray(line.y, float) if np.isfinite(v)]
    return Axis("weighted term of the objective", log=_wide(values))


def _wide(values: list[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > 12 * min(values)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _compactness(context: ReportContext) -> str:
    shares = context.evaluation.get("model", {}).get("compactness") or []
    if len(shares) < 2:
        return ""
    k = list(range(1, len(shares) + 1))
    values = 100 * np.asarray(shares, float)
    drawn = chart(
        [Series("", k, values, "line", 0), Series("", k, values, "points", 0)],
        Axis("directions of the prior kept", ticks=tuple(k) if len(k) <= 12 else ()),
        Axis("variance explained, %", low=min(0.0, float(np.nanmin(values))), high=100),
        "Share of the measured meshes' variance explained by the first directions",
    )
    note = (
        "Share of the measured meshes' variance that remains when only the first directions of the code's distribution "
        f"are kept: {number(float(values[0]))} % with one, {number(float(values[-1]))} % with {len(k)}."
    )
    return f"<div><h3>Compactness</h3>{drawn}{paragraph(note, 'note')}</div>"
