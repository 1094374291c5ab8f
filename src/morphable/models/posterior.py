"""Posterior: a Gaussian over codes that an encoder gives, and the mutual information between codes
and meshes.
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

    def draw(self, generator: torch.Generator) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device).to(
            self.mean
        )
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def part(self, where: slice) -> Posterior:
        return Posterior(self.mean[:, where], self.log_variance[:, where])


def mutual_information(
    drawn: Tensor, posterior: Posterior, counted: Tensor | None = None
) -> Tensor:
    """The mutual information of drawn codes and the meshes they came from, in nats, by minibatch
    weighted sampling; at most log B.

    mean_i [log q(z_i | x_i) - logsumexp_j log q(z_i | x_j)] + log B for drawn codes z (B, L). The
    published estimate adds the constant log N of N training meshes, without which equal posteriors
    give the true value, 0. counted: (B,) weights of the meshes in the mean, all one if None.
    """
    mean, log_variance = posterior
    squares = (drawn[:, None] - mean).square() / log_variance.exp()
    density = -0.5 * (squares + log_variance + np.log(2 * np.pi)).sum(-1)
    each = density.diagonal() - density.logsumexp(1) + np.log(len(drawn))
    return each.mean() if counted is None else (each * counted).sum() / counted.sum().clamp(min=1)
