"""Sections of charts: the spread of the errors, PCA's error by latent size, compactness, and the
course of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morphable.draw.axes import Axis
from morphable.draw.blocks import Block, Columns, Heading, Section, Text
from morphable.draw.charts import Chart, Series
from morphable.draw.numbers import millimeters, number
from morphable.evaluate.evaluation import MEAN_SHAPE, MODEL, PCA
from morphable.report.context import ReportContext
from morphable.report.headline import setting
from morphable.report.scene import Scene
from morphable.train.outcome import kept_epoch, transported_note

COLORS = {MODEL: 0, PCA: 1, MEAN_SHAPE: 2}
TERM_COLORS = (0, 3, 4, 5, 6, 7, 1, 2)
"""Chart colors of the terms of an objective. Terms beyond the last color are not shown."""


def distributions(context: ReportContext) -> Section:
    """Show how the errors are spread over vertices and over meshes."""
    scene = context.scene
    measured = len(context.result.evaluation.measured)
    lead = (
        f"Over {len(scene.meshes)} of {measured} measured meshes. "
        "Higher and further left is better."
    )
    columns = [
        [Heading("Vertices"), _cumulative(scene)],
        [Heading("Meshes"), *_mesh_by_mesh(scene)],
    ]
    return Section("How the errors are spread", [Text(lead, "lead"), Columns(columns)])


def _cumulative(scene: Scene) -> Chart:
    compared = [scene.errors[method] for method in (MODEL, PCA) if method in scene.errors]
    # The mean shape's errors are left out here: they would make the axis many times too long.
    end = float(np.percentile(np.stack(compared), 99.5)) or 1.0
    grid = np.linspace(0, end, 121)
    series = [
        Series(
            scene.method_name(method), grid, 100 * _share_below(error, grid), color=COLORS[method]
        )
        for method, error in scene.errors.items()
    ]
    return Chart(
        series,
        Axis("vertex error up to, mm", low=0, high=end),
        Axis("share of vertices, %", low=0, high=100),
        f"Cumulative distribution of vertex errors of {', '.join(s.name for s in series)}",
    )


def _mesh_by_mesh(scene: Scene) -> list[Block]:
    """Plot the mean error per mesh against that of PCA, or the mean shape's if the model is PCA."""
    other = PCA if PCA in scene.errors else MEAN_SHAPE
    own, reference = scene.mesh_errors(MODEL), scene.mesh_errors(other)
    name, other_name = scene.method_name(MODEL), scene.method_name(other)
    end = 1.05 * max(own.max(), reference.max()) or 1.0
    chart = Chart(
        [Series("one mesh", reference, own, "points", 0)],
        Axis(f"mean error of {other_name}, mm", low=0, high=end),
        Axis(f"mean error of {name}, mm", low=0, high=end),
        f"Mean error of each mesh: {name} against {other_name}",
        diagonal=True,
    )
    wins = int((own < reference).sum())
    note = (
        f"{name} has the lower error on {wins} of {len(own)} meshes: those below the dashed line."
    )
    return [chart, Text(note, "note")]


def _share_below(errors: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(errors, axis=None), grid, side="right") / errors.size


def latent_size(context: ReportContext) -> Section | None:
    """Show PCA's error by latent size next to the model's, and how much variance the principal
    directions of the model's prior explain.
    """
    columns = [column for column in (_pca_curve(context), _compactness(context)) if column]
    return Section("Latent size", [Columns(columns)]) if columns else None


def _pca_curve(context: ReportContext) -> list[Block]:
    curve = {int(k): float(v) for k, v in context.record.get("pca_curve", {}).items()}
    own = context.measures().get("vertex_error_mm")
    if len(curve) < 2 or own is None:
        return []
    scene = context.scene
    sizes = sorted(curve)
    means = [curve[size] for size in sizes]
    name = f"{scene.name}, latent size {scene.latent}"
    bar = np.array([own["ci95"]]) if own["ci95"] else None
    series = [
        Series("PCA", sizes, means, "line", COLORS[PCA]),
        Series("", sizes, means, "points", COLORS[PCA]),
        Series(name, [scene.latent], [own["mean"]], "mark", COLORS[MODEL], bar),
    ]
    ends = sorted({*sizes, scene.latent})
    chart = Chart(
        series,
        Axis("latent size", True, ends[0] / 1.15, ends[-1] * 1.15, tuple(ends)),
        Axis("mean vertex error, mm", low=0),
        "Mean vertex error of PCA by latent size",
    )
    needed = "" if scene.pca is None else _size_needed(curve, own["mean"])
    note = f"The error of PCA {setting(context)} by latent size. {needed}"
    return [Heading("Compared with PCA of other sizes"), chart, Text(note, "note")]


def _size_needed(curve: Mapping[int, float], error: float) -> str:
    """Say between which measured latent sizes PCA reaches an error in mm."""
    sizes = sorted(curve)
    reached = [size for size in sizes if curve[size] <= error]
    if not reached:
        return f"PCA does not reach the model's error at latent size {sizes[-1]}."
    before = [size for size in sizes if size < reached[0]]
    if not before:
        return f"PCA reaches the model's error at latent size {reached[0]}."
    return f"PCA reaches the model's error between latent size {before[-1]} and {reached[0]}."


def _compactness(context: ReportContext) -> list[Block]:
    shares = context.measures().get("compactness") or []
    if len(shares) < 2:
        return []
    k = list(range(1, len(shares) + 1))
    values = 100 * np.asarray(shares, float)
    chart = Chart(
        [Series("", k, values, "line", 0), Series("", k, values, "points", 0)],
        Axis("directions of the prior kept", ticks=tuple(k) if len(k) <= 12 else ()),
        Axis("variance explained, %", low=min(0.0, float(np.nanmin(values))), high=100),
        "Share of the measured meshes' variance explained by the first directions",
    )
    note = (
        "Share of the measured meshes' variance that remains if only the first directions of the "
        f"code's distribution are kept: {_explained(values[0])} with one, "
        f"{_explained(values[-1])} with {len(k)}."
    )
    return [Heading("Compactness"), chart, Text(note, "note")]


def _explained(per_cent: float) -> str:
    """Format a share of variance. A negative share means that the mean shape would be closer."""
    return f"{number(float(per_cent))} %" if per_cent > 0 else "none (no better than the mean)"


def training(context: ReportContext) -> Section | None:
    """Show the terms of the objective and the validation error by epoch, and which epoch is kept."""
    rows = context.metrics
    if not rows:
        return None
    seconds = rows[-1].get("seconds")
    duration = f" in {_duration(seconds)} of training" if seconds else ""
    provenance = context.model.provenance
    notes = (kept_epoch(provenance, rows), transported_note(provenance))
    lead = " ".join([f"{_epochs(rows)}{duration}.", *filter(None, notes)])
    columns = [[Heading("Objective"), _objective(rows)]]
    validated = [row for row in rows if row.get("validation_mm") is not None]
    if validated:
        chart = _validation(validated, provenance.get("kept_epoch"))
        columns.append([Heading("Validation"), chart])
    return Section("Training", [Text(lead, "lead"), Columns(columns)])


def _epochs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count the epochs, and those of each stage if there are several."""
    of_stage = Counter(row.get("stage", "") for row in rows)
    stages = ", then ".join(f"{count} of {stage}" for stage, count in of_stage.items())
    return f"{len(rows)} epochs" + (f" ({stages})" if len(of_stage) > 1 else "")


def _objective(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Plot the terms of the objective by epoch, with gaps at epochs that lack a term."""
    epochs = [row["epoch"] for row in rows]
    terms = sorted({key for row in rows for key in row if key.startswith("train/")})
    series = [
        Series(
            term.removeprefix("train/"), epochs, [row.get(term, np.nan) for row in rows], color=c
        )
        for term, c in zip(terms, TERM_COLORS, strict=False)
    ]
    values = [v for line in series for v in np.asarray(line.y, float) if np.isfinite(v)]
    return Chart(
        series,
        Axis("epoch"),
        Axis("weighted term of the objective", log=_wide(values)),
        "Terms of the training objective by epoch",
    )


def _validation(rows: Sequence[Mapping[str, Any]], kept: int | None) -> Chart:
    """Plot the validation error by epoch, and mark the epoch whose weights the model has."""
    epochs, values = [row["epoch"] for row in rows], [row["validation_mm"] for row in rows]
    if (start := rows[0].get("start_mm")) is not None:
        epochs, values = [0, *epochs], [start, *values]
    series, description = [Series("validation", epochs, values)], "Validation error by epoch"
    if kept is not None and kept in epochs:
        value = values[epochs.index(kept)]
        series.append(Series(f"kept: {millimeters(value)}, epoch {kept}", [kept], [value], "mark"))
        description += f", {millimeters(value)} in the kept epoch"
    return Chart(
        series,
        Axis("epoch"),
        Axis("validation vertex error, mm", log=_wide(values)),
        description,
    )


def _wide(values: Sequence[float]) -> bool:
    """Whether values are so far apart that they need a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) > 12 * min(values)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
