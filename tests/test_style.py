"""The code stays readable: bounds on what a reader meets at once, counted in tokens, not in lines.

A line can be made dense, a token cannot: packing a function into fewer lines does not help it here.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import morphable

PACKAGE = Path(morphable.__file__).parent
MAX_FILE_LINES = 400
MAX_FUNCTION_TOKENS = 250
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
"""Tokens that a reader does not read: line ends, indentation, comments."""


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def docstring_lines(node: ast.AST) -> range:
    """The lines of a function's docstring; none if it has none."""
    body = getattr(node, "body", [])
    first = body[0] if body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return range(0)
    if not isinstance(first.value.value, str) or first.end_lineno is None:
        return range(0)
    return range(first.lineno, first.end_lineno + 1)


def tokens_per_function(source: str) -> dict[str, int]:
    """`name:line` of each function -> its tokens, without docstring, comments and layout.

    An inner function counts as a function of its own and as part of the one around it.
    """
    words = [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in LAYOUT
    ]
    lines = np.bincount(words, minlength=source.count("\n") + 2)
    counts = {}
    for node in functions(ast.parse(source)):
        assert node.end_lineno is not None
        inside = set(range(node.lineno, node.end_lineno + 1)) - set(docstring_lines(node))
        counts[f"{node.name}:{node.lineno}"] = int(lines[sorted(inside)].sum())
    return counts


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def test_a_function_is_counted_without_docstring_comments_and_layout() -> None:
    source = 'def add(a, b):\n    """The sum."""\n    # a comment\n    return (\n        a\n        + b\n    )\n'
    # def add ( a , b ) :  is eight, return ( a + b )  is six
    assert tokens_per_function(source) == {"add:1": 14}


def test_nine_functions_in_ten_are_short(sources: dict[str, str]) -> None:
    counts = {
        f"{path}:{name}": count
        for path, source in sources.items()
        for name, count in tokens_per_function(source).items()
    }
    longest = sorted(counts, key=lambda name: -counts[name])[:20]
    share = np.percentile(list(counts.values()), [50, 90, 100])
    message = "tokens per function: median {:.0f}, 90th percentile {:.0f}, longest {:.0f}".format(
        *share
    )
    print(message, *(f"{counts[name]:5} {name}" for name in longest), sep="\n")
    assert share[1] <= MAX_FUNCTION_TOKENS, message


def test_nearly_all_files_are_read_in_one_sitting(sources: dict[str, str]) -> None:
    lines = {path: source.count("\n") for path, source in sources.items()}
    longest = sorted(lines, key=lambda path: -lines[path])[:10]
    assert np.percentile(list(lines.values()), 98) <= MAX_FILE_LINES, [
        f"{lines[path]} {path}" for path in longest
    ]


def test_only_tables_of_numbers_are_laid_out_by_hand(sources: dict[str, str]) -> None:
    """`fmt: skip` keeps a layout that the formatter would break: only columns of literals need it."""
    for path, source in sources.items():
        assert "fmt: off" not in source, path
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.stmt) and "fmt: skip" in lines[(node.end_lineno or 1) - 1]:
                assert is_literal(node), f"{path}:{node.lineno}"


def is_literal(node: ast.stmt) -> bool:
    """Whether a statement gives a name to a literal of numbers and texts.

    >>> [is_literal(ast.parse(text).body[0]) for text in ("A = ((1, 2), (3, 4))", "A = f(1)")]
    [True, False]
    """
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True
