"""What the documents say is true: their commands run, their options exist, their tables are
complete.

Every `morphable` command of a shell block or a table runs as it is written, on small data. What is
changed first is in SMALLER, and nothing else is.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cyclopts import App

import morphable
from conftest import ball_template
from helpers import in_process, shapes
from morphable.cli.main import app
from morphable.data.makers import make_source
from morphable.data.makers.hands import hand_template, hands
from morphable.data.makers.ict import VARIABLE
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.mesh import Mesh
from morphable.models.base import EstimatedModel
from morphable.models.families import ADDED, MODELS

NO_FACES = np.zeros((0, 3), np.int64)

SMALLER = {
    "--count 4000": "--count 60",
    "--count 1400": "--count 20",
    "--count 2000": "--count 60",
    "make faces": "make faces --count 72",
    "--epochs 5": "--epochs 1",
    "--epochs 20": "--epochs 1",
    "--full --seeds 3 --device cuda": "",
    "bench deep3dmm-aggregation": "bench deep3dmm-aggregation --data data/hands --epochs 1 --rows average",
    "bench deep3dmm-latents": "bench deep3dmm-latents --data data/hands --epochs 1 --rows CoMA",
    "runs/demo": "runs/a",
    "data/demo-hands": "data/hands",
    "morphable studio runs/a": "morphable studio runs/a --no-browser --port 0",
}
"""What is written in the documents, and what is run instead."""
ICT = os.environ.get(VARIABLE, "no ICT data")
PLACES = {"RAW": "scans", "COMA": "archive", "ICT": ICT, "ICT-FaceKit/FaceXModel": ICT}
"""Names that stand for a folder of the reader's."""
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/index.md",
    "docs/commands.md",
    "docs/data.md",
    "docs/guides/edited-glb.md",
    "docs/guides/prior.md",
    "docs/guides/choosing.md",
    "docs/export.md",
    "docs/zoo.md",
    "docs/own-meshes.md",
    "docs/scans.md",
)
"""The pages whose commands run. Those of docs/results take hours."""


@dataclass(frozen=True)
class Code:
    """A piece of a page that can be run: a `morphable` command or a block of Python."""

    language: str
    text: str


def pieces(page: str) -> list[Code]:
    """What can be run, in the order of the page: blocks, and commands in the cells of tables."""
    pattern = re.compile(r"^```(\w*)\n(.*?)^```$|^\| `(morphable [^`]*)` \|", re.M | re.S)
    found = []
    for language, block, cell in pattern.findall(page):
        if language == "python":
            found.append(Code("python", block))
        lines = block.replace("\\\n", " ").splitlines() if language == "sh" else []
        commands = [line for line in [*lines, cell] if line.startswith("morphable ")]
        found += [Code("sh", command) for command in commands]
    return found


def smaller(text: str) -> str:
    for written, run in SMALLER.items():
        text = text.replace(written, run)
    return text


def words_of(command: str) -> list[str]:
    """The words of a command as a shell would pass them, on smaller data."""
    command = smaller(command)
    if command.startswith("morphable train") and "--epochs" not in command and trains(command):
        command += " --epochs 1"
    words = [PLACES.get(word, word) for word in shlex.split(command)[1:]]
    expanded = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    return [word for group in expanded for word in group]


def trains(command: str) -> bool:
    """Whether the family of a `train` command takes training settings."""
    row = MODELS.get(command.split()[2])
    return row is None or not issubclass(row.model, EstimatedModel)


def supplied(folder: Path, page: str, repository: Path) -> None:
    """The files that a page's commands read and none of them makes, under the names it uses."""
    template = hand_template()
    meshes = next(iter(hands(count=6, seed=1).blocks()))
    names = ("a", "b", "s0", "s1", "t0", "mesh", "hand", "other")
    for number, name in enumerate(names):
        write_mesh(folder / f"{name}.ply", template.mesh.moved(meshes[number % 6]))

    if page == "README.md" and VARIABLE in os.environ:
        faces = make_source("face-population", count=20, seed=1)
        for name, vertices in zip(("a", "b"), next(iter(faces.blocks())), strict=False):
            write_mesh(folder / f"{name}.ply", faces.template.mesh.moved(vertices))

    turned = meshes[0] @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    write_mesh(folder / "turned.ply", template.mesh.moved(turned))

    scan = read_mesh(folder / "a.ply").mesh.vertices
    write_mesh(folder / "scan.ply", Mesh(scan[np.random.default_rng(0).permutation(900)], NO_FACES))

    rows = [f"{row},{','.join(map(str, meshes.mean(0)[row]))}\n" for row in range(0, 1600, 80)]
    (folder / "points.csv").write_text("vertex,x,y,z\n" + "".join(rows))

    for number, vertices in enumerate(meshes):
        path = folder / "scans" / f"person{number // 2}" / ("neutral", "grasp")[number % 2]
        path.mkdir(parents=True)
        write_mesh(path / "0.ply", template.mesh.moved(vertices / 1000))

    if page == "docs/own-meshes.md":
        for number in range(40):
            subject, name = f"s{number // 8}", ("bareteeth", "mouth_open")[number // 4 % 2]
            path = folder / "archive" / subject / name / f"{name}.{number % 4 + 1:06d}.ply"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mesh(path, template.mesh.moved((1 + number / 500) * meshes[number % 6] / 1000))

    assert template.regions is not None
    members = {name: template.region(name).tolist() for name in template.regions.names}
    (folder / "regions.json").write_text(json.dumps(members))
    shutil.copy(repository / "examples" / "06_family_of_your_own.py", folder / "bumps.py")


def supplied_scans(folder: Path, page: str) -> None:
    """A template and scans of another order of vertices, with landmarks; as little as will do."""
    template = ball_template(160)
    write_mesh(folder / "template.ply", template.mesh)
    place = folder / ("scans" if page == "docs/scans.md" else "raw-scans")
    shutil.rmtree(place, ignore_errors=True)
    (folder / "landmarks").mkdir()
    random = np.random.default_rng(0)
    for number, shape in enumerate(shapes(template, 6 if page == "docs/scans.md" else 1)):
        order = random.permutation(160)
        name = f"person{number}_{'smile' if number % 2 else 'neutral'}"
        place.mkdir(exist_ok=True)
        scan = Mesh(shape[order] + 30, np.argsort(order)[template.mesh.triangles])
        write_mesh(place / f"{name}.ply", scan)
        lines = [f"{row},{','.join(map(str, shape[row] + 30))}\n" for row in range(0, 160, 20)]
        (folder / "landmarks" / f"{name}.csv").write_text("vertex,x,y,z\n" + "".join(lines))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_every_python_block_runs(
    page: str,
    tmp_path: Path,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    own_families: None,
) -> None:
    supplied(tmp_path, page, repository)
    if page in ("docs/scans.md", "docs/commands.md"):
        supplied_scans(tmp_path, page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("morphable.cli.studio.wait_for_stop", lambda: None)
    missing = set() if VARIABLE in os.environ else {ICT}

    found = pieces((repository / page).read_text(encoding="utf-8"))

    for piece in [piece for piece in found if piece.language == "sh"]:
        words = words_of(piece.text)
        if missing & set(words):  # without ICT data, nor can what was made of it be used
            missing.add(words[words.index("--out") + 1])
            continue
        outcome = in_process(capsys, *words)
        assert outcome.code == 0, f"{piece.text}\n{shlex.join(words)}\n{outcome.err}"

    for piece in [piece for piece in found if piece.language == "python"]:
        exec(compile(smaller(piece.text), page, "exec"), {})


def test_every_command_has_a_line_in_the_table(repository: Path) -> None:
    page = (repository / "docs" / "commands.md").read_text(encoding="utf-8")
    commands = [piece.text for piece in pieces(page) if piece.language == "sh"]
    for words in known_commands(app):
        start = " ".join(["morphable", *words, ""])
        assert any(command.startswith(start) for command in commands), start


def known_commands(app: App, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, `("data", "make")`."""
    names = [name for name in app if not name.startswith("-")]
    if not names:
        yield before
    for name in names:
        yield from known_commands(app[name], (*before, name))


@pytest.mark.parametrize("page", [*PAGES, "docs/families.md", "docs/formats.md", "docs/studio.md"])
def test_every_option_that_a_page_names_exists(page: str, repository: Path) -> None:
    known = {"--help", "--family-from", "--nproc-per-node", "--nthreads"}  # torchrun's and dask's
    for words in known_commands(app):
        arguments = functools.reduce(lambda found, word: found[word], words, app)
        for argument in arguments.assemble_argument_collection():
            known |= set(argument.names)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (repository / page).read_text("utf-8")))
    assert named <= known, named - known


def package_families() -> list[str]:
    return [name for name in MODELS if name not in ADDED]


def test_the_readme_lists_the_families_as_the_table_of_models_does(repository: Path) -> None:
    rows = []
    for name in package_families():
        row = MODELS[name]
        learns = "estimation" if issubclass(row.model, EstimatedModel) else "training"
        rows.append(f"| `{name}` | {row.summary} | {learns} |")
    table = "| family | what it is | learns by |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
    assert table in (repository / "README.md").read_text(encoding="utf-8"), table


def test_the_page_of_families_lists_them_in_the_same_order(repository: Path) -> None:
    page = (repository / "docs" / "families.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z0-9+-]+)` \| `\w+` \|", page, re.M) == package_families()


def test_every_public_name_is_on_an_api_page(repository: Path) -> None:
    pages = "\n".join(path.read_text("utf-8") for path in (repository / "docs/api").glob("*.md"))
    shown = re.findall(r"^::: morphable\.(\w+)$", pages, re.M)
    assert sorted(shown) == sorted(set(morphable.__all__) - {"__version__"})
