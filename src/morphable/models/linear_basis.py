"""LinearBasis: codes are coordinates along orthonormal shapes, in standard deviations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morphable.models.principal_basis import PrincipalBasis


class LinearBasis(nn.Module):
    """Maps between shapes x and codes z: x = mean + sum_k z_k sigma_k u_k, and back by projection,
    z_k = <u_k, x - mean> / sigma_k.

    Buffers: mean (3V,) mm, components u (L, 3V) orthonormal, deviations sigma (L,) mm.
    """

    def __init__(self, size: int, n_vertices: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(3 * n_vertices))
        self.components = nn.Buffer(torch.zeros(size, 3 * n_vertices))
        self.deviations = nn.Buffer(torch.ones(size))

    def set(self, basis: PrincipalBasis) -> None:
        """Copy a basis of the same size into the buffers."""
        self.mean.copy_(torch.tensor(basis.mean))
        self.components.copy_(torch.tensor(basis.components))
        self.deviations.copy_(torch.tensor(basis.deviations))

    def code_of(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, L)"""
        projection = self.coefficients_of(vertices)
        # If there are fewer meshes than components, the last components do not exist and have
        # deviation zero. Their coordinate is zero. The clamp only avoids 0 / 0, which `where` would
        # pass on to gradients as nan.
        return torch.where(self.deviations > 0, projection / self.deviations.clamp(min=1e-30), 0.0)

    def whitened(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, L) coordinates in standard deviations, as a network reads them."""
        return self.coefficients_of(vertices) / self.units

    @property
    def units(self) -> Tensor:
        """(L,) mm the unit of each coordinate that `whitened` returns."""
        return units_of(self.deviations)

    def shape_of(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm"""
        return self.shape_with(code * self.deviations)

    def coefficients_of(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, L) mm along the components."""
        return (vertices.flatten(1) - self.mean) @ self.components.T

    def shape_with(self, coefficients: Tensor) -> Tensor:
        """(B, L) mm along the components -> (B, V, 3) mm"""
        return (self.mean + coefficients @ self.components).unflatten(1, (-1, 3))


def units_of(deviations: Tensor) -> Tensor:
    """(L,) mm by which coordinates are divided for a network: their deviations (L,), but at least a
    thousandth of the first, since a direction of vanishing variance would amplify noise.
    """
    least = 1e-3 * deviations[0].double() + 1e-30
    return deviations.clamp(min=least.to(deviations))
