"""Table: the models that it compares, their data, the measures, and the paper's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from morphable.errors import InputError
from morphable.evaluate.measure_table import Better, measure_of

ALONE: Mapping[str, Any] = {"start": "random"}
"""Settings of a mesh autoencoder of the papers, which had no PCA beside it."""


@dataclass(frozen=True)
class Data:
    """A dataset by name, as `data make KIND` makes it with `options`.

    split: the default of the dataset if None. epochs: how long every network is trained on it, so
    that the rows of a table are comparable.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Row:
    """One model of a table: a family with overrides of its recipe's configurations.

    latent: the total, or the size of each part. paper: the paper's own numbers by column title;
    None if it prints none. against: the row of the same latent size whose mean vertex error this
    one is compared with, mesh by mesh. own_epochs: whether the row keeps the epochs of its own
    recipe, however long the others are trained.
    """

    name: str
    family: str
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    latent: int | Mapping[str, int] = 8
    paper: Mapping[str, float | None] = field(default_factory=dict)
    recipe: str = "fast"
    against: str | None = None
    own_epochs: bool = False

    @property
    def size(self) -> int:
        """The latent size in total."""
        return self.latent if isinstance(self.latent, int) else sum(self.latent.values())

    def variant(self, what: str, **changes: Any) -> Row:
        """This row with other fields, named `NAME, what` and compared with this one."""
        return replace(self, name=f"{self.name}, {what}", against=self.name, **changes)


@dataclass(frozen=True)
class Column:
    """One measure, with a title that is short enough for the head of a column.

    measure: a key of the table of measures. statistic: which of a measure's statistics, if it has several.
    """

    title: str
    measure: str
    statistic: str = "mean"

    @property
    def digits(self) -> int:
        """The number of decimals in its cells."""
        return measure_of(self.measure)[0].digits

    @property
    def better(self) -> Better:
        """Whether lower or higher values are better, or neither."""
        return measure_of(self.measure)[0].better


ERROR = Column("mean, mm", "vertex_error_mm")
MEDIAN = Column("median, mm", "vertex_error_mm", "median")
SPECIFICITY = Column("specificity, mm", "specificity_mm")
COVERAGE = Column("coverage, mm", "coverage_mm")
NEIGHBOR = Column("1-NN accuracy", "one_nn_accuracy")
GENERALIZATION = Column("fitted codes, mm", "generalization_mm")
IDENTITY = Column("decoupling, identity", "decoupling/identity")
EXPRESSION = Column("decoupling, expression", "decoupling/expression")
DIVERSITY = Column("diversity, mm", "diversity_mm/global")
OF_ONE_IDENTITY = Column("of one identity", "diversity_mm/identity")
OF_ONE_EXPRESSION = Column("of one expression", "diversity_mm/expression")
JUDGED = (
    IDENTITY,
    EXPRESSION,
    SPECIFICITY,
    GENERALIZATION,
    DIVERSITY,
    OF_ONE_IDENTITY,
    OF_ONE_EXPRESSION,
    COVERAGE,
    NEIGHBOR,
)
"""The columns of the referee's measures."""
PARAMETERS = Column("parameters", "parameters")
SECONDS = Column("s / epoch", "seconds_per_epoch")
EPOCHS = Column("epochs", "epochs")
TRAINING = Column("training, s", "training_seconds")


@dataclass(frozen=True)
class Sweep:
    """Which charts show a table whose rows are steps of a setting.

    title: of the setting, on the horizontal axis. place: where a row is there; None if it is not
    shown. line: the name of the line that a row is on. columns: the measures, one chart each. log:
    whether the axes are logarithmic.
    """

    title: str
    place: Callable[[Row], float | None]
    line: Callable[[Row], str]
    columns: Sequence[Column]
    log: bool = False


@dataclass(frozen=True)
class Table:
    """A published table.

    note: what a reader must know before comparing. paper_source: where in the paper its numbers
    are. trained: if False, the models are not trained and only the cost of decoding is measured.
    judged: whether the referee judges each model too. paired: measures whose differences from the
    reference rows are shown too, in a table of their own. sweep: the charts; None if it has none.
    """

    name: str
    title: str
    datasets: Sequence[Data]
    rows: Sequence[Row]
    columns: Sequence[Column]
    note: str = ""
    paper_source: str = ""
    trained: bool = True
    judged: bool = False
    paired: Sequence[Column] = ()
    sweep: Sweep | None = None

    @property
    def paper_columns(self) -> list[str]:
        """Titles of the columns for which some row names the paper's number, even an unpublished
        one.
        """
        return [
            column.title
            for column in self.columns
            if any(column.title in row.paper for row in self.rows)
        ]


def with_judge(table: Table) -> Table:
    """The table with the referee's columns too. Raises InputError if its models are not trained."""
    if not table.trained:
        raise InputError(f"{table.name}: its models are not trained, so the referee has no samples")
    columns = list(dict.fromkeys((*table.columns, *JUDGED)))
    return replace(table, columns=columns, judged=True)


def with_baselines(table: Table) -> Table:
    """Add PCA and `pca-mlp` at each latent size of the table, unless it has them already."""
    rows = list(table.rows)
    for size in dict.fromkeys(row.size for row in table.rows):
        for name, family in (("PCA", "pca"), ("pca-mlp", "pca-mlp")):
            if not any(row.family == family and row.size == size for row in rows):
                rows.append(Row(name, family, latent=size, own_epochs=True))
    return replace(table, rows=rows)
