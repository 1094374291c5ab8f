"""A conditional model is measured with the conditions that the labels state; searched ones are
counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import all_of, dataset, html_of, in_process, measured, report_context
from morphable.data.dataset import MeshDataset
from morphable.evaluate.conditions import Conditions
from morphable.evaluate.directions import principal_directions
from morphable.evaluate.evaluation import MODEL, PCA, Evaluation
from morphable.evaluate.measures import compactness, specificity
from morphable.evaluate.record import Measured
from morphable.mesh.template import Template
from morphable.models.families import create
from morphable.models.ib_vae import IbVae
from morphable.report.points import point_clouds
from morphable.train.batches import TrainingData
from morphable.train.run import fit_prior

SMALL = {"encoder": "points", "samples": (32, 16), "neighbors": 8}


@pytest.fixture(scope="module")
def bent(ball: Template, tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    """Meshes of three named expressions."""
    return dataset(ball, tmp_path_factory.mktemp("bent") / "data")


@pytest.fixture(scope="module")
def model(ball: Template, bent: MeshDataset) -> IbVae:
    """A conditional model with a full decoder that moves by several mm with the condition."""
    return conditional(ball, bent, bent.labels.classes("expression").names)


def conditional(template: Template, data: MeshDataset, names: list[str]) -> IbVae:
    torch.manual_seed(0)
    made = create("cvae", template, expressions=tuple(names), start="random", latent=4, **SMALL)
    assert isinstance(made, IbVae)
    made.initialize(data.vertices[:])
    torch.nn.init.normal_(made.full_decoder[2].weight, std=2.0)  # type: ignore[arg-type]
    fit_prior(made.eval(), TrainingData.of(data.split().train, made.labels_used))
    return made


def relabeled(data: MeshDataset, expressions: Sequence[str]) -> MeshDataset:
    columns = {**data.labels.columns, "expression": np.array(list(expressions))}
    labels = type(data.labels)(columns, data.labels.count)
    return dataclasses.replace(data, labels=labels)


def stated(model: IbVae, data: MeshDataset) -> torch.Tensor:
    """The conditions of a dataset's meshes, by another route than the model's."""
    names = model.names_of("condition")
    texts = data.labels["expression"].tolist()
    return torch.tensor([[float(text == name) for name in names] for text in texts])


def test_meshes_get_the_conditions_of_their_labels(model: IbVae, bent: MeshDataset) -> None:
    evaluation = Evaluation.of(model, all_of(bent))
    where = model.parts["condition"]
    assert evaluation.known.all()
    assert torch.equal(evaluation.codes[:, where], stated(model, evaluation.measured))
    assert evaluation.latent == evaluation.pca.latent == model.latent
    searched = evaluation.searched_errors
    assert searched[MODEL].mean() < evaluation.errors(MODEL).mean()
    assert searched[PCA].mean() < evaluation.errors(PCA).mean()


def test_searched_numbers_count(model: IbVae, bent: MeshDataset) -> None:
    """Without labels, or with names that the model does not know, PCA has two numbers more: the
    level, and which expression.
    """
    for texts in ([""] * len(bent), ["frown"] * len(bent)):
        evaluation = Evaluation.of(model, all_of(relabeled(bent, texts)))
        assert not evaluation.known.any() and not evaluation.searched_errors
        assert evaluation.latent == evaluation.pca.latent == model.latent + 2
    assert conditional(model.template, bent, []).searched_size == 1


def test_meshes_without_a_label_are_searched(model: IbVae, bent: MeshDataset) -> None:
    texts = bent.labels["expression"].tolist()
    texts[::2] = [""] * len(texts[::2])
    data = relabeled(bent, texts)
    whole, half = (Evaluation.of(model, all_of(each)) for each in (bent, data))
    assert 0 < half.known.sum() < len(half.known)
    torch.testing.assert_close(whole.codes[half.known], half.codes[half.known])
    measured = half.measured.vertices[:]
    alone = model.encode(torch.from_numpy(measured)).detach()
    torch.testing.assert_close(half.codes[~half.known], alone[~half.known], atol=1e-4, rtol=1e-4)
    assert half.pca.latent == model.latent + 2


def test_classes_are_matched_by_name(model: IbVae, bent: MeshDataset) -> None:
    """A dataset with fewer expressions numbers them otherwise."""
    texts = bent.labels["expression"]
    few = bent.select(np.flatnonzero(texts != "neutral"))
    conditions = Conditions.of(model, few)
    assert torch.equal(conditions.values["condition"], stated(model, few))


def test_samples_have_the_conditions_of_training_meshes(model: IbVae, bent: MeshDataset) -> None:
    """Compactness and specificity are no longer those of condition zero."""
    evaluation = Evaluation.of(model, bent.split())
    conditions = evaluation.training_conditions
    assert conditions is not None
    assert torch.equal(conditions, stated(model, bent.split().train))

    # A far training condition must show in the samples.
    train = bent.split().train.vertices
    plain = specificity(model, train)
    assert specificity(model, train, conditions=50 * conditions) > 2 * plain

    shares = compactness(evaluation)
    assert len(shares) == len(principal_directions(model)) + conditions.shape[1]


def test_the_record_says_how_conditions_were_found(
    model: IbVae, bent: MeshDataset, tmp_path: Path
) -> None:
    result = measured(model, bent, "frames", "train")
    provenance, own = result.measures["provenance"], result.measures["model"]
    assert provenance["labelled_meshes"] == provenance["meshes"]
    assert (provenance["searched_meshes"], provenance["searched_numbers"]) == (0, 2)
    assert own["searched_vertex_error_mm"]["mean"] < own["vertex_error_mm"]["mean"]
    assert "searched_vertex_error_mm" in result.measures["baselines"]["pca"]
    result.write(tmp_path)
    again = Measured.read(tmp_path, model, bent)
    assert again is not None and again.evaluation.known.all()


def test_report_clouds_say_where_their_conditions_come_from(
    model: IbVae, bent: MeshDataset
) -> None:
    page = html_of(point_clouds(report_context(model, bent.split())))
    assert "labels state" in page
    unlabeled = relabeled(bent, [""] * len(bent))
    page = html_of(point_clouds(report_context(model, unlabeled.split())))
    assert "closest to the points" in page


def test_the_command_shows_both_forms(
    bent: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("--epochs", 1, "--set", "model.samples=32,16", "--set", "model.neighbors=8")
    assert in_process(capsys, "train", "cvae", "--data", bent.path, "--out", out, *words).code == 0
    ended = in_process(capsys, "evaluate", out)
    assert ended.code == 0, ended.err
    for text in (
        "cvae, 8, conditions from labels",
        "cvae, 8 + 2, conditions searched",
        "PCA, 8 + 2",
    ):
        assert text in ended.out
