"""Disentanglement measures: golden check 12, perfect and leaking models made by hand, true swaps
against the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import all_of
from morphable.data.dataset import MeshDataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.makers import make_source
from morphable.data.reference_swaps import reference_swaps
from morphable.evaluate.disentangle import (
    disentanglement,
    disentanglement_error,
    disentanglement_error_rms,
    leakage,
    performances,
    probe,
    swap_errors,
)
from morphable.evaluate.evaluation import Evaluation
from morphable.models.base import NO_ORIGIN, Given, MorphableModel
from morphable.models.geometry import NO_GEOMETRY
from morphable.models.parts import Parts


def test_equal_predictions_have_no_error() -> None:
    shapes = np.random.default_rng(0).standard_normal((1, 50, 3)).repeat(4, 0)
    assert disentanglement_error(shapes) == pytest.approx(0, abs=1e-12)
    assert disentanglement_error_rms(shapes) == pytest.approx(0, abs=1e-6)


def test_predictions_equally_far_from_their_mean() -> None:
    """Golden check 12: zero under Eq. 14, but the distance r under the root mean square, so that
    they differ.
    """
    random = np.random.default_rng(1)
    mean = 100 * random.standard_normal((300, 3))
    direction = random.standard_normal((300, 3))
    offset = 0.5 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    shapes = np.stack([mean + offset, mean - offset])
    assert disentanglement_error(shapes) == pytest.approx(0, abs=1e-9)
    assert disentanglement_error_rms(shapes) == pytest.approx(0.5, rel=0.02)


def test_eq_14_by_hand() -> None:
    """Vertex 0 is 1 mm from its mean in both meshes, vertex 1 is 3 mm: the deviation of (1, 3, 1,
    3) is 1.
    """
    shapes = np.array([[[1.0, 0, 0], [0, 3, 0]], [[-1, 0, 0], [0, -3, 0]]])
    assert disentanglement_error(shapes) == pytest.approx(1)


def test_a_moved_head_is_no_difference_of_identity() -> None:
    shape = np.random.default_rng(2).standard_normal((80, 3)) * 50
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert disentanglement_error_rms(np.stack([shape, shape @ turn.T + 7])) == pytest.approx(
        0, abs=1e-5
    )


def test_probes_tell_what_is_there_from_what_is_not() -> None:
    random = np.random.default_rng(3)
    classes, alone = np.repeat(np.arange(4), 40), np.arange(160)
    noise = random.standard_normal((160, 3))
    blind = probe(noise, classes, alone)
    assert blind["_chance"] == pytest.approx(0.25)
    assert max(blind[""], blind["_nonlinear"]) < 0.4
    linear = probe(noise * 0.1 + np.eye(4)[classes][:, :3], classes, alone)
    assert min(linear[""], linear["_nonlinear"]) > 0.95


def test_a_nonlinear_probe_sees_what_a_linear_one_cannot() -> None:
    random = np.random.default_rng(4)
    classes = np.repeat([0, 1], 100)
    angle, radius = (
        random.uniform(0, 2 * np.pi, 200),
        1 + 2 * classes + 0.1 * random.standard_normal(200),
    )
    found = probe(np.c_[radius * np.cos(angle), radius * np.sin(angle)], classes, np.arange(200))
    assert found[""] < 0.7
    assert found["_nonlinear"] > 0.95


def test_probes_need_two_classes_of_some_size_in_two_groups() -> None:
    alone = np.arange(8)
    assert probe(np.zeros((6, 2)), np.array([0, 0, 0, 0, 0, 1]), alone[:6]) == {}
    assert probe(np.zeros((6, 2)), np.full(6, -1), alone[:6]) == {}
    classes = np.repeat([0, 1], 4)
    assert probe(np.zeros((8, 2)), classes, classes) == {}, "each class has one group"
    assert probe(np.zeros((8, 2)), classes, alone % 2).keys() == {"", "_nonlinear", "_chance"}


def recording(people: int = 11, sequences: int = 12, frames: int = 20) -> LabelTable:
    """Frames of sequences, the same of each person, as COMA has them."""
    person, sequence, frame = (
        grid.ravel() for grid in np.mgrid[:people, :sequences, :frames]
    )  # fmt: skip
    names = np.char.add("e", sequence.astype(str))
    columns = {"subject": np.char.add("p", person.astype(str)), "expression": names}
    return LabelTable({**columns, "sequence": names, "frame": frame}, len(person))


@pytest.fixture
def leaks(gestures: MeshDataset) -> Any:
    """Leakage of codes (N, 3 + 3), identity first, whose meshes have these labels."""
    model = Lookup(gestures)
    model.parts = Parts.of(identity=3, expression=3)

    def leaks(codes: np.ndarray, labels: LabelTable) -> dict[str, float]:
        return leakage(model, torch.from_numpy(codes), replace(gestures, labels=labels))

    return leaks


@pytest.mark.parametrize("dropped", ["", "sequence", "expression"])
def test_codes_without_identity_or_expression_do_not_leak(leaks: Any, dropped: str) -> None:
    """Each take has a code of its own, which says nothing of any other take of the person or of the
    expression. Neighboring frames have nearly one code: a probe that sees some of them knows the
    others (0.8 and more, with frames held out singly).
    """
    labels = recording()
    takes = labels.classes("subject").numbers * 12 + labels.classes("expression").numbers
    random = np.random.default_rng(0)
    codes = random.standard_normal((132, 6))[takes] + 0.05 * random.standard_normal((2640, 6))
    kept = {name: c for name, c in labels.columns.items() if name != dropped}
    found = leaks(codes, LabelTable(kept, 2640))
    assert found["identity_leakage_chance"] == pytest.approx(1 / 11, abs=0.02)
    for suffix in ("", "_nonlinear"):
        assert found["identity_leakage" + suffix] < 0.2
        if dropped != "expression":
            assert found["expression_leakage" + suffix] < 0.2


def test_identity_and_expression_in_the_wrong_part_leak(leaks: Any) -> None:
    labels = recording()
    random = np.random.default_rng(0)
    of_person, of_expression = random.standard_normal((2, 12, 3))
    wrong = [of_expression[labels.classes("expression").numbers],
             of_person[labels.classes("subject").numbers]]  # fmt: skip
    codes = np.concatenate(wrong, 1) + 0.1 * random.standard_normal((2640, 6))
    found = leaks(codes, labels)
    for name in ("identity_leakage_nonlinear", "expression_leakage_nonlinear"):
        assert found[name] > 0.9, name


def test_sequences_through_several_expressions_are_held_out_whole() -> None:
    texts = {"expression": ["calm", "smile", "calm", "smile", ""], "sequence": [*"aabb", ""]}
    table = LabelTable({name: np.array(column) for name, column in texts.items()}, 5)
    held = performances(table)
    assert held[0] == held[1] != held[2] == held[3]
    assert held[4] not in held[:4]
    expression = performances(LabelTable({"expression": table["expression"]}, 5))
    assert expression[0] == expression[2] != expression[1] == expression[3]


@dataclass(frozen=True)
class NoConfig:
    pass


class Lookup(MorphableModel):
    """A model that knows the grid of gestures by heart: identity is the subject's number,
    expression the gesture's.

    With `leak`, the gesture moves the identity too.
    """

    def __init__(self, dataset: MeshDataset, leak: float = 0.0) -> None:
        parts = Parts.of(identity=1, expression=1)
        super().__init__(dataset.template, parts, NoConfig(), NO_GEOMETRY, NO_ORIGIN)
        self.shapes = torch.from_numpy(dataset.vertices[:])
        self.leak = leak

    def encode(self, vertices: torch.Tensor, given: Given | None = None) -> torch.Tensor:
        row = torch.cdist(vertices.flatten(1), self.shapes.flatten(1)).argmin(1)
        return torch.stack([row // 3 + self.leak * (row % 3), row % 3], 1).float()

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        where = (3 * code[:, 0].round() + code[:, 1]).long()
        return self.shapes[where.clamp(0, 23)]


def measures_of(model: MorphableModel, dataset: MeshDataset) -> dict[str, Any]:
    return disentanglement(Evaluation.of(model, all_of(dataset)))


def test_a_model_that_knows_the_truth(gestures: MeshDataset) -> None:
    found = measures_of(Lookup(gestures), gestures)["model"]
    for name in (
        "disentanglement_error_mm",
        "disentanglement_error_rms_mm",
        "neutral_error_mm",
        "swap_error_mm",
        "swap_cost_mm",
    ):
        assert found[name]["mean"] == pytest.approx(0, abs=1e-4), name
    assert found["expression_kept"] == pytest.approx(1)
    assert "identity_leakage" not in found, "three meshes of a subject are too few for four folds"
    assert found["expression_leakage"] < 0.6


def test_a_leaking_model_is_seen(gestures: MeshDataset) -> None:
    found = measures_of(Lookup(gestures, leak=0.5), gestures)["model"]
    for name in ("disentanglement_error_mm", "neutral_error_mm", "swap_error_mm"):
        assert found[name]["mean"] > 0.5, name


def test_a_model_of_people_without_expressions_is_seen(gestures: MeshDataset) -> None:
    """It has no error of disentanglement, and keeps nothing of the expressions; half a gesture is
    three quarters.
    """

    class Stiff(Lookup):
        share = 0.0

        def decode(self, code: torch.Tensor) -> torch.Tensor:
            neutral = super().decode(code * torch.tensor([1.0, 0.0]))
            return neutral + self.share * (super().decode(code) - neutral)

    model = Stiff(gestures)
    found = measures_of(model, gestures)["model"]
    assert found["disentanglement_error_mm"]["mean"] == pytest.approx(0, abs=1e-4)
    assert found["expression_kept"] == pytest.approx(0, abs=1e-6)
    model.share = 0.5
    assert measures_of(model, gestures)["model"]["expression_kept"] == pytest.approx(0.75, abs=1e-5)


def test_swaps_are_compared_with_the_two_meshes_that_they_are_of(gestures: MeshDataset) -> None:
    """A model that moves every shape by 1 mm, and a swap by the leak as well."""

    class Shifted(Lookup):
        def decode(self, code: torch.Tensor) -> torch.Tensor:
            return super().decode(code) + torch.tensor([1.0, 0.0, 0.0])

    found = measures_of(Shifted(gestures), gestures)["model"]
    assert found["swap_error_mm"]["mean"] == pytest.approx(1, abs=1e-3)
    assert found["swap_cost_mm"]["mean"] == pytest.approx(0, abs=1e-3)
    model = Lookup(gestures, leak=0.5)
    codes = model.encode(torch.from_numpy(gestures.vertices[:]))
    errors, first, second = swap_errors(model, codes, gestures, gestures)
    own = np.linalg.norm(model.decode(codes).numpy() - gestures.vertices[:], axis=-1).mean(1)
    by_hand = errors.mean() - np.concatenate([own[first], own[second]]).mean()
    cost = measures_of(model, gestures)["model"]["swap_cost_mm"]
    assert cost["mean"] == pytest.approx(by_hand, abs=1e-4) and cost["ci95"] is not None


def test_models_without_identity_are_not_measured(gestures: MeshDataset) -> None:
    model = Lookup(gestures)
    model.parts = Parts.of(shape=2)
    assert measures_of(model, gestures) == {}


def test_true_swaps_of_hands(hands: MeshDataset) -> None:
    rows = np.array([3, 17, 120])
    np.testing.assert_allclose(reference_swaps(hands, rows, rows), hands.vertices[rows], atol=1e-4)
    swapped = reference_swaps(hands, rows, rows[[1, 2, 0]])
    # The same pose on another hand: joints as far bent, other sizes.
    assert np.linalg.norm(swapped - hands.vertices[rows], axis=-1).mean() > 1
    assert np.linalg.norm(swapped - hands.vertices[rows[[1, 2, 0]]], axis=-1).mean() > 0.5


def test_true_swaps_of_bodies(tmp_path: Path) -> None:
    """A set that was made records its maker, which poses any person in any pose."""
    bodies = write_dataset(make_source("bodies", count=40, seed=1), tmp_path / "bodies")
    rows = np.array([3, 17, 33])
    assert bodies.info["maker"] == {"name": "bodies", "options": {"count": 40, "seed": 1}}
    np.testing.assert_allclose(
        reference_swaps(bodies, rows, rows), bodies.vertices[rows], atol=1e-2
    )
    swapped = reference_swaps(bodies, rows, rows[[1, 2, 0]])
    assert np.linalg.norm(swapped - bodies.vertices[rows], axis=-1).mean() > 1


def test_true_swaps_that_are_looked_up(gestures: MeshDataset) -> None:
    """Where the source cannot make meshes, a mesh of that subject with the same weights answers,
    else nothing.
    """
    weights = np.tile([0.0, 1.0, 0.5], 8)
    columns = {"subject": gestures.labels["subject"], "w/jawOpen": weights}
    other = replace(gestures, labels=LabelTable(columns, 24), info={**gestures.info, "maker": {}})
    found = reference_swaps(other, np.array([0, 4]), np.array([23, 1]))
    np.testing.assert_array_equal(found, gestures.vertices[[2, 4]])
    weights[5] = 0.7
    assert np.isnan(reference_swaps(other, np.array([0]), np.array([5]))).all()


def test_swaps_are_of_different_subjects(gestures: MeshDataset) -> None:
    model = Lookup(gestures)
    codes = model.encode(torch.from_numpy(gestures.vertices[:]))
    errors, first, second = swap_errors(model, codes, gestures, gestures)
    subjects = gestures.labels.groups()
    assert len(errors) == len(first) == len(second) > 100
    assert (subjects[first] != subjects[second]).all()
    one = gestures.select(np.arange(3))
    assert len(swap_errors(model, codes[:3], gestures, one)[0]) == 0
