"""Measures of the source code: sizes of files and functions, density, comments, configurations, classes.

    python scripts/code_measures.py [FOLDER ...]     # by default src/morphable

Docstrings are left out of lines and tokens. A token is what Python's own tokenizer yields, without
line breaks, indentation and comments.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    for folder in map(Path, sys.argv[1:] or ["src/morphable"]):
        print(f"# {folder}")
        for name, value in measures(sorted(folder.rglob("*.py"))).items():
            print(f"{name:34} {value}")


def measures(paths: list[Path]) -> dict[str, str]:
    files = [Source(path) for path in paths]
    file_lines = [len(file.lines) for file in files]
    functions = [item for file in files for item in file.functions()]
    lines = [len(file.code_lines(node)) for file, node in functions]
    tokens = [sum(file.tokens_on(file.code_lines(node))) for file, node in functions]
    per_line = [count for file in files for count in file.tokens_on(file.all_code_lines())]
    comments = sum(file.comments for file in files)
    documented = [bool(ast.get_docstring(node)) for _, node in functions if node.name[0] != "_"]
    configs = {name: size for file in files for name, size in file.configs()}
    large = ", ".join(f"{name} {size}" for name, size in configs.items() if size > 10)
    return {
        "files, lines": f"{len(files)}, {sum(file_lines):,}",
        "file lines median/p90/max": spread(file_lines),
        "files of at most 300 lines": share([count <= 300 for count in file_lines]),
        "function lines median/p90/max": spread(lines),
        "function tokens median/p90/max": spread(tokens),
        "tokens per line mean/p90": f"{statistics.fmean(per_line):.1f}/{quantile(per_line, 0.9)}",
        "comments per code line": f"{100 * comments / len(per_line):.1f} %",
        "public functions with docstring": share(documented),
        "configurations over 10 fields": large or "none",
        "class depth within the package": str(depth(files)),
        "fmt: skip": str(sum("fmt: skip" in line for file in files for line in file.lines)),
    }


class Source:
    """A source file with its syntax tree and the number of tokens on each line."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.counts: dict[int, int] = {}
        self.comments = 0
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                self.comments += 1
            elif token.type not in LAYOUT:
                self.counts[token.start[0]] = self.counts.get(token.start[0], 0) + 1
        self.strings = {
            line
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            for line in range(node.lineno, (node.end_lineno or 0) + 1)
        }

    def functions(self) -> Iterator[tuple[Source, Function]]:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield self, node

    def code_lines(self, node: Function) -> list[int]:
        """Numbers of the lines of a function that hold code."""
        span = range(node.lineno, (node.end_lineno or 0) + 1)
        return [line for line in span if line in self.counts and line not in self.strings]

    def all_code_lines(self) -> list[int]:
        return [line for line in self.counts if line not in self.strings]

    def tokens_on(self, lines: list[int]) -> list[int]:
        return [self.counts[line] for line in lines]

    def configs(self) -> Iterator[tuple[str, int]]:
        """Configuration classes with their number of fields of their own."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                yield node.name, sum(isinstance(item, ast.AnnAssign) for item in node.body)


def depth(files: list[Source]) -> int:
    """The longest chain of classes of the package that inherit from one another."""
    bases: dict[str, list[str]] = {}
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def chain(name: str) -> int:
        return 1 + max((chain(base) for base in bases[name] if base in bases), default=0)

    return max(map(chain, bases), default=0)


def quantile(values: list[int], share_below: float) -> int:
    return sorted(values)[min(len(values) - 1, int(share_below * len(values)))]


def spread(values: list[int]) -> str:
    return f"{statistics.median(values):g}/{quantile(values, 0.9)}/{max(values)}"


def share(flags: list[bool]) -> str:
    return f"{100 * sum(flags) / max(1, len(flags)):.0f} %"


if __name__ == "__main__":
    main()
