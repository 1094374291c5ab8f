"""Pictures of a bench: where each model errs, and arithmetic of codes, the reference above what is
compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch

from morphable.bench.runner import Outcome
from morphable.data.dataset import MeshDataset
from morphable.draw.numbers import millimeters
from morphable.draw.render import heat_colors
from morphable.errors import InputError
from morphable.evaluate.evaluation import MODEL, Evaluation
from morphable.evaluate.record import Measured
from morphable.models.io import load
from morphable.report.arithmetic import Coded, strips
from morphable.report.context import ReportContext, scale_end
from morphable.report.section import color_bar, image, paragraph, table

MAX_MODELS = 8
HEIGHT = 300


def pictures(outcomes: Sequence[Outcome], dataset: MeshDataset) -> str:
    """HTML with the models of one dataset's first seed at the smallest code size; empty where none
    is finished.
    """
    shown = {
        name: result.evaluation
        for name, folder in shown_runs(outcomes).items()
        if (result := Measured.read(folder, load(folder), dataset)) is not None
    }
    if not shown:
        return ""
    first = next(iter(shown.values()))
    context = ReportContext(Measured(first, {}), [])
    rows = torch.from_numpy(context.rows)
    models = {name: Coded(one.model, one.codes[rows]) for name, one in shown.items()}
    try:
        return _errors(context, shown) + strips(context, models)
    except InputError as error:  # a family that cannot encode or draw, and says why
        return paragraph(f"No pictures: {error}")


def shown_runs(outcomes: Sequence[Outcome]) -> dict[str, Path]:
    """Run folders by row name, in the table's order: what is compared and its references, else all rows; then
    the baselines.
    """
    done = [o for o in outcomes if o.measures is not None and o.task.seed == 0 and o.task.trained]
    rows = [o.task.row for o in done if not o.task.row.baseline]
    if not rows:
        return {}
    size = min(row.size for row in rows)
    named = {row.against for row in rows if row.against} | {row.name for row in rows if row.against}
    chosen = [
        o
        for o in done
        if o.task.row.size == size
        and (o.task.row.baseline or o.task.row.name in named or not named)
    ]
    chosen = sorted(chosen, key=lambda o: o.task.row.baseline)
    return {o.task.row.name: o.task.folder for o in chosen[:MAX_MODELS]}


def _errors(context: ReportContext, shown: Mapping[str, Evaluation]) -> str:
    errors = {title: one.errors(MODEL, context.rows).mean(0) for title, one in shown.items()}
    limit = scale_end(np.stack(list(errors.values())))
    template = np.asarray(context.model.template.mesh.vertices)
    cells = []
    for title, error in errors.items():
        mean = millimeters(float(error.mean()))
        picture = image(
            context.picture(template, HEIGHT, heat_colors(error, limit)),
            f"{title}: mean error {mean}",
        )
        cells.append(f'{picture}<span class="number">{mean}</span>')
    line = ["mean error of each vertex", *cells]
    html = table(["", *map(escape, errors)], [line], "pictures") + color_bar(
        limit, "mean distance to the true vertex"
    )
    return f"<h3>Where the errors are</h3>{html}"
