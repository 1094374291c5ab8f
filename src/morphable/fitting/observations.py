"""Observations: what is known of shapes, as positions of places on a template's surface."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from morphable.mesh.align import Similarity


@dataclass(frozen=True, eq=False)
class Observations:
    """Where K places of a surface were seen in B shapes.

    corners: (K, 3) vertices between which each place lies; one and the same if it is a vertex.
    shares: (K, 3) barycentric weights of these. positions: (B, K, 3) mm. weights: (B, K), 0 = not
    seen. normals: (B, K, 3) unit normals along which a distance counts in full; None: all directions
    count. slide: how much a distance along the surface counts against one across it, if there are
    normals. are_whole: whether the places are all vertices of the template in order,
    and all were seen.
    """

    corners: Tensor
    shares: Tensor
    positions: Tensor
    weights: Tensor
    normals: Tensor | None = None
    slide: float = 1.0
    are_whole: bool = False

    @classmethod
    def of_vertices(
        cls, vertices: Tensor, positions: Tensor, weights: Tensor, whole: bool = False
    ) -> Observations:
        """Vertices (K,) seen at positions (B, K, 3) mm with weights (B, K)."""
        shares = torch.zeros(len(vertices), 3, device=vertices.device)
        shares[:, 0] = 1
        corners = vertices[:, None].expand(-1, 3)
        return cls(corners, shares, positions, weights, are_whole=whole)

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device) -> Observations:
        return Observations(
            self.corners.to(device),
            self.shares.to(device),
            self.positions.to(device),
            self.weights.to(device),
            None if self.normals is None else self.normals.to(device),
            self.slide,
            self.are_whole,
        )

    def rows(self, rows: Tensor) -> Observations:
        """Those of some of the shapes."""
        return replace(
            self,
            positions=self.positions[rows],
            weights=self.weights[rows],
            normals=None if self.normals is None else self.normals[rows],
        )

    def moved(self, map: Similarity) -> Observations:
        """Those of the shapes moved by B maps."""
        positions = map.apply(self.positions.double().cpu().numpy())
        normals = self.normals
        if normals is not None:
            turned = normals.double().cpu().numpy() @ np.swapaxes(map.rotation, 1, 2)
            normals = torch.from_numpy(turned).to(normals)
        return replace(
            self, positions=torch.from_numpy(positions).to(self.positions), normals=normals
        )

    def places(self, vertices: Tensor) -> Tensor:
        """(..., V, C) values at the vertices -> (..., K, C) at the observed places."""
        if (self.corners == self.corners[:, :1]).all():
            return vertices[..., self.corners[:, 0], :]
        return (vertices[..., self.corners, :] * self.shares.to(vertices)[..., None]).sum(-2)

    def measured(self, offsets: Tensor) -> Tensor:
        """(B, K, 3) offsets -> the offsets as they count, with `normals` and without weights."""
        if self.normals is None:
            return offsets
        normals = self.normals.to(offsets)
        across = (offsets * normals).sum(-1, keepdim=True) * normals
        return across + self.slide * (offsets - across)

    @property
    def measurements(self) -> Tensor:
        """(B,) how many independent numbers were seen, counted by their weights."""
        each = 3.0 if self.normals is None else 1 + 2 * self.slide**2
        return each * self.weights.double().sum(1)

    @property
    def are_alike(self) -> bool:
        """Whether all shapes have the same weights and normals."""
        return self.normals is None and bool((self.weights == self.weights[:1]).all())
