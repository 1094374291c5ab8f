"""What commands print: tables, JSON and progress bars. Bars go to standard error, so that the
output can be piped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Advance = Callable[..., None]
"""Called with the number of items done, the number of all items and what comes next; the last two
may be left out.
"""


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; the first column is text, the others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=any(header))
    for number, name in enumerate(header):
        table.add_column(
            name, justify="right" if number and any(header) else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    # A pipe has no width. A fixed wide one keeps numbers from being folded.
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show a progress bar; call what it yields with the number of items done so far and, if they
    change, the number of all items and what comes next. Without a total the bar only moves.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=total)

        def advance(done: int, total: int | None = None, what: str | None = None) -> None:
            bars.update(task, completed=done, total=total, description=what)

        yield advance
