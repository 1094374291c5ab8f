"""Whole sets of meshes and codes, batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import shapes
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import TrainableModel
from morphable.models.batched import BATCH, decode_all, encode_all, neutral_all
from morphable.models.families import create
from morphable.models.ib_vae import IbVaeConfig
from morphable.models.pca_mlp import PcaMlpConfig

COUNTS = (0, 1, BATCH, 2 * BATCH + 3)


@pytest.fixture(scope="module")
def model(ball: Template) -> TrainableModel:
    """A network with an identity part; its parameters want gradients, as those of every network."""
    torch.manual_seed(0)
    made = create("ib-vae", ball, IbVaeConfig(samples=(32, 16), neighbors=8))
    assert isinstance(made, TrainableModel)
    made.initialize(shapes(ball, 8))
    made.eval()
    return made


@pytest.mark.parametrize("count", COUNTS)
@torch.no_grad()
def test_it_equals_the_batches_exactly(model: TrainableModel, ball: Template, count: int) -> None:
    meshes = shapes(ball, count)
    chunks = [torch.from_numpy(meshes[i : i + BATCH]) for i in range(0, count, BATCH)]
    codes = encode_all(model, meshes)
    assert codes.shape == (count, model.parts.size)
    decoded, neutral = decode_all(model, codes), neutral_all(model, codes)
    for result in (decoded, neutral):
        assert result.shape == (count, 320, 3) and result.dtype == np.float32

    for number, chunk in enumerate(chunks):
        rows = slice(number * BATCH, (number + 1) * BATCH)
        code = model.encode(chunk)
        assert torch.equal(codes[rows], code)
        assert np.array_equal(decoded[rows], model.decode(code).numpy())
        assert np.array_equal(neutral[rows], model.neutral(code).numpy())


def test_nothing_is_kept_for_a_backward_pass(model: TrainableModel, ball: Template) -> None:
    assert not encode_all(model, shapes(ball, 2)).requires_grad
    assert model.encode(torch.from_numpy(shapes(ball, 2))).requires_grad


def test_every_mesh_goes_through_the_network_once(
    model: TrainableModel, ball: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda x: (seen.append(len(x)), encode(x))[1])
    encode_all(model, shapes(ball, 2 * BATCH + 3))
    assert seen == [BATCH, BATCH, 3]


def test_no_identity_no_neutral_shape(ball: Template) -> None:
    plain = create("pca-mlp", ball, PcaMlpConfig(latent=2, rank=4))
    with pytest.raises(InputError, match="no part 'identity'"):
        neutral_all(plain, torch.zeros(1, 2))
