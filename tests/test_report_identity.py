"""Report sections on identity and expression: what they show, and absence where there is nothing to show."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pytest

from morphable.data.dataset import MeshDataset
from morphable.models.base import MorphableModel
from morphable.models.cvae import Cvae, CvaeConfig
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.pca import Pca, PcaConfig
from morphable.report.context import ReportContext
from morphable.report.identity import _plane, _scatter, identity_codes, named_expressions, neutral_shapes, swaps
from morphable.train.feed import TrainingData


class WholeContext(ReportContext):
    """A context whose measured meshes are the whole set."""

    @cached_property
    def test(self) -> MeshDataset:
        return self.dataset


@pytest.fixture(scope="module")
def two_space(gestures: MeshDataset) -> LinearTwoSpace:
    data = TrainingData.of(gestures, ("subject", "expression"))
    labels = dict(data.labels) | {"neutral": data.neutral}
    model = LinearTwoSpace.estimate(gestures.template, np.asarray(data.vertices[:]), labels, TwoSpaceConfig(2, 2))
    return model.eval()


def context(model: MorphableModel, gestures: MeshDataset) -> ReportContext:
    return WholeContext(model, gestures, {"provenance": {"split": "subject"}}, [])


def test_sections_of_a_model_with_identity(two_space: LinearTwoSpace, gestures: MeshDataset) -> None:
    made = context(two_space, gestures)
    codes, neutral, swapped = identity_codes(made), neutral_shapes(made), swaps(made)
    assert codes is not None and neutral is not None and swapped is not None
    assert codes.html.count("<svg") == 4, "two parts by subject and by expression"
    assert codes.html.count("hand020") == 2
    assert neutral.html.count("<img") == 5 * 6, "input, reconstruction, neutral and the errors of both"
    assert swapped.html.count("<img") == 5 + 4 * 6
    assert named_expressions(made) is None


def test_a_model_without_identity_has_none_of_them(gestures: MeshDataset) -> None:
    model = Pca.estimate(gestures.template, gestures.vertices, {}, PcaConfig(4))
    made = context(model.eval(), gestures)
    assert [section(made) for section in (identity_codes, neutral_shapes, swaps, named_expressions)] == [None] * 4


def test_named_expressions_at_three_levels(gestures: MeshDataset) -> None:
    config = CvaeConfig(samples=(32, 16), neighbours=8, expressions=("grasp", "neutral", "point"))
    model = Cvae(gestures.template, config, Cvae.geometry(gestures.template, config))
    model.observe(gestures.vertices)
    section = named_expressions(context(model.eval(), gestures))
    assert section is not None
    assert section.html.count("<img") == 3 * 2
    assert "grasp at 0.33" in section.html and "neutral at" not in section.html


def test_the_plane_keeps_distances_where_codes_lie_in_one(rng: np.random.Generator) -> None:
    flat = rng.standard_normal((20, 2)) @ np.linalg.qr(rng.standard_normal((5, 5)))[0][:2]
    points = _plane(flat + 3)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (flat, points)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    assert _plane(flat[:, :1]).shape == (20, 2)


def test_scatter_colours_classes_and_greys_the_unknown() -> None:
    svg = _scatter(np.array([[0.0, 0], [1, 1], [2, 0]]), np.array([0, 1, -1]), ["a<b", "c"], "codes")
    assert svg.count("<circle") == 3 + 2
    assert "rgb(150,150,150)" in svg
    assert "a&lt;b" in svg
