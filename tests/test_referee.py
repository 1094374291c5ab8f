"""The referee: what it says of a perfect generator, of a collapsed one, and of models and data that
cannot have a measure; the keys of its file; and that embeddings are trained once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import in_process
from morphable.data.dataset import MeshDataset, SplitDataset
from morphable.data.splits import Split
from morphable.evaluate import judges as judges_module
from morphable.evaluate.conditions import Conditions, sample_codes
from morphable.evaluate.judges import Judges, JudgeSettings, factor_classes
from morphable.evaluate.referee import COLLAPSED, MEASURES, RefereeSettings, collapse, judge
from morphable.models.base import Origin
from morphable.models.families import MODELS
from morphable.models.io import save
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.pca import Pca, PcaConfig

SETTINGS = RefereeSettings(
    samples=60, faces=6, resamplings=4, pairs=100, fitted=3,
    judges=JudgeSettings(pixels=32, steps=40),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(gestures: MeshDataset) -> SplitDataset:
    """The grid of gestures, with whole subjects in each subset: 4, 2 and 2 of them."""
    rows = np.arange(24)
    return SplitDataset(gestures, "subject", Split(rows[:12], rows[12:18], rows[18:]))


@pytest.fixture(scope="module")
def model(data: SplitDataset) -> LinearTwoSpace:
    train = data.train
    labels = {"neutral": np.arange(12) // 3 * 3}
    config = TwoSpaceConfig(3, 2)
    made = LinearTwoSpace.estimate(train.template, train.vertices, labels, config)
    return made.eval().with_origin(Origin("linear-two-space"))


@pytest.fixture(scope="module")
def verdict(model: LinearTwoSpace, data: SplitDataset) -> dict[str, object]:
    return judge(model, data, settings=SETTINGS)


def test_every_measure_has_a_mean_and_a_spread(verdict: dict) -> None:
    assert set(MEASURES) <= verdict.keys()
    nested = ("diversity_mm", "real_diversity_mm", "decoupling")
    flat = [verdict[name] for name in MEASURES if name not in nested]
    flat += [value for name in nested for value in verdict[name].values()]
    for value in flat:
        assert np.isfinite(value["mean"]) and value["std"] >= 0
    assert set(verdict["diversity_mm"]) == {"global", "identity", "expression"}
    assert set(verdict["decoupling"]) == {"identity", "expression"}
    assert len(verdict["decoupling"]["identity"]["values"]) == 3
    assert len(verdict["judges"]["expression"]) == 3
    assert verdict["provenance"]["settings"]["judges"]["count"] == 3
    json.dumps(verdict)


def test_a_linear_model_of_few_meshes_is_like_them(verdict: dict) -> None:
    assert verdict["collapsed"] == ""
    for name in ("global", "identity", "expression"):
        ratio = verdict["diversity_mm"][name]["mean"] / verdict["real_diversity_mm"][name]["mean"]
        assert 0.5 < ratio < 1.6
    fitted, encoded = verdict["generalization_mm"], verdict["encoder_error_mm"]
    assert fitted["mean"] <= 1.01 * encoded["mean"] and fitted["restarts"] == 0


class Constant(LinearTwoSpace):
    """A generator whose samples are all one shape."""

    def decode(self, code: Tensor) -> Tensor:
        return super().decode(0 * code)


def test_a_collapsed_generator_is_called_that(model: LinearTwoSpace, data: SplitDataset) -> None:
    made = Constant(model.template, model.config)
    made.load_state_dict(model.state_dict())
    found = judge(made.eval(), data, settings=SETTINGS)
    assert "The generator has collapsed: its samples differ by 0.00 mm" in found["collapsed"]
    assert found["decoupling"] == {"identity": None, "expression": None}
    assert found["diversity_mm"]["global"]["mean"] < 1e-3
    assert found["one_nn_accuracy"]["mean"] > 0.7


def test_a_part_that_does_nothing_is_named() -> None:
    real = {"global": {"mean": 8.0}, "identity": {"mean": 3.0}, "expression": {"mean": 6.0}}
    own = real | {"identity": {"mean": 0.9 * COLLAPSED * 3}}
    assert "outside the identity" in collapse(own, real)
    assert collapse(real, real) == ""
    assert collapse({"global": None}, real) == ""


def test_a_model_without_parts_has_no_decoupling(data: SplitDataset) -> None:
    model = Pca.estimate(data.whole.template, data.train.vertices, {}, PcaConfig(4)).eval()
    found = judge(model, data, settings=SETTINGS)
    assert found["decoupling"] == {"identity": None, "expression": None}
    assert found["diversity_mm"]["identity"] is None and found["judges"] == {}
    assert found["real_diversity_mm"]["identity"] is not None
    assert found["specificity_mm"]["mean"] > 0


def test_data_without_labels_has_no_decoupling(model: LinearTwoSpace, data: SplitDataset) -> None:
    bare = replace(data.whole, labels=replace(data.whole.labels, columns={}))
    found = judge(model, replace(data, whole=bare), settings=SETTINGS)
    assert found["decoupling"] == {"identity": None, "expression": None}
    assert found["real_diversity_mm"] | {"global": None} == dict.fromkeys(found["diversity_mm"])
    assert found["diversity_mm"]["identity"]["mean"] > 0


def test_a_model_without_a_prior_has_fitted_codes_alone(data: SplitDataset) -> None:
    torch.manual_seed(0)
    row = MODELS["lamm"]
    config = replace(row.fast.model, bottleneck=False, start="pca")
    geometry = row.model.geometry_type.of(data.whole.template, config)
    model = row.model(data.whole.template, config, geometry)
    model.initialize(data.train.vertices)
    found = judge(model.eval(), data, settings=replace(SETTINGS, fitted=1))
    assert found["specificity_mm"] is None and found["one_nn_accuracy"] is None
    assert found["generalization_mm"]["mean"] > 0


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often an embedding was trained."""
    done: list[int] = []
    train = judges_module.train_network

    def counted(*arguments: object) -> object:
        done.append(1)
        return train(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(judges_module, "train_network", counted)
    yield done


def test_embeddings_are_trained_once_per_dataset_and_split(
    data: SplitDataset, trainings: list[int]
) -> None:
    settings = replace(SETTINGS.judges, steps=3, count=2)
    first = Judges.of(data, settings)
    assert len(trainings) == 4
    second = Judges.of(data, settings)
    assert len(trainings) == 4
    images = first.maps.draw(data.test.vertices[:2])
    for name in ("identity", "expression"):
        for a, b in zip(first.embeddings[name], second.embeddings[name], strict=True):
            assert np.array_equal(a.embed(images), b.embed(images))
    rows = np.arange(24)
    Judges.of(replace(data, split=Split(rows[6:18], rows[:6], rows[18:])), settings)
    assert len(trainings) == 8


def test_embeddings_see_training_meshes_only(
    data: SplitDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    train = judges_module.train_network

    def watched(images: np.ndarray, classes: np.ndarray, *rest: object) -> object:
        seen.append(images)
        return train(images, classes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(judges_module, "train_network", watched)
    found = Judges.of(data, replace(SETTINGS.judges, steps=2, count=1, pixels=31))
    own = found.maps.draw(data.train.vertices[:])
    assert len(seen) == 2 and all(np.array_equal(images, own) for images in seen)


def test_a_weak_expression_is_no_class(gestures: MeshDataset) -> None:
    columns = dict(gestures.labels.columns)
    columns["level"] = np.where(np.arange(24) == 1, 0.2, columns["level"])
    weak = replace(gestures, labels=replace(gestures.labels, columns=columns))
    classes = factor_classes(weak, "expression")
    assert classes[1] == -1 and (np.delete(classes, 1) >= 0).all()
    assert (factor_classes(weak, "identity") == gestures.labels.classes("subject").numbers).all()


def test_codes_take_the_conditions_of_training_meshes(model: LinearTwoSpace) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = sample_codes(model, 4, generator)
    assert drawn.shape == (4, 5)
    conditions = Conditions({}, np.zeros(3, bool))
    assert conditions.pinned(model, np.arange(3)) is None


def test_the_command_line(
    model: LinearTwoSpace, data: SplitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("morphable.evaluate.referee.QUICK", SETTINGS)
    save(model, tmp_path / "m")
    out = tmp_path / "v.json"
    done = in_process(capsys, "referee", tmp_path / "m", "--data", data.whole.path,
                      "--split", "frames:test", "--json", out)  # fmt: skip
    assert done.code == 0, done.err
    assert "specificity" in done.out and "diversity of one identity" in done.out
    assert set(MEASURES) <= json.loads(out.read_text()).keys()


def test_the_columns_of_an_evaluation(
    model: LinearTwoSpace, data: SplitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With --referee, evaluation.json holds the same numbers as the referee's own file."""
    monkeypatch.setattr("morphable.evaluate.referee.QUICK", SETTINGS)
    save(model, tmp_path / "m")
    place = ("--data", data.whole.path, "--split", "frames:test")
    files = tmp_path / "e.json", tmp_path / "v.json"
    done = in_process(capsys, "evaluate", tmp_path / "m", *place, "--referee", "--json", files[0])
    assert done.code == 0, done.err
    assert "diversity of one identity" in done.out
    assert in_process(capsys, "referee", tmp_path / "m", *place, "--json", files[1]).code == 0
    found, verdict = (json.loads(file.read_text()) for file in files)
    own, real = found["model"], found["baselines"]["real_meshes"]
    for name in ("specificity_mm", "coverage_mm", "one_nn_accuracy"):
        assert own[name] == verdict[name] and real[name] == verdict[f"real_{name}"]
    assert own["generalization_mm"] == verdict["generalization_mm"]
    assert own["diversity_mm/identity"] == verdict["diversity_mm"]["identity"]
    assert own.get("decoupling/identity") == verdict["decoupling"]["identity"]
    assert found["referee"]["judges"] == verdict["judges"]
    assert "vertex_error_mm" in own


def test_bad_input(
    model: LinearTwoSpace, data: SplitDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(model, tmp_path / "m")
    assert "nothing: no such model" in in_process(capsys, "referee", "nothing").err
    done = in_process(capsys, "referee", tmp_path / "m", "--data", data.whole.path, "--split", "x")
    assert done.code == 2 and "--split x" in done.err
