"""Splits of one's own: the right meshes are held out, and wrong rules are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import dataset, in_process
from morphable.bench import TABLES
from morphable.data.dataset import MeshDataset, load_dataset
from morphable.data.labels import LabelTable
from morphable.data.own_splits import (
    Every,
    folds,
    split_by_column,
    split_by_position,
    split_by_values,
)
from morphable.data.splits import SUBSETS, Split
from morphable.errors import InputError
from morphable.mesh.template import Template
from test_bench import TINY


def table(count: int = 60, **columns: np.ndarray) -> LabelTable:
    """Ten subjects with six frames each, in order."""
    row = np.arange(count)
    own = {"subject": np.array([f"s{r // 6}" for r in row]), "frame": row % 6}
    own["file"] = np.array([f"s{r // 6}/{r % 6}.ply" for r in row])
    return LabelTable({**own, **columns}, count)


def require_whole(split: Split, count: int = 60) -> None:
    rows = np.concatenate([split.subset(name) for name in SUBSETS])
    assert sorted(rows.tolist()) == list(range(count))


def test_subjects_are_held_out() -> None:
    split = split_by_values(table(), "subject", ["s1", "s4"], ["s0"])
    assert split.test.tolist() == [*range(6, 12), *range(24, 30)]
    assert split.val.tolist() == list(range(6))
    require_whole(split)
    drawn = split_by_values(table(), "subject", ["s1"], seed=3)
    assert len(drawn.val) == 6 and not set(drawn.val) & set(range(6, 12))
    assert drawn.hash == split_by_values(table(), "subject", ["s1"], seed=3).hash


def test_positions_are_those_of_coma() -> None:
    """A file list of full length needs no geometry: 2,050 are tested on, 18,416 are left."""
    count = 20_466
    labels = LabelTable({"frame": np.arange(count)}, count)
    split = split_by_position(labels, Every.parsed("100:0-9"))
    assert len(split.test) == 2050 and len(split.train) + len(split.val) == 18_416
    assert split.val.tolist() == [r for r in range(count) if r % 100 > 9][-100:]


def test_a_column_says_it() -> None:
    words = np.array((["train"] * 4 + ["val", "Test "]) * 10)
    split = split_by_column(table(split=words), "split")
    assert split.test.tolist() == list(range(5, 60, 6)) and len(split.val) == 10
    without = split_by_column(table(split=np.array((["train"] * 5 + ["test"]) * 10)), "split")
    assert len(without.test) == 10 and len(without.val) == 5
    require_whole(without)


@pytest.mark.parametrize("by", ["subject", None])
def test_every_mesh_is_tested_on_in_one_fold(by: str | None) -> None:
    made = folds(table(), 5, by)
    tested = np.concatenate([split.test for split in made])
    assert sorted(tested.tolist()) == list(range(60))
    for split in made:
        require_whole(split)
        if by:
            of = [set((split.subset(name) // 6).tolist()) for name in SUBSETS]
            assert not of[0] & of[1] and not of[0] & of[2] and not of[1] & of[2]


def test_mirror_images_of_held_out_meshes_are_in_no_subset() -> None:
    labels = table(mirror_of=np.concatenate([np.full(30, -1), np.arange(30)]))
    for split in (
        split_by_values(labels, "subject", ["s1"], ["s0"]),
        split_by_position(labels, Every(10, 0, 0)),
        *folds(labels, 3),
    ):
        held_out = np.concatenate([split.val, split.test])
        assert held_out.max() < 30 and not np.isin(held_out + 30, split.train).any()
        assert sorted([*split.train[split.train < 30], *held_out]) == list(range(30))


WRONG = {
    "no mesh has the subject 'x'": lambda: split_by_values(table(), "subject", ["x"]),
    "names 's1' twice": lambda: split_by_values(table(), "subject", ["s1", "s1"]),
    "for testing and for validation": lambda: split_by_values(table(), "subject", ["s1"], ["s1"]),
    "no train mesh": lambda: split_by_values(table(6), "subject", ["s0"]),
    "expected PERIOD:FIRST-LAST": lambda: Every.parsed("100"),
    "and not all of them": lambda: Every.parsed("10:0-9"),
    "expected positions from 0 to 9": lambda: Every.parsed("10:9-12"),
    "got 'sex'": lambda: split_by_column(table(split=np.array(["sex"] * 60)), "split"),
    "no such column; they have subject": lambda: split_by_column(table(), "split"),
    "expected 2 to 100": lambda: folds(table(), 1),
    "are too few, expected at least 11": lambda: folds(table(), 10, "subject"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_rules_are_refused(words: str) -> None:
    with pytest.raises(InputError, match=words):
        WRONG[words]()


@pytest.fixture
def made(ball: Template, tmp_path: Path) -> MeshDataset:
    return dataset(ball, tmp_path / "set", 60)


def test_the_command_adds_a_split_that_training_takes(
    made: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "split", made.path, "--name", "paper"]
    done = in_process(capsys, *command, "--test-subjects", "s01,s04")
    assert done.code == 0 and "12 test" in done.out and "by subject" in done.out
    (tmp_path / "names.txt").write_text("# of the paper\ns01\n\ns04\n")
    again = ["data", "split", made.path, "--name", "same", "--test-subjects"]
    done = in_process(capsys, *again, tmp_path / "names.txt")
    assert done.code == 0
    loaded = load_dataset(made.path)
    assert loaded.split("paper").split.hash == loaded.split("same").split.hash
    run = ["train", "pca", "--data", made.path, "--split", "paper", "--latent", 3]
    assert in_process(capsys, *run, "--out", tmp_path / "run").code == 0
    in_process(capsys, *command, "--every", "10:0").refuses("has a split of this name")
    folded = ["data", "split", made.path, "--name", "cv", "--folds", 5, "--by", "subject"]
    assert in_process(capsys, *folded).code == 0
    assert {f"cv-{number}" for number in range(1, 6)} <= set(load_dataset(made.path).split_names)


def test_the_command_refuses_what_does_not_go_together(
    made: MeshDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "split", made.path, "--name"]
    in_process(capsys, *command, "a").refuses("expected one of --test-subjects")
    in_process(capsys, *command, "a", "--every", "10:0", "--folds", 3).refuses("expected one of")
    in_process(capsys, *command, "a", "--every", "10:0", "--by", "subject").refuses(
        "--by: not with"
    )
    in_process(capsys, *command, "../a", "--every", "10:0").refuses("--name ../a: expected letters")
    in_process(capsys, *command, "a", "--test-files", "x.ply").refuses("--test-files: ")


def test_a_bench_over_folds_is_one_table(
    made: MeshDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each fold tests on its own subjects; the change is over all of them, pooled."""
    from morphable.bench.runner import Options, tasks

    monkeypatch.setitem(TABLES, "tiny", lambda quick: TINY)
    out = tmp_path / "out"
    bench = ["bench", "tiny", "--data", made.path, "--out", out, "--folds"]
    in_process(capsys, *bench, "cv").refuses("--folds cv", "data split")
    in_process(capsys, *bench, "cv", "--split", "subject").refuses("choose one")
    with pytest.raises(InputError, match="`folds`: needs `data`"):
        tasks(TINY, Options(out, folds="cv"))
    folded = ["data", "split", made.path, "--name", "cv", "--folds", 3, "--by", "subject"]
    assert in_process(capsys, *folded).code == 0
    done = in_process(capsys, *bench, "cv", "--epochs", 1)
    assert done.code == 0, done.err
    record = json.loads((out / "results.json").read_text())
    runs = [run for run in record["runs"] if run["row"] == "deeper"]
    assert [run["fold"] for run in runs] == [1, 2, 3]
    assert [run["provenance"]["split"] for run in runs] == ["cv-1", "cv-2", "cv-3"]
    assert sum(run["provenance"]["meshes"] for run in runs) == 60
    (change,) = record["changes"]
    pooled = {
        name: sum(
            run["measures"]["vertex_error_mm"]["mean"] * run["provenance"]["meshes"]
            for run in record["runs"]
            if run["row"] == name
        )
        for name in ("deeper", "plain")
    }
    assert change["row"] == "deeper"
    assert change["mean"] == pytest.approx(pooled["deeper"] / pooled["plain"] - 1, rel=1e-4)
    assert "3 folds" in (out / "table.md").read_text()
