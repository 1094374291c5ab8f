"""Charts of a table whose rows are the steps of a setting: each measure by the setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from morphable.bench.colors import line_colors
from morphable.bench.results import number_of
from morphable.bench.runner import Outcome
from morphable.bench.table import Column, Sweep
from morphable.draw.axes import Axis
from morphable.draw.blocks import Block, Columns, Heading, Text
from morphable.draw.charts import Chart, Series


def sweep_charts(sweep: Sweep | None, outcomes: Sequence[Outcome]) -> list[Block]:
    """Draw one chart a measure of the sweep, from the runs of one dataset: lines of means over
    seeds, in the order of the rows, as far as there are colors, and the ends of the seeds' range.
    Nothing without a sweep, or with fewer than two of its steps.
    """
    if sweep is None:
        return []
    charts = [c for column in sweep.columns if (c := _chart(sweep, outcomes, column)) is not None]
    if not charts:
        return []
    note = "Lines join the means over seeds; bars end at the lowest and the highest seed."
    pairs = [charts[start : start + 2] for start in range(0, len(charts), 2)]
    rows: list[Block] = [Columns([[chart] for chart in pair]) for pair in pairs]
    return [Heading(f"By the {sweep.title}"), *rows, Text(note, "note")]


def _chart(sweep: Sweep, outcomes: Sequence[Outcome], column: Column) -> Chart | None:
    values: dict[str, dict[float, list[float]]] = {}
    for outcome in outcomes:
        place = sweep.place(outcome.task.row)
        number = number_of(outcome.measures or {}, column)
        if number is None or place is None:
            continue
        line = values.setdefault(sweep.line(outcome.task.row), {})
        line.setdefault(place, []).append(number)
    steps = sorted({step for line in values.values() for step in line})
    if len(steps) < 2:
        return None
    series = []
    for name, color in line_colors(values).items():
        line = values[name]
        x = sorted(line)
        y = [statistics.fmean(line[step]) for step in x]
        spread = np.array([(min(line[step]), max(line[step])) for step in x])
        series += [
            Series("", x, y, "line", color),
            Series(name, x, y, "mark", color, spread),
        ]
    return Chart(
        series,
        Axis(sweep.title, sweep.log, ticks=tuple(steps)),
        Axis(column.title, sweep.log, low=None if sweep.log else 0),
        f"{column.title} by the {sweep.title}",
    )
