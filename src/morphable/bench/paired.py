"""Differences of a row's measures from those of the row that it is compared with, paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t

from morphable.bench.grid import Grid, Numbers
from morphable.bench.results import number_of, of_row, reference_of
from morphable.bench.runner import Outcome
from morphable.bench.table import Column, Row, Table
from morphable.draw.numbers import DASH


@dataclass(frozen=True)
class Difference:
    """The mean over seeds of a measure less the reference's, and the ends of its 95 % confidence
    interval by Student's t: what other seeds would do.
    """

    mean: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def difference(
    own: Sequence[Outcome], reference: Sequence[Outcome], column: Column
) -> Difference | None:
    """Compare a measure of runs with that of the reference's runs of the same seeds and folds. None
    with fewer than two pairs.
    """
    values = [
        {
            (o.task.seed, o.task.fold): number
            for o in side
            if (number := number_of(o.measures or {}, column)) is not None
        }
        for side in (own, reference)
    ]
    pairs = sorted(values[0].keys() & values[1].keys())
    if len(pairs) < 2:
        return None
    each = [values[0][pair] - values[1][pair] for pair in pairs]
    mean = statistics.fmean(each)
    half = float(t.ppf(0.975, len(each) - 1)) * statistics.stdev(each) / len(each) ** 0.5
    return Difference(mean, mean - half, mean + half)


def paired_grid(
    table: Table, outcomes: Sequence[Outcome], data: str, rows: Sequence[Row]
) -> Grid | None:
    """The table of differences of one dataset; None if the table asks for none, or no row has two
    seeds in common with its reference. Differences whose interval leaves out zero are in bold.
    """
    lines: list[list[str]] = []
    numbers: list[Numbers] = []
    bold = set()
    for row in rows:
        own, reference = of_row(outcomes, row, data), reference_of(outcomes, row, data)
        found = [difference(own, reference, column) for column in table.paired]
        if not any(found):
            continue
        plain: dict[str, str | int | float | None] = {
            "dataset": f"{data}, differences",
            "model": f"{row.name} less {row.against}",
            "latent size": row.size,
        }
        for place, (column, one) in enumerate(zip(table.paired, found, strict=True)):
            if one is None:
                continue
            plain |= {
                column.title: one.mean,
                f"{column.title}, low end": one.low,
                f"{column.title}, high end": one.high,
            }
            if one.certain:
                bold.add((len(lines), place + 3))
        lines.append(
            [
                row.name,
                str(row.against),
                str(row.size),
                *(_text(one, c) for one, c in zip(found, table.paired, strict=True)),
            ]
        )
        numbers.append(plain)
    if not lines:
        return None
    header = ["model", "less", "latent size", *(column.title for column in table.paired)]
    name = f"{data}, differences"
    return Grid(name, name, header, lines, bold, numbers)


def _text(value: Difference | None, column: Column) -> str:
    if value is None:
        return DASH
    mean, low, high = (f"{v:+,.{column.digits}f}" for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"
