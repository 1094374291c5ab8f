"""Pictures of a bench: where each model's errors are, and arithmetic of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from morphable.bench.runner import Outcome
from morphable.data.dataset import MeshDataset
from morphable.draw.blocks import Block, Cell, ColorBar, Heading, Table, Text
from morphable.draw.colors import heat_colors, scale_end
from morphable.draw.numbers import millimeters
from morphable.errors import InputError
from morphable.evaluate.evaluation import MODEL, Evaluation
from morphable.evaluate.record import Measured
from morphable.models.io import load
from morphable.report.arithmetic import Coded, calculations
from morphable.report.scene import Scene

MAX_MODELS = 8


def pictures(outcomes: Sequence[Outcome], dataset: MeshDataset) -> list[Block]:
    """Show the models of one dataset, of the first seed and the smallest latent size."""
    shown = {
        name: result.evaluation
        for name, folder in shown_runs(outcomes).items()
        if (result := Measured.read(folder, load(folder), dataset)) is not None
    }
    return pictures_of(shown)


def pictures_of(shown: Mapping[str, Evaluation]) -> list[Block]:
    """Show models by name, measured on the same meshes; nothing if there are none."""
    if not shown:
        return []
    scene = Scene(next(iter(shown.values())))
    models = {name: Coded(one.model, one.codes) for name, one in shown.items()}
    try:
        return [*_errors(scene, shown), *calculations(scene, models)]
    except InputError as error:  # e.g. from a family that cannot encode
        return [Text(f"No pictures: {error}")]


def shown_runs(outcomes: Sequence[Outcome]) -> dict[str, Path]:
    """Return the folders of the runs to show by row name, in the table's order.

    They are the rows that are compared and their references, or all rows if none is compared, and
    then the baselines.
    """
    done = [
        o
        for o in outcomes
        if o.measures is not None and o.task.seed == 0 and o.task.fold < 2 and o.task.trained
    ]
    rows = [o.task.row for o in done if not o.task.row.own_epochs]
    if not rows:
        return {}
    size = min(row.size for row in rows)
    named = {row.against for row in rows if row.against} | {row.name for row in rows if row.against}
    chosen = [
        o
        for o in done
        if o.task.row.size == size
        and (o.task.row.own_epochs or o.task.row.name in named or not named)
    ]
    chosen = sorted(chosen, key=lambda o: o.task.row.own_epochs)
    return {o.task.row.name: o.task.folder for o in chosen[:MAX_MODELS]}


def _errors(scene: Scene, shown: Mapping[str, Evaluation]) -> list[Block]:
    """Show the mean error of each vertex on the template, one picture per model."""
    errors = {title: one.errors(MODEL, scene.rows).mean(0) for title, one in shown.items()}
    limit = scale_end(np.stack(list(errors.values())))
    template = np.asarray(scene.model.template.mesh.vertices)
    cells: list[Cell] = ["mean error of each vertex"]
    for title, error in errors.items():
        mean = millimeters(float(error.mean()))
        described = f"{title}: mean error {mean}"
        cells.append(scene.view.picture(template, described, heat_colors(error, limit), mean))
    return [
        Heading("Where the errors are"),
        Table(["", *errors], [cells], "pictures"),
        ColorBar(limit, "mean distance to the true vertex"),
    ]
