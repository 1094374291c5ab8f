"""Aggregation: how features pass from one level of a mesh hierarchy to the next; the rivals of
Deep3DMM's first table.

Every class maps (B, n_in, C) to (B, n_out, C) and is built from `prior`, the precomputed sparse map
(n_out, n_in). Constant ones are `SparseMap`s; a learned one that does not depend on its input can
be folded into one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.gather import check_input
from morphable.ops.sparse import Readers, entry_products, readers, row_map

LOWEST, HIGHEST = 1e-25, 1e25
"""Cosines are clamped to this range before selection, so a negative one weighs nothing and gets no
gradient.
"""
MIN_SUM = 1e-12
"""Rows are divided by at least this: a row without a positive cosine vanishes instead of blowing
up.
"""
BLOCK_SCORES, DEVICE_BLOCK_SCORES = 1 << 19, 1 << 26
"""Scores held at a time while the best are selected: 2 MiB, which stay in a processor's cache; 256
MiB on a GPU.
"""
BLOCKS_UNSEEN = 8
"""After a block whose rows mostly changed, so many blocks less one are selected without looking
whether theirs did.
"""
GROUP, GROUPED_ABOVE = 8, 256
"""Rows of more than GROUPED_ABOVE * k scores are first reduced to the maxima of groups of this
many.
"""


def average_map(prior: sp.spmatrix) -> sp.csr_matrix:
    """The prior's support with equal weights in every row."""
    result = sp.csr_matrix(prior, copy=True)
    result.eliminate_zeros()
    counts = np.diff(result.indptr)
    result.data = np.repeat(1.0 / np.maximum(counts, 1), counts)
    return result


class AttentionMap(nn.Module):
    """Deep3DMM's learned map (Chen and Kim 2021): M = (w_0 M_prior + w_1 A) / (w_0 + w_1).

    A holds in row i the k largest cosines between query i and the keys, divided by their sum. Only
    the prior's entries and those k of a row are ever stored or differentiated: the selection goes
    through blocks of rows without gradient.

    keys, queries: (n_in, 3) and (n_out, 3) starting positions, which fill the first three of
    `channels` dimensions. refresh: the selection is kept for this many training steps; 1 selects
    anew each step, which is exact. It is part of the state, so that a resumed run goes on with the
    one it had. Outside training it is always that of the keys.
    """

    selected: Tensor
    age: Tensor
    prior_index: Tensor
    prior_weights: Tensor

    def __init__(
        self,
        prior: sp.spmatrix,
        keys: np.ndarray,
        queries: np.ndarray,
        k: int,
        channels: int = 21,
        refresh: int = 1,
    ) -> None:
        super().__init__()
        if min(k, refresh) < 1 or channels < 3:
            raise InputError(
                f"attention map: expected k, refresh >= 1 and channels >= 3, got {k}, {refresh}, {channels}"
            )
        self.prior = sp.csr_matrix(prior)
        self.n_out, self.n_in = self.prior.shape
        self.k = min(k, self.n_in)
        self.refresh = refresh
        self.keys = nn.Parameter(_embedding(keys, channels))
        self.queries = nn.Parameter(_embedding(queries, channels))
        self.mixing = nn.Parameter(torch.tensor([0.8, 0.2]))
        self.register_buffer("selected", torch.arange(self.k).repeat(self.n_out, 1))
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))
        index, weights = padded_rows(self.prior)
        self.register_buffer("prior_index", torch.from_numpy(index), persistent=False)
        self.register_buffer(
            "prior_weights", torch.as_tensor(weights, dtype=torch.get_default_dtype()), False
        )
        self._measured: _Measured | None = None
        self._entries: tuple[Tensor, Readers] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C). Raises InputError for another shape."""
        check_input("AttentionMap", x, self.n_in)
        index, weights = self._learned_rows()
        share = self.attention_share()
        rows = torch.cat([(1 - share) * self.prior_weights, share * weights], 1)
        return row_map(x, index, rows, self._readers(index))

    def attention_share(self) -> Tensor:
        """w_1 / (w_0 + w_1), the weight of the learned part; unconstrained, as in the published
        code.
        """
        total = self.mixing.sum()
        guarded = torch.where(total.abs() < MIN_SUM, torch.full_like(total, MIN_SUM), total)
        return self.mixing[1] / guarded

    def rows(self) -> tuple[Tensor, Tensor]:
        """The learned part: (n_out, k) sources and their weights, which sum to one where a cosine
        is positive.
        """
        index, weights = self._learned_rows()
        return index[:, -self.k :], weights

    def _learned_rows(self) -> tuple[Tensor, Tensor]:
        """(n_out, p + k) sources, those of the prior first, and the weights (n_out, k) of the
        learned part.
        """
        queries, keys = F.normalize(self.queries, dim=1), F.normalize(self.keys, dim=1)
        index = torch.cat([self.prior_index, self._select(queries.detach(), keys.detach())], 1)
        # The prior's entries take part, unused, so that one transpose of the index serves every
        # backward pass.
        scores = entry_products(queries, keys, index, self._readers(index))[:, -self.k :].clamp(
            LOWEST, HIGHEST
        )
        return index, scores / scores.sum(1, keepdim=True).clamp(min=MIN_SUM)

    def _select(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(n_out, k) the k best keys of each query, in training as old as `refresh` allows."""
        if self.k == self.n_in:
            return self.selected
        if not self.training:
            if self._measured is None or not self._measured.of(queries, keys):
                best = select_best(queries, keys, self.k, self.selected)
                self._measured = _Measured(queries, keys, best)
            return self._measured.best
        if int(self.age) % self.refresh == 0:
            self.selected.copy_(select_best(queries, keys, self.k, self.selected))
        self.age += 1
        return self.selected

    def _readers(self, index: Tensor) -> Readers | None:
        """The index's transpose, kept while the index stays the same; None where no gradient is
        wanted.
        """
        if not torch.is_grad_enabled():
            return None
        if self._entries is None or not _same(self._entries[0], index):
            self._entries = index, readers(index, self.n_in)
        return self._entries[1]

    @torch.no_grad()
    def folded(self) -> sp.csr_matrix:
        """The whole map (n_out, n_in) as a constant sparse matrix in double precision."""
        index, weights = (tensor.cpu().double().numpy() for tensor in self.rows())
        share = float(self.attention_share())
        rows = np.repeat(np.arange(self.n_out), self.k)
        columns = index.astype(np.int64).ravel()
        learned = sp.csr_matrix((weights.ravel(), (rows, columns)), (self.n_out, self.n_in))
        result = sp.csr_matrix((1 - share) * self.prior + share * learned)
        result.sum_duplicates()
        return result

    def extra_repr(self) -> str:
        return f"{self.n_in} -> {self.n_out}, {self.k} entries a row, selected every {self.refresh} steps"


class _Measured(NamedTuple):
    """A selection outside training, and what it was made of."""

    queries: Tensor
    keys: Tensor
    best: Tensor

    def of(self, queries: Tensor, keys: Tensor) -> bool:
        return _same(self.queries, queries) and _same(self.keys, keys)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)


def padded_rows(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n_out, w) int64 and weights (n_out, w) float64 of every row; short rows go on with
    zeros.
    """
    counts = np.diff(matrix.indptr)
    used = np.arange(max(1, counts.max())) < counts[:, None]
    index, weights = np.zeros(used.shape, np.int64), np.zeros(used.shape)
    index[used], weights[used] = matrix.indices, matrix.data
    return index, weights


@torch.no_grad()
def select_best(queries: Tensor, keys: Tensor, k: int, before: Tensor | None = None) -> Tensor:
    """(n_out, k) int64: for each query (n_out, C) the k keys (n_in, C) of largest inner product, in
    blocks of rows.

    before: any k distinct keys for each query, ideally an earlier selection, which makes this one
    cheap and no less exact. The least of their present scores bounds the k-th best from below, so a
    row in which no other score exceeds that bound keeps what it has. Where most rows of a block do
    not, the next few are selected without that look.
    """
    step = max(1, (BLOCK_SCORES if keys.device.type == "cpu" else DEVICE_BLOCK_SCORES) // len(keys))
    if before is None:
        return torch.cat([_largest(part @ keys.T, k) for part in queries.split(step)])
    blocks: list[Tensor] = []
    trusted = 0  # the block from which on it is worth a look whether rows kept their selection
    for number, (part, kept) in enumerate(
        zip(queries.split(step), before.split(step), strict=True)
    ):
        scores = part @ keys.T
        if number < trusted:
            blocks.append(_largest(scores, k))
            continue
        present = scores.gather(1, kept)
        others = scores.scatter_(1, kept, -torch.inf).amax(1)
        changed = (others > present.amin(1)).nonzero()[:, 0]
        if 2 * len(changed) > len(part):
            kept = _largest(scores.scatter_(1, kept, present), k)
            trusted = number + BLOCKS_UNSEEN
        elif len(changed):
            best = _largest(scores[changed].scatter_(1, kept[changed], present[changed]), k)
            kept = kept.index_copy(0, changed, best)
        blocks.append(kept)
    return torch.cat(blocks)


def _largest(scores: Tensor, k: int) -> Tensor:
    """(n, k) columns of the k largest scores of each row (n, m), in no order."""
    m = scores.shape[1]
    if m < GROUPED_ABOVE * k:
        return _partitioned(scores, k)
    # The k largest lie in the k groups of largest maximum; group j is the columns j, j + groups, j
    # + 2 groups, ...
    groups = -(-m // GROUP)
    maxima = scores[:, :groups].clone()
    for start in range(groups, m, groups):
        others = scores[:, start : start + groups]
        maxima[:, : others.shape[1]] = torch.maximum(maxima[:, : others.shape[1]], others)
    members = torch.arange(GROUP, device=scores.device) * groups
    columns = (_partitioned(maxima, k)[:, :, None] + members).flatten(1)
    candidates = scores.gather(1, columns.clamp(max=m - 1)).masked_fill_(columns >= m, -torch.inf)
    return columns.gather(1, _partitioned(candidates, k))


def _partitioned(scores: Tensor, k: int) -> Tensor:
    if scores.device.type != "cpu" or k < 8 or torch.get_num_threads() > 4:
        return torch.topk(scores, k, dim=1, sorted=False).indices
    # On one thread, numpy's vectorized partition is as fast as topk on four where k is not small.
    cut = scores.shape[1] - k
    return torch.from_numpy(np.argpartition(scores.numpy(), cut, axis=1)[:, cut:].copy())


def _embedding(positions: np.ndarray, channels: int) -> Tensor:
    """(n, channels): positions in the first three dimensions, zero elsewhere, plus uniform noise
    below 0.1 in all.
    """
    start = torch.zeros(len(positions), channels)
    start[:, :3] = torch.tensor(np.asarray(positions), dtype=torch.float32)
    return start + 0.1 * torch.rand_like(start)


class FullMap(nn.Module):
    """A free dense matrix (n_out, n_in), nothing else: the upper end of learning the map, and its
    worst row.
    """

    def __init__(self, prior: sp.spmatrix) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(prior.shape))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        return torch.matmul(self.weight, x)


class DiffPool(nn.Module):
    """Soft assignment from the features themselves (Ying et al. 2018), per sample: y = S^T x,
    columns averaged.

    S = softmax over the n_out targets of a Chebyshev layer on the source level's graph
    (`adjacency`).
    """

    def __init__(
        self, prior: sp.spmatrix, adjacency: sp.spmatrix, channels: int, terms: int = 6
    ) -> None:
        super().__init__()
        self.assign = ChebyshevConv(channels, prior.shape[0], terms=terms, adjacency=adjacency)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        assignment = torch.log_softmax(self.assign(x), dim=-1)
        share = torch.softmax(
            assignment, dim=1
        )  # exp(assignment) over its column's sum, also where that underflows
        return share.transpose(1, 2) @ x


class VariantMap(nn.Module):
    """A free weight for every entry of a local support, as |p| divided by the row's sum (Zhou et
    al. 2020).
    """

    def __init__(self, support: sp.spmatrix) -> None:
        super().__init__()
        support = sp.csr_matrix(support, copy=True)
        support.data = np.ones_like(support.data)
        index, used = padded_rows(support)
        self.n_in = support.shape[1]
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("used", torch.from_numpy(used > 0), persistent=False)
        self.index: Tensor
        self.used: Tensor
        self.weight = nn.Parameter(torch.randn(support.nnz) * support.shape[0] / support.nnz)

    def rows(self) -> tuple[Tensor, Tensor]:
        """(n_out, widest row) source vertices and their weights; unused entries weigh zero."""
        size = self.weight.new_zeros(self.used.shape).masked_scatter(self.used, self.weight.abs())
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
        result = sp.csr_matrix(
            (weights.ravel(), (rows, index.astype(np.int64).ravel())), (len(index), self.n_in)
        )
        result.eliminate_zeros()
        return result
