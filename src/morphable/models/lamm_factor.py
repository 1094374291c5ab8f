"""Factor a trained LAMM: replace its largest layer, the inverse tokenizer, by one of low rank."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.models.batched import BATCH
from morphable.models.lamm import Lamm
from morphable.ops.tokens import low_rank


@torch.no_grad()
def factor(model: Lamm, rank: int, shapes: Tensor) -> Lamm:
    """Return the same model with an inverse tokenizer of rank `rank`, the one that fits the tokens
    of `shapes` (N, V, 3) mm best.

    Raises InputError if `rank` is not in 1..width - 1, or if the model is factored already.
    """
    width = model.config.width
    if model.config.rank or not 1 <= rank < width:
        raise InputError(
            f"rank: expected 1..{width - 1} of a model that is not factored, got {rank}"
        )
    config = replace(model.config, rank=rank)
    origin = replace(model.origin, provenance={**model.provenance, "rank": rank})
    factored = Lamm(model.template, config, model.geometry, origin).to(model.device)

    # The error is measured on tokens that occur, not on the weights: directions that no token takes
    # cost nothing to drop.
    tokens = torch.cat([last_tokens(model, chunk) for chunk in shapes.split(BATCH)])
    inner, weight, bias = low_rank(model.network.inverse_tokenizer, tokens, rank)
    layer = "network.inverse_tokenizer"
    factors = {f"{layer}.inner": inner, f"{layer}.weight": weight, f"{layer}.bias": bias}

    factored.load_state_dict(model.state_dict() | factors)
    return factored.eval()


def last_tokens(model: Lamm, shapes: Tensor) -> Tensor:
    """(B, R, D) tokens that the inverse tokenizer reads when the codes of shapes (B, V, 3) mm are
    decoded.
    """
    return model.decoder_states(model.encode(shapes))[-1][:, 1:]
