"""Correction: what a network adds to a linear model, in a form that changes of codes can be folded
into.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from morphable.models.pca_mlp import mlp


class Correction(nn.Module):
    """A linear map plus an MLP, both zero at the start."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.network = mlp([inputs, *hidden, outputs])

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.linear(inputs) + self.network(inputs)
        return found

    def change_outputs(self, change: Tensor, added: Tensor, center: Tensor) -> None:
        """Make it compute y @ change + (x - center) @ added, where y are its outputs for x.

        change: (K, K). added: (D, K). center: (D,).
        """
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        for layer in (self.linear, last):
            change_outputs(layer, change)
        self.linear.weight.add_(added.T)
        self.linear.bias.sub_(center @ added)

    def change_inputs(self, change: Tensor, skip: Tensor) -> None:
        """Make self(x) + x @ skip, for inputs x, what it was for x @ change^-1. The skip connection
        stays.

        change: (D, D). skip: (D, K).
        """
        back = torch.linalg.inv(change.double()).to(change)
        first = self.network[0]
        assert isinstance(first, nn.Linear)
        for layer in (self.linear, first):
            layer.weight.copy_(layer.weight @ back.T)
        self.linear.weight.add_((back @ skip - skip).T)


@torch.no_grad()
def change_outputs(layer: nn.Linear, change: Tensor) -> None:
    """Make the layer compute y @ change (K, K), where y are its outputs."""
    layer.weight.copy_(change.T @ layer.weight)
    layer.bias.copy_(layer.bias @ change)
