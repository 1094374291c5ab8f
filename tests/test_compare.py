"""`morphable compare`: one table of finished runs, paired by mesh, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from conftest import ball_template
from helpers import dataset, in_process
from morphable.bench.compare import compare
from morphable.data.dataset import load_dataset
from morphable.errors import InputError
from morphable.evaluate.intervals import ratio_interval


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of PCA and of pca-mlp on one dataset, and of PCA on another and on another split."""
    place = tmp_path_factory.mktemp("compare")
    dataset(ball_template(60), place / "set", 120, subjects=90)
    dataset(ball_template(60), place / "other", 90, subjects=30, seed=3)
    return place


@pytest.fixture
def trained(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr("morphable.evaluate.measures.shape_measures", lambda *_: {})
    monkeypatch.setattr("morphable.draw.view.HEIGHT", 24)
    runs = {
        "a": ["pca", "--data", "set", "--latent", "2"],
        "b": ["pca-mlp", "--data", "set", "--latent", "4", "--epochs", "1"],
        "c/b": ["pca", "--data", "set", "--latent", "4"],
        "other": ["pca", "--data", "other", "--latent", "2"],
        "frames": ["pca", "--data", "set", "--latent", "2", "--split", "frames"],
    }
    for name, words in runs.items():
        if not (work / "runs" / name).exists():
            words = [str(work / word) if word in ("set", "other") else word for word in words]
            done = in_process(capsys, "train", *words, "--out", work / "runs" / name)
            assert done.code == 0, done.err
    return work / "runs"


def test_runs_are_paired_with_the_first_by_mesh(trained: Path) -> None:
    found = compare([trained / "a", trained / "b"])
    a, b = (outcome.mesh_errors for outcome in found.outcomes[:2])
    groups = load_dataset(trained.parent / "set").split("subject").test.labels.groups()
    bounds = ratio_interval(b, a, groups)
    assert bounds is not None
    mean, low, high = (100 * (x - 1) for x in (b.mean() / a.mean(), *bounds))
    names = [row[0] for row in found.grid.rows]
    assert names == ["a: pca", "b: pca-mlp, 1 epochs", "PCA", "PCA", "mean shape"]
    place = found.grid.header.index("change of the vertex error")
    assert found.grid.rows[0][place] == "–"
    assert found.grid.rows[1][place] == f"{mean:+.1f} % [{low:+.1f}, {high:+.1f}]"
    assert found.grid.rows[2][2] == found.grid.rows[0][2], "PCA of the first run is the first run"
    assert [row[1] for row in found.grid.rows] == ["2", "4", "2", "4", "0"]
    assert "disentanglement, mm" not in found.grid.header, "no run has it"


def test_the_command_writes_a_table_and_a_page(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    done = in_process(capsys, "compare", trained / "a", trained / "b", "--out", out)
    assert done.code == 0, done.err
    assert "b: pca-mlp, 1 epochs" in done.out and "paired by mesh" in done.out
    assert {path.name for path in out.iterdir()} == {
        "table.md", "table.html", "table.csv", "table.tex", "comparison.json",
    }  # fmt: skip
    with (out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    record = json.loads((out / "comparison.json").read_text())["runs"]
    assert float(rows[1]["mean, mm"]) == record[1]["measures"]["vertex_error_mm"]["mean"]
    assert float(rows[1]["change, low end"]) == record[1]["change"]["low"]
    assert (rows[0]["family"], rows[0]["latent size"], rows[1]["epochs"]) == ("pca", "2", "1")
    assert "Where the errors are" in (out / "table.html").read_text()

    done = in_process(capsys, "compare", trained / "a", trained / "b", "--out", out)
    assert done.code == 2 and "already exists" in done.err


def test_runs_of_one_name_have_their_paths(trained: Path) -> None:
    found = compare([trained / "b", trained / "c" / "b"])
    assert [row[0] for row in found.grid.rows[:2]] == [
        f"{trained / 'b'}: pca-mlp, 1 epochs",
        f"{trained / 'c' / 'b'}: pca",
    ]


def test_what_cannot_be_compared(trained: Path, tmp_path: Path) -> None:
    a = trained / "a"
    for folders, fault in (
        ([a], "expected at least two runs to compare, got 1"),
        ([a, trained / ".." / "runs" / "a"], "is named twice"),
        ([a, tmp_path], "not a run folder, it has no config.toml"),
        ([a, trained / "other"], "other: was measured on another dataset than .*a "),
        ([a, trained / "frames"], "frames: was measured on another split than .*a "),
    ):
        with pytest.raises(InputError, match=fault):
            compare(folders)


def test_a_run_without_an_evaluation_is_evaluated(trained: Path) -> None:
    for file in trained.glob("a/evaluation.*"):
        file.unlink()
    found = compare([trained / "a", trained / "b"])
    assert np.isfinite(found.outcomes[0].mesh_errors).all()
    assert (trained / "a" / "evaluation.json").exists()
