"""Latent walks along the principal directions of a model's prior, and samples from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from morphable.evaluate.directions import principal_directions
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Standard deviations along a direction of the prior."""
MAX_PER_PART, MAX_WALKS = 8, 16


@dataclass(frozen=True, eq=False)
class Walk:
    """A walk along one direction of the prior.

    shapes: (5, V, 3) mm at STEPS standard deviations. movement: (V,) mm from first to last.
    """

    title: str
    shapes: np.ndarray
    movement: np.ndarray


def all_walks(model: MorphableModel) -> list[Walk]:
    """Return walks in each part that the prior draws, at most 8 per part and 16 in all."""
    parts = model.parts.free_names[:MAX_WALKS]
    each = min(MAX_PER_PART, max(1, MAX_WALKS // max(1, len(parts))))
    return [walk for part in parts for walk in prior_walks(model, part, each)]


def prior_walks(model: MorphableModel, part: str, limit: int) -> list[Walk]:
    """Return at most `limit` walks along the principal directions of the prior within a part,
    ordered by how far they move the surface.
    """
    steps = principal_directions(model, part, limit).cpu().numpy()
    if not len(steps):
        return []
    mean = model.require_prior().mean.cpu().numpy()
    codes = mean + np.array(STEPS, np.float32)[:, None] * steps[:, None]
    flat = torch.from_numpy(codes.reshape(-1, len(mean)))
    shapes = decode_all(model, flat).reshape(len(steps), len(STEPS), -1, 3)
    movement = np.linalg.norm(shapes[:, -1] - shapes[:, 0], axis=-1)
    order = np.argsort(-np.square(movement).mean(axis=1), kind="stable")
    return [Walk(f"{part} {i + 1}", shapes[k], movement[k]) for i, k in enumerate(order)]


def draw(model: MorphableModel, count: int, seed: int = 0) -> np.ndarray:
    """Draw shapes (count, V, 3) float32 mm from the prior."""
    with torch.no_grad():
        return np.asarray(model.sample(count, torch.Generator().manual_seed(seed)).cpu().numpy())
