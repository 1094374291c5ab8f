"""Table: the models that it compares, their data, what is measured of each, and what the paper
printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from morphable.evaluate.measure_table import MEASURES, Better


@dataclass(frozen=True)
class Data:
    """A dataset by name: what `data make` makes with `options`. `split`: else the dataset's
    default.

    epochs: how long every network trains on it, so that a table's rows are trained alike.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Row:
    """One model of a table: a family with overrides of its recipe's configurations.

    latent: the total, or the size of each part. paper: the paper's own numbers by column title; None where it
    prints none. against: the row of the same size with which this one is compared, mesh by mesh, on
    the mean vertex error. baseline: trained as long as its own recipe says, whatever the others do.
    """

    name: str
    family: str
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    latent: int | Mapping[str, int] = 8
    paper: Mapping[str, float | None] = field(default_factory=dict)
    recipe: str = "fast"
    against: str | None = None
    baseline: bool = False

    @property
    def size(self) -> int:
        """The latent size in total."""
        return self.latent if isinstance(self.latent, int) else sum(self.latent.values())


@dataclass(frozen=True)
class Column:
    """One measure, under the short title that fits the head of a column.

    measure: a name in MEASURES. statistic: which of a measure's statistics, if it has several.
    """

    title: str
    measure: str
    statistic: str = "mean"

    @property
    def digits(self) -> int:
        """Decimals of its cells."""
        return MEASURES[self.measure].digits

    @property
    def better(self) -> Better:
        """Which of its values are better."""
        return MEASURES[self.measure].better


ERROR = Column("mean, mm", "vertex_error_mm")
MEDIAN = Column("median, mm", "vertex_error_mm", "median")
PARAMETERS = Column("parameters", "parameters")
SECONDS = Column("s / epoch", "seconds_per_epoch")


@dataclass(frozen=True)
class Table:
    """note: what a reader must know before comparing. paper_source: where in the paper its numbers
    are.

    trained: else what is measured is the cost of decoding with models as created.
    """

    name: str
    title: str
    datasets: Sequence[Data]
    rows: Sequence[Row]
    columns: Sequence[Column]
    note: str = ""
    paper_source: str = ""
    trained: bool = True

    @property
    def paper_columns(self) -> list[str]:
        """Titles of the columns of which the paper prints something, or would."""
        return [
            column.title
            for column in self.columns
            if any(column.title in row.paper for row in self.rows)
        ]


def with_baselines(table: Table) -> Table:
    """The table with PCA and `pca-mlp` at every latent size that occurs in it, unless it has them
    already.
    """
    rows = list(table.rows)
    for size in dict.fromkeys(row.size for row in table.rows):
        for name, family in (("PCA", "pca"), ("pca-mlp", "pca-mlp")):
            if not any(row.family == family and row.size == size for row in rows):
                rows.append(Row(name, family, latent=size, baseline=True))
    return replace(table, rows=rows)
