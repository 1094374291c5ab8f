"""CodePrior: the Gaussian over codes that a model samples from, scores with, and conditions on
known parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.models.parts import Parts

RELATIVE_FLOOR = 1e-10
"""Directions with less than this share of the largest code variance count as constant."""


class CodePrior(nn.Module):
    """N(mean, F F^T) over codes of length L. Pinned parts are constant: their rows of F are zero.

    Buffers: mean (L,), factor (L, L). A fresh prior is standard normal over the free parts.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.mean = nn.Buffer(torch.zeros(parts.size))
        self.factor = nn.Buffer(torch.diag(torch.from_numpy(parts.free).float()))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Set mean and covariance to those of `codes` (N, L); one code is a point mass. Pinned
        parts stay constant.
        """
        codes = codes.double()
        free = torch.from_numpy(self.parts.free)
        mean = codes.mean(0)
        centered = (codes - mean) * free
        covariance = centered.T @ centered / max(1, len(codes) - 1)
        self.mean.copy_(mean * free)
        self.factor.copy_(_root(covariance))

    def sample(self, n: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
        """(n, L) codes; `scale` multiplies the standard deviation."""
        noise = torch.randn(n, self.factor.shape[1], generator=generator, device=generator.device)
        return self.mean + scale * noise.to(self.mean) @ self.factor.T

    def energy(self, code: Tensor) -> Tensor:
        """(B, L) -> (B,) half the squared Mahalanobis distance, differentiable; constant directions
        do not count.
        """
        inverse = torch.linalg.pinv(self.factor.double(), rtol=RELATIVE_FLOOR**0.5).to(code)
        return 0.5 * ((code - self.mean) @ inverse.T).square().sum(-1)

    def given(self, known: Mapping[str, Tensor]) -> CodePrior:
        """The posterior: the distribution of codes whose parts in `known` have these values, each
        (size of the part,).
        """
        index = torch.zeros(self.parts.size, dtype=torch.bool)
        value = self.mean.double().clone()
        for name, part_value in known.items():
            where = self.parts[name]
            expected = where.stop - where.start
            if part_value.shape != (expected,):
                raise InputError(
                    f"part {name!r}: expected {expected} numbers, got shape "
                    f"{tuple(part_value.shape)}"
                )
            index[where] = True
            value[where] = part_value.to(value)
        mean, covariance = self.mean.double(), self.factor.double() @ self.factor.double().T
        gain = covariance[~index][:, index] @ torch.linalg.pinv(
            covariance[index][:, index], hermitian=True
        )
        result = CodePrior(self.parts).to(self.mean.device)
        value[~index] = mean[~index] + gain @ (value - mean)[index]
        rest = torch.zeros_like(covariance)
        keep = (~index).nonzero()[:, 0]
        rest[keep[:, None], keep] = (
            covariance[~index][:, ~index] - gain @ covariance[index][:, ~index]
        )
        result.mean.copy_(value)
        result.factor.copy_(_root(rest))
        return result


def _root(covariance: Tensor) -> Tensor:
    """(L, L) symmetric square root; eigenvalues under the relative floor become exactly zero."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp(min=0) * RELATIVE_FLOOR
    values = torch.where(values > floor, values, torch.zeros_like(values))
    return (vectors * values.sqrt()) @ vectors.T
