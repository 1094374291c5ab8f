"""redundancy: how many neighboring observations say the same.

What a model cannot show differs from vertex to vertex, but not independently: a crease that the
model lacks moves hundreds of vertices alike. As measurements with independent noise, the vertices of
a dense mesh would make a fit far too sure of itself, and of the places that were not seen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from morphable.rows import evenly_spread

SAMPLE = 250
"""Places, evenly spread over those that were seen, whose pairs are compared."""
BINS = 24
"""Classes of distance, up to half the diameter of what was seen."""
CLEARLY = 2.0
"""Standard errors by which a correlation must be above zero to count."""


def redundancy(offsets: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """(B,) how many observations count as one, at least 1, from the correlation of residuals with
    distance (the effective sample size of geostatistics).

    offsets: (B, K, 3) mm residuals. places: (K, 3) mm. weights: (B, K), 0 = not seen.
    """
    result = [
        _redundancy(offset[seen].double().cpu().numpy(), places[seen].double().cpu().numpy())
        for offset, seen in zip(offsets, weights > 0, strict=True)
    ]
    return torch.tensor(result, dtype=offsets.dtype, device=offsets.device)


def _redundancy(offsets: np.ndarray, places: np.ndarray) -> float:
    rows = evenly_spread(len(places), SAMPLE)
    some, where = offsets[rows], places[rows]
    power = np.square(some).sum(1).mean()
    if len(rows) < 3 or power == 0:
        return 1.0
    first, second = np.triu_indices(len(rows), 1)
    distance = np.linalg.norm(where[first] - where[second], axis=1)
    product = (some[first] * some[second]).sum(1) / power
    number = np.floor(distance / (distance.max() / 2) * BINS).astype(int)
    count = np.bincount(number, minlength=BINS)[:BINS]
    total = np.bincount(number, product, BINS)[:BINS]
    clear = total > CLEARLY * np.sqrt(count / 3)
    # Beyond the first class without a clear correlation, what is left is chance.
    reach = BINS if clear.all() else int(np.argmin(clear | (count == 0)))
    return 1 + (len(places) - 1) * float(total[:reach].sum()) / len(distance)
