"""Chebyshev graph convolution Y = sum_k T_k(Lhat) X W_k + b on a fixed mesh.

Defferrard et al. 2016; on meshes CoMA, Ranjan et al. 2018. Lhat = 2 L / lambda_max - I with L = I -
D^-1/2 A D^-1/2 and lambda_max fixed to 2, hence Lhat = -D^-1/2 A D^-1/2. Lhat is symmetric, so
T_k(Lhat) is its own transpose: the backward pass is the same recurrence run on the gradient, and
the forward pass keeps only X.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.ops.gather import (
    BagBuffers,
    Bags,
    bag_sum,
    check_input,
    plain_bag_sum,
    plain_gradients,
    samples_per_pass,
    vertex_rows,
    wants_plain,
)


def rescaled_laplacian(adjacency: sp.spmatrix) -> sp.csr_matrix:
    """Compute Lhat = -D^-1/2 A D^-1/2 (V, V) of a symmetric adjacency, of which only the pattern
    off the diagonal is used.

    The row of an isolated vertex is zero. Raises InputError unless the matrix is square and
    symmetric.
    """
    pattern = sp.csr_matrix(adjacency != 0).astype(np.float64)
    if pattern.shape[0] != pattern.shape[1] or (pattern != pattern.T).nnz:
        raise InputError(
            f"adjacency: expected a symmetric (V, V) matrix, got shape {pattern.shape}"
        )
    pattern = sp.csr_matrix(pattern - sp.diags(pattern.diagonal()))
    pattern.eliminate_zeros()
    degree = np.asarray(pattern.sum(axis=1)).ravel()
    scale = sp.diags(np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0.0))
    return sp.csr_matrix(-(scale @ pattern @ scale))


class ChebyshevConv(nn.Module):
    """A Chebyshev convolution with `terms` polynomials (degree terms - 1) over one mesh.

    in_channels, out_channels: C_in, C_out. terms: K >= 1; K = 1 is a linear layer per vertex.
    adjacency: (V, V) scipy sparse, symmetric; only its pattern is used (see `rescaled_laplacian`).
    Parameters: weight (K, C_in, C_out), Xavier uniform over K * C_in inputs, and bias (C_out,),
    zero. The sums run in the weight's dtype, also under autocast, because they are bound by memory
    traffic, not by arithmetic. Raises InputError if terms < 1 or the matrix is not symmetric.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: sp.spmatrix,
        *,
        terms: int = 6,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if terms < 1:
            raise InputError(f"terms: expected at least 1 Chebyshev term, got {terms}")
        self.in_channels, self.out_channels, self.terms = in_channels, out_channels, terms
        self.laplacian = BagBuffers(rescaled_laplacian(adjacency))
        self.weight = nn.Parameter(torch.empty(terms, in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight.view(-1, self.out_channels))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, V, C_in) to (B, V, C_out). Raises InputError for another shape."""
        check_input("ChebyshevConv", x, len(self.laplacian.offsets) - 1, self.in_channels)
        x = x.to(self.weight.dtype)
        if wants_plain(x):
            return plain_chebyshev(x, self.weight, self.bias, self.laplacian)
        y = chebyshev(x, self.weight, self.laplacian.bags)
        return y if self.bias is None else y.add_(self.bias)

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, terms={self.terms}"
        return f"{sizes}, bias={self.bias is not None}"


def plain_chebyshev(
    x: Tensor, weight: Tensor, bias: Tensor | None, laplacian: Bags | BagBuffers
) -> Tensor:
    """The definition, sum_k T_k(Lhat) x W_k + b with T_0 x = x, T_1 x = Lhat x and T_{k+1} x =
    2 Lhat T_k x - T_{k-1} x, in differentiable basic operations (see `plain_bag_sum`).
    """
    before, current, y = x, x, x @ weight[0]
    for k in range(1, len(weight)):
        following = plain_bag_sum(current, laplacian)
        before, current = current, following if k == 1 else 2 * following - before
        y = y + current @ weight[k]
    return y if bias is None else y + bias


def chebyshev(x: Tensor, weight: Tensor, laplacian: Bags) -> Tensor:
    """Compute the same without bias, several times faster, from x (B, V, C_in), weight
    (K, C_in, C_out) and a symmetric Lhat of one dtype.

    The recurrence runs on the side with fewer channels: on x or, if C_out < C_in, on the products
    x W_k (Clenshaw).
    """
    with torch.autocast(x.device.type, enabled=False):
        return _Chebyshev.apply(x, weight, laplacian)


class _Chebyshev(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, laplacian: Bags) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.laplacian = laplacian
        _, c_in, c_out = weight.shape
        evaluate = _clenshaw if c_out < c_in else _accumulate
        step = samples_per_pass(x, x.shape[1] * min(c_in, c_out))
        y = x.new_empty(*x.shape[:2], c_out)
        for part, out in zip(x.split(step), y.split(step), strict=True):
            out.copy_(evaluate(part, weight, laplacian))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(plain_chebyshev, bias=None, laplacian=ctx.laplacian)
            of_x, of_weight = plain_gradients(plain, x, weight, grad)
            return of_x, of_weight, None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                return *_both_gradients(x, grad, weight, ctx.laplacian), None
            return None, _weight_gradient(x, grad, weight, ctx.laplacian), None


def _accumulate(x: Tensor, weight: Tensor, laplacian: Bags) -> Tensor:
    batch, vertices, c_in = x.shape
    y = x.new_zeros(vertices * batch, weight.shape[2])
    for term, w in zip(_terms(vertex_rows(x), laplacian, len(weight)), weight, strict=True):
        y.addmm_(term.view(-1, c_in), w)
    return _from_rows(y, batch, vertices)


def _clenshaw(x: Tensor, weight: Tensor, laplacian: Bags) -> Tensor:
    """b_k = x W_k + 2 Lhat b_{k+1} - b_{k+2};  y = x W_0 + Lhat b_1 - b_2."""
    terms, c_in, c_out = weight.shape
    batch, vertices, _ = x.shape
    products = x.reshape(-1, c_in) @ weight.permute(1, 0, 2).reshape(c_in, -1)
    products = (
        products.view(batch, vertices, terms, c_out)
        .permute(2, 1, 0, 3)
        .reshape(terms, vertices, -1)
    )
    doubled = laplacian.scaled(2)
    current, previous = products[-1], None
    for k in range(terms - 2, -1, -1):
        following = bag_sum(current, doubled if k else laplacian).add_(products[k])
        if previous is not None:
            following.sub_(previous)
        current, previous = following, current
    return _from_rows(current, batch, vertices)


def _both_gradients(
    x: Tensor, grad: Tensor, weight: Tensor, laplacian: Bags
) -> tuple[Tensor, Tensor]:
    """With S_k = T_k(Lhat) grad: the gradient of x is sum_k S_k W_k^T, that of W_k is x^T S_k."""
    terms, c_in, c_out = weight.shape
    grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
    for part, grad_part, out in _zip_passes(x, grad, grad_x, width=c_out):
        rows = vertex_rows(part).view(-1, c_in)
        side = _terms(vertex_rows(grad_part), laplacian, terms)
        if c_out < c_in:  # narrow terms: one product over all of them beats K thin ones
            wide = torch.cat([term.view(-1, c_out) for term in side], 1)
            grad_weight += (rows.T @ wide).view(c_in, terms, c_out).transpose(0, 1)
            result = wide @ weight.transpose(1, 2).reshape(-1, c_in)
        else:
            result = torch.zeros_like(rows)
            for term, w, grad_w in zip(side, weight, grad_weight, strict=True):
                result.addmm_(term.view(-1, c_out), w.T)
                grad_w.addmm_(rows.T, term.view(-1, c_out))
        out.copy_(_from_rows(result, len(part), x.shape[1]))
    return grad_x, grad_weight


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, laplacian: Bags) -> Tensor:
    """Only the gradient of W_k, as (T_k(Lhat) x)^T grad or x^T (T_k(Lhat) grad), with the
    recurrence on the side with fewer channels.
    """
    terms, c_in, c_out = weight.shape
    result = torch.zeros_like(weight)
    for part, grad_part in _zip_passes(x, grad, width=min(c_in, c_out)):
        rows, grad_rows = vertex_rows(part), vertex_rows(grad_part)
        for term, grad_w in zip(
            _terms(rows if c_in <= c_out else grad_rows, laplacian, terms), result, strict=True
        ):
            left, right = (term, grad_rows) if c_in <= c_out else (rows, term)
            grad_w.addmm_(left.view(-1, c_in).T, right.view(-1, c_out))
    return result


def _zip_passes(*tensors: Tensor, width: int) -> Iterator[tuple[Tensor, ...]]:
    step = samples_per_pass(tensors[0], tensors[0].shape[1] * width)
    return zip(*(tensor.split(step) for tensor in tensors), strict=True)


def _terms(rows: Tensor, laplacian: Bags, terms: int) -> Iterator[Tensor]:
    """Yield T_0 .. T_{K-1} of (V, D) rows one by one, so that only three are held at once."""
    yield rows
    if terms == 1:
        return
    before, current = rows, bag_sum(rows, laplacian)
    yield current
    doubled = laplacian.scaled(2)
    for _ in range(terms - 2):
        before, current = current, bag_sum(current, doubled).sub_(before)
        yield current


def _from_rows(rows: Tensor, batch: int, vertices: int) -> Tensor:
    """(V, b * C) or (V * b, C) to (b, V, C)."""
    return rows.view(vertices, batch, -1).transpose(0, 1)
