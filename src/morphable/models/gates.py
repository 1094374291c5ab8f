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
def mean_error(model: Callable[[Tensor], Tensor], vertices: Tensor) -> float:
    """The mean vertex error in mm of a model's reconstructions of meshes (N, V, 3) mm."""
    errors = [
        (model(block) - block).norm(dim=-1).mean(1).double() for block in vertices.split(BATCH)
    ]
    return float(torch.cat(errors).mean())


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
