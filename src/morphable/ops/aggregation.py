"""Aggregation: how features pass from one level of a mesh hierarchy to the next; the rivals of Deep3DMM's first table.

Every class maps (B, n_in, C) to (B, n_out, C) and is built from `prior`, the precomputed sparse map (n_out, n_in).
Constant ones are `SparseMap`s; a learned one that does not depend on its input can be folded into one.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.sparse import SparseMap, entry_products, row_map

LOWEST, HIGHEST = 1e-25, 1e25
"""Cosines are clamped to this range before selection, so a negative one weighs nothing and gets no gradient."""
SMALLEST_SUM = 1e-12
"""Rows are divided by at least this: a row without a positive cosine vanishes instead of blowing up."""
BLOCK_SCORES = 1 << 21
"""Scores held at a time while the best are selected (8 MiB)."""


def average_map(prior: sp.spmatrix) -> sp.csr_matrix:
    """The prior's support with equal weights in every row."""
    result = sp.csr_matrix(prior, copy=True)
    result.eliminate_zeros()
    counts = np.diff(result.indptr)
    result.data = np.repeat(1.0 / np.maximum(counts, 1), counts)
    return result


class AttentionMap(nn.Module):
    """Deep3DMM's learned map (Chen and Kim 2021): M = (w_0 M_prior + w_1 A) / (w_0 + w_1).

    A holds in row i the k largest cosines between query i and the keys, divided by their sum. Only those k entries of a
    row are ever stored or differentiated: the selection goes through blocks of rows without gradient.

    keys, queries: (n_in, 3) and (n_out, 3) starting positions, which fill the first three of `channels` dimensions.
    refresh: the selection is kept for this many training steps; 1 selects anew each step, which is exact.
    """

    def __init__(
        self, prior: sp.spmatrix, keys: np.ndarray, queries: np.ndarray, k: int, channels: int = 21, refresh: int = 1
    ) -> None:
        super().__init__()
        if min(k, refresh) < 1 or channels < 3:
            raise InputError(
                f"attention map: expected k, refresh >= 1 and channels >= 3, got {k}, {refresh}, {channels}"
            )
        self.prior = SparseMap(prior)
        self.prior_matrix = sp.csr_matrix(prior)
        self.k = min(k, self.prior.n_in)
        self.refresh = refresh
        self.keys = nn.Parameter(_embedding(keys, channels))
        self.queries = nn.Parameter(_embedding(queries, channels))
        self.mixing = nn.Parameter(torch.tensor([0.8, 0.2]))
        self._selected: Tensor | None = None
        self._age = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C). Raises InputError for another shape."""
        index, weights = self.rows()
        share = self.attention_share()
        return (1 - share) * self.prior(x) + share * row_map(x, index, weights)

    def attention_share(self) -> Tensor:
        """w_1 / (w_0 + w_1), the weight of the learned part; unconstrained, as in the published code."""
        total = self.mixing.sum()
        guarded = torch.where(total.abs() < SMALLEST_SUM, torch.full_like(total, SMALLEST_SUM), total)
        return self.mixing[1] / guarded

    def rows(self) -> tuple[Tensor, Tensor]:
        """(n_out, k) source vertices and their weights, which sum to one where a row has a positive cosine."""
        queries, keys = F.normalize(self.queries, dim=1), F.normalize(self.keys, dim=1)
        index = self._select(queries.detach(), keys.detach())
        scores = entry_products(queries, keys, index).clamp(LOWEST, HIGHEST)
        return index, F.normalize(scores, p=1, dim=1, eps=SMALLEST_SUM)

    def _select(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(n_out, k) the k best keys of each query, kept between training steps as `refresh` says."""
        if self.k == len(keys):
            return torch.arange(self.k, device=keys.device).expand(len(queries), -1)
        stale = self._age % self.refresh == 0 or not self.training
        if self._selected is None or stale or self._selected.device != keys.device:
            self._selected = select_best(queries, keys, self.k, self._selected)
        if self.training:
            self._age += 1
        return self._selected

    @torch.no_grad()
    def folded(self) -> sp.csr_matrix:
        """The whole map (n_out, n_in) as a constant sparse matrix in double precision."""
        index, weights = (tensor.cpu().double().numpy() for tensor in self.rows())
        share = float(self.attention_share())
        rows = np.repeat(np.arange(len(index)), index.shape[1])
        columns = index.astype(np.int64).ravel()
        learned = sp.csr_matrix((weights.ravel(), (rows, columns)), (self.prior.n_out, self.prior.n_in))
        result = sp.csr_matrix((1 - share) * self.prior_matrix + share * learned)
        result.sum_duplicates()
        return result

    def extra_repr(self) -> str:
        return f"{self.prior.n_in} -> {self.prior.n_out}, {self.k} entries a row, selected every {self.refresh} steps"


@torch.no_grad()
def select_best(queries: Tensor, keys: Tensor, k: int, before: Tensor | None = None) -> Tensor:
    """(n_out, k) int64: for each query (n_out, C) the k keys (n_in, C) of largest inner product, in blocks of rows.

    before: an earlier selection, which makes this one cheap and no less exact. The least of its present scores bounds
    the k-th best from below, so a row in which no other score exceeds that bound has kept its selection.
    """
    step = max(1, BLOCK_SCORES // len(keys))
    if before is None:
        blocks = [torch.topk(part @ keys.T, k, dim=1, sorted=False).indices for part in queries.split(step)]
        return torch.cat(blocks)
    blocks = []
    for part, kept in zip(queries.split(step), before.to(queries.device).split(step), strict=True):
        scores = part @ keys.T
        bound = scores.gather(1, kept).amin(1, keepdim=True)
        others = scores.scatter_(1, kept, -torch.inf).amax(1, keepdim=True)
        changed = (others > bound).nonzero()[:, 0]
        best = kept.clone()
        best[changed] = torch.topk(part[changed] @ keys.T, k, dim=1, sorted=False).indices
        blocks.append(best)
    return torch.cat(blocks)


def _embedding(positions: np.ndarray, channels: int) -> Tensor:
    """(n, channels): positions in the first three dimensions, zero elsewhere, plus uniform noise below 0.1 in all."""
    start = torch.zeros(len(positions), channels)
    start[:, :3] = torch.tensor(np.asarray(positions), dtype=torch.float32)
    return start + 0.1 * torch.rand_like(start)


class FullMap(nn.Module):
    """A free dense matrix (n_out, n_in), nothing else: the upper end of learning the map, and its worst row."""

    def __init__(self, prior: sp.spmatrix) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(prior.shape))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        return torch.matmul(self.weight, x)


class DiffPool(nn.Module):
    """Soft assignment from the features themselves (Ying et al. 2018), per sample: y = S^T x, columns averaged.

    S = softmax over the n_out targets of a Chebyshev layer on the source level's graph (`adjacency`).
    """

    def __init__(self, prior: sp.spmatrix, adjacency: sp.spmatrix, channels: int, terms: int = 6) -> None:
        super().__init__()
        self.assign = ChebyshevConv(channels, prior.shape[0], terms=terms, adjacency=adjacency)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        assignment = torch.softmax(self.assign(x), dim=-1)
        share = assignment / assignment.sum(1, keepdim=True).clamp(min=SMALLEST_SUM)
        return share.transpose(1, 2) @ x


class VariantMap(nn.Module):
    """A free weight for every entry of a local support, as |p| divided by the row's sum (Zhou et al. 2020)."""

    def __init__(self, support: sp.spmatrix) -> None:
        super().__init__()
        support = sp.csr_matrix(support)
        counts = np.diff(support.indptr)
        width = int(counts.max())
        index, used = np.zeros((support.shape[0], width), np.int64), np.arange(width) < counts[:, None]
        index[used] = support.indices
        self.n_in = support.shape[1]
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("used", torch.from_numpy(used), persistent=False)
        self.index: Tensor
        self.used: Tensor
        self.weight = nn.Parameter(torch.randn(index.shape) / counts.mean())

    def rows(self) -> tuple[Tensor, Tensor]:
        """(n_out, widest row) source vertices and their weights; unused entries weigh zero."""
        size = self.weight.abs() * self.used
        return self.index, size / (size.sum(1, keepdim=True) + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        index, weights = self.rows()
        return row_map(x, index, weights)

    @torch.no_grad()
    def folded(self) -> sp.csr_matrix:
        """The map (n_out, n_in) as a constant sparse matrix in double precision."""
        index, weights = (tensor.cpu().double().numpy() for tensor in self.rows())
        rows = np.repeat(np.arange(len(index)), index.shape[1])
        result = sp.csr_matrix((weights.ravel(), (rows, index.astype(np.int64).ravel())), (len(index), self.n_in))
        result.eliminate_zeros()
        return result
