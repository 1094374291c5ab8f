"""Rotations: between rotation vectors, axis times angle, and matrices, differentiable everywhere but
at half turns.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-20


def rotation_matrices(vectors: Tensor) -> Tensor:
    """(..., 3) rotation vectors in radians -> (..., 3, 3), by Rodrigues' formula.

    >>> quarter = rotation_matrices(torch.tensor([0.0, 0.0, torch.pi / 2]))
    >>> float((quarter @ torch.tensor([1.0, 0.0, 0.0]))[1])
    1.0
    """
    angle = (vectors.square().sum(-1, keepdim=True) + TINY).sqrt()[..., None]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    half = torch.sin(angle / 2) / angle  # of it, 1 - cos has no cancellation
    turned: Tensor = torch.eye(3).to(vectors) + torch.sin(angle) / angle * cross
    return turned + 2 * half.square() * (cross @ cross)


def rotation_vectors(matrices: Tensor) -> Tensor:
    """The inverse: (..., 3, 3) rotations -> (..., 3) of at most half a turn."""
    m = matrices
    axis = torch.stack(
        [
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        -1,
    )
    sine = (axis.square().sum(-1, keepdim=True) + TINY).sqrt() / 2
    cosine = (m.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1) / 2
    return axis / 2 * (torch.atan2(sine, cosine) / sine)
