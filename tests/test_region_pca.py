"""Region-PCA: PCA of each region alone, handles that move their region only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import all_of
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.evaluate.edit_errors import editing, pair_errors
from morphable.evaluate.evaluation import Evaluation
from morphable.models.batched import BATCH
from morphable.models.families import create
from morphable.models.lamm import LammConfig
from morphable.models.pca import Pca, PcaConfig
from morphable.models.region_pca import RegionPca, RegionPcaConfig, shared_out


@pytest.fixture(scope="module")
def model(hands: MeshDataset) -> RegionPca:
    return RegionPca.estimate(hands.template, hands.vertices, {}, RegionPcaConfig(20)).eval()


@pytest.fixture(scope="module")
def shapes(hands: MeshDataset) -> torch.Tensor:
    return torch.from_numpy(hands.vertices[np.arange(0, 80, 10)])


@pytest.mark.parametrize(
    ("latent", "expected"), [(64, [6] * 9 + [5] * 2), (11, [1] * 11), (3, [1] * 3 + [0] * 8)]
)
def test_the_first_regions_take_the_rest(latent: int, expected: list[int]) -> None:
    assert shared_out(latent, 11) == expected
    assert sum(expected) == latent


def test_each_region_is_the_pca_of_its_own_vertices(
    model: RegionPca, hands: MeshDataset, shapes: torch.Tensor
) -> None:
    """By another route: singular values of the region's centered coordinates."""
    x = hands.vertices[:].astype(np.float64)
    result = model(shapes).numpy()
    for number, name in enumerate(model.regions.names):
        members = np.flatnonzero(model.regions.labels == number)
        part = x[:, members].reshape(len(x), -1)
        mean = part.mean(0)
        axes = np.linalg.svd(part - mean, full_matrices=False)[2][: shared_out(20, 6)[number]]
        assert len(axes) == model.parts[name].stop - model.parts[name].start
        own = shapes.numpy()[:, members].reshape(len(shapes), -1)
        expected = mean + (own - mean) @ axes.T @ axes
        np.testing.assert_allclose(result[:, members].reshape(len(shapes), -1), expected, atol=2e-3)


def test_a_part_moves_only_its_region(model: RegionPca) -> None:
    for number, name in enumerate(model.regions.names):
        code = torch.zeros(1, model.parts.size)
        code[:, model.parts[name]] = 1.0
        moved = (model.decode(code) != model.decode(torch.zeros_like(code)))[0].any(-1).numpy()
        assert not moved[model.regions.labels != number].any()
        assert moved[model.regions.labels == number].mean() > 0.9


def test_it_never_beats_pca_of_the_same_length(model: RegionPca, hands: MeshDataset) -> None:
    pca = Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(20))
    x = torch.from_numpy(hands.vertices[:])
    own, other = ((m(x) - x).square().sum() for m in (model, pca))
    assert own > other


def test_handles_at_rest_change_nothing_and_moved_ones_follow(
    model: RegionPca, shapes: torch.Tensor
) -> None:
    count = sum(len(c) for c in model.regions.controls)
    assert torch.equal(model.edit(shapes, torch.zeros(len(shapes), 3 * count)), model(shapes))
    handles = torch.from_numpy(np.concatenate(model.regions.controls))
    goal = model(shapes.roll(1, 0))
    way = (goal - model(shapes))[:, handles]
    error = (model.edit(shapes, way.flatten(1)) - goal)[:, handles].norm(dim=-1).mean()
    assert error < 0.05 * way.norm(dim=-1).mean(), (
        "a goal within the model is reached, but for the ridge"
    )


def test_more_regions_than_components_leave_the_rest_at_the_mean(
    hands: MeshDataset, shapes: torch.Tensor
) -> None:
    model = RegionPca.estimate(hands.template, hands.vertices, {}, RegionPcaConfig(4))
    last = model.regions.labels == 5
    assert len(model.parts) == 4
    torch.testing.assert_close(
        model(shapes)[:, last],
        model.basis.mean.unflatten(0, (-1, 3))[last].expand(len(shapes), -1, -1),
    )


def test_pair_errors_by_hand(model: RegionPca, shapes: torch.Tensor) -> None:
    """A model that gives the source back misses by exactly the way; one that hits the goal misses
    by nothing.
    """

    class Fixed(RegionPca):
        answer: torch.Tensor

        def decode(self, code: torch.Tensor) -> torch.Tensor:
            return self.answer[: len(code)]

    fixed = Fixed(model.template, model.config, model.geometry)
    fixed.answer, codes = shapes, model.encode(shapes)
    measured = pair_errors(fixed, shapes.numpy(), codes)
    assert measured["control_error_mm"] == pytest.approx(measured["control_moved_mm"])
    assert measured["other_error_mm"] == pytest.approx(measured["other_moved_mm"])
    fixed.answer = shapes.roll(-len(shapes) // 2, 0)
    measured = pair_errors(fixed, shapes.numpy(), codes)
    assert measured["control_error_mm"] == measured["other_error_mm"] == 0
    assert measured["control_moved_mm"] > 1


def test_locality_of_region_pca_is_zero(model: RegionPca, shapes: torch.Tensor) -> None:
    assert pair_errors(model, shapes.numpy(), model.encode(shapes))["locality"] == 0


def test_locality_is_that_of_all_pairs(model: RegionPca, shapes: torch.Tensor) -> None:
    """The meshes of the first batch of pairs are equal, so only the others show the leak."""

    class Leaking(RegionPca):
        def displace(self, code: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
            return super().displace(code, displacement) + displacement.abs().mean(1, keepdim=True)

    leaking = Leaking(model.template, model.config, model.geometry)
    leaking.load_state_dict(model.state_dict())
    many = shapes[:1].repeat(4 * BATCH, 1, 1)
    many[BATCH : 2 * BATCH] = shapes[1]
    assert pair_errors(leaking, many.numpy(), leaking.encode(many))["locality"] > 0.1


def test_editing_is_measured_where_there_are_edits(model: RegionPca, hands: MeshDataset) -> None:
    few = all_of(hands.select(np.arange(6)))
    assert set(editing(Evaluation.of(model, few))) == {"model"}
    untrained = create("lamm", hands.template, LammConfig(latent=4, width=16, heads=1))
    assert editing(Evaluation.of(untrained, few)) == {}
    assert editing(Evaluation.of(Pca(hands.template, PcaConfig(2)), few)) == {}


@pytest.mark.parametrize(("field", "value"), [("latent", 0), ("regions", -1)])
def test_impossible_settings(field: str, value: int) -> None:
    with pytest.raises(InputError, match=r"expected [01] to 1,000,000"):
        RegionPcaConfig(**{field: value})
