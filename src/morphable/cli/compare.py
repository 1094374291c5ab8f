"""`morphable compare`: one table and page of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def compare(
    runs: Annotated[
        list[Path],
        Parameter(help="run folders; the others are compared with the first", negative=""),
    ],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            help="folder to write: the table as Markdown, HTML page, CSV and LaTeX; must not exist "
            "yet"
        ),
    ] = None,
) -> None:
    """Compare finished runs that were measured on the same meshes, paired mesh by mesh.

    Evaluates a run first if that has not been done yet.
    """
    from morphable.bench.compare import compare as compared
    from morphable.cli.output import print_table
    from morphable.files import require_new

    if out is not None:
        require_new(out)
    comparison = compared(runs)
    grid = comparison.grid
    print_table(grid.title, grid.header, grid.rows)
    for fact in comparison.facts:
        print(fact)
    if out is not None:
        comparison.write(out)
        print(out / "table.html")
