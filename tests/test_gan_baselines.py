"""The baselines of the adversarial model that are no GANs: `mae` and `deepflame`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.deepflame import DeepFlame, DeepFlameConfig
from morphable.models.linear_two_space import damped_inverse
from morphable.models.mae import MaeConfig, MultilinearAutoencoder, same_class
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.training import Batch, Progress
from morphable.train.batches import TrainingData

pytestmark = pytest.mark.filterwarnings("ignore:the template has 320 vertices")
PROGRESS = Progress(0, 1, 0, 1, torch.Generator())


def two_spaces(template: Template) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(48, V, 3) mm meshes of eight people, the sum of two orthogonal linear spaces of two
    dimensions each; the rows of their neutral meshes; and their expressions, of which 0 is neutral.
    """
    random = np.random.default_rng(0)
    shape = (4, template.n_vertices * 3)
    axes = np.linalg.qr(random.standard_normal(shape).T)[0].T * np.sqrt(template.n_vertices) * 3
    people, faces = random.standard_normal((8, 2)), random.standard_normal((6, 2))
    faces[0] = 0
    moves = (people @ axes[:2])[:, None] + (faces @ axes[2:])[None]
    meshes = template.mesh.vertices + moves.reshape(48, -1, 3)
    return meshes.astype(np.float32), np.repeat(np.arange(8) * 6, 6), np.tile(np.arange(6), 8)


def mae(template: Template, meshes: np.ndarray, neutral: np.ndarray) -> MultilinearAutoencoder:
    torch.manual_seed(0)
    made = MultilinearAutoencoder(template, MaeConfig(2, 2, rank=6, width=8))
    made.initialize(meshes, {"neutral": neutral})
    return made


def deepflame(template: Template, meshes: np.ndarray, neutral: np.ndarray) -> DeepFlame:
    torch.manual_seed(0)
    config = DeepFlameConfig(identity=2, expression=2)
    made = DeepFlame(template, config, MeshGeometry.of(template, config))
    made.initialize(meshes, {"neutral": neutral})
    return made


def test_damped_codes_of_a_case_by_hand() -> None:
    """A direction a thousandth as long is below the noise: its code is 1 / 100 instead of 1."""
    directions = np.array([[10.0, 0.0, 0.0], [0.0, 0.01, 0.0]])
    code = directions.sum(0) @ damped_inverse(directions)
    np.testing.assert_allclose(code, [100 / 100.01, 0.0001 / 0.0101], rtol=1e-9)


def test_mae_starts_as_the_two_linear_spaces(ball: Template) -> None:
    meshes, neutral, _ = two_spaces(ball)
    model, shapes = mae(ball, meshes, neutral), torch.from_numpy(meshes)
    with torch.no_grad():
        code = model.encode(shapes)
        assert (model.decode(code) - shapes).norm(dim=-1).mean() < 0.02
        assert (model.neutral(code) - shapes[neutral]).norm(dim=-1).mean() < 0.02
    # Meshes of one person share the identity code.
    torch.testing.assert_close(code[:, :2], code[neutral][:, :2], atol=2e-3, rtol=0)


def test_mae_decodes_the_tensor_entry_by_entry(ball: Template) -> None:
    meshes, neutral, _ = two_spaces(ball)
    model = mae(ball, meshes, neutral)
    torch.nn.init.normal_(model.core, generator=torch.Generator().manual_seed(1))
    code = torch.tensor([[0.5, -1.0, 2.0, 3.0]])
    identity, expression = [1, 0.5, -1.0], [1, 2.0, 3.0]
    core = model.core.detach().numpy()
    expected = sum(core[i, j] * identity[i] * expression[j] for i in range(3) for j in range(3))
    with torch.no_grad():
        found = model.coefficients(code)[0] / model.unit
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mae_pays_for_codes_that_differ_within_a_label(ball: Template) -> None:
    """Every term is zero if meshes with a label share a code. Equal labels on different
    expressions cost.
    """
    meshes, neutral, faces = two_spaces(ball)
    model, shapes = mae(ball, meshes, neutral), torch.from_numpy(meshes)

    def terms(numbers: np.ndarray, level: float = 1.0) -> dict[str, torch.Tensor]:
        labels = {
            "expression": torch.from_numpy(numbers),
            "level": torch.full((len(meshes),), level),
        }
        return model.loss(Batch(shapes, shapes[neutral], labels), PROGRESS)

    right = terms(faces)
    assert set(right) == {"mesh", "neutral", "same_subject", "same_expression"}
    assert max(float(term.detach()) for term in right.values()) < 1e-3
    assert terms(np.zeros_like(faces))["same_expression"] > 1
    assert "same_expression" not in terms(np.full_like(faces, -1))
    # Weak expressions with the same name may differ.
    assert "same_expression" not in terms(faces, level=0.5)


def test_partners_share_a_class() -> None:
    numbers = torch.tensor([4, 7, 4, 4, 9, -1])
    rows, others = same_class(numbers, numbers >= 0)
    assert rows.tolist() == [0, 2, 3] and others.tolist() == [2, 3, 0]


def test_deepflame_finds_the_person_under_the_expression(ball: Template) -> None:
    meshes, neutral, _ = two_spaces(ball)
    model, shapes = deepflame(ball, meshes, neutral), torch.from_numpy(meshes)
    with torch.no_grad():
        found = model.neutral(model.encode(shapes))
    assert (found - shapes[neutral]).norm(dim=-1).mean() < 0.02


def test_the_true_neutral_of_deepflame_is_a_privilege(ball: Template) -> None:
    """With it, a person that the identity space lacks costs nothing."""
    meshes, neutral, _ = two_spaces(ball)
    model = deepflame(ball, meshes, neutral)
    shapes = torch.from_numpy(meshes)
    strange = torch.randn(1, *shapes.shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        moved, beside = shapes + strange, shapes[neutral] + strange
        before = (model.reconstruct_beside(shapes, shapes[neutral]) - shapes).norm(dim=-1)
        after = (model.reconstruct_beside(moved, beside) - moved).norm(dim=-1)
        torch.testing.assert_close(before, after, atol=1e-3, rtol=0)
        assert (model(moved) - moved).norm(dim=-1).mean() > before.mean() + 0.2


@pytest.mark.parametrize("make", [mae, deepflame])
def test_no_neutral_meshes_are_refused(ball: Template, make: object) -> None:
    meshes, neutral, _ = two_spaces(ball)
    assert callable(make)
    with pytest.raises(InputError, match="needs the neutral meshes of at least two subjects"):
        make(ball, meshes, np.full_like(neutral, -1))


def test_training_starts_with_computed_neutral_meshes(gestures: MeshDataset) -> None:
    """`at_start` has the row of each neutral mesh, also if the meshes of the set name it."""
    data = TrainingData.of(gestures, ("subject", "neutral", "level"))
    assert set(data.labels) == {"subject", "level"}
    shapes, labels = data.at_start(with_neutral=True)
    assert len(shapes) == len(labels["neutral"]) and (labels["neutral"] >= 0).all()
