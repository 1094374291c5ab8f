"""Type checkers and editors know the type of every public name, although it is imported lazily."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import morphable
from helpers import environment

USE = """
model = morphable.load("runs/demo")
reveal_type(model.decode(model.encode(torch.zeros(1, 10, 3))))
reveal_type(morphable.load_dataset("data/hands").vertices.shape)
reveal_type(morphable.read_mesh("a.ply").mesh.vertices)
morphable.nonsense
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[str]:
    """What mypy says about a file that uses every public name."""
    lines = [f"reveal_type(morphable.{name})  # {name}" for name in morphable.__all__]
    file = tmp_path_factory.mktemp("typed") / "user.py"
    file.write_text("import torch\nimport morphable\n" + "\n".join(lines) + USE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(file)],
        cwd=repository,
        env=environment(),
        capture_output=True,
        text=True,
    )
    return [line.partition(": ")[2] for line in done.stdout.splitlines()]


def revealed(line: str) -> str:
    match = re.search('Revealed type is "(.*)"', line)
    assert match, line
    return match.group(1)


def test_no_public_name_is_any_and_no_public_function_returns_it(checked: list[str]) -> None:
    types = {name: revealed(line) for name, line in zip(morphable.__all__, checked, strict=False)}
    assert len(types) == len(morphable.__all__)
    assert not [name for name, found in types.items() if found == "Any" or found.endswith("> Any")]


def test_what_public_functions_return_is_typed(checked: list[str]) -> None:
    decoded, shape, vertices = map(revealed, checked[len(morphable.__all__) :][:3])
    assert decoded == "torch._tensor.Tensor"
    assert "int" in shape
    assert "ndarray" in vertices


def test_a_misspelled_name_is_an_error(checked: list[str]) -> None:
    assert any("Module has no attribute" in line and "nonsense" in line for line in checked)


def test_every_public_name_comes_from_its_own_module() -> None:
    for name, module in morphable._PUBLIC.items():
        assert getattr(morphable, name) is getattr(sys.modules[module], name)
