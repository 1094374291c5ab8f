"""Arithmetic on codes: interpolation, sampling of one part, swaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import shapes, two_parts
from morphable.edit.code import interpolate, sample_codes, swap
from morphable.errors import InputError
from morphable.models.parts import Parts
from morphable.models.pca import Pca, PcaConfig

PARTS = Parts.of(identity=2, expression=3)


@pytest.fixture
def model() -> Pca:
    template = ball_template(30)
    made = Pca.estimate(template, shapes(template, 40), {}, PcaConfig(4))
    return made.eval()


def test_interpolation_by_hand() -> None:
    a, b = torch.tensor([0.0, 0, 0, 0, 0]), torch.tensor([2.0, 4, 6, 8, 10])
    codes = interpolate(PARTS, a, b, torch.tensor([0.0, 0.5, 1.0, 2.0]))
    assert codes[:, 0].tolist() == [0, 1, 2, 4] and codes[:, 4].tolist() == [0, 5, 10, 20]
    moved = interpolate(PARTS, a, b, torch.tensor([1.0]), "expression")
    assert moved.tolist() == [[0, 0, 6, 8, 10]]
    with pytest.raises(
        InputError, match="part 'pose': this model's parts are identity, expression"
    ):
        interpolate(PARTS, a, b, torch.tensor([1.0]), "pose")


def test_interpolation_starts_and_ends_at_its_shapes(model: Pca) -> None:
    a, b = model.prior.sample(2, torch.Generator().manual_seed(1))
    codes = interpolate(model.parts, a, b, torch.linspace(0, 1, 5))
    assert torch.equal(codes[0], a) and torch.allclose(codes[-1], b, atol=1e-6)
    steps = codes.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_samples_are_repeatable_and_scaled(model: Pca) -> None:
    def sampled(seed: int, scale: float = 1.0) -> torch.Tensor:
        return sample_codes(model, 5, torch.Generator().manual_seed(seed), scale=scale)

    assert torch.equal(sampled(3), sampled(3)) and not torch.equal(sampled(3), sampled(4))
    torch.testing.assert_close(
        sampled(3, 2.0) - model.prior.mean, 2 * (sampled(3) - model.prior.mean)
    )


def test_one_part_varies_alone(model: Pca) -> None:
    model = two_parts(model)
    codes = sample_codes(model, 50, torch.Generator().manual_seed(0), part="expression")
    assert torch.equal(codes[:, :1], model.prior.mean[:1].expand(50, 1))
    assert (codes[:, 1:].std(0) > 0).all()
    with pytest.raises(InputError, match="part 'nose'"):
        sample_codes(model, 1, torch.Generator(), part="nose")


def test_known_parts_are_kept_and_the_others_follow_their_conditional_distribution(
    model: Pca,
) -> None:
    model = two_parts(model)
    codes = sample_codes(
        model, 4000, torch.Generator().manual_seed(0), given={"identity": torch.tensor([1.5])}
    )
    torch.testing.assert_close(codes[:, 0], torch.full((4000,), 1.5))
    covariance = (model.prior.factor @ model.prior.factor.T).double().numpy()
    mean = model.prior.mean.double().numpy()
    expected = mean[1:] + covariance[1:, 0] / covariance[0, 0] * (1.5 - mean[0])
    np.testing.assert_allclose(
        codes[:, 1:].mean(0), expected, atol=5 * codes[:, 1:].std(0).max() / 4000**0.5
    )


def test_a_swap_by_hand() -> None:
    a, b = torch.zeros(5), torch.arange(1.0, 6)
    assert swap(PARTS, a, b, ["expression"]).tolist() == [0, 0, 3, 4, 5]
    assert swap(PARTS, a, b, ["identity", "expression"]).tolist() == b.tolist()
    assert torch.equal(a, torch.zeros(5))
    with pytest.raises(InputError, match="part 'nose'"):
        swap(PARTS, a, b, ["nose"])
