"""Models are born whole: created from values, saved and read with their geometry, never assigned
to.
"""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import shapes
from morphable.errors import InputError
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Origin, TrainableModel
from morphable.models.families import MODELS, create
from morphable.models.geometry import Geometry, RegionGeometry
from morphable.models.io import load, save
from morphable.models.lamm import LammConfig
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.pca import Pca, PcaConfig

FAMILIES = list(MODELS)


@pytest.fixture(scope="module")
def ball() -> Template:
    """Enough vertices for a hierarchy of five levels."""
    return ball_template(640)


def pca(ball: Template) -> Pca:
    return Pca.estimate(ball, shapes(ball, 12), {}, PcaConfig(3)).eval()


def test_create_takes_settings_by_name(ball: Template) -> None:
    made = create("coma", ball, latent=5, filters="wider")
    assert (made.config.latent, made.config.filters) == (5, "wider")
    assert made.config == replace(MODELS["coma"].fast.model, latent=5, filters="wider")
    published = create("coma", ball, recipe="paper")
    assert published.config == MODELS["coma"].published.model
    assert create("coma", ball, published.config, latent=3).config.latent == 3


def test_create_shares_a_latent_size_out_among_parts(ball: Template) -> None:
    made = create("linear-two-space", ball, latent=7)
    assert (made.config.identity, made.config.expression) == (4, 3)


def test_create_names_what_does_not_exist(ball: Template) -> None:
    for name, overrides, message in (
        ("como", {}, "family 'como': there is no such family; did you mean 'coma'"),
        ("coma", {"filter": "wider"}, "coma.filter: there is no such setting"),
        ("coma", {"filters": "huge"}, "coma.filters: expected one of simple, wider"),
        ("coma", {"recipe": "slow"}, "recipe 'slow'"),
    ):
        with pytest.raises(InputError, match=message):
            create(name, ball, **overrides)


def test_nothing_is_assigned_from_outside(ball: Template) -> None:
    made = pca(ball)
    for name in ("family", "provenance", "name"):
        with pytest.raises(AttributeError):
            setattr(made, name, "pca")
    with pytest.raises(FrozenInstanceError):
        made.origin.family = "pca"  # type: ignore[misc]


def test_another_origin_is_another_model_with_the_same_weights(ball: Template) -> None:
    made = pca(ball)
    named = made.with_origin(Origin("pca", {"split": "subject"}))
    assert (made.family, made.name, dict(made.provenance)) == ("", "Pca", {})
    assert (named.family, named.name, named.provenance) == ("pca", "pca", {"split": "subject"})
    assert named.basis is made.basis and not named.training
    code = torch.randn(2, 3)
    assert torch.equal(named.decode(code), made.decode(code))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_geometry_comes_back_from_its_arrays(name: str, ball: Template) -> None:
    """Built from the arrays, a model is the same as built from the template, and stores the
    same.
    """
    config = MODELS[name].fast.model
    geometry = MODELS[name].model.geometry_type.of(ball, config)
    first = create(name, ball, config, geometry)
    back = type(geometry).from_arrays(geometry.to_arrays(), first.template)
    again = create(name, ball, config, back)
    again.load_state_dict(first.state_dict())
    assert arrays_of(back).keys() == arrays_of(geometry).keys()
    for key, array in arrays_of(geometry).items():
        assert np.array_equal(arrays_of(back)[key], array)
    for one, other in zip(first.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)


def arrays_of(geometry: Geometry) -> dict[str, np.ndarray]:
    return dict(geometry.to_arrays())


def test_a_trained_map_comes_back_from_a_file(ball: Template, tmp_path: Path) -> None:
    """What makes the maps of a loaded model constant is a field of its geometry."""
    torch.manual_seed(0)
    made = create("deep3dmm", ball, latent=2)
    assert isinstance(made, TrainableModel)
    made.initialize(shapes(ball, 8))
    kept = made.eval().for_inference()
    assert isinstance(made.geometry, MeshGeometry) and made.geometry.folded is None
    assert isinstance(kept.geometry, MeshGeometry) and kept.geometry.folded is not None
    assert kept.geometry.hierarchy is made.geometry.hierarchy
    assert kept.origin == made.origin and kept.config == made.config
    save(kept, tmp_path / "m")
    back = load(tmp_path / "m")
    x = torch.from_numpy(shapes(ball, 3))
    with torch.no_grad():
        assert torch.equal(back(x), kept(x))
        torch.testing.assert_close(kept(x), made(x), rtol=1e-4, atol=1e-3)


def test_regions_are_stored_once_with_the_template(ball: Template, tmp_path: Path) -> None:
    made = create("lamm", ball, width=16, heads=1, regions=4, latent=2)
    save(made, tmp_path / "m")
    with np.load(tmp_path / "m" / "template.npz") as arrays:
        assert {"regions", "region_names", "control_vertices/3"} <= set(arrays.files)
        assert not [name for name in arrays.files if name.startswith("geometry/")]
    back = load(tmp_path / "m")
    assert isinstance(back.geometry, RegionGeometry)
    assert np.array_equal(back.geometry.regions.labels, made.geometry.regions.labels)


def test_a_model_of_regions_needs_a_template_that_has_them(ball: Template) -> None:
    for regions in (None, Regions(np.repeat([0, 1], 320), ("a", "b"))):
        with pytest.raises(InputError, match="expected regions with control vertices"):
            RegionGeometry.from_arrays({}, replace(ball, regions=regions))


def test_a_model_without_a_prior_says_so_when_it_is_sampled(ball: Template) -> None:
    config = LammConfig(bottleneck=False, width=16, heads=1, encoder_depth=1, decoder_depth=1)
    made = create("lamm", ball, config)
    assert made.prior is None and made.device == torch.device("cpu")
    for attempt in (lambda: made.sample(1, torch.Generator()), made.require_prior):
        with pytest.raises(
            InputError, match=r"lamm: this model has no prior to sample from; .*bottleneck=true"
        ):
            attempt()


def saved(ball: Template, folder: Path) -> Path:
    save(pca(ball).with_origin(Origin("pca")), folder / "m")
    return folder / "m"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "format version 1, .* reads version 2: train the model again"),
        ({"format_version": 3}, "expected format version 2, got 3"),
        ({"format_version": None}, "expected format version 2"),
        ({"family": "nonsense"}, "the family 'nonsense' is not part of morphable"),
        ({"provenance": 3}, "provenance: expected an object"),
    ],
)
def test_a_model_of_another_version_is_refused(
    ball: Template, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = saved(ball, tmp_path) / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path / "m")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_documents_list_the_families_with_their_papers(repository: Path) -> None:
    page = (repository / "docs" / "families.md").read_text("utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `(\w+)` \| [^|]+ \| ([^|]+) \|$", page, re.M)
    assert rows == [(name, row.model.__name__, row.paper) for name, row in MODELS.items()]


def test_every_family_is_made_whole(ball: Template) -> None:
    for name in FAMILIES:
        made = create(name, ball)
        assert isinstance(made, MorphableModel)
        assert (made.family, made.config) == (name, MODELS[name].fast.model)
        assert made.parts.free_names + made.parts.pinned_names == tuple(made.parts)
        assert sum(part.size for part in made.parts.entries if not part.pinned) == (
            made.parts.free_size
        )
