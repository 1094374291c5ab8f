"""Meshes made by transport: what they are made of, how they are drawn, and that a run with them
resumes exactly.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import dataset, in_process, tree
from morphable.data.dataset import MeshDataset
from morphable.data.neutral import NeutralTargets, neutral_targets
from morphable.edit import transport
from morphable.errors import InputError
from morphable.mesh.cache import cache_folder
from morphable.mesh.transport import Method
from morphable.models.io import load
from morphable.models.training import TrainConfig
from morphable.train import transported as module
from morphable.train.batches import Batches, TrainingData
from morphable.train.distributed import Workers
from morphable.train.transported import (
    Drawn,
    Transported,
    chosen_method,
    make_transported,
    transported,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    """60 meshes of 10 subjects, whose first 10 are the neutral ones."""
    return dataset(ball_template(60), tmp_path_factory.mktemp("data") / "set", 60, subjects=10)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHABLE_CACHE", str(tmp_path / "cache"))


def made_of(data: MeshDataset, share: float = 0.75, seed: int = 3) -> Transported:
    return make_transported(data, neutral_targets(data), share, "gradients", seed)


def test_each_mesh_is_a_mixture_of_two_people_with_the_pose_of_a_third(data: MeshDataset) -> None:
    made, neutral = made_of(data), neutral_targets(data)
    assert len(made) == 180  # three quarters of 240
    drawn, rows = made.drawn, np.arange(180)
    person = neutral.index[drawn.source]
    assert ((drawn.first != drawn.second) & (drawn.first != person)).all()
    assert (drawn.second != person).all() and (drawn.source >= 10).all()
    assert drawn.amount.min() < -0.2 and drawn.amount.max() > 1.2
    assert drawn.amount.min() >= -0.3 and drawn.amount.max() <= 1.3
    used = [drawn.first, drawn.second, person]
    assert all(len(np.unique(people)) == 10 for people in used)
    mixed = made.neutral_of(rows)
    for row in (0, 17, 179):
        a, b = (data.vertices[int(chosen[row])] for chosen in (drawn.first, drawn.second))
        t, j = drawn.amount[row], int(drawn.source[row])
        np.testing.assert_allclose(mixed[row], (1 - t) * a + t * b, atol=1e-4)
        expected = transport(
            data.vertices[j % 10], data.vertices[j], mixed[row], data.template.mesh.faces
        )
        np.testing.assert_allclose(made.vertices[row], expected, atol=1e-4)


def test_neutral_meshes_that_were_computed_are_mixed_too(data: MeshDataset) -> None:
    """Sequences without neutral scans: every frame can be a source, and no computed mesh is one."""
    columns = {
        "subject": data.labels["subject"],
        "sequence": np.full(60, "smile"),
        "frame": np.arange(60),
    }
    recorded = replace(data, labels=replace(data.labels, columns=columns))
    training = TrainingData.of(recorded)
    assert training.neutral.computed
    config = TrainConfig(transport=0.75)
    here = Workers(0, 1, CPU)
    made = transported(config, recorded, training.with_neutral_meshes().neutral, here)
    assert made is not None and made.method in ("gradients", "offsets")
    assert made.drawn.source.max() < 60 <= made.drawn.first.min()
    batches = Batches(training, 16, 3, CPU, made=made)
    for rows, batch in zip(batches.rows(0), batches.batches(0), strict=True):
        assert batch.neutral is not None
        for place, row in enumerate(rows.tolist()):
            own = row < 60
            neutral = data.vertices[row % 10] if own else made.neutral_of(np.array([row - 60]))[0]
            np.testing.assert_allclose(batch.neutral[place].numpy(), neutral, atol=1e-4)


@pytest.mark.parametrize("people", [2, 3, 5])
def test_few_people_are_enough(people: int) -> None:
    index = np.arange(4 * people) % people
    drawn = Drawn.of(NeutralTargets(index, None), 500, 0)  # type: ignore[arg-type]
    assert (drawn.first != drawn.second).all() and drawn.first.max() == people - 1
    if people > 2:
        person = index[drawn.source]
        assert ((drawn.first != person) & (drawn.second != person)).all()
        pairs = len({*zip(drawn.first.tolist(), drawn.second.tolist(), person, strict=True)})
        assert pairs == people * (people - 1) * (people - 2), "all are drawn"


def test_the_seed_decides_and_the_cache_keeps(
    data: MeshDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = made_of(data), made_of(data, seed=4)
    assert not np.array_equal(first.vertices, other.vertices)
    folder = cache_folder()
    assert folder is not None
    entries = sorted(folder.glob("transported-*"))
    assert len(entries) == 2
    with monkeypatch.context() as patch:
        patch.setattr(module, "Transport", None)  # nothing is made again
        again = made_of(data)
        assert np.array_equal(again.vertices, first.vertices) and again.seconds == first.seconds
    for entry in entries:
        entry.write_bytes(b"damaged")
    assert np.array_equal(made_of(data).vertices, first.vertices)
    part = data.select(np.arange(50))
    assert len(make_transported(part, neutral_targets(part), 0.5, "offsets", 3)) == 50
    assert len(list(folder.glob("transported-*"))) == 3


def test_the_method_is_chosen_once(data: MeshDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    neutral = neutral_targets(data)
    first = chosen_method(data, neutral, 3)
    other: Method = "offsets" if first == "gradients" else "gradients"
    monkeypatch.setattr(module, "better_method", lambda *_: other)
    assert chosen_method(data, neutral, 3) == first  # as a resumed run has it
    assert chosen_method(data, neutral, 4) == other
    folder = cache_folder()
    assert folder is not None
    for entry in folder.glob("transport-method-*"):
        np.savez(entry, method=np.array("magic"))
    assert chosen_method(data, neutral, 3) == other  # an entry that is no method is not read


def test_memory_is_bounded(data: MeshDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 20 * data.vertices.nbytes // 60 + 5)
    made = made_of(data)
    assert len(made) == 20
    batches = Batches(TrainingData.of(data), 8, 0, CPU, made=made)
    rows = np.concatenate(batches.rows(0))
    assert np.sort(np.unique(rows[rows >= 60], return_counts=True)[1])[[0, -1]].tolist() == [2, 3]


def test_an_epoch_has_its_share_of_them_and_no_more_steps(data: MeshDataset) -> None:
    training, made = TrainingData.of(data, ("subject",)), made_of(data)
    plain, batches = Batches(training, 8, 3, CPU), Batches(training, 8, 3, CPU, made=made)
    assert batches.steps == plain.steps
    epochs = [np.concatenate(batches.rows(epoch)) for epoch in range(4)]
    assert [len(rows) for rows in epochs] == [60] * 4
    assert [int((rows >= 60).sum()) for rows in epochs] == [45] * 4
    # After four epochs of a quarter, every mesh was drawn once, and every made one too.
    assert sorted(np.concatenate(epochs).tolist()) == list(range(240))
    again = Batches(training, 8, 3, CPU, made=made).rows(2)
    assert np.array_equal(np.concatenate(again), epochs[2])
    shares = [Batches(training, 8, 3, CPU, 1, 2, made=made).rows(1)]
    assert sum(map(len, shares[0])) == sum(len(rows[1::2]) for rows in batches.rows(1))


def test_batches_hold_meshes_neutral_meshes_and_labels(data: MeshDataset) -> None:
    labels = {"subject": np.arange(60) % 10, "expression": np.arange(60) // 10}
    level = np.linspace(0, 1, 60, dtype=np.float32)
    plain, made = TrainingData.of(data), made_of(data)
    training = TrainingData(plain.vertices, plain.neutral, {**labels, "level": level})
    batches = Batches(training, 16, 3, CPU, made=made)
    for rows, batch in zip(batches.rows(0), batches.batches(0), strict=True):
        assert batch.neutral is not None
        for place, row in enumerate(rows.tolist()):
            own = row < 60
            source = row if own else int(made.drawn.source[row - 60])
            mesh = data.vertices[row] if own else made.vertices[row - 60]
            neutral = data.vertices[row % 10] if own else made.neutral_of(np.array([row - 60]))[0]
            np.testing.assert_array_equal(batch.vertices[place].numpy(), mesh)
            np.testing.assert_array_equal(batch.neutral[place].numpy(), neutral)
            assert batch.labels["subject"][place] == (row % 10 if own else -1)
            assert batch.labels["expression"][place] == source // 10
            assert batch.labels["level"][place] == level[source]


def test_statistics_stay_those_of_the_real_meshes(data: MeshDataset, tmp_path: Path) -> None:
    models = [run(data, tmp_path / str(share), share) for share in (0, 0.5)]
    plain, other = (load(path).state_dict() for path in models)
    assert torch.equal(plain["basis.components"], other["basis.components"])
    assert torch.equal(plain["basis.mean"], other["basis.mean"])
    assert not torch.equal(plain["encoder.0.weight"], other["encoder.0.weight"])


def options(data: MeshDataset, out: Path, share: float, family: str = "pca-mlp") -> list[object]:
    words = ["train", family, "--data", data.path, "--split", "subject", "--out", out]
    settings = [f"train.transport={share}", "train.batch_size=8", "train.keep=last"]
    return [*words, "--epochs", 3] + [word for text in settings for word in ("--set", text)]


def run(data: MeshDataset, out: Path, share: float) -> Path:
    from morphable.cli.main import main

    main([str(word) for word in options(data, out, share)])
    return out


def test_a_run_says_how_many_were_made_and_resumes_exactly(
    data: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from morphable.train.events import TrainingEvent
    from morphable.train.loop import Interrupted
    from morphable.train.run import RecordedRun
    from morphable.train.run import run as run_again

    ended = in_process(capsys, *options(data, tmp_path / "whole", 0.5))
    assert ended.code == 0, ended.err
    assert "50 % of the meshes of an epoch are mixtures of training people" in ended.out
    provenance = load(tmp_path / "whole").provenance
    assert provenance["transported"]["meshes"] == provenance["train_meshes"]

    def stop(event: TrainingEvent) -> None:
        if event.step == 8:
            signal.raise_signal(signal.SIGINT)

    config = RecordedRun.read(tmp_path / "whole").config
    here, split = Workers(0, 1, CPU), data.split("subject")
    with pytest.raises(Interrupted):
        run_again(config, split, tmp_path / "cut", here, listener=stop)
    for entry in (tmp_path / "cache").glob("transported-*"):
        entry.unlink()  # made again, the same
    run_again(config, split, tmp_path / "cut", here, resume=True)
    weights = [load(tmp_path / name).state_dict() for name in ("whole", "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_has_no_neutral_meshes_is_refused_in_one_sentence(
    data: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {name: data.labels[name] for name in data.labels.columns if name != "neutral"}
    plain = replace(data, labels=replace(data.labels, columns=columns))
    with pytest.raises(InputError, match="needs neutral meshes of at least two training people"):
        make_transported(plain, neutral_targets(plain), 0.5, "gradients", 0)
    before = tree(tmp_path)
    for words, message in (
        (options(data, tmp_path / "o", 1.0), "train.transport: expected a share from 0 to below 1"),
        (options(data, tmp_path / "o", 0.5, "pca"), "estimated in closed form"),
    ):
        in_process(capsys, *words).refuses(message)
    assert tree(tmp_path) == before
