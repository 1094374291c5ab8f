"""Parts and the Gaussian over codes."""

from __future__ import annotations

import pytest
import torch

from morphable.errors import InputError
from morphable.models.parts import Part, Parts
from morphable.models.prior import CodePrior

PARTS = Parts.of(identity=2, expression=2).with_pinned(condition=1)


def test_slices_sizes_and_freedom() -> None:
    assert PARTS["condition"] == slice(4, 5)
    assert (PARTS.size, PARTS.free_size) == (5, 4)
    assert PARTS.free.tolist() == [True, True, True, True, False]


def test_unknown_part_lists_the_known() -> None:
    with pytest.raises(InputError, match="parts are identity, expression, condition"):
        PARTS["pose"]


@pytest.mark.parametrize("parts", [(Part("a", 1), Part("a", 2)), (Part("a", 0),)])
def test_impossible_parts(parts: tuple[Part, ...]) -> None:
    with pytest.raises(InputError):
        Parts(parts)


def fitted() -> tuple[CodePrior, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor(
        [
            [1.0, 0.5, 0, 0, 0],
            [0, 1, 0.8, 0, 0],
            [0, 0, 1, 0.1, 0],
            [0.3, 0, 0, 0.2, 0],
            [0, 0, 0, 0, 0],
        ]
    )
    codes = torch.randn(4000, 5, generator=generator) @ mixing + torch.tensor([1.0, 2, 3, 4, 0])
    prior = CodePrior(PARTS)
    prior.fit(codes)
    return prior, codes


def test_samples_have_the_fitted_moments() -> None:
    prior, codes = fitted()
    drawn = prior.sample(100_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(codes.T), rtol=0.03, atol=0.03)


def test_energy_is_half_the_mahalanobis_distance() -> None:
    prior, codes = fitted()
    covariance = torch.cov(codes[:, :4].double().T)
    offset = codes[:, :4].double() - codes[:, :4].double().mean(0)
    expected = 0.5 * (offset @ torch.linalg.inv(covariance) * offset).sum(1)
    torch.testing.assert_close(prior.energy(codes).double(), expected, rtol=1e-3, atol=1e-3)
    assert float(expected.mean()) == pytest.approx(2.0, rel=0.01)  # half of four degrees of freedom


def test_conditioning_equals_regression_on_the_samples() -> None:
    prior, codes = fitted()
    known = torch.tensor([2.0, 1.0])
    given = prior.given({"identity": known})
    design = torch.cat([codes[:, :2], torch.ones(len(codes), 1)], 1).double()
    solution = torch.linalg.lstsq(design, codes[:, 2:4].double()).solution
    expected = torch.tensor([2.0, 1.0, 1.0]).double() @ solution
    torch.testing.assert_close(given.mean[2:4].double(), expected, rtol=1e-3, atol=1e-3)
    residual = codes[:, 2:4].double() - design @ solution
    covariance = given.factor @ given.factor.T
    torch.testing.assert_close(
        covariance[2:4, 2:4].double(), torch.cov(residual.T), rtol=1e-2, atol=1e-2
    )
    assert not covariance[:2].any()


def test_a_pinned_part_can_be_given_and_nothing_else_moves() -> None:
    prior, _ = fitted()
    given = prior.given({"condition": torch.tensor([0.7])})
    assert given.mean[4] == pytest.approx(0.7)
    torch.testing.assert_close(given.mean[:4], prior.mean[:4])
    torch.testing.assert_close(
        given.factor @ given.factor.T, prior.factor @ prior.factor.T, rtol=1e-4, atol=1e-5
    )


def test_a_value_of_the_wrong_size() -> None:
    with pytest.raises(InputError, match="expected 2 numbers"):
        CodePrior(PARTS).given({"identity": torch.zeros(3)})


def test_one_code_is_a_point() -> None:
    prior = CodePrior(PARTS)
    prior.fit(torch.tensor([[1.0, 2, 3, 4, 0]]))
    assert torch.equal(
        prior.sample(3, torch.Generator().manual_seed(0)),
        torch.tensor([[1.0, 2, 3, 4, 0]]).expand(3, -1),
    )
