"""Aggregation: how features pass from one level of a mesh hierarchy to the next. The rivals of the
learned map in Deep3DMM's first table; that map itself is `attention_map.py`.

Every class maps (B, n_in, C) to (B, n_out, C) and is built from `prior`, the precomputed sparse map
(n_out, n_in). Constant ones are `SparseMap`s; a learned one that does not depend on its input can
be folded into one.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.sparse import row_map


def average_map(prior: sp.spmatrix) -> sp.csr_matrix:
    """The prior's support with equal weights in every row."""
    result = sp.csr_matrix(prior, copy=True)
    result.eliminate_zeros()
    counts = np.diff(result.indptr)
    result.data = np.repeat(1.0 / np.maximum(counts, 1), counts)
    return result


class FullMap(nn.Module):
    """A free dense matrix (n_out, n_in): the most that learning a map can mean, and the worst of
    the paper's rivals.
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
        # exp(assignment) divided by its column's sum, even if that sum underflows
        share = torch.softmax(assignment, dim=1)
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
        self.index = nn.Buffer(torch.from_numpy(index), persistent=False)
        self.used = nn.Buffer(torch.from_numpy(used > 0), persistent=False)
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


def padded_rows(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n_out, w) int64 and weights (n_out, w) float64 of every row; short rows are padded
    with zeros.
    """
    counts = np.diff(matrix.indptr)
    used = np.arange(max(1, counts.max())) < counts[:, None]
    index, weights = np.zeros(used.shape, np.int64), np.zeros(used.shape)
    index[used], weights[used] = matrix.indices, matrix.data
    return index, weights
