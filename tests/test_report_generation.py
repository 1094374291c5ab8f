"""Sections on what a model with separate factors generates, and on geometry images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import all_of, html_of, report_context
from morphable.data.dataset import MeshDataset
from morphable.models.gan import Gan
from morphable.models.pca import Pca, PcaConfig
from morphable.report.context import ReportContext
from morphable.report.generation import (
    class_codes,
    nearest_and_furthest,
    nearest_meshes,
    shared_parts,
    strips,
)
from morphable.report.geometry_images import geometry_images
from test_gan import made

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def context(gestures: MeshDataset) -> ReportContext:
    return report_context(made(gestures, search_steps=2).eval(), all_of(gestures))


def test_samples_that_share_a_part(context: ReportContext) -> None:
    section = shared_parts(context)
    assert section is not None
    page = html_of(section)
    assert "One identity" in page and "One expression" in page and "noise" not in page
    assert page.count("<img") == 2 * 2 * 6


def test_strips_change_one_part_at_a_time(context: ReportContext) -> None:
    section = strips(context)
    assert section is not None
    assert html_of(section).count("<img") == 3 * 6, "identity, expression and all"


def test_codes_of_classes(context: ReportContext) -> None:
    section = class_codes(context)
    assert section is not None
    page = html_of(section)
    assert "grasp" in page and "hand020" in page
    assert page.count("<img") == 2 * (3 + 7), "three expressions, and seven of eight people"


def test_geometry_images_are_shown_and_measured(context: ReportContext) -> None:
    section = geometry_images(context)
    assert section is not None
    page = html_of(section)
    assert page.count("<img") == 2 * 6
    assert "total variation" in page and "solved for with the Laplacian" in page


def test_nearest_and_furthest_samples(context: ReportContext) -> None:
    section = nearest_and_furthest(context)
    assert section is not None
    assert html_of(section).count("<img") == 2 * 6


def test_the_nearest_mesh_is_found_by_a_search_over_all(gestures: MeshDataset) -> None:
    train = gestures.vertices
    shapes = np.asarray(train[:6]) + np.random.default_rng(0).normal(0, 3, (6, 1609, 3))
    rows, distances = nearest_meshes(shapes.astype(np.float32), train)
    every = np.linalg.norm(shapes[:, None] - np.asarray(train[:])[None], axis=-1).mean(-1)
    assert rows.tolist() == every.argmin(1).tolist()
    np.testing.assert_allclose(distances, every.min(1), rtol=1e-5)


def test_a_model_without_factors_has_none_of_them(gestures: MeshDataset) -> None:
    model = Pca.estimate(gestures.template, gestures.vertices, {}, PcaConfig(4)).eval()
    plain = report_context(model, all_of(gestures))
    for section in (shared_parts, strips, class_codes, geometry_images):
        assert section(plain) is None
    assert nearest_and_furthest(plain) is not None


def test_samples_of_the_shared_part_are_alike(context: ReportContext) -> None:
    """Drawn with one expression, samples differ less than with all drawn anew."""
    model = context.model
    assert isinstance(model, Gan)
    codes = model.prior.sample(40, torch.Generator().manual_seed(0))
    with torch.no_grad():
        free = model.decode(codes)
        codes[:, model.parts["identity"]] = codes[0, model.parts["identity"]]
        shared = model.decode(codes)
    assert float(shared.std(0).mean()) < float(free.std(0).mean())
