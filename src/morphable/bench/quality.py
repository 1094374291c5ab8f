"""Time to quality: the validation error of each model against the seconds that it has trained."""

from __future__ import annotations

from collections.abc import Sequence

from morphable.bench.runner import Outcome
from morphable.draw.axes import Axis
from morphable.draw.blocks import Block, Heading, Text
from morphable.draw.charts import Chart, Series
from morphable.train.checkpoint import read_metrics

COLORS = (3, 4, 5, 6, 7, 8, 9, 10, 2, 11)
"""Chart colors of the models in the order of the table. Models beyond the last are not shown."""
OWN_COLOR = {"PCA": 1, "pca-mlp": 0}


def time_to_quality(outcomes: Sequence[Outcome]) -> list[Block]:
    """Show how the validation error of the models of one dataset falls with the time of training:
    those of the first seed and fold and of the smallest latent size. Nothing if no two were trained.
    """
    first = [o for o in outcomes if o.task.seed == 0 and o.task.fold < 2 and o.task.trained]
    size = min((o.task.row.size for o in first), default=0)
    curves, start = [], None
    colors = iter(COLORS)
    for outcome in first:
        rows = [
            row
            for row in read_metrics(outcome.task.folder / "metrics.jsonl")
            if row.get("best_mm") is not None
        ]
        if outcome.task.row.size != size or not rows:
            continue
        name = outcome.task.row.name
        if outcome.task.row.family == "pca-mlp":  # its epoch 0 is PCA
            start = rows[0].get("start_mm", start)
        color = OWN_COLOR[name] if name in OWN_COLOR else next(colors, None)
        if color is not None:
            best = [row["best_mm"] for row in rows]
            curves.append(Series(name, [row["seconds"] for row in rows], best, "line", color))
    if len(curves) < 2:
        return []
    if start is not None:
        ends = [min(min(c.x) for c in curves), max(max(c.x) for c in curves)]
        curves.append(Series("PCA", ends, [start, start], "line", OWN_COLOR["PCA"]))
    chart = Chart(
        curves,
        Axis("seconds of training", log=True),
        Axis("least validation error so far, mm", log=True),
        f"Validation error against training time of {', '.join(c.name for c in curves)}",
    )
    text = (
        "The least mean vertex error on the validation meshes up to each moment, of the first seed. "
        "PCA takes no training; its line ends where the longest training does."
    )
    return [Heading("Time to quality"), chart, Text(text, "note")]
