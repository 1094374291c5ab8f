"""Golden checks on the published networks: parameter counts and level sizes (checks 1 and 2 of the
facts).
"""

from __future__ import annotations

import numpy as np
import pytest

from conftest import ball_template
from morphable.mesh.hierarchy import build_hierarchy
from morphable.mesh.template import Template
from morphable.models.autoencoder import AutoencoderConfig, HierarchicalAutoencoder
from morphable.models.families import create
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.recipes import COMA, SPIRALNET, SPIRALNET_PLUS


@pytest.fixture(scope="module")
def coma_sized() -> Template:
    """A surface with as many vertices as CoMA's template."""
    return ball_template(5023)


def parameters(template: Template, name: str, config: AutoencoderConfig) -> int:
    return sum(p.numel() for p in create(name, template, config).parameters())


def test_level_sizes_of_the_coma_template(coma_sized: Template) -> None:
    assert build_hierarchy(coma_sized.mesh).sizes == (5023, 1256, 314, 79, 20)


@pytest.mark.parametrize(
    ("filters", "latent", "final_bias", "expected"),
    [
        ("simple", 8, False, 30_056),
        ("simple", 8, True, 30_059),
        ("simple", 16, False, 40_304),
        ("simple", 32, False, 60_800),
        ("simple", 64, False, 101_792),
        ("wider", 8, False, 179_656),
        ("wider", 16, False, 220_624),
        ("wider", 32, False, 302_560),
        ("wider", 64, False, 466_432),
    ],
)
def test_coma_counts(
    coma_sized: Template, filters: str, latent: int, final_bias: bool, expected: int
) -> None:
    from dataclasses import replace

    config = replace(COMA.model, filters=filters, latent=latent, final_bias=final_bias)
    assert parameters(coma_sized, "coma", config) == expected


@pytest.mark.parametrize(("latent", "expected"), [(8, 134_411), (16, 154_899)])
def test_spiralnet_plus_counts(coma_sized: Template, latent: int, expected: int) -> None:
    from dataclasses import replace

    assert (
        parameters(coma_sized, "spiralnet++", replace(SPIRALNET_PLUS.model, latent=latent))
        == expected
    )


@pytest.mark.parametrize(
    ("filters", "latent", "expected"),
    [("wider", 8, 261_035), ("wider", 16, 304_051), ("simple", 8, 44_779)],
)
def test_spiralnet_counts_at_comas_spiral_lengths(
    coma_sized: Template, filters: str, latent: int, expected: int
) -> None:
    """The count depends on the spiral lengths, which CoMA's own template makes 15, 14, 9, 9."""
    from dataclasses import replace

    config = replace(SPIRALNET.model, filters=filters, latent=latent)
    hierarchy = build_hierarchy(coma_sized.mesh)
    lengths = zip(hierarchy.sizes, (15, 14, 9, 9), strict=False)
    spirals = tuple(np.zeros(shape, np.int64) for shape in lengths)
    model = HierarchicalAutoencoder(coma_sized, config, MeshGeometry(hierarchy, spirals))
    assert sum(p.numel() for p in model.parameters()) == expected
