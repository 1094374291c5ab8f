"""Aggregation: maps of features between the levels of a mesh hierarchy. These are the methods that
Deep3DMM's first table compares with its own learned map, which is in `attention_map.py`.

Every class maps (B, n_in, C) to (B, n_out, C) and is built from `prior`, the precomputed sparse map
(n_out, n_in). A constant map is a `SparseMap`. A learned map that does not depend on its input can
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
    """Replace the weights of the prior by equal ones in every row, which sum to one."""
    result = sp.csr_matrix(prior, copy=True)
    result.eliminate_zeros()
    counts = np.diff(result.indptr)
    result.data = np.repeat(1.0 / np.maximum(counts, 1), counts)
    return result


class FullMap(nn.Module):
    """A dense matrix (n_out, n_in) of trainable parameters: the most general linear map, and the
    worst method of the paper's table.
    """

    def __init__(self, prior: sp.spmatrix) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(prior.shape))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        return torch.matmul(self.weight, x)


class DiffPool(nn.Module):
    """Soft assignment computed from the features (Ying et al. 2018), different for each sample:
    y = S^T x with the columns of S divided by their sums.

    S (n_in, n_out) is a softmax over the n_out targets of a Chebyshev layer on the graph
    `adjacency` of the source level.
    """

    def __init__(
        self, prior: sp.spmatrix, adjacency: sp.spmatrix, channels: int, terms: int = 6
    ) -> None:
        super().__init__()
        self.assign = ChebyshevConv(channels, prior.shape[0], terms=terms, adjacency=adjacency)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C)."""
        assignment = torch.log_softmax(self.assign(x), dim=-1)
        # This is exp(assignment) divided by its column sums, but safe if a sum underflows.
        share = torch.softmax(assignment, dim=1)
        return share.transpose(1, 2) @ x


class VariantMap(nn.Module):
    """A trainable parameter p for every entry of a local support; its weight is |p| divided by the
    row's sum (Zhou et al. 2020).
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
    """Return the columns (n_out, w) int64 and weights (n_out, w) float64 of every row of a sparse
    matrix; short rows are padded with zeros.
    """
    counts = np.diff(matrix.indptr)
    used = np.arange(max(1, counts.max())) < counts[:, None]
    index, weights = np.zeros(used.shape, np.int64), np.zeros(used.shape)
    index[used], weights[used] = matrix.indices, matrix.data
    return index, weights
