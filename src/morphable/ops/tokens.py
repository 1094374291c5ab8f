"""Region tokens (LAMM, Tarasiou et al. 2024): layers from vertices to one token per region and
back, and the token mixers between them.

Vertices are sorted by region, so that the weights of a region are consecutive rows (a run) of one
matrix. Each region then needs a single product for all meshes and layers, without gathering,
padding or overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from morphable.ops.gather import being_transformed, wants_plain

HEAD = 64
"""Width of an attention head."""
BLOCK = 3
"""Rows per vertex: its three coordinates."""


def runs_to_tokens(x: Tensor, weight: Tensor, runs: Sequence[int]) -> Tensor:
    """Multiply each run of x (B, n) with its rows of weight (n, D): (B, R, D), one token per run.

    runs: the R lengths of the runs, which sum to n.
    """
    pieces = zip(x.split(list(runs), 1), weight.split(list(runs)), strict=True)
    return torch.stack([values @ matrix for values, matrix in pieces], 1)


def tokens_to_runs(tokens: Tensor, weight: Tensor, bias: Tensor, runs: Sequence[int]) -> Tensor:
    """Expand tokens (..., R, D) to runs (..., n): run r is token r times its rows of weight (n, D),
    plus its entries of bias (n,).
    """
    flat = tokens.flatten(0, -3)
    pieces = zip(flat.unbind(1), weight.split(list(runs)), bias.split(list(runs)), strict=True)
    return torch.cat([_linear(*piece) for piece in pieces], -1).unflatten(0, tokens.shape[:-2])


def _linear(token: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, D), (n, D), (n,) -> (B, n)."""
    if being_transformed() or len(token) > 1 or len(weight) % BLOCK:
        return nn.functional.linear(token, weight, bias)
    # For a single mesh, reading the weights takes most of the time: a batch of small products reads
    # them at full memory speed, BLAS's matrix-vector product at half of it.
    blocks = weight.unflatten(0, (-1, BLOCK))
    return torch.bmm(blocks, token.T.expand(len(blocks), -1, 1)).view(1, -1) + bias


class Tokenizer(nn.Module):
    """(B, 3V) coordinates sorted by region -> (B, R, D): one linear layer per region."""

    def __init__(self, vertices: Sequence[int], width: int) -> None:
        super().__init__()
        self.runs = [3 * count for count in vertices]
        bounds = torch.tensor([run**-0.5 for run in self.runs])
        rows = bounds.repeat_interleave(torch.tensor(self.runs))[:, None]
        self.weight = nn.Parameter((2 * torch.rand(sum(self.runs), width) - 1) * rows)
        self.bias = nn.Parameter((2 * torch.rand(len(self.runs), width) - 1) * bounds[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return runs_to_tokens(x, self.weight, self.runs) + self.bias


class InverseTokenizer(nn.Module):
    """(..., R, D) -> (..., 3V): one linear layer per region, of full rank if `rank` is 0, otherwise
    factored through `rank` dimensions.
    """

    def __init__(self, vertices: Sequence[int], width: int, rank: int = 0) -> None:
        super().__init__()
        self.runs = [3 * count for count in vertices]
        bound = width**-0.5
        self.weight = nn.Parameter((2 * torch.rand(sum(self.runs), rank or width) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(sum(self.runs)) - 1) * bound)
        self.inner = (
            nn.Parameter(torch.randn(len(self.runs), width, rank) * bound) if rank else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        if self.inner is not None:
            tokens = torch.einsum("...rd,rdk->...rk", tokens, self.inner)
        return tokens_to_runs(tokens, self.weight, self.bias, self.runs)

    def one(self, token: Tensor, region: int) -> Tensor:
        """(B, D) token of one region -> (B, 3 m) coordinates of its m vertices only."""
        if self.inner is not None:
            token = token @ self.inner[region]
        start = sum(self.runs[:region])
        rows = slice(start, start + self.runs[region])
        return _linear(token, self.weight[rows], self.bias[rows])


def low_rank(layer: InverseTokenizer, tokens: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Factor a layer to rank K so that its output on given tokens (N, R, D) changes least.

    Returns the factors (R, D, K) and (3V, K) and the bias (3V,). For each region, with mean m and
    covariance C of its tokens, the singular value decomposition of W C^1/2 is truncated; that is
    the best approximation of W (t - m) in the mean square.
    """
    inner, weights, biases = [], [], []
    start = 0
    for region, rows in enumerate(layer.runs):
        own, bias = (
            layer.weight[start : start + rows].double(),
            layer.bias[start : start + rows].double(),
        )
        t = tokens[:, region].double()
        mean = t.mean(0)
        # Add a thousandth of the mean variance in every direction, because edited tokens leave the
        # span of those that the autoencoder produces.
        covariance = torch.cov(t.T).reshape(len(mean), len(mean))
        covariance = covariance + torch.eye(len(mean)).to(t) * covariance.diagonal().mean() * 1e-3
        values, axes = torch.linalg.eigh(covariance)
        root, inverse = (axes * values.sqrt()) @ axes.T, (axes / values.sqrt()) @ axes.T
        u, s, v = torch.linalg.svd(own @ root, full_matrices=False)
        weight, down = u[:, :rank] * s[:rank], inverse @ v[:rank].T
        inner.append(down)
        weights.append(weight)
        biases.append(bias + own @ mean - weight @ (down.T @ mean))
        start += rows
    return torch.stack(inner).float(), torch.cat(weights).float(), torch.cat(biases).float()


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); (B, T, D)."""

    def __init__(self, width: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * heads * HEAD, bias=False)
        self.to_out = nn.Linear(heads * HEAD, width)
        hidden = max(1, round(expansion * width))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        )
        mixed = _attention(query, key, value)
        x = x + self.to_out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed_forward(x)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (B, heads, T, D), in basic operations where torch's fast form has no gradients."""
    if not wants_plain(query):
        return nn.functional.scaled_dot_product_attention(query, key, value)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return torch.softmax(scores, -1) @ value


class MixerLayer(nn.Module):
    """x + mix over tokens(norm(x)), then x + mix over channels(norm(x)) (Tolstikhin et al. 2021);
    (B, T, D).
    """

    def __init__(
        self, tokens: int, width: int, token_expansion: float, channel_expansion: float
    ) -> None:
        super().__init__()
        across = max(1, round(token_expansion * tokens))
        hidden = max(1, round(channel_expansion * width))
        self.norm = nn.LayerNorm(width)
        self.over_tokens = nn.Sequential(
            nn.Linear(tokens, across), nn.GELU(), nn.Linear(across, tokens)
        )
        self.over_channels = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(x)


class Backbone(nn.Module):
    """Layers, then a norm. It returns all states: the input, the output of each layer except the
    last, and the normalized output of the last.
    """

    def __init__(self, layers: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        states[-1] = self.norm(states[-1])
        return states


class ControlNets(nn.Module):
    """Bias-free networks, one per region with control vertices, from the displacements of those
    (B, 3 n_c) to a change of the region's token.

    Without biases, and with GELU(0) = 0, a displacement of zero gives a change of exactly zero.
    """

    def __init__(
        self, controls: Sequence[int], width: int, hidden: tuple[int, int] = (64, 256)
    ) -> None:
        super().__init__()
        owners = [region for region, count in enumerate(controls) if count]
        self.count = len(controls)
        self.runs = [3 * controls[region] for region in owners]
        self.owners = nn.Buffer(torch.tensor(owners), persistent=False)
        rows = torch.tensor([run**-0.5 for run in self.runs]).repeat_interleave(
            torch.tensor(self.runs)
        )[:, None]
        self.first = nn.Parameter((2 * torch.rand(sum(self.runs), hidden[0]) - 1) * rows)
        self.second = nn.Parameter((2 * torch.rand(len(owners), *hidden) - 1) * hidden[0] ** -0.5)
        self.third = nn.Parameter(
            (2 * torch.rand(len(owners), hidden[1], width) - 1) * hidden[1] ** -0.5
        )

    def forward(self, displacement: Tensor) -> Tensor:
        """(B, 3C) displacements in region order -> (B, R, D), zero for regions without controls."""
        x = nn.functional.gelu(runs_to_tokens(displacement, self.first, self.runs)).transpose(0, 1)
        x = torch.bmm(nn.functional.gelu(torch.bmm(x, self.second)), self.third).transpose(0, 1)
        return x.new_zeros(displacement.shape[0], self.count, x.shape[-1]).index_copy(
            1, self.owners, x
        )
