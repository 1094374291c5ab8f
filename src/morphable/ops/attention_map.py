"""AttentionMap: Deep3DMM's learned map between two levels of a mesh hierarchy (Chen and Kim
2021).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.aggregation import padded_rows
from morphable.ops.best_keys import BestKeys, same
from morphable.ops.gather import being_transformed, check_input
from morphable.ops.sparse import TransposedIndex, entry_products, row_map, transpose_index

MIN_COSINE, MAX_COSINE = 1e-25, 1e25
"""Cosines are clamped to this range after the selection, so a negative one has practically no
weight and gets no gradient.
"""
MIN_SUM = 1e-12
"""Rows are divided by at least this, so that a row without a positive cosine becomes zero instead
of huge.
"""


class AttentionMap(nn.Module):
    """y = M x with M = (w_0 P + w_1 A) / (w_0 + w_1).

    P is the precomputed map `prior` (n_out, n_in). Row i of A holds the k largest cosines between
    query i and the keys, divided by their sum. Queries, keys and w are learned. Only the entries of
    P and k entries per row of A are stored and differentiated.

    keys, queries: (n_in, 3) and (n_out, 3) initial values of the first three of `channels`
    dimensions. refresh: number of training steps for which a selection of the k largest is used.

    Raises InputError if k or refresh is below 1, or channels below 3.
    """

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
                f"attention map: expected k, refresh >= 1 and channels >= 3, got {k}, "
                f"{refresh}, {channels}"
            )
        self.prior = sp.csr_matrix(prior)
        self.n_out, self.n_in = self.prior.shape
        self.k = min(k, self.n_in)
        self.keys = nn.Parameter(_embedding(keys, channels))
        self.queries = nn.Parameter(_embedding(queries, channels))
        self.mixing = nn.Parameter(torch.tensor([0.8, 0.2]))

        index, weights = padded_rows(self.prior)
        self.prior_index = nn.Buffer(torch.from_numpy(index), persistent=False)
        self.prior_weights = nn.Buffer(
            torch.as_tensor(weights, dtype=torch.get_default_dtype()), persistent=False
        )
        self.best_keys = BestKeys(self.n_out, self.n_in, self.k, refresh)
        self.transposes = KeptTranspose(self.n_in)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C). Raises InputError for another shape."""
        check_input("AttentionMap", x, self.n_in)
        index, attention = self._entries()
        share = self.attention_share()
        weights = torch.cat([(1 - share) * self.prior_weights, share * attention], 1)
        return row_map(x, index, weights, self.transposes.of(index))

    def attention_share(self) -> Tensor:
        """w_1 / (w_0 + w_1), the weight of A; unconstrained, as in the published code."""
        total = self.mixing.sum()
        guarded = torch.where(total.abs() < MIN_SUM, torch.full_like(total, MIN_SUM), total)
        return self.mixing[1] / guarded

    def rows(self) -> tuple[Tensor, Tensor]:
        """A as (n_out, k) source vertices and their weights, which sum to one in a row with a
        positive cosine.
        """
        index, weights = self._entries()
        return index[:, -self.k :], weights

    def _entries(self) -> tuple[Tensor, Tensor]:
        """(n_out, p + k) source vertices of the entries of P and then of A, and the weights
        (n_out, k) of A.
        """
        queries, keys = F.normalize(self.queries, dim=1), F.normalize(self.keys, dim=1)
        best = self.best_keys(queries.detach(), keys.detach())
        index = torch.cat([self.prior_index, best], 1)
        # The cosines of P's entries are computed too and discarded, so that both backward passes
        # can use the same index and therefore the same transpose.
        cosines = entry_products(queries, keys, index, self.transposes.of(index))[:, -self.k :]
        cosines = cosines.clamp(MIN_COSINE, MAX_COSINE)
        return index, cosines / cosines.sum(1, keepdim=True).clamp(min=MIN_SUM)

    @torch.no_grad()
    def folded(self) -> sp.csr_matrix:
        """M (n_out, n_in) as a constant sparse matrix in double precision."""
        index, weights = (tensor.cpu().double().numpy() for tensor in self.rows())
        share = float(self.attention_share())
        rows = np.repeat(np.arange(self.n_out), self.k)
        columns = index.astype(np.int64).ravel()
        attention = sp.csr_matrix((weights.ravel(), (rows, columns)), (self.n_out, self.n_in))
        result = sp.csr_matrix((1 - share) * self.prior + share * attention)
        result.sum_duplicates()
        return result

    def extra_repr(self) -> str:
        return f"{self.n_in} -> {self.n_out}, {self.k} entries per row"


class KeptTranspose:
    """Remembers the transpose of the last index, because several backward passes use it."""

    def __init__(self, n_in: int) -> None:
        self.n_in = n_in
        self._kept: tuple[Tensor, TransposedIndex] | None = None

    def of(self, index: Tensor) -> TransposedIndex | None:
        """The transpose of `index`; None if no backward pass of ours will use it."""
        if being_transformed() or not torch.is_grad_enabled():
            return None
        if self._kept is None or not same(self._kept[0], index):
            self._kept = index, transpose_index(index, self.n_in)
        return self._kept[1]


def _embedding(positions: np.ndarray, channels: int) -> Tensor:
    """(n, channels): positions in the first three dimensions and zero in the others, plus uniform
    noise from 0 to 0.1 in all.
    """
    start = torch.zeros(len(positions), channels)
    start[:, :3] = torch.tensor(np.asarray(positions), dtype=torch.float32)
    return start + 0.1 * torch.rand_like(start)
