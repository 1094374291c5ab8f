"""The principal directions of a model's code, ordered by how much each moves the surface."""

from __future__ import annotations

import torch
from torch import Tensor

from morphable.models.base import MorphableModel
from morphable.models.prior import CodePrior

CANDIDATES = 64
"""Number of directions, those with the largest code variance, whose movement is compared."""
RELATIVE_FLOOR = 1e-10
"""Directions whose variance is below this share of the largest one count as constant."""
INACTIVE_VARIANCE = 0.01
"""A latent dimension of a VAE has collapsed if the variance of its posterior mean over the meshes
is below this (Burda et al. 2016).
"""


@torch.no_grad()
def principal_directions(
    model: MorphableModel,
    part: str | None = None,
    most: int = 32,
    prior: CodePrior | None = None,
) -> Tensor:
    """(K, L) mutually orthogonal steps of one standard deviation in the code, with K <= `most`.

    They are ordered by the squared distance that vertices move between one step below and one step
    above the prior's mean. Code variance would not order them, because in a whitened code, such as
    PCA's, all variances are one. Constant directions are left out. If the code is axis-aligned, the
    directions are its dimensions, except collapsed ones. A model without a prior has none.

    part: if given, only directions within this part; the others stay at the prior's mean. prior:
    the model's own if None.
    """
    prior = prior or model.prior
    if prior is None:
        return torch.zeros(0, model.parts.size, device=model.device)
    mean = prior.mean
    where = model.parts[part] if part is not None else slice(0, model.parts.size)
    factor = prior.factor.double().cpu()[where]
    covariance = factor @ factor.T
    if model.axis_aligned_code:
        values, axes = covariance.diagonal(), torch.eye(len(covariance), dtype=torch.double)
        collapsed = torch.from_numpy(model.parts.free[where]) & (values < INACTIVE_VARIANCE)
        values = torch.where(collapsed, 0.0, values)
    else:
        values, axes = torch.linalg.eigh(covariance)
    # Round and sort stably, so that rounding errors do not reorder directions of equal variance.
    relative = (values / values.max().clamp(min=1e-300)).mul(1e9).round()
    order = torch.argsort(relative, descending=True, stable=True)[:CANDIDATES]
    order = order[values[order] > RELATIVE_FLOOR * values.max()]
    steps = torch.zeros(len(order), model.parts.size, dtype=torch.double)
    steps[:, where] = (axes[:, order] * values[order].sqrt()).T
    if not len(steps):
        return steps.to(mean)
    moved = [model.decode(mean + s) - model.decode(mean - s) for s in steps.to(mean).split(16)]
    strength = torch.cat([m.square().sum((1, 2)) for m in moved])
    return steps.to(mean)[torch.argsort(strength, descending=True, stable=True)[:most]]
