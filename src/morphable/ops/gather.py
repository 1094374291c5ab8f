"""The primitive of all mesh operators: each output row is a (weighted) sum of a bag of input rows.

Sparse matrices, graph Laplacians, spirals and their transposes are all bags. `embedding_bag` sums
bags several times faster than gather-multiply-scatter, because no message is stored. The backward
pass is the bag sum of the transpose, which is built once, so nothing is scattered there either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from morphable.errors import InputError

# An operator processes a few samples of a batch per pass, so that the tables of a pass stay in the
# processor's cache; about 1 MiB was measured to be best. A GPU needs large launches instead, and
# only its memory has to be bounded.
CACHE_BYTES = 1 << 20
DEVICE_BYTES = 1 << 28


class Bags(NamedTuple):
    """Bags of rows to sum: bag i consists of the rows `entries[offsets[i]:offsets[i + 1]]`, with
    the weights at the same positions; weights None: all one.
    """

    entries: Tensor  # (nnz,) int64
    offsets: Tensor  # (n_out + 1,) int64
    weights: Tensor | None  # (nnz,)

    @property
    def targets(self) -> Tensor:
        """(nnz,) int64, the bag of each entry."""
        bags = torch.arange(len(self.offsets) - 1, device=self.offsets.device)
        return bags.repeat_interleave(self.offsets.diff())

    def scaled(self, factor: float) -> Bags:
        """Return the same bags with every weight multiplied by `factor`."""
        assert self.weights is not None
        return self._replace(weights=self.weights * factor)


class BagBuffers(nn.Module):
    """The bags of a constant sparse matrix (n_out, n_in) as non-persistent buffers, which move with
    the module but are not saved. unit: all weights are one and not stored.
    """

    def __init__(self, matrix: sp.csr_matrix, *, unit: bool = False) -> None:
        super().__init__()
        matrix = sp.csr_matrix(matrix)
        self.entries = _constant(matrix.indices.astype(np.int64))
        self.offsets = _constant(matrix.indptr.astype(np.int64))
        self.weights = None if unit else _constant(matrix.data, torch.get_default_dtype())
        # (nnz,) int64, the bag of each entry
        sizes = np.diff(matrix.indptr)
        self.targets = _constant(np.repeat(np.arange(matrix.shape[0]), sizes))
        self.largest = int(sizes.max(initial=0))

    @property
    def bags(self) -> Bags:
        return Bags(self.entries, self.offsets, self.weights)


def _constant(array: np.ndarray, dtype: torch.dtype | None = None) -> nn.Buffer:
    return nn.Buffer(torch.as_tensor(array, dtype=dtype), persistent=False)


def bag_sum(table: Tensor, bags: Bags) -> Tensor:
    """Sum rows (N, D) in bags: (n_out, D), zero for an empty bag. It has no gradient; the operators
    define their own.
    """
    weights = None if bags.weights is None else bags.weights.to(table.dtype)
    return torch.embedding_bag(table, bags.entries, bags.offsets, False, 0, False, weights, True)[0]


def being_transformed() -> bool:
    """Whether torch exports or traces the call, or transforms it (`torch.func`). Then it has to
    consist of basic operations, without custom gradients and loops over the batch.
    """
    return (
        torch.compiler.is_exporting()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def wants_plain(x: Tensor) -> bool:
    """Whether to process x (B, ...) in basic operations: if the call is transformed, if x has a
    tangent (forward-mode gradients), and if the batch is empty.
    """
    return being_transformed() or x.shape[0] == 0 or forward_ad.unpack_dual(x).tangent is not None


def plain_bag_sum(x: Tensor, table: Bags | BagBuffers) -> Tensor:
    """Sum (B, N, C) in bags to (B, n_out, C), in differentiable basic operations.

    This is several times slower, but it has neither a loop over the batch nor custom gradients.
    `torch.export` (and so ONNX) and `torch.func` need that, and tests compare the fast form with it.
    An exported program gathers bags of equal length, filled up with zeros: ONNX Runtime adds to the
    same row from several threads at once, and loses some of the sums.
    """
    if torch.compiler.is_exporting() and isinstance(table, BagBuffers):
        return _gathered_bag_sum(x, table)
    messages = x.index_select(1, table.entries)
    if table.weights is not None:
        messages = messages * table.weights[:, None]
    return x.new_zeros(x.shape[0], len(table.offsets) - 1, x.shape[2]).index_add(
        1, table.targets, messages
    )


def _gathered_bag_sum(x: Tensor, table: BagBuffers) -> Tensor:
    """The same in a gather and a sum over entries, without an `index_add`."""
    if not table.largest:
        return x.new_zeros(x.shape[0], len(table.offsets) - 1, x.shape[2])
    places = table.offsets[:-1, None] + torch.arange(table.largest, device=x.device)
    is_entry = places < table.offsets[1:, None]
    places = places.clamp(max=len(table.entries) - 1)
    weights = is_entry.to(x.dtype)
    if table.weights is not None:
        weights = weights * table.weights[places]
    entries = x.index_select(1, table.entries[places].reshape(-1))
    return (entries.unflatten(1, places.shape) * weights[..., None]).sum(2)


def plain_gradients(
    plain: Callable[..., Tensor], a: Tensor, b: Tensor, grad: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `plain(a, b)`, in basic operations, so that they have gradients in turn;
    None for an input that needs none.

    For a custom backward pass inside which gradients are enabled: they are, if the caller wants
    higher derivatives (`create_graph=True`).
    """
    # Views, because one input may depend on the other, and that path is not for us to follow.
    a, b = a.view_as(a), b.view_as(b)
    wanted = [x for x in (a, b) if x.requires_grad]
    with torch.autocast(grad.device.type, enabled=False):
        found = iter(torch.autograd.grad(plain(a, b), wanted, grad, create_graph=True))
    return next(found) if a.requires_grad else None, next(found) if b.requires_grad else None


def batched_bag_sum(tables: Tensor, bags: Bags) -> Tensor:
    """Sum tables (B, N, D) in bags to (B, n_out, D). The samples are stacked into one table, which
    avoids a transposed copy.
    """
    batch, rows, width = tables.shape
    sums = bag_sum(tables.reshape(-1, width), repeat_bags(bags, batch, rows))
    return sums.view(batch, len(bags.offsets) - 1, width)


def repeat_bags(bags: Bags, batch: int, rows: int) -> Bags:
    """Return the bags for `batch` stacked tables of `rows` rows each."""
    if batch == 1:
        return bags
    entries = shifted(bags.entries, batch, rows)
    starts = shifted(bags.offsets[:-1], batch, len(bags.entries))
    end = starts.new_full((1,), len(entries))
    return Bags(
        entries,
        torch.cat([starts, end]),
        None if bags.weights is None else bags.weights.repeat(batch),
    )


def shifted(index: Tensor, batch: int, step: int) -> Tensor:
    """Repeat row numbers (n,) for `batch` stacked tables of `step` rows: (batch * n,)."""
    if batch == 1:
        return index
    return (index + torch.arange(batch, device=index.device)[:, None] * step).reshape(-1)


def vertex_rows(x: Tensor) -> Tensor:
    """(b, V, C) to (V, b * C): bag sums are fast on one long row per vertex. This costs nothing for
    a single sample.
    """
    return x.transpose(0, 1).reshape(x.shape[1], -1).contiguous()


def samples_per_pass(x: Tensor, numbers: int) -> int:
    """The number of samples of x (B, ...) to process together if each needs a table of `numbers`
    numbers.
    """
    budget = CACHE_BYTES if x.device.type == "cpu" else DEVICE_BYTES
    return max(1, min(len(x), budget // max(1, numbers * x.element_size())))


def check_input(owner: str, x: Tensor, vertices: int, channels: int | None = None) -> None:
    """Raise InputError unless x is (B, vertices, channels)."""
    expected = f"(B, {vertices}, {'C' if channels is None else channels})"
    if x.ndim != 3 or x.shape[1] != vertices or (channels is not None and x.shape[2] != channels):
        raise InputError(f"{owner}: expected x of shape {expected}, got {tuple(x.shape)}")
