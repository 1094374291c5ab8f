"""The examples run, in their order and in one folder, and each stays short."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import environment

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
MAX_LINES = 99


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_is_short_and_opens_with_its_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    opening = ast.get_docstring(ast.parse(text))
    assert opening and opening.startswith(f"{path.name[:2]}: ")


def test_all_run_one_after_the_other(tmp_path: Path) -> None:
    """Later ones use what earlier ones wrote."""
    for path in EXAMPLES:
        done = subprocess.run(
            [sys.executable, str(path)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{path.name}\n{done.stdout}\n{done.stderr}"
        assert not done.stderr, f"{path.name}\n{done.stderr}"


def test_type_checkers_accept_them(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *map(str, EXAMPLES)],
        cwd=repository,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
