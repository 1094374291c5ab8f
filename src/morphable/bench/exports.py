"""Tables for other programs: CSV with plain numbers, and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from morphable.bench.grid import Grid
from morphable.draw.numbers import DASH

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    DASH: "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def csv_text(grids: Sequence[Grid]) -> str:
    """One line per row of all tables, numbers without rounding; empty where there is none."""
    rows = [row for part in grids for row in part.numbers]
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def latex(grids: Sequence[Grid]) -> str:
    """The tables as LaTeX, one `tabular` each, with the rules of the package booktabs."""
    lines = ["% \\usepackage{booktabs}"]
    for part in grids:
        lines += ["", f"% {part.title}", f"\\begin{{tabular}}{{l{'r' * (len(part.header) - 1)}}}"]
        lines += ["\\toprule", _line([escaped(title) for title in part.header]), "\\midrule"]
        for i, row in enumerate(part.rows):
            cells = [escaped(text) for text in row]
            lines.append(
                _line(
                    [
                        f"\\textbf{{{text}}}" if (i, j) in part.best else text
                        for j, text in enumerate(cells)
                    ]
                )
            )
        lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join([*lines, ""])


def escaped(text: str) -> str:
    r"""Text in which LaTeX sees no command.

    >>> escaped("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return re.sub(
        "|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], " ".join(text.split())
    )


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
