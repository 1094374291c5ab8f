"""A family that is not part of the package: one file serves every command, and only if it is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import morphable
from helpers import dataset, in_process, real
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.families import ADDED, MODELS
from morphable.models.outside import add_family_from
from morphable.train import run
from morphable.train.loop import Interrupted

pytestmark = pytest.mark.usefixtures("own_families")


@pytest.fixture(scope="module")
def source(repository: Path) -> str:
    return f"{repository / 'examples' / '06_family_of_your_own.py'}:bumps"


@pytest.fixture(scope="module")
def trained(ball: Template, source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a run of the family in the example, made by the real command."""
    folder = tmp_path_factory.mktemp("bumps")
    dataset(ball, folder / "set")
    words = "train bumps --data set --latent 4 --epochs 2 --set model.anchors=20 --out run"
    done = real(*words.split(), "--family-from", source, cwd=folder)
    assert done.code == 0, done.err
    return folder


def test_every_command_takes_it_anywhere_on_its_line(trained: Path, source: str) -> None:
    for words in (
        f"evaluate run --family-from {source}",
        f"report --family-from={source} run",
        f"--family-from {source} sample run -n 2 --out drawn",
        f"reconstruct run drawn/sample-0000.ply --family-from {source} --out made",
        f"edit interpolate run drawn/sample-0000.ply drawn/sample-0001.ply --out line --family-from {source}",
    ):
        done = real(*words.split(), cwd=trained)
        assert done.code == 0, (words, done.err)

    measured = json.loads((trained / "run" / "evaluation.json").read_text())
    assert measured["model"]["vertex_error_mm"]["mean"] > 0
    assert "smooth bumps" in (trained / "run" / "report.html").read_text().lower()


def test_its_model_names_the_family_but_never_runs_code(trained: Path) -> None:
    described = json.loads((trained / "run" / "model" / "model.json").read_text())
    assert described["family"] == "bumps"
    assert {path.suffix for path in (trained / "run" / "model").iterdir()} <= {
        ".json",
        ".safetensors",
        ".npz",
        ".md",
    }
    done = real("evaluate", "run", cwd=trained)
    done.refuses("model.json", "'bumps'", "--family-from")


def test_it_loads_in_python_once_added(trained: Path, source: str) -> None:
    assert add_family_from(source) == "bumps"
    model = morphable.load(trained / "run")
    shapes = torch.from_numpy(morphable.load_dataset(trained / "set").vertices[:5])
    assert model(shapes).shape == shapes.shape


def test_a_stopped_run_says_how_to_continue_it(
    trained: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise Interrupted

    monkeypatch.setattr(run, "run", stop)
    words = ["train", "bumps", "--data", trained / "set", "--out", trained / "stopped"]
    done = in_process(capsys, *words, "--family-from", source)
    assert done.code == 130
    assert f"--family-from {source}" in done.err


def test_adding_it_twice_is_adding_it_once(source: str) -> None:
    add_family_from(source)
    row = MODELS["bumps"]
    add_family_from(source)
    assert MODELS["bumps"] is row
    assert list(ADDED) == ["bumps"]


def test_a_family_of_another_name_is_not_replaced(source: str) -> None:
    add_family_from(source)
    with pytest.raises(InputError, match=r"'pca'.*already"):
        morphable.add_family("pca", MODELS["bumps"])
    with pytest.raises(InputError, match=r"'pca'.*already"):
        morphable.add_family("pca", MODELS["pca"])


def test_an_installed_package_announces_its_families(
    source: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = repository / "examples" / "06_family_of_your_own.py"
    (tmp_path / "installed_bumps.py").write_text(example.read_text())
    information = tmp_path / "bumps-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: bumps\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[morphable.families]\nsoft = installed_bumps:bumps\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert "soft" not in MODELS, "an entry point is loaded only if it is named"
    assert add_family_from("soft") == "soft"
    assert MODELS["soft"].summary == "smooth bumps around a few anchors"
    with pytest.raises(InputError, match=r"hard: expected FILE\.py:NAME.*soft"):
        add_family_from("hard")


FAULTS = {
    "no file": ("absent.py:toy", None, r"absent\.py: no such file"),
    "no module": ("absent_package.models:toy", None, "No module named 'absent_package'"),
    "no name": ("FILE:toys", "toy = 3", "no 'toys' in it; it defines no Family"),
    "no family": ("FILE:toy", "toy = 3", "expected a morphable.Family, got int"),
    "an error": ("FILE:toy", "import math\nmath.nothing()", r"AttributeError.*toy\.py line 2"),
    "bad syntax": ("FILE:toy", "def", "SyntaxError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_added_is_said_in_one_sentence(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, text, expected = FAULTS[fault]
    file = tmp_path / "toy.py"
    if text is not None:
        file.write_text(text + "\n")
    done = in_process(capsys, "evaluate", "run", "--family-from", named.replace("FILE", str(file)))
    done.refuses()
    assert re.search(expected, done.err), done.err


def test_help_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["train"], ["edit", "region"], []):
        assert "--family-from" in in_process(capsys, *words, "--help").out
