"""Spiral convolution: the features of a vertex's neighbors, concatenated in spiral order, go
through a linear layer.

SpiralConv of Neural3DMM (Bouritsas et al. 2019) and SpiralNet++ (Gong et al. 2019). An index of -1
pads a short spiral and reads zero. The published code has an all-zero dummy vertex for that; here
no tensor contains such a vertex.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.gather import (
    BagBuffers,
    batched_bag_sum,
    check_input,
    plain_gradients,
    samples_per_pass,
    shifted,
    wants_plain,
)


class SpiralConv(nn.Module):
    """y_i = W [x_{s(i,0)}, ..., x_{s(i,L-1)}] + b: a linear layer on the features of L neighbors,
    concatenated in spiral order.

    in_channels, out_channels: C_in, C_out. spirals: (V, L) integers in -1..V-1; -1 reads zero.
    Parameters: weight (C_out, L * C_in), laid out as an `nn.Linear` over the concatenated features,
    Xavier uniform, and bias (C_out,), zero. The products run in the weight's dtype, also under
    autocast. Raises InputError if the spirals have another shape or range.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spirals: np.ndarray, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.geometry = SpiralGeometry(spirals)
        self.weight = nn.Parameter(torch.empty(out_channels, self.geometry.length * in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, V, C_in) to (B, V, C_out). Raises InputError for another shape."""
        check_input("SpiralConv", x, self.geometry.vertices, self.in_channels)
        x = x.to(self.weight.dtype)
        if wants_plain(x):
            return plain_spiral(x, self.weight, self.bias, self.geometry)
        with torch.autocast(x.device.type, enabled=False):
            y = spiral(x, self.weight, self.geometry)
        return y if self.bias is None else y.add_(self.bias)

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, length={self.geometry.length}"
        return f"{sizes}, bias={self.bias is not None}"


class SpiralGeometry(nn.Module):
    """The spirals of one mesh as non-persistent buffers: gather indices, and bags for three sums.

    Let n = v * L + l be slot l of vertex v, and m = s(v, l) the vertex in it. `by_source` sums the
    rows n into m, `slots` sums the rows m * L + l into v, and `by_slot` sums the rows v into
    m * L + l. Padded slots are in no bag.
    """

    def __init__(self, spirals: np.ndarray) -> None:
        super().__init__()
        spirals = np.asarray(spirals)
        if (
            spirals.ndim != 2
            or not np.issubdtype(spirals.dtype, np.integer)
            or spirals.shape[1] == 0
        ):
            raise InputError(
                f"spirals: expected integers of shape (V, L), got {spirals.dtype} {spirals.shape}"
            )
        self.vertices, self.length = spirals.shape
        if spirals.min(initial=0) < -1 or spirals.max(initial=-1) >= self.vertices:
            raise InputError(
                f"spirals: expected vertices in -1..{self.vertices - 1}, got "
                f"{spirals.min()}..{spirals.max()}"
            )
        flat = spirals.reshape(-1).astype(np.int64)
        self.clamped = nn.Buffer(torch.from_numpy(np.maximum(flat, 0)), persistent=False)
        self.padded = nn.Buffer(torch.from_numpy(np.flatnonzero(flat < 0)), persistent=False)
        slot = np.flatnonzero(flat >= 0)
        vertex, source = slot // self.length, flat[slot]
        self.by_source = BagBuffers(_ones(source, slot, self.vertices, flat.size), unit=True)
        source_slot = source * self.length + slot % self.length
        slots = _ones(vertex, source_slot, self.vertices, flat.size)
        self.slots = BagBuffers(slots, unit=True)
        self.by_slot = BagBuffers(slots.T, unit=True)

    def gather(self, x: Tensor) -> Tensor:
        """(b, V, C) to (b * V, L * C): the concatenated spiral features of every vertex."""
        batch, vertices, channels = x.shape
        rows = x.reshape(-1, channels).index_select(0, shifted(self.clamped, batch, vertices))
        if len(self.padded):
            rows.index_fill_(0, shifted(self.padded, batch, len(self.clamped)), 0)
        return rows.view(-1, self.length * channels)


def plain_spiral(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: SpiralGeometry
) -> Tensor:
    """The definition in differentiable basic operations: concatenate the features along each
    vertex's spiral and apply one linear layer.
    """
    neighbors = x.index_select(1, geometry.clamped)
    if len(geometry.padded):
        neighbors = neighbors.index_fill(1, geometry.padded, 0)
    return F.linear(neighbors.reshape(x.shape[0], geometry.vertices, weight.shape[1]), weight, bias)


def spiral(x: Tensor, weight: Tensor, geometry: SpiralGeometry) -> Tensor:
    """Compute the same without bias, faster: x (B, V, C_in) and weight (C_out, L * C_in) of one
    dtype to (B, V, C_out).

    Whichever side has fewer channels is moved over the mesh. If C_out <= C_in, every vertex is
    transformed for all L slots, and the results are summed along the spirals; otherwise the
    features are gathered first. Measured forward and backward against index_select and a linear
    layer, this is 3.7 times faster at 32 -> 3 channels, 1.3 times at 32 -> 32 and 2.3 times at
    3 -> 32. The gathered features are not kept for the backward pass.
    """
    form = _TransformFirst if weight.shape[0] <= x.shape[2] else _GatherFirst
    return form.apply(x, weight, geometry)


class _GatherFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: SpiralGeometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        y = x.new_empty(*x.shape[:2], len(weight))
        step = samples_per_pass(x, x.shape[1] * weight.shape[1])
        for part, out in zip(x.split(step), y.split(step), strict=True):
            torch.mm(geometry.gather(part), weight.T, out=out.view(-1, len(weight)))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        geometry: SpiralGeometry = ctx.geometry
        if torch.is_grad_enabled():
            plain = partial(plain_spiral, bias=None, geometry=geometry)
            of_x, of_weight = plain_gradients(plain, x, weight, grad)
            return of_x, of_weight, None
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight)
        step = samples_per_pass(x, x.shape[1] * weight.shape[1])
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), step):
                part = grad[start : start + step].reshape(-1, len(weight))
                grad_weight.addmm_(part.T, geometry.gather(x[start : start + step]))
                if grad_x is not None:
                    rows = (part @ weight).view(-1, geometry.vertices * geometry.length, x.shape[2])
                    grad_x[start : start + step] = batched_bag_sum(rows, geometry.by_source.bags)
        return grad_x, grad_weight, None


class _TransformFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: SpiralGeometry) -> Tensor:
        slotted = (
            weight.view(len(weight), geometry.length, -1).permute(2, 1, 0).reshape(x.shape[2], -1)
        )
        ctx.save_for_backward(x, weight, slotted)
        ctx.geometry = geometry
        step = samples_per_pass(x, x.shape[1] * slotted.shape[1])
        parts = []
        for part in x.split(step):
            rows = (part @ slotted).view(len(part), -1, len(weight))
            parts.append(batched_bag_sum(rows, geometry.slots.bags))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, slotted = ctx.saved_tensors
        geometry: SpiralGeometry = ctx.geometry
        if torch.is_grad_enabled():
            plain = partial(plain_spiral, bias=None, geometry=geometry)
            of_x, of_weight = plain_gradients(plain, x, weight, grad)
            return of_x, of_weight, None
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_slotted = torch.zeros_like(slotted)
        step = samples_per_pass(x, x.shape[1] * slotted.shape[1])
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), step):
                rows = batched_bag_sum(grad[start : start + step], geometry.by_slot.bags).view(
                    -1, slotted.shape[1]
                )
                grad_slotted.addmm_(x[start : start + step].reshape(-1, x.shape[2]).T, rows)
                if grad_x is not None:
                    torch.mm(rows, slotted.T, out=grad_x[start : start + step].view(-1, x.shape[2]))
        grad_weight = grad_slotted.view(x.shape[2], geometry.length, -1).permute(2, 1, 0)
        return grad_x, grad_weight.reshape(grad.shape[2], -1), None


def _ones(rows: np.ndarray, columns: np.ndarray, n_rows: int, n_columns: int) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n_rows, n_columns))
