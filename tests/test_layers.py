"""Imports go down only, nothing heavy is imported early, and nothing runs at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import morphable
from helpers import environment

PACKAGE = Path(morphable.__file__).parent
BASE = ("errors", "files", "lock", "config", "rows", "spread")
LAYERS = (
    BASE,
    ("mesh",),
    ("ops", "draw"),
    ("models", "data"),
    ("fitting",),
    ("evaluate",),
    ("train", "edit", "register"),
    ("export",),
    ("report",),
    ("bench",),
    ("cli", "studio", "__main__"),
)
"""From the bottom up. Neighbors in a layer do not import each other, but for the two of
BETWEEN_NEIGHBORS.
"""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
WITHIN_BASE = {
    ("files", "errors"),
    ("lock", "errors"),
    ("lock", "files"),
    ("config", "errors"),
    ("spread", "errors"),
    ("cli", "studio"),
    ("__main__", "cli"),
}
WITHOUT_TORCH = (
    "errors",
    "files",
    "lock",
    "config",
    "rows",
    "spread",
    "mesh",
    "draw",
    "data",
    "cli",
    "__main__",
)
"""Modules of these import torch, if at all, only inside functions."""
OPTIONAL = {
    "tensorboard",
    "h5py",
    "viser",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pyvista",
    "distributed",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The layer's name of a module: the package under `morphable`, or the module right in it."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, everywhere: bool) -> Iterator[str]:
    """Dotted names imported in a module; with `everywhere` inside functions too. Typing-only
    imports do not run.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            if everywhere:
                yield from imports(node, everywhere)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node, everywhere) if everywhere else ()
        else:
            yield from imports(node, everywhere)


def used(path: Path) -> set[str]:
    names = imports(ast.parse(path.read_text(encoding="utf-8")), everywhere=True)
    return {
        name.split(".")[1]
        for name in names
        if name.startswith("morphable.") and name.split(".")[1] in LEVEL
    }


def test_every_module_has_a_layer() -> None:
    assert {unit(path) for path in modules()} - {"__init__"} <= LEVEL.keys()


@pytest.mark.parametrize("name", [name for layer in LAYERS for name in layer])
def test_imports_go_down_only(name: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in modules() if unit(path) == name
        for other in used(path)
        if other != name and LEVEL[other] >= LEVEL[name] and (name, other) not in WITHIN_BASE
    ]  # fmt: skip
    assert not wrong


def test_the_rule_would_notice() -> None:
    code = "def f():\n    from morphable.data import labels\nif TYPE_CHECKING:\n    import torch\nimport a.b\n"
    assert set(imports(ast.parse(code), everywhere=True)) == {
        "morphable.data.labels",
        "torch",
        "a.b",
    }
    assert set(imports(ast.parse(code), everywhere=False)) == {"a.b"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_its_idea_and_imports_no_luxury(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module opens with one sentence of what it is"
    top = {name.split(".")[0] for name in imports(tree, everywhere=False)}
    assert not top & OPTIONAL
    if unit(path) in WITHOUT_TORCH:
        assert "torch" not in top


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PACKAGES = ("torch", "scipy", "matplotlib", "PIL", "jinja2", "sklearn", "igl")
HEAVY = f"[name for name in {PACKAGES} if name in sys.modules]"


def test_importing_morphable_and_asking_for_help_load_nothing_heavy() -> None:
    assert python(f"import sys, morphable; print({HEAVY})").strip() == "[]"
    code = (
        "import sys, contextlib, io\n"
        "from morphable.cli.main import main\n"
        "for words in ([], ['train'], ['data', 'make'], ['edit', 'interpolate']):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        main([*words, '--help'])\n"
        "    assert 'Usage' in out.getvalue()\n"
        f"print({HEAVY})"
    )
    assert python(code).strip() == "[]"


LIGHT = (
    ("data make hands --count 5 --out hands", ""),
    ("data info hands --audit", ""),
    ("data regions hands --count 3", ""),
    ("data import folder nothing --unit mm --out x", "no such folder"),
    ("train pca --data nothing --out x", "no such dataset folder"),
    ("train pca --data hands --out hands", "already exists"),
    ("train pca --data hands", "train: --out is missing: run folder"),
    ("evaluate nothing", "nothing: no such model"),
    ("evaluate hands", "not a model"),
    ("referee nothing", "nothing: no such model"),
    ("report nothing", "nothing: no such model"),
    ("report hands", "not a run folder"),
    ("compare nothing hands", "nothing: no such model"),
    ("compare hands hands --out x", "not a run folder"),
    ("sample nothing -n 2 --out x", "nothing: no such model"),
    ("sample model -n 0 --out x", "-n 0"),
    ("sample model -n 2 --seed -1 --out x", "--seed -1"),
    ("sample model -n 2 --out hands", "hands: already exists"),
    ("sample model -n 2 --scale -1 --out x", "--scale -1"),
    ("reconstruct model a.ply --out x", "a.ply: no such file"),
    ("edit interpolate model a.ply b.ply --out x", "a.ply: no such file"),
    ("edit neutralise model model --out hands", "hands: already exists"),
    ("edit region model model --region r --out x", "--move HANDLE"),
    ("export nothing --out x.glb", "nothing: no such model"),
    ("export model --out x.stl", "expected the name of a file that ends in .onnx or .glb"),
    ("export model --out x.h5 --encoder", "--encoder: is for onnx files"),
    ("factor nothing --rank 3 --out x", "nothing: no such model"),
)
"""Commands that need no model, with what they refuse. `model` has the files of one, but empty."""


def test_what_needs_no_model_does_not_import_torch(tmp_path: Path) -> None:
    """Importing torch takes seconds: most of the time of a small command, or of a typing error."""
    (tmp_path / "model").mkdir()
    for name in ("model.json", "weights.safetensors", "template.npz"):
        (tmp_path / "model" / name).touch()
    code = (
        "import contextlib, io, os, sys\n"
        "from morphable.cli.main import main\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"for words, refused in {LIGHT!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as errors, "
        "contextlib.redirect_stdout(io.StringIO()):\n"
        "        try:\n"
        "            main(words.split())\n"
        "            assert not refused, words\n"
        "        except SystemExit as stop:\n"
        "            assert stop.code == 2 and refused, (words, errors.getvalue())\n"
        "            assert refused in errors.getvalue(), (words, errors.getvalue())\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    python(code)


def test_the_public_names_are_there() -> None:
    for name in morphable.__all__:
        assert getattr(morphable, name) is not None
    assert "load" in dir(morphable)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        morphable.nonsense  # noqa: B018
