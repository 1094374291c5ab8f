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

DRAWS = 2000
"""Draws of the bootstrap."""


@dataclass(frozen=True)
class Cell:
    """The mean over `count` seeds; spread: their standard deviation, None for a single seed."""

    mean: float
    spread: float | None
    count: int


@dataclass(frozen=True)
class Change:
    """The relative change of the mean error against a reference (-0.1 is 10 % lower), with the ends
    of a 95 % confidence interval.
    """

    mean: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


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
    """Compare the error of `own` with that of `reference` by a bootstrap that is paired by test
    mesh and redraws whole subjects and whole seeds.

    Returns None if either has no finished run.
    """
    first, second = (
        [o.mesh_errors for o in side if o.measures is not None] for side in (own, reference)
    )
    if not first or not second:
        return None
    a, b = np.stack(first), np.stack(second)  # (S, N) mm
    _, subject = np.unique(own[0].groups, return_inverse=True)
    # (S, G) sums over the meshes of each of G subjects. Meshes of one subject are not independent,
    # so a redrawn subject brings all its meshes, for both sides alike.
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
