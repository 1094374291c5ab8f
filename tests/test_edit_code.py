"""Arithmetic on codes: lines, draws of one part, known parts from text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import shapes
from morphable.edit.code import draw, line, named_values, parse_given, swap
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel
from morphable.models.geometry import NO_GEOMETRY
from morphable.models.linear_basis import LinearBasis
from morphable.models.parts import Parts
from morphable.models.pca import Pca, PcaConfig

PARTS = Parts.of(identity=2, expression=3)


@pytest.fixture
def model() -> Pca:
    template = ball_template(30)
    made = Pca.estimate(template, shapes(template, 40), {}, PcaConfig(4))
    return made.eval()


class TwoParts(Pca):
    """PCA whose four components have the names of two parts."""

    def __init__(self, template: Template, config: PcaConfig) -> None:
        parts = Parts.of(identity=1, expression=3)
        EstimatedModel.__init__(self, template, parts, config, NO_GEOMETRY, NO_ORIGIN)
        self.basis = LinearBasis(parts.size, template.n_vertices)


def two_parts(model: Pca, kind: type[TwoParts] = TwoParts) -> TwoParts:
    """The same components as two parts, with a prior that ties the parts together."""
    made = kind(model.template, model.config)
    made.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    made.prior.fit(
        torch.randn(200, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    )
    return made.eval()


def test_a_line_by_hand() -> None:
    a, b = torch.tensor([0.0, 0, 0, 0, 0]), torch.tensor([2.0, 4, 6, 8, 10])
    codes = line(PARTS, a, b, torch.tensor([0.0, 0.5, 1.0, 2.0]))
    assert codes[:, 0].tolist() == [0, 1, 2, 4] and codes[:, 4].tolist() == [0, 5, 10, 20]
    moved = line(PARTS, a, b, torch.tensor([1.0]), "expression")
    assert moved.tolist() == [[0, 0, 6, 8, 10]]
    with pytest.raises(
        InputError, match="part 'pose': this model's parts are identity, expression"
    ):
        line(PARTS, a, b, torch.tensor([1.0]), "pose")


def test_the_ends_of_a_line_are_its_shapes(model: Pca) -> None:
    a, b = model.prior.sample(2, torch.Generator().manual_seed(1))
    codes = line(model.parts, a, b, torch.linspace(0, 1, 5))
    assert torch.equal(codes[0], a) and torch.allclose(codes[-1], b, atol=1e-6)
    steps = codes.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_draws_are_repeatable_and_scaled(model: Pca) -> None:
    def drawn(seed: int, scale: float = 1.0) -> torch.Tensor:
        return draw(model, 5, torch.Generator().manual_seed(seed), scale=scale)

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))
    torch.testing.assert_close(drawn(3, 2.0) - model.prior.mean, 2 * (drawn(3) - model.prior.mean))


def test_one_part_varies_alone(model: Pca) -> None:
    model = two_parts(model)
    codes = draw(model, 50, torch.Generator().manual_seed(0), part="expression")
    assert torch.equal(codes[:, :1], model.prior.mean[:1].expand(50, 1))
    assert (codes[:, 1:].std(0) > 0).all()
    with pytest.raises(InputError, match="part 'nose'"):
        draw(model, 1, torch.Generator(), part="nose")


def test_known_parts_are_kept_and_the_others_follow_their_conditional_distribution(
    model: Pca,
) -> None:
    model = two_parts(model)
    codes = draw(
        model, 4000, torch.Generator().manual_seed(0), given={"identity": torch.tensor([1.5])}
    )
    torch.testing.assert_close(codes[:, 0], torch.full((4000,), 1.5))
    covariance = (model.prior.factor @ model.prior.factor.T).double().numpy()
    mean = model.prior.mean.double().numpy()
    expected = mean[1:] + covariance[1:, 0] / covariance[0, 0] * (1.5 - mean[0])
    np.testing.assert_allclose(
        codes[:, 1:].mean(0), expected, atol=5 * codes[:, 1:].std(0).max() / 4000**0.5
    )


def test_known_parts_from_text(model: Pca) -> None:
    known = parse_given(two_parts(model), ["expression=1,-2.5,3e-1", "identity=0"])
    assert {name: value.tolist() for name, value in known.items()} == {
        "expression": pytest.approx([1, -2.5, 0.3]), "identity": [0.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("expression=1,2", "expected expression= and 3 numbers"),
        ("expression=1,2,x", "expected expression= and 3 numbers"),
        ("expression=1,2,nan", "expected expression= and 3 numbers"),
        ("expression=1,2,inf", "expected expression= and 3 numbers"),
        ("expression", "expected expression= and 3 numbers"),
        ("expression=", "expected expression= and 3 numbers"),
        ("nose=1", "part 'nose': this model's parts are identity, expression"),
        ("=1", "part ''"),
    ],
)
def test_texts_that_are_no_part(model: Pca, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_given(two_parts(model), [text])
    assert words in str(caught.value)


def test_a_swap_by_hand() -> None:
    a, b = torch.zeros(5), torch.arange(1.0, 6)
    assert swap(PARTS, a, b, ["expression"]).tolist() == [0, 0, 3, 4, 5]
    assert swap(PARTS, a, b, ["identity", "expression"]).tolist() == b.tolist()
    assert torch.equal(a, torch.zeros(5))
    with pytest.raises(InputError, match="part 'nose'"):
        swap(PARTS, a, b, ["nose"])


class NamedPca(TwoParts):
    """Two parts, of which the second's dimensions have names."""

    def names_of(self, part: str) -> tuple[str, ...]:
        return ("smile", "mouth_open", "frown") if part == "expression" else ()


@pytest.fixture
def named(model: Pca) -> TwoParts:
    return two_parts(model, NamedPca)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("expression=mouth_open:0.8", [0, 0.8, 0]),
        ("expression=frown", [0, 0, 1]),
        ("expression=frown:0.5,smile:0.25", [0.25, 0, 0.5]),
        ("expression=1,2,3", [1, 2, 3]),
    ],
)
def test_known_parts_by_name(named: TwoParts, text: str, values: list[float]) -> None:
    assert parse_given(named, [text])["expression"].tolist() == pytest.approx(values)


def test_names_that_are_none(named: TwoParts) -> None:
    with pytest.raises(InputError, match="did you mean 'mouth_open'"):
        parse_given(named, ["expression=mouth_opn:0.8"])
    with pytest.raises(InputError, match="expected expression="):
        parse_given(named, ["expression=smile:much"])


def test_named_values_read_back(named: TwoParts, model: Pca) -> None:
    code = torch.tensor([2.0, 0, 0.75, 0])
    assert named_values(named, code) == "expression=mouth_open:0.75"
    assert named_values(named, torch.zeros(4)) == "none"
    assert named_values(model, code) == ""
