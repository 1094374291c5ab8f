"""Report sections on identity and expression: what they show, and absence where there is nothing to
show.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from helpers import all_of, html_of, report_context
from morphable.data.dataset import MeshDataset
from morphable.evaluate.directions import principal_directions
from morphable.models.base import MorphableModel
from morphable.models.families import create
from morphable.models.ib_vae import IbVae, IbVaeConfig
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.pca import Pca, PcaConfig
from morphable.report.context import ReportContext
from morphable.report.identity import (
    identity_codes,
    in_plane,
    named_expressions,
    neutral_shapes,
    posed_rows,
    swaps,
)
from morphable.report.latent import prior_walks
from morphable.report.points import point_clouds
from morphable.train.batches import TrainingData


@pytest.fixture(scope="module")
def two_space(gestures: MeshDataset) -> LinearTwoSpace:
    data = TrainingData.of(gestures, ("subject", "expression"))
    labels = dict(data.labels) | {"neutral": data.neutral.index}
    model = LinearTwoSpace.estimate(
        gestures.template, np.asarray(data.vertices[:]), labels, TwoSpaceConfig(2, 2)
    )
    return model.eval()


def context(model: MorphableModel, gestures: MeshDataset) -> ReportContext:
    return report_context(model, all_of(gestures))


def test_sections_of_a_model_with_identity(
    two_space: LinearTwoSpace, gestures: MeshDataset
) -> None:
    made = context(two_space, gestures)
    codes, neutral, swapped = identity_codes(made), neutral_shapes(made), swaps(made)
    assert codes is not None and neutral is not None and swapped is not None
    assert html_of(codes).count("<svg") == 4, "two parts by subject and by expression"
    assert html_of(codes).count("hand020") == 2
    assert html_of(neutral).count("<img") == 5 * 6, (
        "input, reconstruction, neutral and the errors of both"
    )
    assert html_of(swapped).count("<img") == 5 + 6 * 6, "six people with five expressions"
    assert named_expressions(made) is None


def test_swaps_take_no_neutral_mesh_for_an_expression(
    two_space: LinearTwoSpace, gestures: MeshDataset
) -> None:
    made = context(two_space, gestures)
    rows = posed_rows(made.scene)
    assert 0 < len(rows) < len(gestures)
    assert (gestures.labels["neutral"][rows] != gestures.rows[rows]).all()
    section = swaps(made)
    assert section is not None
    head = html_of(section)[: html_of(section).index("</tr>")]
    assert head.count("<img") == 5 and "neutral" not in head


def test_a_model_without_identity_has_none_of_them(gestures: MeshDataset) -> None:
    model = Pca.estimate(gestures.template, gestures.vertices, {}, PcaConfig(4))
    made = context(model.eval(), gestures)
    assert [
        section(made) for section in (identity_codes, neutral_shapes, swaps, named_expressions)
    ] == [None] * 4


@pytest.fixture(scope="module")
def conditional(gestures: MeshDataset) -> IbVae:
    config = IbVaeConfig(samples=(32, 16), neighbors=8, expressions=("grasp", "neutral", "point"))
    model = create("cvae", gestures.template, config)
    model.initialize(gestures.vertices)
    return model.eval()


def test_points_in_no_order_and_what_they_give(conditional: IbVae, gestures: MeshDataset) -> None:
    section = point_clouds(context(conditional, gestures))
    assert section is not None
    assert html_of(section).count("<img") == 4 * 4, "mesh, two reconstructions and their difference"
    assert html_of(section).count("<circle") == 4 * round(0.25 * gestures.template.n_vertices)
    assert (
        point_clouds(
            context(Pca.estimate(gestures.template, gestures.vertices, {}, PcaConfig(2)), gestures)
        )
        is None
    )


def test_walks_of_a_vae_follow_its_numbers_and_leave_out_collapsed_ones(conditional: IbVae) -> None:
    factor = torch.eye(conditional.parts.size) * 0.5
    factor[1, 1] = factor[5, 5] = 0.05
    conditional.prior.factor.copy_(factor)
    steps = principal_directions(conditional, "identity")
    assert sorted(steps.nonzero()[:, 1].tolist()) == [0, 2, 3]
    torch.testing.assert_close(steps.sum(1), torch.full((3,), 0.5))
    assert len(prior_walks(conditional, "expression", 8)) == 3


def test_named_expressions_at_three_levels(conditional: IbVae, gestures: MeshDataset) -> None:
    section = named_expressions(context(conditional, gestures))
    assert section is not None
    assert html_of(section).count("<img") == 3 * 2 + 2 * 6, (
        "two names at three levels; six people and one expression"
    )
    assert "grasp at 0.33" in html_of(section) and "neutral at" not in html_of(section)


def test_people_get_the_expression_that_moves_most(
    conditional: IbVae, gestures: MeshDataset
) -> None:
    strong = copy.deepcopy(conditional)
    with torch.no_grad():
        first = strong.full_decoder[0]
        assert isinstance(first, torch.nn.Linear)
        first.weight[:, strong.parts["condition"].start] = 0
    section = named_expressions(context(strong, gestures))
    assert section is not None
    assert "moves the surface most: point." in html_of(section)


def test_the_plane_keeps_distances_where_codes_lie_in_one(rng: np.random.Generator) -> None:
    flat = rng.standard_normal((20, 2)) @ np.linalg.qr(rng.standard_normal((5, 5)))[0][:2]
    points = in_plane(flat + 3)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (flat, points)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    assert in_plane(flat[:, :1]).shape == (20, 2)
