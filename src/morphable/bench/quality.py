"""Time to quality: the validation error of each model against the seconds that it has trained."""

from __future__ import annotations

from collections.abc import Sequence

from morphable.bench.colors import COLORS, OWN_COLORS, line_colors
from morphable.bench.runner import Outcome
from morphable.draw.axes import Axis
from morphable.draw.blocks import Block, Columns, Heading, Text
from morphable.draw.charts import Chart, Series
from morphable.train.checkpoint import read_metrics


def time_to_quality(outcomes: Sequence[Outcome]) -> list[Block]:
    """Show how the validation error of the models of one dataset falls with the time of training:
    those of the first seed and fold and of the smallest latent size. If there are more than colors,
    the worst are left out. Nothing if no two were trained.
    """
    first = [o for o in outcomes if o.task.seed == 0 and o.task.fold < 2 and o.task.trained]
    size = min((o.task.row.size for o in first), default=0)
    courses: dict[str, tuple[list[float], list[float]]] = {}
    start = None
    for outcome in first:
        rows = [
            row
            for row in read_metrics(outcome.task.folder / "metrics.jsonl")
            if row.get("best_mm") is not None
        ]
        if outcome.task.row.size != size or not rows:
            continue
        if outcome.task.row.family == "pca-mlp":  # its epoch 0 is PCA
            start = rows[0].get("start_mm", start)
        seconds, best = ([row[key] for row in rows] for key in ("seconds", "best_mm"))
        courses[outcome.task.row.name] = seconds, best
    if len(courses) < 2:
        return []
    others = [name for name in courses if name not in OWN_COLORS]
    kept = sorted(others, key=lambda name: courses[name][1][-1])[: len(COLORS)]
    shown = [name for name in courses if name in OWN_COLORS or name in kept]
    colors = line_colors(shown)
    curves = [Series(name, *courses[name], "line", colors[name]) for name in shown]
    if start is not None:
        moments = [moment for name in shown for moment in courses[name][0]]
        ends = [min(moments), max(moments)]
        curves.append(Series("PCA", ends, [start, start], "line", OWN_COLORS["PCA"]))
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
    if left_out := len(courses) - len(shown):
        text += f" The {left_out} with the largest errors are left out."
    return [Heading("Time to quality"), Columns([[chart], [Text(text, "note")]])]
