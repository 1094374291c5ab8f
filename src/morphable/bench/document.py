"""What a bench writes: all numbers as JSON, and the tables as Markdown, CSV, LaTeX and one HTML
page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphable.bench.exports import csv_text, latex
from morphable.bench.grid import Grid, grid, references
from morphable.bench.paired import paired_grid
from morphable.bench.results import change, number_of, of_row, reference_of
from morphable.bench.runner import Options, Outcome, Task
from morphable.bench.table import ERROR, Table, with_baselines
from morphable.draw import blocks
from morphable.draw.blocks import Block, Bold, Bullets, Page, Section
from morphable.draw.html import render_page
from morphable.evaluate.evaluation import PCA
from morphable.evaluate.intervals import MIN_GROUPS, described, no_interval
from morphable.files import read_json, write_json, write_text
from morphable.train.provenance import command_line, versions


def write_results(
    table: Table,
    options: Options,
    planned: Sequence[Task],
    outcomes: Sequence[Outcome],
    skipped: Mapping[str, str],
    pictures: Mapping[str, Sequence[Block]] | None = None,
) -> None:
    """Write results.json and the tables (.md, .html, .csv, .tex) into the bench's folder. Cells of
    runs that have not finished are empty.

    planned: all runs; outcomes: those that ended. skipped: why a dataset was left out, by name.
    pictures: by dataset; the page shows them below the dataset's table.
    """
    asked = [task.row for task in planned]
    rows = [row for row in with_baselines(table).rows if row in asked]
    names = dict.fromkeys(o.task.data.name for o in outcomes)
    grids = [
        one
        for name in names
        for one in (
            grid(table, outcomes, name, rows),
            paired_grid(table, outcomes, name, rows),
        )
        if one is not None
    ]
    facts = _facts(table, options, planned, outcomes, skipped)
    write_json(options.out / "results.json", record(table, options, outcomes, skipped))
    write_tables(options.out, table, grids, facts, pictures or {})


def write_tables(
    folder: Path,
    table: Table,
    grids: Sequence[Grid],
    facts: Sequence[str],
    pictures: Mapping[str, Sequence[Block]],
) -> None:
    """Write the tables in every format."""
    write_text(folder / "table.md", markdown(table, grids, facts))
    write_text(folder / "table.html", html(table, grids, facts, pictures))
    write_text(folder / "table.csv", csv_text(grids))
    write_text(folder / "table.tex", latex(grids))


def _facts(
    table: Table,
    options: Options,
    planned: Sequence[Task],
    outcomes: Sequence[Outcome],
    skipped: Mapping[str, str],
) -> list[str]:
    """Return the sentences under the tables: how to read and how to repeat them."""
    seeds = max((outcome.task.seed for outcome in outcomes), default=0) + 1
    folds = max((outcome.task.fold for outcome in outcomes), default=0)
    over = f"{folds} folds and their seeds" if folds else "seeds"
    facts = [
        f"Seeds: {seeds}. Cells are means over {over} ± standard deviation; bold: the best of each "
        "column among models of equal latent size, if one direction is better."
    ]
    if compared := references([*(t.row for t in planned), *(o.task.row for o in outcomes)]):
        facts.append(
            f"Change of the vertex error: of its mean over {over}, against "
            f"{' or '.join(compared)} of the same latent size. The 95 % confidence interval is "
            "paired by mesh, of the models that were trained: whole test subjects are redrawn "
            "(bootstrap-t), seeds are not."
        )
        facts += without_interval(outcomes)
    facts += worse_than_pca(outcomes)
    facts += still_linear(outcomes)
    if table.paired and seeds > 1:
        facts.append(
            "Differences are paired by seed, with 95 % confidence intervals by Student's t, which say "
            "what other seeds would do; bold: the interval leaves out zero."
        )
    networks = [o for o in outcomes if not o.task.row.own_epochs and _trained(o)]
    facts += _trainings(networks)
    if seconds := sum(o.seconds for o in outcomes):
        facts.append(f"Training took {duration(seconds)} in all, measured.")
    facts += [table.note] if table.note else []
    facts += [f"Paper: {table.paper_source}."] if table.paper_source else []
    facts += [f"{name}: {reason}." for name, reason in skipped.items()]
    if len(outcomes) < len(planned):
        facts.append(f"Unfinished: {len(outcomes)} of {len(planned)} runs.")
    return [*facts, f"Command: `{command_line()}`, {torch.get_num_threads()} thread(s)."]


def duration(seconds: float) -> str:
    """How long something took.

    >>> [duration(7.3), duration(100), duration(9000)]
    ['7 s', '1.7 min', '2.5 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def without_interval(outcomes: Sequence[Outcome]) -> list[str]:
    """Say of which datasets there are no intervals, and why."""
    counts = {o.task.data.name: len(np.unique(o.groups)) for o in outcomes if len(o.groups)}
    return [
        f"{data}: {no_interval(count)}." for data, count in counts.items() if count < MIN_GROUPS
    ]


def worse_than_pca(outcomes: Sequence[Outcome]) -> list[str]:
    """Say by dataset which rows have a larger mean vertex error than PCA of their latent size, which
    was measured beside them on the same meshes.
    """
    facts = []
    for data in dict.fromkeys(o.task.data.name for o in outcomes):
        errors: dict[str, list[float]] = {}
        for o in outcomes:
            if o.task.data.name == data and o.measures and PCA in o.baselines:
                own, pca = (number_of(m, ERROR) for m in (o.measures, o.baselines[PCA]))
                if own is not None and pca is not None and o.task.row.family != "pca":
                    name = f"{o.task.row.name} ({o.task.row.size})"
                    errors.setdefault(name, []).append(own - pca)
        # Half a unit of the last printed digit, since PCA in float32 is a model too.
        worse = [name for name, gaps in errors.items() if np.mean(gaps) > 5e-4]
        if errors:
            facts.append(
                f"{data}: worse than PCA of the same latent size, by mean vertex error: "
                f"{', '.join(worse) or 'none'}."
            )
    return facts


def still_linear(outcomes: Sequence[Outcome]) -> list[str]:
    """Say by dataset which rows kept the linear model that training started from, and with how many
    seeds and folds.
    """
    facts = []
    for data in dict.fromkeys(o.task.data.name for o in outcomes):
        rows: dict[str, list[bool]] = {}
        for o in outcomes:
            if o.task.data.name == data and "kept_epoch" in o.provenance.get("model", {}):
                name = f"{o.task.row.name} ({o.task.row.size})"
                rows.setdefault(name, []).append(o.provenance["model"]["kept_epoch"] == 0)
        kept = [
            f"{name}, {sum(found)} of {len(found)} trainings"
            for name, found in rows.items()
            if any(found)
        ]
        if kept:
            facts.append(
                f"{data}: no epoch was enough better than the linear start, which was kept: "
                f"{'; '.join(kept)}."
            )
    return facts


def _trained(outcome: Outcome) -> bool:
    return "train" in outcome.provenance.get("model", {})


def _trainings(networks: Sequence[Outcome]) -> list[str]:
    """Say by dataset which recipes the networks were trained by, and for how many epochs."""
    facts = []
    for data in dict.fromkeys(o.task.data.name for o in networks):
        found: dict[str, set[int]] = {}
        for o in networks:
            if o.task.data.name == data:
                record = o.provenance["model"]
                found.setdefault(record["recipe"], set()).add(record["train"]["epochs"])
        facts += [
            f"On {data}: networks by the {recipe} recipe, "
            + (f"{min(numbers)} epoch(s)." if len(numbers) == 1 else "each for epochs of its own.")
            for recipe, numbers in found.items()
        ]
    return facts


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
                "fold": o.task.fold,
                "folder": str(o.task.folder.relative_to(options.out)),
                "failure": o.failure,
                "training_seconds": o.seconds,
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
    for own in (o for o in outcomes if o.task.seed == 0 and o.task.fold < 2):
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
