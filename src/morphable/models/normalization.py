"""Normalization: millimeters to a network's units and back, as buffers inside the model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from morphable.models.base import Shapes, blocks

MIN_DEVIATION = 1e-4
"""Coordinates with a smaller standard deviation (mm) count as constant. They are divided by one, so
that their z-score stays near zero instead of amplifying rounding noise.
"""


class Normalization(nn.Module):
    """x -> (x - mean) / std, with the mean (V, 3) mm and standard deviation of the training meshes.

    per_vertex: if True, every vertex and axis has its own population standard deviation, std
    (V, 3) mm, as in CoMA. If False, all coordinates are divided by one number, the root mean square
    deviation, so that errors of all vertices remain comparable in mm.
    """

    def __init__(self, n_vertices: int, per_vertex: bool) -> None:
        super().__init__()
        self.per_vertex = per_vertex
        self.mean = nn.Buffer(torch.zeros(n_vertices, 3))
        self.std = nn.Buffer(torch.ones(n_vertices, 3) if per_vertex else torch.ones(1, 1))

    def initialize(self, shapes: Shapes) -> None:
        """Compute mean and standard deviation from shapes (N, V, 3) mm."""
        mean, variance = moments(shapes)
        variance = variance if self.per_vertex else variance.mean(keepdims=True)
        std = np.sqrt(variance)
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(np.where(std > MIN_DEVIATION, std, 1.0)))

    def forward(self, vertices: Tensor) -> Tensor:
        return (vertices - self.mean) / self.std

    def inverse(self, normalized: Tensor) -> Tensor:
        return normalized * self.std + self.mean


def moments(shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population variance (V, 3) over the meshes, in double precision and two passes."""
    # One pass, E[x^2] - E[x]^2, would cancel: coordinates can be much larger than their deviation.
    count = len(shapes)
    mean = sum(block.sum(0, dtype=np.float64) for block in blocks(shapes)) / count
    variance = sum(np.square(block - mean).sum(0) for block in blocks(shapes)) / count
    return np.asarray(mean), np.asarray(variance)
