"""The directions of a model's code worth walking, ordered by how much each moves the surface."""

from __future__ import annotations

import torch
from torch import Tensor

from morphable.models.base import MorphableModel
from morphable.models.prior import CodePrior

CANDIDATES = 64
"""Directions, by code variance, among which those that move the surface most are looked for."""
RELATIVE_FLOOR = 1e-10
INACTIVE_VARIANCE = 0.01
"""A code number of a VAE whose posterior mean varies by less over the meshes is collapsed (Burda et
al. 2016).
"""


@torch.no_grad()
def principal_directions(
    model: MorphableModel,
    part: str | None = None,
    most: int = 32,
    prior: CodePrior | None = None,
) -> Tensor:
    """(K, L) steps of one standard deviation in the code, K at most `most`; mutually orthogonal.

    The order is by the squared distance that vertices move between one step back and one step ahead
    of the prior's mean, not by code variance: in a whitened code, as PCA's, all variances are one.
    Constant directions are left out. In an axis-aligned code they are its dimensions, those that
    have not collapsed. A model without a prior has none.

    part: only directions within this part, all else at the prior's mean. prior: the model's own if
    None.
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
    # Rounded and sorted stably, so that equal variances keep the order of the code.
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
