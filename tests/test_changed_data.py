"""A dataset that changes or vanishes during training, and a report on another dataset than that of
the training.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import dataset, in_process, tree
from morphable.data.dataset import load_dataset
from morphable.errors import InputError
from morphable.models.io import load
from morphable.models.pca_mlp import PcaMlpConfig
from morphable.models.training import TrainConfig
from morphable.train.checkpoint import read_metrics
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.run import RunConfig, run

TEMPLATE = ball_template(60)
HERE = Workers(0, 1, torch.device("cpu"))
SETTINGS = TrainConfig(
    epochs=6, batch_size=8, learning_rate=1e-2, optimizer="adamw", least_gain=0.0
)
MODEL = PcaMlpConfig(latent=2, rank=8, width=16, depth=1)


def others(folder: Path) -> None:
    np.save(folder / "vertices.npy", np.load(folder / "vertices.npy") + 1)


def relabelled(folder: Path) -> None:
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("smile", "SMILE"))


@pytest.mark.parametrize(
    ("change", "words"),
    [(shutil.rmtree, "no longer there"), (others, "was changed"), (relabelled, "was changed")],
)
def test_what_was_learned_is_kept_if_the_dataset_changes(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    folder, out = tmp_path / "set", tmp_path / "run"
    dataset(TEMPLATE, folder, 60, subjects=20)
    data = load_dataset(folder).split("subject")

    def listen(event: TrainingEvent) -> None:
        if event.epoch_ended and event.epoch == 1:
            change(folder)

    with pytest.raises(InputError, match=words) as raised:
        run(RunConfig("pca-mlp", MODEL, SETTINGS), data, out, HERE, listener=listen)
    assert str(folder) in str(raised.value) and str(out / "model") in str(raised.value)
    assert len(read_metrics(out / "metrics.jsonl")) == 2
    model = load(out)
    assert model.prior is not None and model.provenance["kept_epoch"] in (1, 2)


def test_a_change_after_the_last_epoch_costs_nothing(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "run"
    dataset(TEMPLATE, folder, 60, subjects=20)
    data = load_dataset(folder).split("subject")

    def listen(event: TrainingEvent) -> None:
        if event.step == event.total_steps:
            shutil.rmtree(folder, ignore_errors=True)

    once = dataclasses.replace(SETTINGS, epochs=1)
    run(RunConfig("pca-mlp", MODEL, once), data, out, HERE, listener=listen)
    assert load(out).latent == 2


def test_a_report_on_another_dataset_leaves_the_run_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other, moved = tmp_path / "own", tmp_path / "other", tmp_path / "moved"
    dataset(TEMPLATE, own, 60, subjects=20)
    dataset(TEMPLATE, other, 60, subjects=20, seed=3)
    out = tmp_path / "run"
    words = ("train", "pca", "--data", own, "--out", out, "--latent", 2)
    assert in_process(capsys, *words).code == 0
    ended = in_process(capsys, "report", out, "--data", other)
    assert ended.code == 0 and ended.out.strip() == str(out / "report-other.html")
    assert not (out / "evaluation.json").exists() and not (out / "report.html").exists()

    assert in_process(capsys, "report", out).code == 0
    before = tree(out)
    assert in_process(capsys, "report", out, "--data", other).code == 0
    assert tree(out).keys() == before.keys()
    for name in ("evaluation.json", "evaluation.npz", "report.html"):
        assert tree(out)[name] == before[name]

    # The same dataset in another place is the run's own.
    own.rename(moved)
    ended = in_process(capsys, "report", out, "--data", moved)
    assert ended.code == 0 and ended.out.strip() == str(out / "report.html")


def test_another_dataset_at_the_place_of_the_training_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "own", tmp_path / "run"
    dataset(TEMPLATE, own, 60, subjects=20)
    words = ("train", "pca", "--data", own, "--out", out, "--latent", 2)
    assert in_process(capsys, *words).code == 0
    shutil.rmtree(own)
    dataset(TEMPLATE, own, 60, subjects=20, seed=3)
    for command in ("evaluate", "report"):
        in_process(capsys, command, out).refuses("other meshes or labels", str(own), "--data")
    assert in_process(capsys, "evaluate", out, "--data", own).code == 0
    assert not (out / "evaluation.json").exists()


def test_an_evaluation_of_other_meshes_is_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "own", tmp_path / "run"
    dataset(TEMPLATE, own, 60, subjects=20)
    words = ("train", "pca", "--data", own, "--out", out, "--latent", 2)
    assert in_process(capsys, *words).code == 0
    assert in_process(capsys, "evaluate", out).code == 0
    record = json.loads((out / "evaluation.json").read_text())
    record["provenance"]["content_hash"] = "another"
    (out / "evaluation.json").write_text(json.dumps(record))
    in_process(capsys, "report", out).refuses("evaluation.json", "other meshes or labels")
