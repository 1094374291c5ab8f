"""DenseDecoder: a decoder that a few matrix products compute, for programs without torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class DenseDecoder:
    """decode(z) = mean + sum_c a_c components_c, with amounts a = skip z + layers(z).

    mean: (V, 3) mm. components: (C, V, 3) mm. skip: (C, L), or None. layers: linear layers and
    activations from L to C numbers.
    """

    mean: Tensor
    components: Tensor
    skip: Tensor | None
    layers: nn.Sequential

    @torch.no_grad()
    def amounts(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, C)"""
        found: Tensor = self.layers(code)
        return found if self.skip is None else found + code @ self.skip.T

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm"""
        return self.mean + torch.tensordot(self.amounts(code), self.components, 1)


def with_outputs_times(layers: nn.Sequential, factor: Tensor) -> nn.Sequential:
    """Layers that end in a linear one, whose outputs are multiplied by a number."""
    *hidden, last = layers
    assert isinstance(last, nn.Linear)
    scaled = nn.Linear(last.in_features, last.out_features)
    with torch.no_grad():
        scaled.weight.copy_(last.weight * factor)
        scaled.bias.copy_(last.bias * factor)
    return nn.Sequential(*hidden, scaled)
