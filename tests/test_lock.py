"""One process at a time trains into a run folder; others are told so, and a crash locks nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from conftest import ball_template
from helpers import command, dataset, environment, in_process, real, tree
from morphable.data.dataset import load_dataset
from morphable.errors import InputError
from morphable.files import remove_leftovers
from morphable.lock import LOCK, locked, require_idle
from morphable.models.pca_mlp import PcaMlpConfig
from morphable.models.training import TrainConfig
from morphable.train.checkpoint import read_metrics
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.run import RunConfig, run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=20).path


def words(data: Path, out: Path, *more: object) -> list[object]:
    return ["train", "pca-mlp", "--data", data, "--out", out, *more]


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def running(data: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training in `run` that would take hours, and has just taken its lock."""
    process = started(*words(data, tmp_path / "run", "--epochs", 10**6))
    wait_until(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_which_a_training_runs_is_refused_by_its_process(
    data: Path,
    tmp_path: Path,
    running: subprocess.Popen[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    told = (f"{run}: process {running.pid} on ", "is training in this folder")
    for arguments in (
        words(data, run, "--epochs", 2, "--seed", 2),
        words(data, run, "--resume"),
        ["evaluate", run],
        ["report", run],
        ["sample", run, "-n", 1, "--out", tmp_path / "x"],
    ):
        in_process(capsys, *arguments).refuses(*told)
    assert running.poll() is None


def test_a_killed_training_locks_nothing(
    data: Path, tmp_path: Path, running: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    running.kill()
    running.communicate()
    assert (run / LOCK).exists()
    left = run / "checkpoint" / ".last.pt.ab12cd_4.pt"
    left.write_text("half a checkpoint")
    config = (run / "config.toml").read_text()
    epochs = len(read_metrics(run / "metrics.jsonl")) + 2
    (run / "config.toml").write_text(config.replace("epochs = 1000000", f"epochs = {epochs}"))
    ended = in_process(capsys, *words(data, run, "--resume"))
    assert ended.code == 0, ended.err
    assert not (run / LOCK).exists() and not list(run.rglob(".*"))


def test_an_interrupted_training_gives_its_lock_back(
    tmp_path: Path, running: subprocess.Popen[str]
) -> None:
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130 and not (tmp_path / "run" / LOCK).exists()


def test_of_two_that_start_together_one_trains(data: Path, tmp_path: Path) -> None:
    """Whichever comes first: its seed, its weights, all its epochs, and nothing of the other's."""
    run = tmp_path / "run"
    pair = [
        started(*words(data, run, "--epochs", 40, "--seed", seed, "--latent", 4 + seed))
        for seed in (1, 2)
    ]
    ended = [process.communicate()[1] for process in pair]
    codes = [process.returncode for process in pair]
    assert sorted(codes) == [0, 2], ended
    refused = ended[codes.index(2)]
    assert refused.startswith("morphable: ") and len(refused.splitlines()) == 1, refused
    won = codes.index(0) + 1
    assert f"seed = {won}" in (run / "config.toml").read_text()
    assert f'"--seed", "{won}"' in str((run / "model" / "model.json").read_text()) or (
        f"--seed {won}" in (run / "model" / "model.json").read_text()
    )
    assert [row["epoch"] for row in read_metrics(run / "metrics.jsonl")] == list(range(1, 41))
    assert not (run / LOCK).exists()


def test_a_lock_names_its_process_and_leaves_nothing(tmp_path: Path) -> None:
    before = tree(tmp_path)
    run = tmp_path / "deep" / "run"
    with locked(run):
        assert (run / LOCK).read_text().startswith(f"process {os.getpid()} on ")
        for attempt in (lambda: locked(run).__enter__(), lambda: require_idle(run)):
            with pytest.raises(InputError, match=f"process {os.getpid()} on .* is training"):
                attempt()
    assert tree(tmp_path) == before
    require_idle(run)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text(f"process {os.getpid()} on this host, long ago\n")
    require_idle(tmp_path / "run")
    with locked(tmp_path / "run"):
        pass
    assert tree(tmp_path) == before | {"run": b"/"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize(
    "setting", ["train.learning_rate=1e30", "train.weight_decay=1e30"], ids=["rate", "decay"]
)
def test_a_training_that_diverges_at_once_leaves_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    ended = in_process(capsys, *words(data, tmp_path / "run", "--set", setting, "--epochs", 3))
    ended.refuses("diverged", "train.learning_rate")
    assert "checkpoint" not in ended.err
    assert tree(tmp_path) == {}


def test_a_training_that_fails_in_its_first_step_leaves_nothing(data: Path, tmp_path: Path) -> None:
    def fail(event: TrainingEvent) -> None:
        raise InputError("this family cannot take the data")

    config = RunConfig("pca-mlp", PcaMlpConfig(latent=2), TrainConfig(epochs=2))
    split = load_dataset(data).split()
    here = Workers(0, 1, torch.device("cpu"))
    with pytest.raises(InputError, match="cannot take the data"):
        run(config, split, tmp_path / "deep" / "run", here, listener=fail)
    assert tree(tmp_path) == {}


def test_leftovers_are_told_from_files_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    kept = [".notes", ".config.settings", ".a.toml", "last.pt.abcdefgh.pt", ".last.pt"]
    gone = ["checkpoint/.last.pt.x1y2z3_4.pt", ".metrics.jsonl.abcdefgh.jsonl"]
    for name in kept + gone:
        (tmp_path / name).write_text("")
    (tmp_path / ".model.x1y2z3_4").mkdir()
    (tmp_path / ".model.x1y2z3_4" / "weights.safetensors").write_text("")
    remove_leftovers(tmp_path)
    assert sorted(tree(tmp_path)) == sorted([*kept, "checkpoint"])


def test_a_real_second_training_is_refused(
    data: Path, tmp_path: Path, running: subprocess.Popen[str]
) -> None:
    real(*words(data, tmp_path / "run", "--resume")).refuses(f"process {running.pid} on ")
