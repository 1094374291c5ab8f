"""Training: schedules computed by hand, the order of batches, run folders, interruption and
failure.
"""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import ball_template
from helpers import dataset, tree
from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.errors import InputError
from morphable.models.base import MorphableModel
from morphable.models.io import load
from morphable.models.pca_mlp import PcaMlpConfig
from morphable.models.training import TrainConfig
from morphable.train import batches as feed_module
from morphable.train.batches import Batches, TrainingData
from morphable.train.checkpoint import read_checkpoint, read_metrics
from morphable.train.distributed import Workers, workers
from morphable.train.events import Listener, TrainingEvent
from morphable.train.loop import Interrupted
from morphable.train.optimizer import make_optimizer, rate_at
from morphable.train.provenance import command_line
from morphable.train.run import RecordedRun, RunConfig, run

CPU = torch.device("cpu")
HERE = Workers(0, 1, CPU)
EPOCHS, BATCH, STEPS = 3, 8, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def config(**train: object) -> RunConfig:
    settings = TrainConfig(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=1e-2, optimizer="adamw", least_gain=0.0
    )
    model = PcaMlpConfig(latent=2, rank=8, width=16, depth=1)
    return RunConfig("pca-mlp", model, dataclasses.replace(settings, **train))


def trained(
    data: MeshDataset, out: Path, listener: Listener | None = None, **train: object
) -> MorphableModel:
    return run(config(**train), data.split("subject"), out, HERE, listener=listener)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "weights.safetensors")


def equal(left: Path, right: Path) -> bool:
    a, b = weights(left), weights(right)
    return all(torch.equal(a[name], b[name]) for name in a)


# The rate and the optimizer


def rates(epochs: int, steps: int, **settings: object) -> list[float]:
    given = TrainConfig(epochs=epochs, learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return [rate_at(step, steps, given) for step in range(epochs * steps)]


def test_schedules_by_hand() -> None:
    assert rates(2, 3, schedule="constant", warmup=0.0) == [1.0] * 6
    assert rates(2, 4, schedule="constant", warmup=0.5) == [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
    ]
    assert rates(3, 2, schedule="exponential", decay=0.5, warmup=0.0) == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    assert rates(4, 1, schedule="exponential", decay=0.5, decay_every=2, warmup=0.0) == [
        1,
        1,
        0.5,
        0.5,
    ]
    cosine = rates(2, 2, schedule="cosine", warmup=0.0)
    assert cosine == pytest.approx(
        [1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2]
    )


@pytest.mark.parametrize("schedule", ["constant", "exponential", "cosine"])
def test_rates_are_positive_and_never_above_the_given_one(schedule: str) -> None:
    values = rates(7, 13, schedule=schedule, warmup=0.1)
    assert all(0 < value <= 1.0 for value in values) and values[0] < values[9]


def test_optimizers_are_the_ones_asked_for() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    for name, kind in (
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("sgd", torch.optim.SGD),
    ):
        made = make_optimizer(
            [parameter], TrainConfig(optimizer=name, weight_decay=0.1, momentum=0.5)
        )  # type: ignore[arg-type]
        assert type(made) is kind and made.param_groups[0]["weight_decay"] == 0.1
    assert made.param_groups[0]["momentum"] == 0.5


# The batches


def rows_of(batches: Batches, epoch: int) -> list[list[int]]:
    return [rows.tolist() for rows in batches.rows(epoch)]


def test_every_mesh_once_an_epoch_in_an_order_of_seed_and_epoch(data: MeshDataset) -> None:
    training = TrainingData.of(data)
    batches = Batches(training, 7, 3, CPU)
    first = rows_of(batches, 0)
    assert sorted(row for rows in first for row in rows) == list(range(60))
    assert [len(rows) for rows in first] == [7] * 8 + [4]
    assert first == rows_of(Batches(training, 7, 3, CPU), 0)
    assert first != rows_of(batches, 1) and first != rows_of(Batches(training, 7, 4, CPU), 0)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("skip", [0, 1, 5, 8, 9])
def test_batches_hold_their_rows_from_memory_or_disk(
    data: MeshDataset, monkeypatch: pytest.MonkeyPatch, resident: bool, skip: int
) -> None:
    if not resident:
        monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    training = TrainingData.of(data, ("subject", "nothing"))
    assert isinstance(training.vertices, np.ndarray) is resident
    batches = Batches(training, 7, 3, CPU)
    found = list(batches.batches(2, skip))
    assert len(found) == 9 - skip
    for rows, batch in zip(batches.rows(2)[skip:], found, strict=True):
        np.testing.assert_array_equal(batch.vertices.numpy(), data.vertices[rows])
        assert batch.neutral is not None
        np.testing.assert_array_equal(batch.neutral.numpy(), data.vertices[rows % 20])
        assert (
            batch.labels.keys() == {"subject"}
            and batch.labels["subject"].tolist() == (rows % 20).tolist()
        )


def test_a_batch_with_a_mesh_of_no_neutral_has_none(data: MeshDataset) -> None:
    # The neutral mesh of subject 0 is left out.
    training = TrainingData.of(data.select(np.arange(1, 60)))
    batches = Batches(training, 59, 0, CPU)
    assert batches.batch(np.array([19])).neutral is None
    assert batches.batch(np.array([0, 20])).neutral is not None


# Runs


def test_the_last_epoch_is_kept_where_asked(data: MeshDataset, tmp_path: Path) -> None:
    """At this high rate, validation errors rise. With keep="last" the last epoch is kept anyway."""
    for keep in ("best", "last"):
        model = trained(data, tmp_path / keep, learning_rate=0.3, keep=keep, schedule="constant")
        rows = read_metrics(tmp_path / keep / "metrics.jsonl")
        errors = [rows[0].get("start_mm", np.inf), *(row["validation_mm"] for row in rows)]
        assert errors[-1] > min(errors)
        kept = model.provenance["kept_epoch"]
        assert kept == (EPOCHS if keep == "last" else int(np.argmin(errors)))


def test_a_run_folder_holds_everything_about_the_run(data: MeshDataset, tmp_path: Path) -> None:
    events: list[TrainingEvent] = []
    model = trained(data, tmp_path / "run", events.append)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "checkpoint", "model"}
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {
        "kept.pt",
        "last.pt",
    }
    assert {path.name for path in (tmp_path / "run" / "model").iterdir()} == {
        "model.json", "weights.safetensors", "template.npz", "README.md",
    }  # fmt: skip
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["epoch"] for row in metrics] == [1, 2, 3] and [row["step"] for row in metrics] == [
        6,
        12,
        18,
    ]
    errors = [metrics[0]["start_mm"], *(row["validation_mm"] for row in metrics)]
    assert [row["best_mm"] for row in metrics] == list(np.minimum.accumulate(errors)[1:])
    best = read_checkpoint(tmp_path / "run" / "checkpoint" / "kept.pt")
    assert best["epoch"] == int(np.argmin(errors)) == model.provenance["kept_epoch"]
    assert best["validation_mm"] == min(errors)
    assert len(events) == EPOCHS * STEPS + EPOCHS
    assert events[-1].step == events[-1].total_steps == EPOCHS * STEPS
    assert [event.step for event in events if event.epoch_ended] == [6, 12, 18]
    assert all((event.validation_mm is not None) == event.epoch_ended for event in events)


def test_the_configuration_comes_back(data: MeshDataset, tmp_path: Path) -> None:
    trained(data, tmp_path / "run")
    recorded = RecordedRun.read(tmp_path / "run")
    assert (recorded.config, recorded.path, recorded.split) == (config(), data.path, "subject")
    assert recorded.content_hash == data.info["content_hash"]
    tables = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (
        set(tables) == {"format_version", "data", "model", "train"}
        and tables["format_version"] == 2
        and tables["data"]["content_hash"] == data.info["content_hash"]
    )


def test_provenance_says_how_to_make_it_again(data: MeshDataset, tmp_path: Path) -> None:
    provenance = load(run_folder(data, tmp_path)).provenance
    assert (
        provenance["split"] == "subject"
        and provenance["split_hash"] == data.split("subject").split.hash
    )
    assert provenance["train_meshes"] == 48 and provenance["licence"] == "CC0-1.0"
    assert {
        "command",
        "versions",
        "threads",
        "recipe",
        "train",
        "content_hash",
    } <= provenance.keys()


def run_folder(data: MeshDataset, tmp_path: Path) -> Path:
    trained(data, tmp_path / "run")
    return tmp_path / "run"


def test_the_command_is_quoted_as_a_shell_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/x/bin/morphable", "train", "a b", "$HOME", "it's"])
    assert command_line() == "morphable train 'a b' '$HOME' 'it'\"'\"'s'"
    monkeypatch.setattr("sys.argv", ["/x/morphable/__main__.py", "train"])
    assert command_line() == "morphable train"


def test_same_seed_same_weights_from_memory_or_disk(
    data: MeshDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(data, tmp_path / "a")
    trained(data, tmp_path / "b")
    trained(data, tmp_path / "c", seed=1)
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    trained(data, tmp_path / "d")
    assert equal(tmp_path / "a", tmp_path / "b") and equal(tmp_path / "a", tmp_path / "d")
    assert not equal(tmp_path / "a", tmp_path / "c")


def test_training_learns(data: MeshDataset, tmp_path: Path) -> None:
    trained(data, tmp_path / "run", epochs=12)
    errors = [row["validation_mm"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert min(errors) < 0.9 * errors[0]


@pytest.mark.parametrize(
    "settings", [{"precision": "bfloat16"}, {"gradient_clip": 0.1}, {"optimizer": "sgd"}]
)
def test_options_of_the_loop_change_the_course(
    data: MeshDataset, tmp_path: Path, settings: dict[str, object]
) -> None:
    trained(data, tmp_path / "plain")
    trained(data, tmp_path / "other", **settings)
    assert not equal(tmp_path / "plain", tmp_path / "other")
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "other").values())


def test_the_prior_fits_the_codes_of_the_training_meshes(data: MeshDataset, tmp_path: Path) -> None:
    model = load(run_folder(data, tmp_path))
    codes = model.encode(torch.from_numpy(data.split("subject").train.vertices[:])).detach()
    torch.testing.assert_close(model.prior.mean, codes.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.prior.factor @ model.prior.factor.T, codes.T.cov(), atol=1e-4, rtol=1e-3
    )


def test_tensorboard_events_are_written_where_it_is_installed(
    data: MeshDataset, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    assert list((run_folder(data, tmp_path) / "events").glob("events.out.*"))


# Stopping and failing


def test_an_interrupted_loop_saves_and_goes_on_exactly(data: MeshDataset, tmp_path: Path) -> None:
    trained(data, tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    for number, (stop_at, sent) in enumerate(
        [(4, signal.SIGINT), (5, signal.SIGTERM), (12, signal.SIGINT)]
    ):
        out = tmp_path / str(number)

        def stop(event: TrainingEvent, at: int = stop_at, sent: int = sent) -> None:
            if event.step == at and not event.epoch_ended:
                os.kill(os.getpid(), sent)

        with pytest.raises(Interrupted):
            trained(data, out, stop)
        assert signal.getsignal(signal.SIGINT) is handler
        # The signal arrives during the notification of a step; the loop checks after the next one.
        assert read_checkpoint(out / "checkpoint" / "last.pt")["step"] == stop_at + 1
        assert not (out / "model").exists()
        run(config(), data.split("subject"), out, HERE, resume=True)
        assert equal(tmp_path / "whole", out), stop_at


def test_asked_twice_it_stops_at_once(data: MeshDataset, tmp_path: Path) -> None:
    def insist(event: TrainingEvent) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "run", insist)
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_asked_at_the_very_end_it_just_finishes(data: MeshDataset, tmp_path: Path) -> None:
    def stop(event: TrainingEvent) -> None:
        if event.step == EPOCHS * STEPS and not event.epoch_ended:
            os.kill(os.getpid(), signal.SIGINT)

    trained(data, tmp_path / "run", stop)
    assert (tmp_path / "run" / "model" / "model.json").exists()


def test_divergence_is_named_and_keeps_the_last_checkpoint(
    data: MeshDataset, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"diverged at step \d+.*smaller train.learning_rate \(now 1e\+30\)"
    ):
        trained(
            data,
            tmp_path / "run",
            learning_rate=1e30,
            warmup=0.0,
            schedule="constant",
            optimizer="sgd",
        )
    assert not (tmp_path / "run" / "model").exists()


def test_a_disk_that_fills_up_keeps_the_last_whole_checkpoint(
    data: MeshDataset, tmp_path: Path
) -> None:
    trained(data, tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event: TrainingEvent) -> None:
        if event.step == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    out = tmp_path / "run"
    try:
        with pytest.raises(InputError, match=r"(last|kept)\.pt: cannot be written: File too large"):
            trained(data, out, fill, checkpoint_seconds=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(out.rglob(".*")) and not (out / "model").exists()
    assert read_checkpoint(out / "checkpoint" / "last.pt")["step"] == 7
    run(config(checkpoint_seconds=0.0), data.split("subject"), out, HERE, resume=True)
    assert equal(tmp_path / "whole", out)


def test_bad_input_makes_no_run_folder(data: MeshDataset, tmp_path: Path) -> None:
    few = dataset(ball_template(60), tmp_path / "few", 3, subjects=3)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="has 1 training mesh, at least 2"):
        run(config(), few.split("frames"), tmp_path / "run", HERE)
    with pytest.raises(InputError, match="processes one"):
        crowd = Workers(0, 49, CPU)
        run(config(batch_size=64), data.split("subject"), tmp_path / "run", crowd)
    assert tree(tmp_path) == before


def test_an_existing_folder_is_left_alone(data: MeshDataset, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        trained(data, tmp_path / "run")
    assert tree(tmp_path) == {"run": b"/", "run/mine.txt": b"mine"}


def test_devices() -> None:
    with pytest.raises(InputError, match="`device` tpu: expected cpu or cuda"), workers("tpu"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable NVIDIA GPU"), workers("cuda"):
            pass


def test_meshes_without_labels_train_on_the_frame_split(tmp_path: Path) -> None:
    from helpers import source
    from morphable.data.dataset import write_dataset

    plain = dataclasses.replace(source(ball_template(60), 30), labels=LabelTable({}, 30))
    made = write_dataset(plain, tmp_path / "plain")
    assert made.default_split() == "frames"
    run(config(), made.split(), tmp_path / "run", HERE)
    assert load(tmp_path / "run").parts.size == 2
