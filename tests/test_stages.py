"""Stages with settings of their own: how they are set, what the loop does with them, and an exact
resume in any of them.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import Outcome, dataset, in_process
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.models.families import MODELS
from morphable.models.io import load
from morphable.models.training import TrainConfig
from morphable.train.batches import Batches, TrainingData
from morphable.train.checkpoint import read_checkpoint, read_metrics
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.optimizer import rate_at
from morphable.train.run import RecordedRun, RunConfig, run
from morphable.train.stages import check_stages, plan_stages
from toys import TOYS, ToyStages

CPU = torch.device("cpu")
HERE = Workers(0, 1, CPU)
HALF: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup": 0.5,
}
"""48 training meshes: two epochs of six steps, then three of three."""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, family in TOYS.items():
        monkeypatch.setitem(MODELS, name, family)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def config(data: MeshDataset, **train: Any) -> RunConfig:
    settings = TrainConfig(
        epochs=2,
        batch_size=8,
        learning_rate=1e-2,
        stages=("whole", "half"),
        checkpoint_seconds=0.0,
        stage_settings={"half": HALF},
    )
    recipe = TOYS["toy-stages"].fast
    settings = dataclasses.replace(settings, **train)
    return RunConfig("toy-stages", recipe.model, settings)


@pytest.fixture(scope="module")
def whole(data: MeshDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "toy-stages", TOYS["toy-stages"])
        run(config(data), data.split("subject"), out, HERE)
    return out


# Settings


def test_a_stages_own_value_counts_before_one_for_all() -> None:
    base = TrainConfig().with_overrides({"epochs": 9, "edit": {"epochs": "4"}}, "train")
    assert (base.for_stage("learn").epochs, base.for_stage("edit").epochs) == (9, 4)
    assert base.for_stage("edit") == TrainConfig(epochs=4)


def test_a_later_value_for_all_stages_counts_in_every_stage() -> None:
    recipe = TrainConfig(stage_settings={"edit": {"epochs": 7, "learning_rate": 1e-4}})
    changed = recipe.with_overrides({"epochs": 5}, "train")
    assert changed.for_stage("edit") == TrainConfig(epochs=5, learning_rate=1e-4)
    assert recipe.with_overrides({"epochs": 5, "learning_rate": 1.0}, "x").stage_settings == {}


def test_later_settings_of_a_stage_join_the_earlier_ones() -> None:
    recipe = TrainConfig(stage_settings={"edit": {"epochs": 7, "batch_size": 2}})
    changed = recipe.with_overrides({"edit.epochs": "3", "edit.betas": "0.5,0.9"}, "train")
    assert changed.stage_settings == {"edit": {"epochs": 3, "batch_size": 2, "betas": (0.5, 0.9)}}


def test_the_table_of_settings_comes_back() -> None:
    settings = TrainConfig(stage_settings={"half": {**HALF, "betas": (0.5, 0.9)}})
    table = settings.as_table()
    assert table["half"]["betas"] == [0.5, 0.9] and "stage_settings" not in table
    assert TrainConfig().with_overrides(table, "train") == settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"edit.epoch": "3"}, "x.edit.epoch: there is no such setting; did you mean 'epochs'?"),
        ({"edit": {"epochs": 0}}, "x.edit.epochs: expected 1 to 1,000,000, got 0"),
        ({"edit.learning_rate": "fast"}, "x.edit.learning_rate: expected a number, got 'fast'"),
        ({"edit.seed": "3"}, "x.edit.seed: cannot differ from stage to stage"),
        ({"edit.stages": "a"}, "x.edit.stages: cannot differ from stage to stage"),
        ({"edit.stage_settings": "a"}, "x.edit.stage_settings: cannot differ"),
        ({"stage_settings": "a"}, "x.stage_settings: set a stage's own values as STAGE.KEY"),
        ({"edit.": "3"}, "x.edit.: there is no such setting"),
        ({"edit.a.b": "3"}, "x.edit.a.b: there is no such setting"),
        ({"edit": {"a": {"b": 1}}}, "x.edit.a: there is no such setting"),
        ({"edit": 3}, "x.edit: there is no such setting"),
        ({"epochs": {"epochs": [3]}}, "x.epochs.epochs: expected a whole number"),
    ],
)
def test_settings_that_do_not_fit_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig().with_overrides(values, "x")
    assert words in str(caught.value)


# The plan


def test_stages_follow_one_another(data: MeshDataset) -> None:
    training = TrainingData.of(data.split("subject").train)
    batches = Batches(training, 8, 0, CPU)
    train = config(data).train
    assert train is not None
    one, two = plan_stages(train, ("whole", "half"), batches)
    assert (one.name, one.first_epoch, one.end_epoch, one.first_step, one.end_step) == (
        "whole",
        0,
        2,
        0,
        12,
    )
    assert (two.name, two.first_epoch, two.end_epoch, two.first_step, two.end_step) == (
        "half",
        2,
        5,
        12,
        21,
    )
    assert one.epoch_at(11) == (1, 5) and two.epoch_at(12) == (2, 0) and two.epoch_at(17) == (3, 2)
    assert two.batches.steps == 3 and two.batches.data is one.batches.data
    (only,) = plan_stages(TrainConfig(epochs=4), (), batches)
    assert (only.name, only.end_epoch, only.end_step) == ("", 4, 8)
    (first,) = plan_stages(TrainConfig(epochs=4), ("whole", "half"), batches)
    assert first.name == "whole"


@pytest.mark.parametrize(
    ("settings", "known", "words"),
    [
        ({"stages": ("b",)}, ("a", "b"), "`stages` b: x goes through a or a,b"),
        ({"stages": ("a", "c")}, ("a", "b"), "`stages` a,c: x goes through"),
        ({"stages": ("a",)}, (), "`stages` a: x is trained in one stage"),
        (
            {"stage_settings": {"bb": {"epochs": 3}}},
            ("a", "bbb"),
            r"train\.bb: x has no such stage; did you mean 'bbb'",
        ),
        ({"stage_settings": {"a": {"epochs": 3}}}, (), r"train\.a: x is trained in one stage"),
    ],
)
def test_stages_that_a_family_does_not_have(
    settings: dict[str, Any], known: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        check_stages("x", TrainConfig(**settings), known)


def test_settings_of_a_stage_that_is_not_run_are_no_fault() -> None:
    check_stages("x", TrainConfig(stage_settings={"b": {"epochs": 3}}), ("a", "b"))


# A run


def test_each_stage_runs_with_its_own_settings(whole: Path) -> None:
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["stage"] for row in rows] == ["whole"] * 2 + ["half"] * 3
    assert [row["step"] for row in rows] == [6, 12, 15, 18, 21]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    base = TrainConfig(epochs=2, learning_rate=1e-2)
    expected = [rate_at(step, 6, base) for step in (5, 11)]
    own = dataclasses.replace(base, **HALF)
    expected += [rate_at(step, 3, own) for step in (2, 5, 8)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
    assert rows[2]["learning_rate"] < rows[4]["learning_rate"] == 1e-3  # warming up again
    states = read_checkpoint(whole / "checkpoint" / "last.pt")["learner"]["model"]
    assert "momentum" in states["param_groups"][0]  # SGD's
    assert {path.name for path in (whole / "checkpoint").iterdir()} == {
        "kept-whole.pt",
        "kept.pt",
        "last.pt",
    }


def test_the_counter_of_epochs_counts_those_of_the_stage(data: MeshDataset, tmp_path: Path) -> None:
    events: list[TrainingEvent] = []
    run(config(data), data.split("subject"), tmp_path / "run", HERE, listener=events.append)
    assert [event.place for event in events if event.epoch_ended] == [
        "whole, epoch 1/2",
        "whole, epoch 2/2",
        "half, epoch 1/3",
        "half, epoch 2/3",
        "half, epoch 3/3",
    ]
    assert [event.step for event in events[-2:]] == [21, 21]
    alone = dataclasses.replace(events[0], stage="")
    assert alone.place == "epoch 1/2"


def test_batches_have_the_size_of_the_stage(
    data: MeshDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    batch = Batches.batch

    def counting(self: Batches, rows: np.ndarray, *labelled: Any) -> Any:
        sizes.append(len(rows))
        return batch(self, rows, *labelled)

    monkeypatch.setattr(Batches, "batch", counting)
    run(config(data), data.split("subject"), tmp_path / "run", HERE)
    # The last batch holds all validation meshes, for `finish`.
    assert sizes == [8] * 12 + [16] * 9 + [6]


def test_the_second_stage_starts_from_what_the_first_kept(
    data: MeshDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate of next to nothing it stays at epoch 2, although the first stage trained on."""
    errors = iter([2.0, 1.0, 3.0, 4.0, 9.0, 9.0, 9.0])
    monkeypatch.setattr(ToyStages, "validate", lambda *_: torch.tensor([next(errors)]))
    nothing = {**HALF, "learning_rate": 1e-12}
    run(
        config(data, epochs=4, stage_settings={"half": nothing}),
        data.split("subject"),
        tmp_path / "run",
        HERE,
    )
    kept = read_checkpoint(tmp_path / "run" / "checkpoint" / "kept-whole.pt")
    assert (kept["epoch"], kept["validation_mm"]) == (2, 1.0)
    weights = load(tmp_path / "run").state_dict()
    torch.testing.assert_close(weights["decoder.weight"], kept["model"]["decoder.weight"])


def test_the_settings_are_written_and_read(whole: Path, data: MeshDataset) -> None:
    assert RecordedRun.read(whole).config == config(data)
    tables = tomllib.loads((whole / "config.toml").read_text())
    assert tables["train"]["half"] == HALF and tables["train"]["epochs"] == 2
    assert load(whole).provenance["train"]["half"] == HALF


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [5, 11, 12, 13, 15, 17])
def test_a_run_killed_in_any_stage_resumes_bit_for_bit(
    data: MeshDataset, whole: Path, tmp_path: Path, at: int
) -> None:
    def kill(event: TrainingEvent) -> None:
        if event.step == at + 1:  # the checkpoint of step `at` is the last one written
            raise Killed

    with pytest.raises(Killed):
        run(config(data), data.split("subject"), tmp_path / "run", HERE, listener=kill)
    assert read_checkpoint(tmp_path / "run" / "checkpoint" / "last.pt")["step"] == at
    run(
        RecordedRun.read(tmp_path / "run").config,
        data.split("subject"),
        tmp_path / "run",
        HERE,
        resume=True,
    )
    one, two = (load(path).state_dict() for path in (whole, tmp_path / "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [
        [{**row, "seconds": 0} for row in read_metrics(path / "metrics.jsonl")]
        for path in (whole, tmp_path / "run")
    ]
    assert rows[0] == rows[1]


# The command


def train(capsys: pytest.CaptureFixture[str], data: MeshDataset, out: Path, *words: str) -> Outcome:
    return in_process(capsys, "train", "toy-stages", "--data", data.path, "--out", out, *words)


def test_settings_on_the_command_line(
    data: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--stages", "whole,half", "--epochs", "2", "--set", "train.learning_rate=0.02"]
    words += ["--set", "train.half.epochs=1", "--set", "train.half.learning_rate=1e-4"]
    ended = train(capsys, data, tmp_path / "a", *words)
    assert ended.code == 0, ended.err
    settings = RecordedRun.read(tmp_path / "a").config.train
    assert settings is not None and settings.learning_rate == 0.02
    assert settings.stage_settings == {"half": {"epochs": 1, "learning_rate": 1e-4}}
    assert [row["stage"] for row in read_metrics(tmp_path / "a" / "metrics.jsonl")] == [
        "whole",
        "whole",
        "half",
    ]

    # The configuration of one run makes another, and a flag counts before the file, in every stage.
    file = ["--config", str(tmp_path / "a" / "config.toml"), "--epochs", "3"]
    ended = train(capsys, data, tmp_path / "b", *file)
    assert ended.code == 0, ended.err
    assert len(read_metrics(tmp_path / "b" / "metrics.jsonl")) == 6
    again = RecordedRun.read(tmp_path / "b").config.train
    assert again is not None and again.stage_settings == {"half": {"learning_rate": 1e-4}}


def test_a_table_per_stage_in_a_file(
    data: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        '[train]\nepochs = 1\nstages = ["whole", "half"]\n[train.half]\nbatch_size = 4\n'
    )
    ended = train(capsys, data, tmp_path / "run", "--config", str(file))
    assert ended.code == 0, ended.err
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [6, 18]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--set", "train.haf.epochs=3"],
            "train.haf: toy-stages has no such stage; did you mean 'half'?",
        ),
        (
            ["--set", "train.half.epoch=3"],
            "train.half.epoch: there is no such setting; did you mean 'epochs'?",
        ),
        (
            ["--set", "train.half.epochs=3"],
            "train.half.epochs: this run leaves the stage half out; add --stages whole,half",
        ),
        (["--set", "train.half=3"], "train.half: there is no such setting"),
        (["--config", "FILE"], "train.haf: toy-stages has no such stage"),
        (["--config", "VERSION"], "is of run format version 1"),
    ],
)
def test_unknown_stages_and_keys_are_one_clear_sentence(
    data: MeshDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    (tmp_path / "FILE").write_text("[train.haf]\nepochs = 3\n")
    (tmp_path / "VERSION").write_text("format_version = 1\n[train]\nepochs = 3\n")
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    train(capsys, data, tmp_path / "run", *words).refuses(expected)
    assert not (tmp_path / "run").exists()


def test_the_stages_of_lamm_on_the_command_line(
    hands: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["latent=8", "width=16", "heads=2", "encoder_depth=1", "decoder_depth=1"]
    words = [word for size in sizes for word in ("--set", f"model.{size}")]
    words += ["--epochs", "1", "--set", "train.batch_size=64", "--set", "train.manipulate.epochs=2"]
    words += ["--set", "train.manipulate.batch_size=128", "--stages", "autoencode,manipulate"]
    ended = in_process(
        capsys, "train", "lamm", "--data", hands.path, "--out", tmp_path / "run", *words
    )
    assert ended.code == 0, ended.err
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["stage"] for row in rows] == ["autoencode", "manipulate", "manipulate"]
    steps = np.diff([0, *(row["step"] for row in rows)]).tolist()
    assert steps == [4, 2, 2]
