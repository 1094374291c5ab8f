"""Learners: a step against one written by hand, turns of critic and generator, and an adversarial
run that stops and resumes bit for bit.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import ball_template
from helpers import dataset, environment, in_process
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.models.families import MODELS, create
from morphable.models.io import load
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.train.checkpoint import read_checkpoint, read_metrics
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.learner import Adversarial, Descent, learner_for
from morphable.train.loop import Interrupted
from morphable.train.run import RunConfig, run
from toys import TOYS, ToyConfig, ToyGan, ToyStages

HERE = Workers(0, 1, torch.device("cpu"))
EPOCHS, STEPS = 3, 6
"""48 training meshes in batches of 8: 18 steps, with rounds of three critic steps and one of the
generator.
"""
CONFIG = TrainConfig(learning_rate=1e-2, betas=(0.5, 0.9), schedule="constant", warmup=0.0)


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, family in TOYS.items():
        monkeypatch.setitem(MODELS, name, family)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def progress(step: int, seed: int = 0) -> Progress:
    return Progress(0, 1, step, 100, torch.Generator().manual_seed(seed + step))


def made(kind: type[Any], data: MeshDataset) -> Any:
    torch.manual_seed(0)
    model = kind(data.template, ToyConfig())
    model.initialize(data.vertices[:])
    return model


def batches(data: MeshDataset, count: int) -> list[Batch]:
    return [
        Batch(torch.from_numpy(data.vertices[8 * step % 48 : 8 * step % 48 + 8]))
        for step in range(count)
    ]


# A step


def test_a_descent_step_equals_one_by_hand(data: MeshDataset) -> None:
    config = dataclasses.replace(CONFIG, gradient_clip=0.1)
    model, own = made(ToyStages, data), made(ToyStages, data)
    learner = learner_for(model, config, HERE)
    assert isinstance(learner, Descent)
    optimizer = torch.optim.Adam(own.parameters(), 1e-2, (0.5, 0.9))
    for step, batch in enumerate(batches(data, 5)):
        terms = learner.step(batch, progress(step))
        loss = own.loss(batch, progress(step))["l1"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own.parameters(), 0.1)
        optimizer.step()
        assert terms == {"l1": pytest.approx(loss.item(), rel=1e-6)}
    assert_close(model, own)


def test_the_rounds_of_a_gan_equal_rounds_by_hand(data: MeshDataset) -> None:
    """The usual way to write it, with gradients of everything and a fake that is detached."""
    model, own = made(ToyGan, data), made(ToyGan, data)
    learner = learner_for(model, CONFIG, HERE)
    assert isinstance(learner, Adversarial)
    critic = torch.optim.Adam(own.critic.parameters(), 1e-2, (0.5, 0.9))
    generator = torch.optim.Adam(own.generator.parameters(), 1e-2, (0.5, 0.9))
    for step, batch in enumerate(batches(data, 8)):
        learner.step(batch, progress(step))
        own.zero_grad()
        if step in (3, 7):
            total(own.generator_loss(batch, progress(step))).backward()
            generator.step()
        else:
            total(own.critic_loss(batch, progress(step))).backward()
            critic.step()
    assert_close(model, own)


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def assert_close(left: nn.Module, right: nn.Module) -> None:
    """Equal up to the order of summation, which differs between fused and plain optimizers."""
    others = right.state_dict()
    for name, tensor in left.state_dict().items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-4, atol=1e-5)


def test_each_step_moves_one_player_and_leaves_the_other_as_it_was(data: MeshDataset) -> None:
    model = made(ToyGan, data)
    learner = learner_for(model, CONFIG, HERE)
    moved = []
    for step, batch in enumerate(batches(data, 9)):
        before = copy.deepcopy(model.state_dict())
        terms = learner.step(batch, progress(step))
        changed = {
            name.split(".")[0]
            for name, tensor in model.state_dict().items()
            if not torch.equal(tensor, before[name])
        }
        moved.append((changed, set(terms)))
        assert all(parameter.requires_grad for parameter in model.parameters())
    critic = ({"critic"}, {"critic/score", "critic/size"})
    generator = ({"generator"}, {"generator/score"})
    assert moved == [critic, critic, critic, generator] * 2 + [critic]


def test_the_critic_gets_no_gradient_from_the_generators_step(data: MeshDataset) -> None:
    model = made(ToyGan, data)
    learner = learner_for(model, CONFIG, HERE)
    learner.step(batches(data, 1)[0], progress(3))
    assert all(parameter.grad is None for parameter in model.critic.parameters())
    assert all(parameter.grad is not None for parameter in model.generator.parameters())


def test_the_rate_follows_the_schedule_of_the_stage(data: MeshDataset) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, warmup=0.04)  # of 100 steps
    learner = learner_for(made(ToyGan, data), config, HERE)
    rates = []
    for step, batch in enumerate(batches(data, 6)):
        learner.step(batch, progress(step))
        rates.append(learner.rate)
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])
    learner.restart(dataclasses.replace(CONFIG, learning_rate=0.5))
    learner.step(batches(data, 1)[0], progress(0))
    assert learner.rate == 0.5


def test_the_state_of_all_optimizers_comes_back(data: MeshDataset) -> None:
    model = made(ToyGan, data)
    learner = learner_for(model, CONFIG, HERE)
    first, *rest = batches(data, 6)
    learner.step(first, progress(0))
    other = copy.deepcopy(model)
    resumed = learner_for(other, CONFIG, HERE)
    resumed.load_state_dict(copy.deepcopy(learner.state_dict()))
    for step, batch in enumerate(rest, start=1):
        learner.step(batch, progress(step))
        resumed.step(batch, progress(step))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    with pytest.raises(KeyError):
        resumed.load_state_dict({"critic": learner.state_dict()["critic"]})


class NobodysParameter(ToyGan):
    def generator_parameters(self) -> list[nn.Parameter]:
        return list(self.generator.parameters())[1:]


class EverybodysParameter(ToyGan):
    def generator_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters())


class IdleCritic(ToyGan):
    critic_steps = 0  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NobodysParameter, r"generator\.0\.weight belongs to neither critic nor generator"),
        (EverybodysParameter, r"critic\.0\.weight belongs to both the critic and the generator"),
        (IdleCritic, "critic_steps: expected at least 1, got 0"),
    ],
)
def test_players_that_do_not_divide_the_model(
    data: MeshDataset, kind: type[ToyGan], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        learner_for(made(kind, data), CONFIG, HERE)


# A run


def config(data: MeshDataset, **train: object) -> RunConfig:
    recipe = TOYS["toy-gan"].fast
    assert recipe.train is not None
    settings = recipe.train.with_overrides({"checkpoint_seconds": 0.0} | train, "train")
    return RunConfig("toy-gan", recipe.model, settings)


@pytest.fixture(scope="module")
def whole(data: MeshDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "toy-gan", TOYS["toy-gan"])
        run(config(data), data.split("subject"), out, HERE)
    return out


def test_an_adversarial_run_keeps_the_last_epoch_without_a_validation(
    whole: Path, data: MeshDataset
) -> None:
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert {"train/critic/score", "train/critic/size", "train/generator/score"} <= row.keys()
        assert not {"validation_mm", "best_mm"} & row.keys()
    kept = read_checkpoint(whole / "checkpoint" / "kept.pt")
    assert (kept["epoch"], kept["validation_mm"]) == (3, None)
    model = load(whole)
    assert model.provenance["kept_epoch"] == 3
    last = read_checkpoint(whole / "checkpoint" / "last.pt")["model"]
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items())


def test_its_prior_stays_as_the_model_defines_it(whole: Path) -> None:
    prior = load(whole).prior
    assert torch.equal(prior.mean, torch.zeros(3)) and torch.equal(prior.factor, torch.eye(3))


def test_the_means_of_an_epoch_are_over_the_steps_of_the_player(
    data: MeshDataset, tmp_path: Path
) -> None:
    events: list[TrainingEvent] = []
    run(config(data), data.split("subject"), tmp_path / "run", HERE, listener=events.append)
    steps = [event for event in events if not event.epoch_ended and event.epoch == 1]
    for name in ("critic/score", "generator/score"):
        values = [event.terms[name] for event in steps if name in event.terms]
        assert len(values) == {"critic/score": 4, "generator/score": 2}[name]
        mean = read_metrics(tmp_path / "run" / "metrics.jsonl")[1][f"train/{name}"]
        assert mean == pytest.approx(sum(values) / len(values))


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2, 3, 4, 6, 9, 12])
def test_a_run_killed_in_the_middle_of_the_critics_steps_resumes_bit_for_bit(
    data: MeshDataset, whole: Path, tmp_path: Path, at: int
) -> None:
    """A round is three steps of the critic and one of the generator, an epoch six steps."""

    def kill(event: TrainingEvent) -> None:
        if event.step == at + 1:  # the checkpoint of step `at` is the last one written
            raise Killed

    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(config(data), data.split("subject"), out, HERE, listener=kill)
    assert read_checkpoint(out / "checkpoint" / "last.pt")["step"] == at
    run(config(data), data.split("subject"), out, HERE, resume=True)
    same_run(whole, out)


@pytest.mark.parametrize("at", [2, 6, 14])
def test_a_run_that_was_asked_to_stop_resumes_bit_for_bit(
    data: MeshDataset, whole: Path, tmp_path: Path, at: int
) -> None:
    def stop(event: TrainingEvent) -> None:
        if event.step == at and not event.epoch_ended:
            os.kill(os.getpid(), signal.SIGTERM)

    quiet = config(data, checkpoint_seconds=1e9)
    with pytest.raises(Interrupted):
        run(quiet, data.split("subject"), tmp_path / "run", HERE, listener=stop)
    run(quiet, data.split("subject"), tmp_path / "run", HERE, resume=True)
    same_run(whole, tmp_path / "run")


def same_run(left: Path, right: Path) -> None:
    """Equal weights, moments of both optimizers, random states and metrics."""
    states = [read_checkpoint(run / "checkpoint" / "last.pt") for run in (left, right)]
    for key in ("model", "learner", "generators", "step"):
        assert_equal(states[0][key], states[1][key])
    rows = [
        [{**row, "seconds": 0} for row in read_metrics(run / "metrics.jsonl")]
        for run in (left, right)
    ]
    assert rows[0] == rows[1]
    models = [load(run).state_dict() for run in (left, right)]
    assert_equal(models[0], models[1])


def assert_equal(left: Any, right: Any) -> None:
    if isinstance(left, Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_equal(a, b)
    else:
        assert left == right


def test_the_command_says_that_there_is_no_validation(
    data: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = in_process(capsys, "train", "toy-gan", "--data", data.path, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if line.startswith("epoch")]
    assert len(lines) == EPOCHS
    assert all("not validated, the last epoch is kept" in line for line in lines)
    assert " mm" not in ended.out


SCRIPT = """
import hashlib, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from morphable.data.dataset import load_dataset
from morphable.models.families import MODELS
from morphable.train.distributed import workers
from morphable.train.run import RunConfig, run
from toys import TOYS

MODELS.update(TOYS)
recipe = TOYS["toy-gan"].fast
config = RunConfig("toy-gan", recipe.model, recipe.train)
with workers("cpu") as here:
    model = run(config, load_dataset(sys.argv[1]).split("subject"), Path(sys.argv[2]), here)
    state = b"".join(t.contiguous().numpy().tobytes() for t in model.state_dict().values())
    digest = torch.frombuffer(bytearray(hashlib.sha256(state).digest()), dtype=torch.uint8)
    digests = here.gather(digest)
    if here.rank == 0:
        equal = all(torch.equal(digests[0], other) for other in digests)
        print(json.dumps({"processes": len(digests), "equal": equal}))
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
print(f"{sum('gloo' in name for name in threads)} of the threads belong to a process group")
"""


def test_two_processes_train_one_gan(data: MeshDataset, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*launch, tmp_path / "script.py", data.path, tmp_path / "run", Path(__file__).parent]
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert '{"processes": 2, "equal": true}' in done.stdout
    assert done.stdout.count("0 of the threads belong to a process group") == 2
    torch.manual_seed(0)
    initial = create("toy-gan", data.template, ToyConfig())
    trained = load(tmp_path / "run").state_dict()
    assert not [name for name, p in initial.named_parameters() if torch.equal(p, trained[name])]
