"""The linear models of identity and expression: exact where the data is of their kind, and clear
where it is not.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.multilinear import Multilinear, MultilinearConfig, complete_grid, tucker
from morphable.train.batches import TrainingData

PEOPLE, FACES = 6, 5


def grid_labels(people: int = PEOPLE, faces: int = FACES) -> dict[str, np.ndarray]:
    subject = np.repeat(np.arange(people), faces)
    return {
        "subject": subject,
        "expression": np.tile(np.arange(faces), people),
        "neutral": subject * faces,
        "level": np.tile((np.arange(faces) > 0).astype(float), people),
    }


def bilinear(template: Template, identity: int, expression: int, seed: int = 0) -> np.ndarray:
    """(PEOPLE * FACES, V, 3) mm meshes that are exactly multilinear; the first of each person is
    the neutral.
    """
    random = np.random.default_rng(seed)
    core = random.standard_normal((1 + identity, 1 + expression, template.n_vertices, 3)) * 3
    core[0, 0] = template.mesh.vertices
    people = np.c_[np.ones(PEOPLE), random.standard_normal((PEOPLE, identity))]
    faces = np.c_[np.ones(FACES), random.standard_normal((FACES, expression))]
    faces[0, 1:] = 0
    return (
        np.einsum("pi,ej,ijvc->pevc", people, faces, core)
        .reshape(-1, template.n_vertices, 3)
        .astype(np.float32)
    )


def error(model: torch.nn.Module, vertices: np.ndarray) -> float:
    shapes = torch.from_numpy(vertices)
    return float((model(shapes) - shapes).norm(dim=-1).max())


@pytest.mark.parametrize("ranks", [(2, 3), (PEOPLE - 1, FACES - 1)])
def test_tucker_is_exact_on_multilinear_data(ball: Template, ranks: tuple[int, int]) -> None:
    grid = bilinear(ball, *ranks).reshape(PEOPLE, FACES, -1).astype(np.float64)
    core, people, faces = tucker(grid, *ranks)
    rebuilt = np.einsum(
        "pi,ej,ijd->ped", np.c_[np.ones(PEOPLE), people], np.c_[np.ones(FACES), faces], core
    )
    np.testing.assert_allclose(rebuilt, grid, atol=1e-6 * abs(grid).max())
    assert np.allclose(faces[0], 0), "the neutral expression is zero"


def test_tucker_of_full_rank_is_exact_on_anything() -> None:
    grid = np.random.default_rng(0).standard_normal((4, 3, 50))
    core, people, faces = tucker(grid, 3, 2)
    rebuilt = np.einsum("pi,ej,ijd->ped", np.c_[np.ones(4), people], np.c_[np.ones(3), faces], core)
    np.testing.assert_allclose(rebuilt, grid, atol=1e-9)


def test_truncation_costs_more_the_shorter_the_codes(ball: Template) -> None:
    grid = bilinear(ball, 5, 4).reshape(PEOPLE, FACES, -1).astype(np.float64)
    errors = []
    for size in (1, 2, 3, 4):
        core, people, faces = tucker(grid, size, size)
        rebuilt = np.einsum(
            "pi,ej,ijd->ped", np.c_[np.ones(PEOPLE), people], np.c_[np.ones(FACES), faces], core
        )
        errors.append(np.square(rebuilt - grid).sum())
    assert errors == sorted(errors, reverse=True)


@torch.no_grad()
def test_multilinear_finds_both_codes(ball: Template) -> None:
    vertices, labels = bilinear(ball, 2, 2), grid_labels()
    model = Multilinear.estimate(ball, vertices, labels, MultilinearConfig(2, 2))
    assert error(model, vertices) < 0.1
    code = model.encode(torch.from_numpy(vertices)).reshape(PEOPLE, FACES, 4)
    torch.testing.assert_close(
        code[:, :, :2], code[:, :1, :2].expand(-1, FACES, -1), rtol=0, atol=0.02
    )
    torch.testing.assert_close(
        code[:, :, 2:], code[:1, :, 2:].expand(PEOPLE, -1, -1), rtol=0, atol=0.02
    )
    swapped = model.decode(torch.cat([code[0, 1, :2], code[3, 4, 2:]])[None])[0]
    truth = torch.from_numpy(vertices.reshape(PEOPLE, FACES, -1, 3)[0, 4])
    assert float((swapped - truth).norm(dim=-1).max()) < 0.2
    neutral = model.neutral(code[:, 2])
    assert float((neutral - torch.from_numpy(vertices[::FACES])).norm(dim=-1).max()) < 0.2


@torch.no_grad()
def test_two_spaces_are_exact_on_additive_data(ball: Template) -> None:
    random = np.random.default_rng(1)
    people, faces = random.standard_normal((PEOPLE, 2)), random.standard_normal((FACES, 3))
    faces[0] = 0
    spaces = random.standard_normal((5, ball.n_vertices, 3)) * 4
    codes = np.c_[np.repeat(people, FACES, 0), np.tile(faces, (PEOPLE, 1))]
    vertices = (ball.mesh.vertices + np.einsum("nk,kvc->nvc", codes, spaces)).astype(np.float32)
    model = LinearTwoSpace.estimate(ball, vertices, grid_labels(), TwoSpaceConfig(2, 3))
    assert error(model, vertices) < 1e-2
    neutral = model.neutral(model.encode(torch.from_numpy(vertices)))
    expected = torch.from_numpy(vertices[grid_labels()["neutral"]])
    assert float((neutral - expected).norm(dim=-1).max()) < 1e-2


def test_the_grid_takes_each_expression_at_its_highest_level() -> None:
    labels = {
        "subject": np.array([0, 0, 0, 0, 1, 1, 1, 2, 2]),
        "expression": np.array([2, 0, 0, 1, 2, 0, 1, 2, -1]),
        "neutral": np.array([0, 0, 0, 0, 4, 4, 4, 7, 7]),
        "level": np.array([0, 0.4, 0.9, 1, 0, 1, 0.5, 0, 1]),
    }
    assert complete_grid(9, labels).tolist() == [[0, 2, 3], [4, 5, 6]]


def test_a_subject_with_few_expressions_does_not_empty_the_grid() -> None:
    labels = grid_labels()
    keep = np.flatnonzero((labels["subject"] > 0) | (labels["expression"] < 2))
    position = np.full(PEOPLE * FACES, -1)
    position[keep] = np.arange(len(keep))
    kept = {name: column[keep] for name, column in labels.items()} | {
        "neutral": position[labels["neutral"][keep]]
    }
    assert complete_grid(len(keep), kept).shape == (PEOPLE - 1, FACES)


def test_what_is_missing_is_said(ball: Template) -> None:
    vertices = bilinear(ball, 2, 2)
    with pytest.raises(InputError, match="complete grid.*got 0 subjects"):  # noqa: RUF043
        Multilinear.estimate(ball, vertices, {}, MultilinearConfig())
    with pytest.raises(InputError, match="column neutral"):
        LinearTwoSpace.estimate(
            ball, vertices, {"subject": grid_labels()["subject"]}, TwoSpaceConfig()
        )


@pytest.mark.filterwarnings("ignore:expression 20.* carry only")
@torch.no_grad()
def test_no_size_is_beyond_what_the_data_carries(gestures: MeshDataset) -> None:
    """Eight subjects with two gestures, codes of 20 + 20."""
    data = TrainingData.of(gestures, ("subject", "expression", "level"))
    labels = dict(data.labels) | {"neutral": data.neutral.index}
    shapes = np.asarray(data.vertices[:])
    with pytest.warns(UserWarning, match="identity 20: the grid's 8 subjects .* carry only 7"):
        grid = Multilinear.estimate(gestures.template, shapes, labels, MultilinearConfig(20, 20))
    assert grid.config == MultilinearConfig(7, 2)
    with pytest.warns(UserWarning, match="identity 20: 8 subjects with .* carry only 7"):
        spaces = LinearTwoSpace.estimate(gestures.template, shapes, labels, TwoSpaceConfig(20, 20))
    assert (spaces.config.identity, spaces.parts.size) == (7, 7 + spaces.config.expression)
    for made in (grid, spaces):
        assert torch.isfinite(made.encode(torch.from_numpy(shapes))).all()
        assert error(made, shapes) < 3
