"""LinearBasis: coordinates along orthonormal shapes, in standard deviations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morphable.models.principal_basis import PrincipalBasis


class LinearBasis(nn.Module):
    """x = mean + sum_k z_k sigma_k u_k, and z_k = <u_k, x - mean> / sigma_k: a projection, in
    standard deviations.

    Buffers: mean (3V,) mm, components u (L, 3V) orthonormal, deviations sigma (L,) mm.
    """

    def __init__(self, size: int, n_vertices: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(3 * n_vertices))
        self.components = nn.Buffer(torch.zeros(size, 3 * n_vertices))
        self.deviations = nn.Buffer(torch.ones(size))

    def set(self, basis: PrincipalBasis) -> None:
        self.mean.copy_(torch.tensor(basis.mean))
        self.components.copy_(torch.tensor(basis.components))
        self.deviations.copy_(torch.tensor(basis.deviations))

    def code_of(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, L)"""
        projection = (vertices.flatten(1) - self.mean) @ self.components.T
        # With fewer meshes than components the last ones do not exist: their coordinate is zero.
        return torch.where(self.deviations > 0, projection / self.deviations.clamp(min=1e-30), 0.0)

    def shape_of(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm"""
        return (self.mean + (code * self.deviations) @ self.components).unflatten(1, (-1, 3))
