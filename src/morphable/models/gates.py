"""Gates: numbers from 0 to 1 that multiply what a network adds to a linear model. They are chosen
on the validation meshes after training, so that a network is used only as far as it helps there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BATCH = 64
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
MAX_ROUNDS = 10


@torch.no_grad()
def choose_gates(gates: Sequence[Tensor], score: Callable[[], float]) -> float:
    """Set scalar buffers to those of LEVELS that minimize `score()`, which reads them; returns the
    least score.

    Searches one gate after the other until none changes, from all open and from all closed, since
    gates of an encoder and a decoder can help only together. So the result is never worse than the
    linear model, whose gates are all closed. Equal scores go to the smaller values; a score that is
    not finite counts as the worst.
    """
    scores: dict[tuple[float, ...], float] = {}

    def score_of(values: tuple[float, ...]) -> float:
        if values not in scores:
            for gate, value in zip(gates, values, strict=True):
                gate.fill_(value)
            found = score()
            scores[values] = found if math.isfinite(found) else math.inf
        return scores[values]

    def order(values: tuple[float, ...]) -> tuple[float, float, tuple[float, ...]]:
        return score_of(values), sum(values), values

    found = [_descend((start,) * len(gates), order) for start in (0.0, 1.0)]
    best = min(found, key=order)
    for gate, value in zip(gates, best, strict=True):
        gate.fill_(value)
    return scores[best]


def _descend(
    values: tuple[float, ...],
    order: Callable[[tuple[float, ...]], tuple[float, float, tuple[float, ...]]],
) -> tuple[float, ...]:
    """Change one value after the other to the level that comes first in `order`."""
    for _ in range(MAX_ROUNDS):
        before = values
        for place in range(len(values)):
            options = [(*values[:place], level, *values[place + 1 :]) for level in LEVELS]
            values = min(options, key=order)
        if values == before:
            break
    return values


Half = Callable[[Tensor], tuple[Tensor, Tensor]]
"""One side of an autoencoder: maps its input to what the linear model makes of it, and to what the
network adds.
"""


def choose_pair(
    encoder_gate: Tensor, decoder_gate: Tensor, vertices: Tensor, encoder: Half, decoder: Half
) -> None:
    """Set the gates of an autoencoder to the levels with the least mean vertex error on meshes
    (N, V, 3) mm.

    encoder: meshes (B, V, 3) mm -> codes (B, L), linear and added. decoder: codes (B, L) -> shapes
    (B, V, 3) mm, linear and added.
    """
    gates = encoder_gate, decoder_gate
    errors = pair_errors(vertices, encoder, decoder)
    choose_gates(gates, lambda: float(errors[tuple(LEVELS.index(float(gate)) for gate in gates)]))


@torch.no_grad()
def pair_errors(vertices: Tensor, encoder: Half, decoder: Half) -> Tensor:
    """(5, 5) mm: the mean vertex error on meshes (N, V, 3) mm for each level of the encoder's gate
    (row) and the decoder's (column). All of them cost one pass through the encoder and five through
    the decoder.
    """
    total = torch.zeros(len(LEVELS), len(LEVELS), dtype=torch.float64)
    for block in vertices.split(BATCH):
        code, code_added = encoder(block)
        for row, a in enumerate(LEVELS):
            shape, shape_added = decoder(code + a * code_added)
            rest = shape - block
            for column, b in enumerate(LEVELS):
                total[row, column] += (rest + b * shape_added).norm(dim=-1).mean(1).sum().cpu()
    return total / len(vertices)
