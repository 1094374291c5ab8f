"""Sparse linear maps between the levels of a mesh, constant (`SparseMap`) or learned (`row_map`)."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morphable.errors import InputError
from morphable.ops.gather import (
    BagBuffers,
    Bags,
    bag_sum,
    batched_bag_sum,
    check_input,
    plain_bag_sum,
    samples_per_pass,
    vertex_rows,
    wants_plain,
)


class SparseMap(nn.Module):
    """y = M x with a constant sparse matrix M, the same for every sample and channel.

    matrix: (n_out, n_in) scipy sparse, for instance a `down` or `up` map of a hierarchy. It is kept in the default
    dtype as non-persistent buffers, together with its transpose for the backward pass. Under autocast the sum stays
    in float32, so rows that sum to one keep doing so.
    """

    def __init__(self, matrix: sp.spmatrix) -> None:
        super().__init__()
        matrix = sp.csr_matrix(matrix)
        self.n_out, self.n_in = matrix.shape
        self.rows = BagBuffers(matrix)
        self.columns = BagBuffers(matrix.T)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, C) to (B, n_out, C). Raises InputError for another shape."""
        check_input("SparseMap", x, self.n_in)
        assert self.rows.weights is not None
        x = x.to(torch.promote_types(x.dtype, self.rows.weights.dtype))
        if wants_plain(x):
            return plain_bag_sum(x, self.rows)
        return _ConstantMap.apply(x, self.rows.bags, self.columns.bags)

    def extra_repr(self) -> str:
        return f"{self.n_in} -> {self.n_out}, {len(self.rows.entries)} entries"


class _ConstantMap(torch.autograd.Function):
    """Linear, so its backward is the same function with the two bags exchanged, and differentiable again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Bags, columns: Bags) -> Tensor:
        ctx.bags = rows, columns
        return _in_passes(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.bags
        return _ConstantMap.apply(grad, columns, rows), None, None


def row_map(x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """y[b, i] = sum_j weights[i, j] x[b, index[i, j]]: a sparse map with k entries in every row, learned or not.

    x: (B, n_in, C); index: (n_out, k) int64, each in 0..n_in-1; weights: (n_out, k). Returns (B, n_out, C).
    Gradients reach x and weights. The index may change from call to call: its inverse, which only the gradient of x
    needs, is sorted out in the backward pass. Raises InputError where the shapes do not fit.
    """
    if x.ndim != 3 or index.ndim != 2 or index.shape != weights.shape:
        raise InputError(
            "row_map: expected x (B, n_in, C), index (n_out, k) and weights (n_out, k), "
            f"got {tuple(x.shape)}, {tuple(index.shape)} and {tuple(weights.shape)}"
        )
    dtype = torch.promote_types(x.dtype, weights.dtype)
    x, weights = x.to(dtype), weights.to(dtype)
    if wants_plain(x):
        gathered = x.index_select(1, index.reshape(-1)).unflatten(1, index.shape)
        return (gathered * weights[..., None]).sum(2)
    return _LearnedMap.apply(x, index, weights)


class _LearnedMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, index, weights)
        return _in_passes(x, _row_bags(index, weights))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, index, weights = ctx.saved_tensors
        grad_x = _in_passes(grad, _column_bags(index, weights, x.shape[1])) if ctx.needs_input_grad[0] else None
        grad_weights = _entry_products(grad, x, index, weights) if ctx.needs_input_grad[2] else None
        return grad_x, None, grad_weights


def entry_products(rows: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """(n_out, k) inner products of rows (n_out, C) with the rows of table (n_in, C) that index (n_out, k) names.

    Nothing of size n_out x k x C is formed, forward or backward. Gradients reach rows and table.
    """
    if torch.compiler.is_exporting():
        return (rows[:, None] * F.embedding(index, table)).sum(-1)
    return _EntryProducts.apply(rows, table, index)


class _EntryProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(rows, table, index)
        return _entry_products(rows[None], table[None], index, rows.new_ones(index.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, table, index = ctx.saved_tensors
        grad_rows = bag_sum(table, _row_bags(index, grad)) if ctx.needs_input_grad[0] else None
        grad_table = bag_sum(rows, _column_bags(index, grad, len(table))) if ctx.needs_input_grad[1] else None
        return grad_rows, grad_table, None


def _in_passes(x: Tensor, bags: Bags) -> Tensor:
    step = samples_per_pass(x, (len(bags.entries) + len(bags.offsets)) * x.shape[2])
    parts = [batched_bag_sum(part, bags) for part in x.split(step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _row_bags(index: Tensor, weights: Tensor) -> Bags:
    n_out, k = index.shape
    return Bags(index.reshape(-1), torch.arange(n_out + 1, device=index.device) * k, weights.reshape(-1))


def _column_bags(index: Tensor, weights: Tensor, n_in: int) -> Bags:
    """The transpose of `_row_bags`: bag v holds the rows that read v."""
    sources, order = index.reshape(-1).sort(stable=True)
    offsets = torch.searchsorted(sources, torch.arange(n_in + 1, device=index.device))
    return Bags(order // index.shape[1], offsets, weights.reshape(-1)[order])


def _entry_products(grad: Tensor, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """(n_out, k) dot products of the gradient's row i with row index[i, j] of x, over batch and channels.

    They are what `embedding_bag` knows as the gradient of its weights, several times faster than gathering x. Its
    gradient of x is not used: it scatters, which at 72k vertices costs three times the transposed bag sum.
    """
    with torch.enable_grad():
        leaf = weights.detach().requires_grad_()
        rows = F.embedding_bag(index, vertex_rows(x), per_sample_weights=leaf, mode="sum")
    return torch.autograd.grad(rows, leaf, vertex_rows(grad))[0]
