"""The cells of a table: means over seeds with their spread, and changes against a reference with
confidence intervals.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphable.bench.runner import Outcome
from morphable.bench.table import Column, Row
from morphable.evaluate.intervals import ratio_interval


@dataclass(frozen=True)
class Cell:
    """The mean over `count` seeds; spread: their standard deviation, None for a single seed."""

    mean: float
    spread: float | None
    count: int


@dataclass(frozen=True)
class Change:
    """The relative change of the mean error against a reference (-0.1 is 10 % lower), with the ends
    of a 95 % confidence interval; these are None if the test subjects are too few for one.
    """

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def certain(self) -> bool:
        """Whether there is an interval that leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def cell(outcomes: Sequence[Outcome], column: Column) -> Cell | None:
    """Average a measure over runs; None if no run has it."""
    values = [
        value
        for outcome in outcomes
        if (value := number_of(outcome.measures or {}, column)) is not None
    ]
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), spread, len(values))


def number_of(measures: Mapping[str, Any], column: Column) -> float | None:
    """Return one run's number in a column; None if it has none."""
    value = measures.get(column.measure)
    if isinstance(value, Mapping):
        value = value.get(column.statistic)
    return None if value is None or isinstance(value, bool | list | str) else float(value)


def change(own: Sequence[Outcome], reference: Sequence[Outcome], seed: int = 0) -> Change | None:
    """Compare the error of `own` with that of `reference`, means over their seeds, by a bootstrap
    that is paired by test mesh and redraws whole subjects. The test meshes of the folds of a
    cross-validation are pooled.

    The interval is of the models that were trained. Redrawing two or three seeds would not say what
    other seeds do; the spread of the cells shows that. Returns None if either has no finished run.
    """
    first, second = (_by_fold(side) for side in (own, reference))
    folds = sorted(first.keys() & second.keys())
    if not folds:
        return None
    a, b = (
        np.concatenate([np.mean([o.mesh_errors for o in side[fold]], axis=0) for fold in folds])
        for side in (first, second)
    )  # (N,) mm
    mean = float(a.mean() / b.mean() - 1)
    groups = np.concatenate([first[fold][0].groups for fold in folds])
    bounds = ratio_interval(a, b, groups, seed)
    return Change(mean) if bounds is None else Change(mean, bounds.low - 1, bounds.high - 1)


def _by_fold(outcomes: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    """The finished runs of each fold."""
    finished = [outcome for outcome in outcomes if outcome.measures is not None]
    folds = sorted({outcome.task.fold for outcome in finished})
    return {fold: [o for o in finished if o.task.fold == fold] for fold in folds}


def of_row(outcomes: Sequence[Outcome], row: Row, data: str) -> list[Outcome]:
    """Return the runs of one row on one dataset, in the order of their seeds."""
    return [o for o in outcomes if o.task.row == row and o.task.data.name == data]


def reference_of(outcomes: Sequence[Outcome], row: Row, data: str) -> list[Outcome]:
    """Return the runs that those of `row` are compared with, or none if it is not compared or is
    the reference itself.
    """
    if row.against is None or row.against == row.name:
        return []
    return [
        o
        for o in outcomes
        if (o.task.row.name, o.task.row.size, o.task.data.name) == (row.against, row.size, data)
    ]
