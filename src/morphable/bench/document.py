"""What a bench writes: all numbers as JSON, and the tables as Markdown and as one HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphable.bench.results import Cell, Change, cell, change, number_of, of_row, reference_of
from morphable.bench.runner import Options, Outcome, Task
from morphable.bench.table import Column, Row, Table, with_baselines
from morphable.draw import blocks
from morphable.draw.blocks import Block, Bold, Bullets, Page, Section
from morphable.draw.html import render_page
from morphable.draw.numbers import DASH
from morphable.evaluate.intervals import MIN_GROUPS, described, no_interval
from morphable.files import read_json, write_json, write_text
from morphable.train.run import command_line, versions

NOT_PUBLISHED = "not published"


@dataclasses.dataclass(frozen=True)
class Grid:
    """The table of one dataset, ready to be written. best: the cells (row, column) in bold."""

    data: str
    title: str
    header: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]


def write_results(
    table: Table,
    options: Options,
    planned: Sequence[Task],
    outcomes: Sequence[Outcome],
    skipped: Mapping[str, str],
    pictures: Mapping[str, Sequence[Block]] | None = None,
) -> None:
    """Write results.json, table.md and table.html into the bench's folder. Cells of runs that have
    not finished are empty.

    planned: all runs; outcomes: those that ended. skipped: why a dataset was left out, by name.
    pictures: by dataset; the page shows them below the dataset's table.
    """
    grids = [
        grid(table, outcomes, name) for name in dict.fromkeys(o.task.data.name for o in outcomes)
    ]
    facts = _facts(table, options, planned, outcomes, skipped)
    write_json(options.out / "results.json", record(table, options, outcomes, skipped))
    write_text(options.out / "table.md", markdown(table, grids, facts))
    write_text(options.out / "table.html", html(table, grids, facts, pictures or {}))


def grid(table: Table, outcomes: Sequence[Outcome], data: str) -> Grid:
    """Make the table of one dataset: measures, the change of the error, and the paper's numbers."""
    rows = with_baselines(table).rows
    compared = any(row.against for row in rows)
    header = ["model", "latent size", *(column.title for column in table.columns)]
    header += ["change of the vertex error"] if compared else []
    header += [f"paper: {title}" for title in table.paper_columns]
    lines, cells = [], []
    for row in rows:
        own = of_row(outcomes, row, data)
        cells.append([cell(own, column) for column in table.columns])
        line = [row.name, str(row.size), *_measured(own, cells[-1], table.columns)]
        if compared:
            line.append(_change_text(change(own, reference_of(outcomes, row, data))))
        lines.append(line + [_paper_text(row, title, table) for title in table.paper_columns])
    best = _best(rows, cells, table.columns)
    lines += _mean_shape(table, outcomes, data, len(header))
    return Grid(data, f"{data}, {_meshes(outcomes, data)}", header, lines, best)


def _measured(
    own: Sequence[Outcome], cells: Sequence[Cell | None], columns: Sequence[Column]
) -> list[str]:
    """Format the measures of a row; if nothing was measured, the first cell says why."""
    texts = [_text(value, column) for value, column in zip(cells, columns, strict=True)]
    failure = next((f"failed: {outcome.failure}" for outcome in own if outcome.failure), None)
    if failure and cells[0] is None:
        texts[0] = failure
    return texts


def _mean_shape(
    table: Table, outcomes: Sequence[Outcome], data: str, width: int
) -> list[list[str]]:
    """Make the row of the mean shape, from the baselines of any finished run on the dataset."""
    measures = next(
        (o.baselines["mean_shape"] for o in outcomes if o.task.data.name == data and o.baselines),
        None,
    )
    if measures is None:
        return []
    values = [number_of(measures, column) for column in table.columns]
    texts = [
        DASH if value is None else f"{value:,.{column.digits}f}"
        for value, column in zip(values, table.columns, strict=True)
    ]
    return [["mean shape", "0", *texts, *[DASH] * (width - 2 - len(texts))]]


def _best(
    rows: Sequence[Row], cells: Sequence[Sequence[Cell | None]], columns: Sequence[Column]
) -> set[tuple[int, int]]:
    """Find the best mean of each column among rows of equal latent size. Columns in which neither
    direction is better have none.
    """
    best = set()
    for place, column in enumerate(columns):
        if column.better == "neither":
            continue
        for size in {row.size for row in rows}:
            known = [
                (c.mean, i)
                for i, row in enumerate(rows)
                if row.size == size and (c := cells[i][place])
            ]
            if known:
                best.add(((min if column.better == "lower" else max)(known)[1], place + 2))
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
    if row.baseline or title not in row.paper:
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
    return (
        f"split `{record['split']}`: {record['train_meshes']:,} training meshes, "
        f"{record['meshes']:,} test meshes of {record['subjects']:,} subjects"
    )


def _facts(
    table: Table,
    options: Options,
    planned: Sequence[Task],
    outcomes: Sequence[Outcome],
    skipped: Mapping[str, str],
) -> list[str]:
    """Return the sentences under the tables: how to read and how to repeat them."""
    seeds = max((outcome.task.seed for outcome in outcomes), default=0) + 1
    facts = [
        f"Seeds: {seeds}. Cells are means over seeds ± standard deviation; bold: the best of each "
        "column among models of equal latent size, if one direction is better."
    ]
    references = list(dict.fromkeys(row.against for row in table.rows if row.against))
    if references:
        facts.append(
            "Change of the vertex error: of its mean over seeds, against "
            f"{' or '.join(references)} of the same latent size. The 95 % confidence interval is "
            "paired by mesh, of the models that were trained: whole test subjects are redrawn "
            "(bootstrap-t), seeds are not."
        )
        facts += _without_interval(outcomes)
    networks = [o for o in outcomes if not o.task.row.baseline and _trained(o)]
    facts += list(dict.fromkeys(f"On {o.task.data.name}: {_training(o)}." for o in networks))
    facts += [table.note] if table.note else []
    facts += [f"Paper: {table.paper_source}."] if table.paper_source else []
    facts += [f"{name}: {reason}." for name, reason in skipped.items()]
    if len(outcomes) < len(planned):
        facts.append(f"Unfinished: {len(outcomes)} of {len(planned)} runs.")
    return [*facts, f"Command: `{command_line()}`, {torch.get_num_threads()} thread(s)."]


def _without_interval(outcomes: Sequence[Outcome]) -> list[str]:
    """Say of which datasets there are no intervals, and why."""
    counts = {o.task.data.name: len(np.unique(o.groups)) for o in outcomes if len(o.groups)}
    return [
        f"{data}: {no_interval(count)}." for data, count in counts.items() if count < MIN_GROUPS
    ]


def _trained(outcome: Outcome) -> bool:
    return "train" in outcome.provenance.get("model", {})


def _training(outcome: Outcome) -> str:
    record = outcome.provenance["model"]
    return f"networks by the {record['recipe']} recipe, {record['train']['epochs']} epoch(s)"


def record(
    table: Table, options: Options, outcomes: Sequence[Outcome], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content of results.json."""
    return {
        "table": table.name,
        "command": command_line(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "skipped": dict(skipped),
        "runs": [
            {
                "dataset": o.task.data.name,
                "row": o.task.row.name,
                "family": o.task.row.family,
                "latent": o.task.row.size,
                "seed": o.task.seed,
                "folder": str(o.task.folder.relative_to(options.out)),
                "failure": o.failure,
                "measures": o.measures,
                "mean_shape": o.baselines.get("mean_shape"),
                "provenance": o.provenance,
                "paper": dict(o.task.row.paper),
            }
            for o in outcomes
        ],
        "changes": _changes(outcomes),
    }


def _changes(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    changes = []
    for own in (o for o in outcomes if o.task.seed == 0):
        row, data = own.task.row, own.task.data.name
        if result := change(of_row(outcomes, row, data), reference_of(outcomes, row, data)):
            place = {"dataset": data, "row": row.name, "latent": row.size, "against": row.against}
            place["intervals"] = described(len(np.unique(own.groups)))
            changes.append(place | dataclasses.asdict(result))
    return changes


def markdown(table: Table, grids: Sequence[Grid], facts: Sequence[str]) -> str:
    """Write the tables as Markdown, with the facts as a list at the end."""
    lines = [f"# {table.title}", ""]
    for part in grids:
        lines += [
            f"## {part.title}",
            "",
            _line(part.header),
            _line(["---", *["---:"] * (len(part.header) - 1)]),
        ]
        for i, row in enumerate(part.rows):
            lines.append(
                _line([f"**{t}**" if (i, j) in part.best else t for j, t in enumerate(row)])
            )
        lines.append("")
    return "\n".join([*lines, *(f"- {fact}" for fact in facts), ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def html(
    table: Table,
    grids: Sequence[Grid],
    facts: Sequence[str],
    pictures: Mapping[str, Sequence[Block]],
) -> str:
    """Write the tables as one page in the style of the reports, which loads nothing else."""
    sections = [
        Section(part.title, [_html_table(part), *pictures.get(part.data, ())]) for part in grids
    ]
    sections.append(Section("How to read and repeat this", [Bullets(facts)]))
    page = Page(
        title=table.title,
        above=table.paper_source or "Bench",
        heading=table.title,
        sections=sections,
        contents=False,
    )
    return render_page(page)


def _html_table(part: Grid) -> Block:
    rows: list[list[blocks.Cell]] = [
        [Bold(text) if (i, j) in part.best else text for j, text in enumerate(row)]
        for i, row in enumerate(part.rows)
    ]
    return blocks.Table(part.header, rows)


def read_table_name(out: Path) -> str | None:
    """Return the name of the table whose results a folder holds, or None if it holds none."""
    path = out / "results.json"
    return str(read_json(path).get("table")) if path.exists() else None
