"""Posterior: the Gaussian over codes that an encoder predicts, and an estimate of the mutual
information between codes and meshes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Posterior(NamedTuple):
    """A Gaussian over free codes with independent dimensions: mean and log variance (B, L_free)."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, generator: torch.Generator, scale: float = 1.0) -> Tensor:
        """(B, L_free) one random code per mesh, differentiable in mean and variance.

        scale: multiplies the standard deviation.
        """
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device).to(
            self.mean
        )
        return self.mean + scale * (0.5 * self.log_variance).exp() * noise

    def part(self, where: slice) -> Posterior:
        """The posterior of some dimensions alone."""
        return Posterior(self.mean[:, where], self.log_variance[:, where])


def mutual_information(
    drawn: Tensor, posterior: Posterior, counted: Tensor | None = None
) -> Tensor:
    """Estimate the mutual information between drawn codes and their meshes, in nats, by minibatch
    weighted sampling (Chen et al. 2018):

        mean_i [log q(z_i | x_i) - logsumexp_j log q(z_i | x_j)] + log B

    The estimate is at most log B. The published one adds the constant log N for N training meshes;
    without it, equal posteriors give the true value, 0.

    drawn: (B, L) codes z drawn from `posterior`. counted: (B,) weights of the meshes in the mean;
    all one if None.
    """
    mean, log_variance = posterior
    squares = (drawn[:, None] - mean).square() / log_variance.exp()
    # Row i, column j: log q(z_i | x_j).
    density = -0.5 * (squares + log_variance + np.log(2 * np.pi)).sum(-1)
    each = density.diagonal() - density.logsumexp(1) + np.log(len(drawn))
    return each.mean() if counted is None else (each * counted).sum() / counted.sum().clamp(min=1)
