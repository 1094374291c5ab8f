"""Sparse linear maps between the levels of a mesh, constant (`SparseMap`) or learned
(`row_map`).
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.gather import (
    BagBuffers,
    Bags,
    bag_sum,
    batched_bag_sum,
    being_transformed,
    check_input,
    plain_bag_sum,
    plain_gradients,
    samples_per_pass,
    vertex_rows,
    wants_plain,
)


class SparseMap(nn.Module):
    """y = M x with a constant sparse matrix M, the same for every sample and channel.

    matrix: (n_out, n_in) scipy sparse, for instance a `down` or `up` map of a hierarchy. It and its
    transpose, for the backward pass, are non-persistent buffers in the default dtype. Under
    autocast the sum stays in float32, so that rows which sum to one still do.
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
    """The map is linear, so its backward pass is the same function with the two bags exchanged;
    that makes it differentiable any number of times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Bags, columns: Bags) -> Tensor:
        ctx.bags = rows, columns
        return _in_passes(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.bags
        return _ConstantMap.apply(grad, columns, rows), None, None


class TransposedIndex(NamedTuple):
    """The transpose of an index (n_out, k) of columns: column v has entries in
    `rows[offsets[v]:offsets[v + 1]]`.
    """

    rows: Tensor  # (n_out * k,) int64, the row of each entry, sorted by column
    offsets: Tensor  # (n_in + 1,) int64
    order: Tensor  # (n_out * k,) int64, the position of each entry in the flattened index

    def bags(self, weights: Tensor) -> Bags:
        return Bags(self.rows, self.offsets, weights.reshape(-1).index_select(0, self.order))


def transpose_index(index: Tensor, n_in: int) -> TransposedIndex:
    """Transpose an index (n_out, k) of n_in columns. Keep the result if several calls need it."""
    sources, order = index.reshape(-1).to(torch.int32).sort(stable=True)
    counts = torch.bincount(sources, minlength=n_in)
    return TransposedIndex(order // index.shape[1], F.pad(counts.cumsum(0), (1, 0)), order)


def row_map(
    x: Tensor, index: Tensor, weights: Tensor, transposed: TransposedIndex | None = None
) -> Tensor:
    """Apply a sparse map with k entries in every row, whose weights may be learned:
    y[b, i] = sum_j weights[i, j] x[b, index[i, j]].

    x: (B, n_in, C). index: (n_out, k) int64, each in 0..n_in-1; it may change from call to call.
    weights: (n_out, k). transposed: the transpose of the index, which the gradient of x needs; if
    not given, the backward pass computes it. Returns (B, n_out, C). Gradients reach x and weights.

    Raises InputError if the shapes do not fit.
    """
    if x.ndim != 3 or index.ndim != 2 or index.shape != weights.shape:
        raise InputError(
            "row_map: expected x (B, n_in, C), index (n_out, k) and weights (n_out, k), "
            f"got {tuple(x.shape)}, {tuple(index.shape)} and {tuple(weights.shape)}"
        )
    dtype = torch.promote_types(x.dtype, weights.dtype)
    x, weights = x.to(dtype), weights.to(dtype)
    if wants_plain(x):
        return _plain_row_map(x, weights, index)
    return _LearnedMap.apply(x, index, weights, transposed)


def _plain_row_map(x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    gathered = x.index_select(1, index.reshape(-1)).unflatten(1, index.shape)
    return (gathered * weights[..., None]).sum(2)


class _LearnedMap(torch.autograd.Function):
    """Processes the whole batch at once, vertex-major: with tens of entries per row this beats one
    pass per sample.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, weights: Tensor, transposed: TransposedIndex | None
    ) -> Tensor:
        ctx.save_for_backward(x, index, weights)
        ctx.transposed = transposed
        return _samples(bag_sum(vertex_rows(x), _row_bags(index, weights)), len(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        x, index, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(_plain_row_map, index=index)
            of_x, of_weights = plain_gradients(plain, x, weights, grad)
            return of_x, None, of_weights, None
        rows, grad_x, grad_weights = vertex_rows(grad), None, None
        if ctx.needs_input_grad[0]:
            transposed = ctx.transposed or transpose_index(index, x.shape[1])
            grad_x = _samples(bag_sum(rows, transposed.bags(weights)), len(x))
        if ctx.needs_input_grad[2]:
            grad_weights = _products(rows, vertex_rows(x), index)
        return grad_x, None, grad_weights, None


def entry_products(
    rows: Tensor, table: Tensor, index: Tensor, transposed: TransposedIndex | None = None
) -> Tensor:
    """Compute the inner products (n_out, k) of each row with k rows of a table.

    rows: (n_out, C). table: (n_in, C). index: (n_out, k) rows of the table. transposed: the
    transpose of the index; if not given, the backward pass computes it. No tensor of size
    n_out x k x C is formed, forward or backward. Gradients reach rows and table.
    """
    if being_transformed():
        return _plain_products(rows, table, index)
    return _EntryProducts.apply(rows, table, index, transposed)


def _plain_products(rows: Tensor, table: Tensor, index: Tensor) -> Tensor:
    return (rows[:, None] * F.embedding(index, table)).sum(-1)


class _EntryProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, table: Tensor, index: Tensor, transposed: TransposedIndex | None
    ) -> Tensor:
        ctx.save_for_backward(rows, table, index)
        ctx.transposed = transposed
        return _products(rows, table, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, table, index = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(_plain_products, index=index)
            of_rows, of_table = plain_gradients(plain, rows, table, grad)
            return of_rows, of_table, None, None
        grad_rows, grad_table = None, None
        if ctx.needs_input_grad[0]:
            grad_rows = bag_sum(table, _row_bags(index, grad))
        if ctx.needs_input_grad[1]:
            grad_table = bag_sum(
                rows, (ctx.transposed or transpose_index(index, len(table))).bags(grad)
            )
        return grad_rows, grad_table, None, None


def _in_passes(x: Tensor, bags: Bags) -> Tensor:
    step = samples_per_pass(x, (len(bags.entries) + len(bags.offsets)) * x.shape[2])
    parts = [batched_bag_sum(part, bags) for part in x.split(step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _samples(rows: Tensor, batch: int) -> Tensor:
    """(V, B * C) to (B, V, C), the inverse of `vertex_rows`."""
    return rows.view(len(rows), batch, -1).transpose(0, 1).contiguous()


def _row_bags(index: Tensor, weights: Tensor) -> Bags:
    return Bags(index.reshape(-1), _row_offsets(index), weights.reshape(-1))


def _row_offsets(index: Tensor) -> Tensor:
    n_out, k = index.shape
    return torch.arange(n_out + 1, device=index.device) * k


def _products(rows: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """The inner products (n_out, k) of rows (n_out, D) with rows `index` of a table (n_in, D)."""
    if index.shape[1] >= len(table):  # `sampled_addmm` raises for more entries than a matrix has
        return (rows @ table.T).gather(1, index)
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        with warnings.catch_warnings():
            # "Sparse CSR tensor support is in beta state"; the tests cover this use of it.
            warnings.simplefilter("ignore", UserWarning)
            shape = (len(rows), len(table))
            zeros = rows.new_zeros(index.numel())
            entries = torch.sparse_csr_tensor(_row_offsets(index), index.reshape(-1), zeros, shape)
            return torch.sparse.sampled_addmm(entries, rows, table.T).values().view(index.shape)
    # `sampled_addmm` runs on a CPU in these dtypes only. Otherwise use that the products are the
    # gradient of `embedding_bag` with respect to its weights.
    with torch.enable_grad():
        leaf = rows.new_ones(index.shape).requires_grad_()
        sums = F.embedding_bag(index, table.detach(), per_sample_weights=leaf, mode="sum")
    return torch.autograd.grad(sums, leaf, rows)[0]
