"""The search for the code of least error: against scipy, by hand, and in the families that have it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from morphable.data.makers import make_source
from morphable.errors import InputError
from morphable.export.onnx import export_onnx
from morphable.models.geometry import NoGeometry
from morphable.models.local_rotations import ReadTriangles
from morphable.models.nearest_code import SearchedModel, nearest_code
from morphable.models.pca_mlp import PcaMlp, PcaMlpConfig
from morphable.models.rotation_mlp import RotationMlp, RotationMlpConfig


def bent(code: Tensor) -> Tensor:
    """(B, 2) -> (B, 5, 3): points on a surface that is not linear in the code."""
    a, b = code[:, :1], code[:, 1:]
    steps = torch.linspace(0.2, 1, 5).to(code)
    parts = (steps * a.cos() + b, steps * a.sin(), steps.square() * b)
    return torch.stack([part.expand(-1, 5) for part in parts], -1)


def test_the_least_error_is_the_one_that_scipy_finds() -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(6, 2, generator=random).double() * 0.3
    noise = torch.randn(6, 5, 3, generator=random).double() * 0.1
    wanted = bent(start + 0.4) + noise
    found = nearest_code(start, bent, wanted, 40)
    errors = (bent(found) - wanted).norm(dim=-1).mean(1)

    def error_of(code: np.ndarray, mesh: int) -> float:
        shape = bent(torch.from_numpy(code)[None])[0]
        return float((shape - wanted[mesh]).norm(dim=-1).mean())

    for mesh in range(6):
        best = minimize(
            error_of, start[mesh].numpy(), (mesh,), "Nelder-Mead", options={"xatol": 1e-9}
        )
        assert float(errors[mesh]) == pytest.approx(best.fun, abs=1e-5)


def test_an_exact_code_is_found_in_few_steps_and_kept() -> None:
    exact = torch.tensor([[0.5, -0.2], [1.0, 0.4]], dtype=torch.float64)
    found = nearest_code(exact + 0.2, bent, bent(exact), 8)
    assert torch.allclose(found, exact, atol=1e-6)
    assert torch.equal(nearest_code(exact, bent, bent(exact), 3), exact)


def test_each_step_helps_each_mesh_or_is_not_taken() -> None:
    random = torch.Generator().manual_seed(1)
    start = 3 * torch.randn(40, 2, generator=random)
    wanted = torch.randn(40, 5, 3, generator=random)
    before = (bent(start) - wanted).norm(dim=-1).mean(1)
    for steps in (0, 1, 2, 5):
        after = (bent(nearest_code(start, bent, wanted, steps)) - wanted).norm(dim=-1).mean(1)
        assert (after <= before).all()
        before = after
    assert torch.equal(nearest_code(start, bent, wanted, 0), start)


@pytest.fixture(scope="module", params=["pca-mlp", "rotation-mlp"])
def model(request: pytest.FixtureRequest) -> tuple[SearchedModel, Tensor]:
    """A model with networks of random weights, and meshes."""
    source = make_source("hands", count=60, seed=5)
    shapes = np.concatenate(list(source.blocks()))
    sizes = {"latent": 4, "rank": 20, "width": 16, "depth": 1, "search": 4}
    made: SearchedModel
    if request.param == "pca-mlp":
        made = PcaMlp(source.template, PcaMlpConfig(**sizes), NoGeometry())
    else:
        config = RotationMlpConfig(**sizes, triangles=40, features="rotations", mixtures=0.0)
        made = RotationMlp(source.template, config, ReadTriangles.of(source.template, config))
    torch.manual_seed(0)
    made.initialize(shapes)
    for name, parameter in made.named_parameters():
        if name.startswith(("encoder.", "decoder.")):
            torch.nn.init.normal_(parameter, std=0.02)
    return made.eval(), torch.from_numpy(shapes[:9])


def test_a_search_lowers_the_error_and_depends_on_its_mesh_alone(
    model: tuple[SearchedModel, Tensor],
) -> None:
    made, meshes = model
    code = made.encode(meshes)
    plain = made.encoded(meshes)
    errors = [(made.decode(c) - meshes).norm(dim=-1).mean(1) for c in (code, plain)]
    assert errors[0].mean() < 0.99 * errors[1].mean()
    # Only some vertices are searched at, so a single mesh may lose a little.
    assert (errors[0] < 1.02 * errors[1]).all()
    assert torch.allclose(made.encode(meshes[3:5]), code[3:5], atol=1e-3)


def test_validation_uses_the_code_of_the_encoder(
    model: tuple[SearchedModel, Tensor],
) -> None:
    made, meshes = model
    found = made.validate(meshes, "")
    assert found is not None
    assert torch.equal(found, (made.decode(made.encoded(meshes)) - meshes).norm(dim=-1))


def test_its_gradient_is_that_of_the_encoder(model: tuple[SearchedModel, Tensor]) -> None:
    made, meshes = model
    gradients = []
    for encode in (made.encode, made.encoded):
        vertices = meshes[:2].clone().requires_grad_()
        gradients.append(torch.autograd.grad(encode(vertices).sum(), vertices)[0])
    assert torch.allclose(gradients[0], gradients[1]) and gradients[0].abs().sum() > 0


def test_a_searching_encoder_is_not_exported(model: tuple[SearchedModel, Tensor]) -> None:
    made, _ = model
    assert not made.encoder_is_network
    with pytest.raises(InputError, match="encodes by a search, not by a network"):
        export_onnx(made, "a.onnx", "encoder")
    assert PcaMlp(made.template, PcaMlpConfig()).encoder_is_network


@pytest.mark.parametrize("steps", [-1, 101])
def test_other_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match="search"):
        replace(PcaMlpConfig(), search=steps)
