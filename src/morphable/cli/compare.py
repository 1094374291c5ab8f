"""`morphable compare`: one table and page of finished runs."""

from __future__ import annotations

from morphable.cli.arguments import OutTable, Runs


def compare(
    runs: Runs,
    /,
    *,
    out: OutTable = None,
) -> None:
    """Compare finished runs that were measured on the same meshes, paired mesh by mesh.

    Evaluates a run first if that has not been done yet.
    """
    from morphable.bench.compare import compare as compared
    from morphable.cli.output import print_table

    comparison = compared(runs)
    grid = comparison.grid
    print_table(grid.title, grid.header, grid.rows)
    for fact in comparison.facts:
        print(fact)
    if out is not None:
        comparison.write(out)
        print(out / "table.html")
