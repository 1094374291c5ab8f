"""Cells of a table from its runs: means over seeds with their spread, and gains over a reference
with an interval.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphable.bench.runner import Outcome
from morphable.bench.table import Column, Row

DRAWS = 2000


@dataclass(frozen=True)
class Cell:
    """mean over `count` seeds and their standard deviation (None for a single one)."""

    mean: float
    spread: float | None
    count: int


@dataclass(frozen=True)
class Change:
    """Relative change of the mean error against a reference, -0.1 = a tenth lower, with a 95 %
    interval.
    """

    mean: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """The interval leaves out zero."""
        return self.low > 0 or self.high < 0


def cell(outcomes: Sequence[Outcome], column: Column) -> Cell | None:
    """None if no run has the measure."""
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
    found = measures.get(column.measure)
    if isinstance(found, Mapping):
        found = found.get(column.statistic)
    return None if found is None or isinstance(found, bool | list | str) else float(found)


def change(own: Sequence[Outcome], reference: Sequence[Outcome], seed: int = 0) -> Change | None:
    """Error of `own` against `reference`, paired by test mesh: whole subjects and whole seeds are
    redrawn together.

    None if either has no finished run.
    """
    first, second = (
        [o.mesh_errors for o in side if o.measures is not None] for side in (own, reference)
    )
    if not first or not second:
        return None
    a, b = np.stack(first), np.stack(second)  # (S, N) mm
    _, subject = np.unique(own[0].groups, return_inverse=True)
    # (S, G) sums over the meshes of a subject: a redrawn subject brings all its meshes, for both
    # sides alike.
    sums_a, sums_b = (np.stack([np.bincount(subject, row) for row in side]) for side in (a, b))
    random = np.random.default_rng(seed)
    draws = np.empty(DRAWS)
    for draw in range(DRAWS):
        groups = random.integers(sums_a.shape[1], size=sums_a.shape[1])
        chosen_a, chosen_b = (random.integers(len(side), size=len(side)) for side in (a, b))
        draws[draw] = sums_a[chosen_a][:, groups].mean() / sums_b[chosen_b][:, groups].mean() - 1
    low, high = np.percentile(draws, [2.5, 97.5])
    return Change(float(a.mean() / b.mean() - 1), float(low), float(high))


def of_row(outcomes: Sequence[Outcome], row: Row, data: str) -> list[Outcome]:
    """The runs of one row on one dataset, by seed."""
    return [o for o in outcomes if o.task.row == row and o.task.data.name == data]


def reference_of(outcomes: Sequence[Outcome], row: Row, data: str) -> list[Outcome]:
    """The runs with which those of `row` are compared; none where it is not compared or is the
    reference itself.
    """
    if row.against is None or row.against == row.name:
        return []
    return [
        o
        for o in outcomes
        if (o.task.row.name, o.task.row.size, o.task.data.name) == (row.against, row.size, data)
    ]
