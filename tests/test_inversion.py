"""Codes of shapes by descent: exact where the shape can be decoded, alike alone and in a batch, and
a start that diverges is started again and counted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import EXPRESSIONS, shapes
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import LearnedModel, MorphableModel
from morphable.models.families import MODELS, create
from morphable.models.inversion import Search, invert, invert_all
from morphable.models.pca import Pca, PcaConfig

RECOVERED = 0.05
"""mm between a decoded code and what its inversion decodes to."""


@pytest.fixture(scope="module")
def pca(ball: Template) -> Pca:
    return Pca.estimate(ball, shapes(ball, 40), {}, PcaConfig(4)).eval()


def samples(model: MorphableModel, count: int, seed: int = 1) -> Tensor:
    with torch.no_grad():
        return model.sample(count, torch.Generator().manual_seed(seed))


def test_a_hundred_decoded_codes_of_pca(pca: Pca) -> None:
    wanted = samples(pca, 100)
    found = invert(pca, wanted)
    assert (pca.decode(found.codes) - wanted).norm(dim=-1).mean(1).max() < RECOVERED
    assert found.errors.max() < RECOVERED
    assert not found.restarts.any() and not found.diverged.any()
    torch.testing.assert_close(found.codes, pca.encode(wanted), atol=0.02, rtol=0.01)


LIGHTER: dict[str, dict[str, Any]] = {
    "gan": {"resolution": 16},
    "cvae": {"samples": (32, 16), "neighbors": 8, "expressions": EXPRESSIONS},
    "lamm": {"bottleneck": False, "start": "pca"},
}


def learned(family: str, data: MeshDataset) -> MorphableModel:
    """A model of the family with its first weights, which decode as any others do."""
    torch.manual_seed(0)
    config = dataclasses.replace(MODELS[family].fast.model, **LIGHTER.get(family, {}))
    model = create(family, data.template, config)
    assert isinstance(model, LearnedModel)
    model.initialize(data.vertices)
    return model.eval()


@pytest.mark.parametrize("family", ["coma", "gan"])
def test_decoded_codes_of_networks(family: str, gestures: MeshDataset) -> None:
    model = learned(family, gestures)
    found = invert(model, samples(model, 2))
    assert found.errors.max() < RECOVERED and not found.diverged.any()


def test_a_model_without_a_prior_starts_from_its_encoder(gestures: MeshDataset) -> None:
    model = learned("lamm", gestures)
    assert model.prior is None
    target = torch.from_numpy(gestures.vertices[:2])
    with torch.no_grad():
        encoded = (model(target) - target).norm(dim=-1).mean(1)
    assert (invert(model, target, search=Search(steps=20)).errors < encoded).all()


def test_the_errors_are_those_of_the_codes(pca: Pca, ball: Template) -> None:
    target = torch.from_numpy(shapes(ball, 5, seed=7))
    found = invert(pca, target)
    errors = (pca.decode(found.codes) - target).norm(dim=-1).mean(1)
    torch.testing.assert_close(found.errors, errors, atol=1e-4, rtol=1e-4)


def test_it_is_no_worse_than_least_squares_in_its_own_measure(pca: Pca, ball: Template) -> None:
    """PCA's encode minimizes squared distances; the search the distances themselves."""
    target = torch.from_numpy(shapes(ball, 8, seed=7))
    squares = (pca(target) - target).norm(dim=-1).mean(1)
    assert (invert(pca, target).errors <= squares * 1.001).all()


def test_a_batch_equals_its_shapes_one_by_one(pca: Pca, ball: Template) -> None:
    target = shapes(ball, 5, seed=7)
    together = invert_all(pca, target)
    for other in (invert_all(pca, target, batch=2), invert_all(pca, target, batch=1)):
        torch.testing.assert_close(other.errors, together.errors, atol=1e-3, rtol=1e-3)
    again = invert_all(pca, target)
    assert torch.equal(again.codes, together.codes)


def test_the_prior_draws_codes_to_its_mean(pca: Pca, ball: Template) -> None:
    target = torch.from_numpy(shapes(ball, 3, seed=7))
    free, drawn = (
        invert(pca, target, search=Search(prior_weight=weight)).codes for weight in (0.0, 1e3)
    )
    assert (pca.prior.energy(drawn) < 0.9 * pca.prior.energy(free)).all()


class Broken(Pca):
    """Undefined near the mean of its prior, and further away only for some shapes."""

    reach = 0.1

    def decode(self, code: Tensor) -> Tensor:
        near = (code - self.prior.mean).norm(dim=1) < self.reach
        return torch.where(near[:, None, None], torch.nan, super().decode(code))


def broken(pca: Pca, reach: float) -> Broken:
    model = Broken(pca.template, pca.config)
    model.load_state_dict(pca.state_dict())
    model.reach = reach
    return model.eval()


def test_a_divergent_start_is_started_again_and_counted(pca: Pca) -> None:
    wanted = samples(pca, 6) + 0.5
    found = invert(broken(pca, 0.1), wanted)
    assert (found.restarts == 1).all() and not found.diverged.any()
    torch.testing.assert_close(found.errors, invert(pca, wanted).errors, atol=0.01, rtol=0.01)


def test_it_gives_up_after_the_last_restart(pca: Pca) -> None:
    found = invert(broken(pca, np.inf), samples(pca, 3))
    assert found.diverged.all() and (found.restarts == 2).all()
    assert found.codes.isfinite().all()


def test_a_shape_that_needs_no_step_is_no_divergence(pca: Pca) -> None:
    mean = pca.decode(pca.prior.mean[None])
    found = invert(pca, mean)
    assert not found.restarts.any() and found.errors.item() < 1e-3


def test_shapes_that_are_done_take_no_more_steps(pca: Pca) -> None:
    mean = pca.decode(pca.prior.mean[None])
    found = invert(pca, torch.cat([mean, samples(pca, 1)]))
    assert found.steps[0] < found.steps[1] < 1000


def test_pinned_parts_keep_their_values(gestures: MeshDataset) -> None:
    model = learned("cvae", gestures)
    name, size = model.parts.pinned_names[0], (~model.parts.free).sum()
    value = torch.linspace(0, 1, int(size)).expand(2, -1)
    found = invert(model, torch.from_numpy(gestures.vertices[:2]), {name: value}, Search(steps=20))
    assert torch.equal(found.codes[:, model.parts[name]], value)


def test_shapes_that_do_not_fit_the_template(pca: Pca) -> None:
    with pytest.raises(InputError, match="vertices: expected"):
        invert(pca, torch.zeros(1, 7, 3))
