"""DenseDecoder: a decoder that a few matrix products compute, for programs without torch."""

from __future__ import annotations

from collections.abc import Sequence
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


@torch.no_grad()
def side_by_side(networks: Sequence[tuple[nn.Sequential, Tensor, int]]) -> nn.Sequential:
    """Layers that compute a weighted sum of networks of the same depth and activations.

    networks: each network, its weight in the sum, and how many inputs it reads; they are the first
    of the inputs, and a network's further ones are zero.
    """
    reads = [read for _, _, read in networks]
    layers: list[nn.Module] = []
    columns = list(zip(*(network for network, _, _ in networks), strict=True))
    for number, column in enumerate(columns):
        if not isinstance(column[0], nn.Linear):
            layers.append(column[0])
            continue
        weights, biases = [layer.weight for layer in column], [layer.bias for layer in column]
        if number == 0:
            weights = [
                nn.functional.pad(weight[:, :read], (0, max(reads) - read))
                for weight, read in zip(weights, reads, strict=True)
            ]
        if number == len(columns) - 1:
            factors = [factor for _, factor, _ in networks]
            weights = [w * factor for w, factor in zip(weights, factors, strict=True)]
            biases = [b * factor for b, factor in zip(biases, factors, strict=True)]
            weight, bias = torch.cat(weights, 1), torch.stack(biases).sum(0)
        else:
            weight = torch.cat(weights) if number == 0 else torch.block_diag(*weights)
            bias = torch.cat(biases)
        joined = nn.Linear(weight.shape[1], weight.shape[0])
        joined.weight.copy_(weight)
        joined.bias.copy_(bias)
        layers.append(joined)
    return nn.Sequential(*layers)
