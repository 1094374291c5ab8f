"""Two processes under torchrun train one model: equal weights on both, and the same steps as one
process takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import ball_template
from helpers import Outcome, dataset, environment, in_process
from morphable.cli.main import main
from morphable.train.batches import Batches, TrainingData
from morphable.train.checkpoint import read_checkpoint, read_metrics
from morphable.train.distributed import Workers, workers

EPOCHS, BATCH = 2, 8

# What every process of the library run does: train, and compare a hash of what it holds with the
# others'.
SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import torch
from morphable.data.dataset import load_dataset
from morphable.models.families import family, with_latent
from morphable.train.distributed import workers
from morphable.train.run import RunConfig, run
from morphable.config import with_overrides

data, out = map(Path, sys.argv[1:3])
torch.set_num_threads(1)
row = family("spiralnet++").fast
settings = {"epochs": EPOCHS, "batch_size": BATCH, "checkpoint_seconds": 0.02}
train = with_overrides(row.train, settings, "train")
config = RunConfig("spiralnet++", with_latent(row.model, 3), train)
split = load_dataset(data).split("subject")
with workers("cpu") as here:
    model = run(config, split, out, here)
    state = b"".join(t.contiguous().numpy().tobytes() for t in model.state_dict().values())
    digest = torch.frombuffer(bytearray(hashlib.sha256(state).digest()), dtype=torch.uint8)
    digests = here.gather(digest)
    means = here.mean([float(here.rank), 1.0])
    if here.rank == 0:
        equal = all(torch.equal(digests[0], other) for other in digests)
        (out / "ranks.json").write_text(json.dumps({"count": len(digests), "equal": equal, "means": means}))
"""


def torchrun(*arguments: object) -> Outcome:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*launch, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def options(data: Path, out: Path) -> list[str]:
    given = [
        "train",
        "spiralnet++",
        "--data",
        data,
        "--out",
        out,
        "--epochs",
        EPOCHS,
        "--latent",
        3,
    ]
    return [
        str(word) for word in [*given, "--split", "subject", "--set", f"train.batch_size={BATCH}"]
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(
        ball_template(600), tmp_path_factory.mktemp("data") / "set", 60, subjects=20
    ).path


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process with the same global batch."""
    out = tmp_path_factory.mktemp("alone") / "run"
    main(options(data, out))
    return out


def same_course(left: Path, right: Path) -> None:
    """Equal losses and weights up to the order of summation, which Adam's first steps magnify."""
    for a, b in zip(*(read_metrics(run / "metrics.jsonl") for run in (left, right)), strict=True):
        assert (a["epoch"], a["step"]) == (b["epoch"], b["step"])
        np.testing.assert_allclose(a["train/distance"], b["train/distance"], rtol=1e-3)
        np.testing.assert_allclose(a["validation_mm"], b["validation_mm"], rtol=1e-2)
    weights = [load_file(run / "model" / "weights.safetensors") for run in (left, right)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=2e-2, atol=2e-2)


def test_both_processes_end_with_the_same_weights_and_one_process_with_nearly_those(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(
        SCRIPT.replace("EPOCHS", str(EPOCHS)).replace("BATCH", str(BATCH))
    )
    ended = torchrun(tmp_path / "script.py", data, tmp_path / "run")
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "run" / "ranks.json").read_text()) == {
        "count": 2,
        "equal": True,
        "means": [0.5, 1.0],
    }
    same_course(alone, tmp_path / "run")


def test_the_command_under_torchrun(
    data: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    ended = torchrun(
        "-m", "morphable", *options(data, out), "--set", "train.checkpoint_seconds=0.02"
    )
    assert ended.code == 0, ended.err
    assert (
        ended.out.count("next: morphable evaluate") == 1
        and ended.out.count(f"epoch {EPOCHS}/{EPOCHS}") == 1
    )
    same_course(alone, out)
    state = read_checkpoint(out / "checkpoint" / "last.pt")
    assert state["world"] == len(state["generators"]) == 2
    assert not torch.equal(*state["generators"])  # each process draws its own
    (out / "model").rename(tmp_path / "model")
    ended = in_process(capsys, "train", "spiralnet++", "--data", data, "--out", out, "--resume")
    ended.refuses("last.pt: was written by 2 processes, cannot be resumed with 1")


@pytest.mark.parametrize(("count", "batch"), [(48, 8), (50, 8), (49, 16), (7, 3), (5, 64)])
def test_every_process_sees_its_share_of_the_same_batches(count: int, batch: int) -> None:
    shapes = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    data = TrainingData(shapes, np.full(count, -1))
    whole = Batches(data, batch, 3, torch.device("cpu"))
    shares = [Batches(data, batch, 3, torch.device("cpu"), rank, 2) for rank in (0, 1)]
    assert shares[0].steps == shares[1].steps <= whole.steps
    for epoch in (0, 1):
        for both in zip(whole.rows(epoch), *(share.rows(epoch) for share in shares), strict=False):
            assert sorted(both[0].tolist()) == sorted(both[1].tolist() + both[2].tolist())
            assert len(both[2]) > 0


def test_one_process_needs_no_group() -> None:
    with workers("cpu") as here:
        assert here == Workers(0, 1, torch.device("cpu"))
        assert here.mean([1.0, True]) == [1.0, 1.0]
        value = torch.arange(3)
        assert here.gather(value)[0] is value
        here.barrier()
