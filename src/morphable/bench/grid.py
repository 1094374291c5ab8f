"""The grid of one dataset's table: rows of formatted cells, and the same as plain numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphable.bench.results import Cell, Change, cell, change, number_of, of_row, reference_of
from morphable.bench.runner import Outcome
from morphable.bench.table import Column, Row, Table, with_baselines
from morphable.draw.numbers import DASH
from morphable.evaluate.evaluation import MEAN_SHAPE
from morphable.evaluate.referee import REAL

NOT_PUBLISHED = "not published"
Numbers = Mapping[str, str | int | float | None]
"""One row of a table without rounding, by the name of its column."""


@dataclass(frozen=True)
class Grid:
    """The table of one dataset, ready to be written. best: the cells (row, column) in bold.
    numbers: the same rows as plain numbers.
    """

    data: str
    title: str
    header: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]
    numbers: list[Numbers]


def grid(
    table: Table,
    outcomes: Sequence[Outcome],
    data: str,
    rows: Sequence[Row] | None = None,
    reference: Sequence[Outcome] = (),
) -> Grid:
    """Make the table of one dataset: measures, the change of the error, and the paper's numbers.

    rows: those to show; all of the table and its baselines if None. reference: what every row is
    compared with, instead of the row that it names.
    """
    rows = with_baselines(table).rows if rows is None else rows
    compared = bool(reference) or bool(references(rows))
    header = ["model", "latent size", *(column.title for column in table.columns)]
    header += ["change of the vertex error"] if compared else []
    header += [f"paper: {title}" for title in table.paper_columns]
    usual = _usual_epochs(outcomes, data)
    lines: list[list[str]] = []
    cells: list[list[Cell | None]] = []
    numbers: list[Numbers] = []
    sizes = [_latent(row, of_row(outcomes, row, data)) for row in rows]
    for row, size in zip(rows, sizes, strict=True):
        own = of_row(outcomes, row, data)
        others = reference or reference_of(outcomes, row, data)
        difference = None if own == list(others) else change(own, others)
        cells.append([cell(own, column) for column in table.columns])
        name = _name(row, own, usual)
        asked = "" if size == row.size else f" (of {row.size})"
        line = [name, f"{size}{asked}", *_measured(own, cells[-1], table.columns)]
        if compared:
            line.append(_change_text(difference))
        lines.append(line + [_paper_text(row, title, table) for title in table.paper_columns])
        numbers.append(_numbers(table, data, row, size, own, cells[-1], difference))
    best = _best(sizes, cells, table.columns)
    for key, title, size_text in ((REAL, "real meshes", DASH), (MEAN_SHAPE, "mean shape", "0")):
        values = _baseline(table, outcomes, data, key)
        if values is None:
            continue
        texts = [
            DASH if value is None else f"{value:,.{column.digits}f}"
            for value, column in zip(values, table.columns, strict=True)
        ]
        lines.append([title, size_text, *texts, *[DASH] * (len(header) - 2 - len(texts))])
        plain: dict[str, str | int | float | None] = {"dataset": data, "model": title}
        plain["latent size"] = 0 if key == MEAN_SHAPE else None
        plain |= zip((column.title for column in table.columns), values, strict=True)
        numbers.append(plain)
    return Grid(data, f"{data}, {_meshes(outcomes, data)}", header, lines, best, numbers)


def _latent(row: Row, own: Sequence[Outcome]) -> int:
    """The latent size of a row's models, which is smaller than the row's own if the training meshes
    carry no more.
    """
    found = [o.provenance["latent"] for o in own if o.measures and "latent" in o.provenance]
    return min([row.size, *found])


def references(rows: Sequence[Row]) -> list[str]:
    """The names of the rows that others are compared with, if they are among them."""
    names = {row.name for row in rows}
    return list(dict.fromkeys(row.against for row in rows if row.against in names and row.against))


def _usual_epochs(outcomes: Sequence[Outcome], data: str) -> int | None:
    """How many epochs the networks of a dataset were trained for, without the baselines."""
    known = [
        o.epochs
        for o in outcomes
        if o.task.data.name == data and not o.task.row.own_epochs and o.epochs is not None
    ]
    return statistics.mode(known) if known else None


def _name(row: Row, own: Sequence[Outcome], usual: int | None) -> str:
    """The name of a row, which says so if it was not trained for as long as the others."""
    epochs = next((o.epochs for o in own if o.epochs is not None), None)
    if epochs is None or epochs == usual or not (row.own_epochs or "epochs" in row.train):
        return row.name
    return f"{row.name}, {epochs} epochs of its own"


def _numbers(
    table: Table,
    data: str,
    row: Row,
    size: int,
    own: Sequence[Outcome],
    cells: Sequence[Cell | None],
    difference: Change | None,
) -> Numbers:
    numbers: dict[str, str | int | float | None] = {
        "dataset": data,
        "model": row.name,
        "family": row.family,
        "latent size": size,
        "epochs": next((o.epochs for o in own if o.epochs is not None), None),
        "seeds": sum(o.measures is not None for o in own),
    }
    for column, value in zip(table.columns, cells, strict=True):
        numbers[column.title] = None if value is None else value.mean
        if value is not None and value.spread is not None:
            numbers[f"{column.title}, deviation over seeds"] = value.spread
    if difference is not None:
        numbers["change of the vertex error"] = difference.mean
        numbers["change, low end"], numbers["change, high end"] = difference.low, difference.high
    return numbers | {f"paper: {title}": row.paper.get(title) for title in table.paper_columns}


def _measured(
    own: Sequence[Outcome], cells: Sequence[Cell | None], columns: Sequence[Column]
) -> list[str]:
    """Format the measures of a row; if nothing was measured, the first cell says why."""
    texts = [_text(value, column) for value, column in zip(cells, columns, strict=True)]
    failure = next((f"failed: {outcome.failure}" for outcome in own if outcome.failure), None)
    if failure and cells[0] is None:
        texts[0] = failure
    return texts


def _baseline(
    table: Table, outcomes: Sequence[Outcome], data: str, name: str
) -> list[float | None] | None:
    """The measures of a baseline that is no row, from any finished run on the dataset; None if no
    run has it.
    """
    measures = next(
        (o.baselines[name] for o in outcomes if o.task.data.name == data and name in o.baselines),
        None,
    )
    if measures is None:
        return None
    return [number_of(measures, column) for column in table.columns]


def _best(
    sizes: Sequence[int], cells: Sequence[Sequence[Cell | None]], columns: Sequence[Column]
) -> set[tuple[int, int]]:
    """Find the best means of each column among rows of equal latent size, all that are printed alike.
    Columns in which neither direction is better have none.

    sizes: the latent size of each row.
    """
    best = set()
    for place, column in enumerate(columns):
        if column.better == "neither":
            continue
        for size in set(sizes):
            known = {
                i: round(c.mean, column.digits)
                for i, own in enumerate(sizes)
                if own == size and (c := cells[i][place])
            }
            if known:
                least = (min if column.better == "lower" else max)(known.values())
                best |= {(i, place + 2) for i, value in known.items() if value == least}
    return best


def _text(value: Cell | None, column: Column) -> str:
    if value is None:
        return DASH
    text = f"{value.mean:,.{column.digits}f}"
    return f"{text} ± {value.spread:.{column.digits}f}" if value.spread else text


def _change_text(value: Change | None) -> str:
    if value is None:
        return DASH
    text = f"{100 * value.mean:+.1f} %"
    if value.low is None or value.high is None:
        return text
    return f"{text} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def _paper_text(row: Row, title: str, table: Table) -> str:
    if row.own_epochs or title not in row.paper:
        return DASH
    value = row.paper[title]
    digits = next(column.digits for column in table.columns if column.title == title)
    return NOT_PUBLISHED if value is None else f"{value:,.{digits}f}"


def _meshes(outcomes: Sequence[Outcome], data: str) -> str:
    record = next(
        (o.provenance for o in outcomes if o.task.data.name == data and o.provenance), None
    )
    if record is None:
        return "nothing measured yet"
    if "split" not in record:  # a table of decoding costs, which trains nothing
        return f"{record['vertices']:,} vertices, one mesh at a time"
    folds = max(o.task.fold for o in outcomes if o.task.data.name == data)
    return (f"{folds} folds; the first: " if folds else "") + (
        f"split `{record['split']}`: {record['train_meshes']:,} training meshes, "
        f"{record['meshes']:,} test meshes of {record['subjects']:,} subjects"
    )
