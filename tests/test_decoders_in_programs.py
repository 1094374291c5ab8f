"""Models inside other programs: `torch.func`, forward-mode gradients, `torch.export` and
`torch.jit.trace`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, jacobian

from conftest import ball_template
from family_models import VARIANTS
from morphable.errors import InputError
from morphable.models.base import (
    AdversarialModel,
    EstimatedModel,
    MorphableModel,
    Origin,
    TrainableModel,
)
from morphable.models.families import MODELS, create, with_latent

SMALL: dict[str, dict[str, Any]] = {
    "ib-vae": {"samples": (32, 16), "neighbors": 8},
    "cvae": {"samples": (32, 16), "neighbors": 8, "expressions": ("happy", "sad")},
    "lamm": {"latent": 8, "width": 32, "heads": 1, "encoder_depth": 1, "decoder_depth": 1},
    "lamm-mixer": {"latent": 8, "width": 32, "encoder_depth": 1, "decoder_depth": 1},
}
BOTH = [(family, False) for family in [*MODELS, *VARIANTS]] + [
    ("deep3dmm", True),
    ("deep3dmm-spiral", True),
]
"""Families and variants as created, and for inference where that is another model."""


@pytest.fixture(scope="module", params=BOTH, ids=lambda pair: pair[0] + "-folded" * pair[1])
def model(request: pytest.FixtureRequest) -> MorphableModel:
    return built(*request.param)


def built(family: str, folded: bool) -> MorphableModel:
    """A small model with the statistics of a dozen shapes. folded: as it is for inference."""
    torch.manual_seed(0)
    template = ball_template(560)
    random = np.random.default_rng(0)
    scale = (
        1 + 0.1 * random.standard_normal((12, 1, 3)) + 0.02 * random.standard_normal((12, 560, 1))
    )
    shapes = (template.mesh.vertices * scale).astype(np.float32)
    family, changes = VARIANTS.get(family, (family, {}))
    made = create(family, template, **SMALL.get(family, {}), **changes).eval()
    subject, expression = np.arange(12) // 3, np.arange(12) % 3
    labels = {"subject": subject, "expression": expression, "neutral": 3 * subject}
    if isinstance(made, TrainableModel):
        made.initialize(shapes, labels)
        made = made.for_inference() if folded else made
        if changes:
            # As after training, where no network is zero and gates may be partly open.
            for parameter in made.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.05)
            for name, buffer in made.named_buffers():
                if name.endswith("_gate"):
                    buffer.fill_(0.75)
    elif isinstance(made, EstimatedModel):
        config = with_latent(made.config, 4)
        made = made.estimate(template, shapes, labels, config).eval()
    return made.with_origin(Origin(family)).requires_grad_(False)


@pytest.fixture(scope="module")
def codes(model: MorphableModel) -> Tensor:
    return torch.randn(3, model.parts.size, generator=torch.Generator().manual_seed(1))


def along(model: MorphableModel, codes: Tensor) -> Callable[[Tensor], Tensor]:
    """Some vertices of the shape that is two numbers away from the first code."""
    return lambda t: model.decode((codes[0] + t @ codes[1:])[None])[0, ::50]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def test_vmap_is_a_batch(model: MorphableModel, codes: Tensor) -> None:
    close(torch.func.vmap(lambda code: model.decode(code[None])[0])(codes), model.decode(codes))
    if isinstance(model, AdversarialModel):
        return  # its encoder is a search
    shapes = torch.from_numpy(model.template.mesh.vertices.astype(np.float32)) * torch.tensor(
        [[[1.0]], [[1.1]]]
    )
    alone = torch.func.vmap(lambda shape: model.encode(shape[None])[0])(shapes)
    close(alone, model.encode(shapes))


def test_jacobians_agree(model: MorphableModel, codes: Tensor) -> None:
    shape, t = along(model, codes), torch.tensor([0.1, -0.2])
    expected = jacobian(shape, t)
    assert (isinstance(expected, Tensor) and (expected != 0).any()) or model.family == "pca"
    close(torch.func.jacrev(shape)(t), expected)
    close(torch.func.jacfwd(shape)(t), expected)
    several = torch.func.vmap(torch.func.jacrev(shape))(torch.stack([t, t]))
    close(several[1], expected)
    with forward_ad.dual_level():
        moved = shape(forward_ad.make_dual(t, torch.tensor([1.0, 0.0])))
        close(forward_ad.unpack_dual(moved).tangent, expected[..., 0])


def test_second_derivatives_agree(model: MorphableModel, codes: Tensor) -> None:
    """Forward over reverse, and reverse over reverse. Torch lacks the latter for its attention, and
    says so.
    """
    shape, t = along(model, codes), torch.tensor([0.1, -0.2])

    def energy(t: Tensor) -> Tensor:
        return shape(t).square().mean()

    expected = torch.func.hessian(energy)(t)
    assert (expected != 0).any()
    close(torch.func.grad(energy)(t), jacobian(energy, t))  # type: ignore[arg-type]
    if model.family == "lamm":
        with pytest.raises(RuntimeError, match=r"attention.* is not implemented"):
            hessian(energy, t)
    else:
        close(hessian(energy, t), expected)  # type: ignore[arg-type]


class Decoder(nn.Module):
    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, code: Tensor) -> Tensor:
        return self.model.decode(code)


def test_exported_it_decodes_any_number(model: MorphableModel, codes: Tensor) -> None:
    some = ({0: torch.export.Dim("count")},)
    exported = torch.export.export(Decoder(model), (codes,), dynamic_shapes=some).module()
    for count in (3, 2):
        close(exported(codes[:count]), model.decode(codes[:count]))


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)
def test_traced_and_saved_it_decodes_any_number(model: MorphableModel, codes: Tensor) -> None:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(Decoder(model), (codes,)), stream)
    traced = torch.jit.load(io.BytesIO(stream.getvalue()))
    for count in (3, 2, 1):
        close(traced(codes[:count]), model.decode(codes[:count]))


def test_a_solve_outside_of_torch_says_so() -> None:
    """Second derivatives pass through it, transformations do not."""
    model = create("gan", ball_template(560), readout="laplacian").eval().requires_grad_(False)
    codes = torch.randn(3, model.parts.size, generator=torch.Generator().manual_seed(1))
    smooth = create("gan", model.template).eval().requires_grad_(False)
    smooth.load_state_dict(model.state_dict())

    def energy(model: MorphableModel) -> Callable[[Tensor], Tensor]:
        return lambda t: model.decode((codes[0] + t @ codes[1:])[None]).square().mean()

    t = torch.tensor([0.1, -0.2])
    expected = hessian(energy(smooth), t)
    torch.testing.assert_close(hessian(energy(model), t), expected, rtol=0.1, atol=0.1)
    for use in (torch.func.jacrev, torch.func.jacfwd):
        with pytest.raises(InputError, match=r"laplacian.* cannot follow"):
            use(energy(model))(t)
    with pytest.raises(InputError, match=r"laplacian.* cannot follow"):
        torch.export.export(Decoder(model), (codes,))
