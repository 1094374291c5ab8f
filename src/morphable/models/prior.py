"""CodePrior: the Gaussian over codes. A model samples from it, scores codes by it, and conditions
it on known parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.models.parts import Parts

RELATIVE_FLOOR = 1e-10
"""Directions whose variance is below this share of the largest one count as constant."""


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
        """Set mean and covariance to those of `codes` (N, L). Pinned parts stay constant. A single
        code has covariance zero.
        """
        codes = codes.double()
        free = torch.from_numpy(self.parts.free)
        mean = codes.mean(0)
        centered = (codes - mean) * free
        covariance = centered.T @ centered / max(1, len(codes) - 1)
        self.mean.copy_(mean * free)
        self.factor.copy_(_root(covariance))

    def sample(
        self, n: int, generator: torch.Generator | None = None, scale: float = 1.0
    ) -> Tensor:
        """(n, L) random codes; `scale` multiplies the standard deviation. Without a generator they
        are drawn from torch's global one.
        """
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(n, self.factor.shape[1], generator=generator, device=device)
        return self.mean + scale * noise.to(self.mean) @ self.factor.T

    def energy(self, code: Tensor) -> Tensor:
        """(B, L) -> (B,) half the squared Mahalanobis distance, differentiable. Deviations along
        constant directions are ignored.
        """
        # The cutoff is a square root because singular values of the factor are standard deviations,
        # while the floor is a share of variances.
        inverse = torch.linalg.pinv(self.factor.double(), rtol=RELATIVE_FLOOR**0.5).to(code)
        return 0.5 * ((code - self.mean) @ inverse.T).square().sum(-1)

    def given(self, known: Mapping[str, Tensor]) -> CodePrior:
        """The posterior: the distribution of codes if the parts in `known` have these values.

        known: values (size,) by name of the part. Raises InputError if there is no such part or a
        value has another shape.
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
        # Gaussian conditioning of the unknown u on the known k:
        #   mean_u + S_uk S_kk^+ (value_k - mean_k),  covariance S_uu - S_uk S_kk^+ S_ku.
        # The pseudoinverse, because pinned parts and constant directions have variance zero.
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

    def with_pinned(self, values: Tensor) -> CodePrior:
        """This prior with pinned parts that vary as `values` (N, n) do, independent of the rest.

        n: the sizes of the pinned parts together.
        """
        pinned = torch.from_numpy(~self.parts.free).nonzero()[:, 0]
        values = values.to(self.mean).double()
        covariance = self.factor.double() @ self.factor.double().T
        centered = values - values.mean(0)
        covariance[pinned[:, None], pinned] = centered.T @ centered / max(1, len(values) - 1)

        result = CodePrior(self.parts).to(self.mean.device)
        result.mean.copy_(self.mean)
        result.mean[pinned] = values.mean(0).to(self.mean)
        result.factor.copy_(_root(covariance))
        return result


def _root(covariance: Tensor) -> Tensor:
    """(L, L) symmetric square root. Eigenvalues below the relative floor, which rounding can make
    negative, become exactly zero.
    """
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp(min=0) * RELATIVE_FLOOR
    values = torch.where(values > floor, values, torch.zeros_like(values))
    return (vectors * values.sqrt()) @ vectors.T
