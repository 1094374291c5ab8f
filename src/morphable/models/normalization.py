"""Normalization: millimeters to a network's units and back, as buffers inside the model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from morphable.models.base import Shapes, blocks

MIN_DEVIATION = 1e-4
"""A coordinate that varies by less (mm) counts as constant and is divided by one: its z-score is
zero.
"""


class Normalization(nn.Module):
    """x -> (x - mean) / std, with mean (V, 3) mm and std (V, 3) mm over the training meshes.

    `per_vertex=True` is the z-score of each vertex and axis with the population deviation (CoMA);
    otherwise one number scales all, the root mean square deviation, so that an error keeps its
    meaning in mm.
    """

    def __init__(self, n_vertices: int, per_vertex: bool) -> None:
        super().__init__()
        self.per_vertex = per_vertex
        self.mean = nn.Buffer(torch.zeros(n_vertices, 3))
        self.std = nn.Buffer(torch.ones(n_vertices, 3) if per_vertex else torch.ones(1, 1))

    def initialize(self, shapes: Shapes) -> None:
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
    count = len(shapes)
    mean = sum(block.sum(0, dtype=np.float64) for block in blocks(shapes)) / count
    variance = sum(np.square(block - mean).sum(0) for block in blocks(shapes)) / count
    return np.asarray(mean), np.asarray(variance)
