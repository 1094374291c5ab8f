"""Sparse maps against scipy, a dense product, and their laws; and the allocator setting."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from morphable.errors import InputError
from morphable.ops import gather
from morphable.ops.allocator import keep_freed_memory
from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.sparse import SparseMap, row_map
from morphable.ops.spiral import SpiralConv

torch.set_num_threads(1)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def in_double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_matrix(n_out: int = 5, n_in: int = 9) -> sp.csr_matrix:
    matrix = sp.random(n_out, n_in, 0.3, format="lil", rng=np.random.default_rng(0))
    matrix[2] = 0  # an empty row
    matrix[:, 4] = 0  # a column nobody reads
    return sp.csr_matrix(matrix)


def signal(n: int, channels: int = 3, batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, n, channels, generator=torch.Generator().manual_seed(1))


def random_rows(n_out: int = 5, n_in: int = 9, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    index = torch.randint(
        0, n_in - 1, (n_out, k), generator=generator
    )  # the last input is read by nobody
    return index, torch.randn(n_out, k, generator=generator)


def test_a_map_worked_by_hand():
    matrix = sp.csr_matrix(np.array([[0.0, 1, 0], [0.25, 0, 0.75]]))
    y = SparseMap(matrix)(torch.tensor([[[1.0], [2], [3]], [[4], [5], [6]]]))
    assert y[..., 0].tolist() == [[2, 2.5], [5, 5.5]]


@pytest.mark.parametrize("budget", [gather.CACHE_BYTES, 1])
def test_the_product_is_scipys_and_the_backward_its_transpose(monkeypatch, budget):
    monkeypatch.setattr(gather, "CACHE_BYTES", budget)
    matrix, x = random_matrix(), signal(9).requires_grad_()
    y, seed = SparseMap(matrix)(x), signal(5)
    (grad,) = torch.autograd.grad(y, x, seed)
    for sample in range(len(x)):
        np.testing.assert_allclose(
            y[sample].detach(), matrix @ x[sample].detach().numpy(), atol=1e-13
        )
        np.testing.assert_allclose(grad[sample], matrix.T @ seed[sample].numpy(), atol=1e-13)


def test_the_map_passes_gradcheck_twice():
    layer, x = SparseMap(random_matrix()), signal(9, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_down_after_up_of_a_selection_is_the_identity():
    kept = np.array([1, 3, 8])
    down = sp.csr_matrix((np.ones(3), (np.arange(3), kept)), shape=(3, 9))
    x = signal(3)
    torch.testing.assert_close(SparseMap(down)(SparseMap(down.T)(x)), x, rtol=0, atol=0)


def test_a_map_holds_no_state_and_stays_in_float32_under_autocast():
    layer = SparseMap(random_matrix()).float()
    assert not layer.state_dict() and not list(layer.parameters())
    x = signal(9).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("budget", [gather.CACHE_BYTES, 1])
def test_row_map_equals_the_dense_product_in_values_and_gradients(monkeypatch, budget):
    monkeypatch.setattr(gather, "CACHE_BYTES", budget)
    (index, weights), x = random_rows(), signal(9).requires_grad_()
    weights.requires_grad_()
    dense = torch.zeros(5, 9).scatter_add(1, index, weights)
    y, seed = row_map(x, index, weights), signal(5)
    torch.testing.assert_close(y, dense @ x, **EXACT)
    for ours, theirs in zip(
        torch.autograd.grad(y, (x, weights), seed),
        torch.autograd.grad(dense @ x, (x, weights), seed),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("wants_x", [True, False])
def test_row_map_gradcheck(wants_x):
    (index, weights), x = random_rows(), signal(9, 2, 2).requires_grad_(wants_x)
    inputs = x, weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, weights: row_map(x, index, weights), inputs)
    assert torch.autograd.gradgradcheck(lambda x, weights: row_map(x, index, weights), inputs)


def test_row_map_runs_under_bfloat16_autocast():
    (index, weights), x = random_rows(), signal(9).float()
    weights = weights.float().requires_grad_()
    exact = row_map(x, index, weights)
    with torch.autocast("cpu", torch.bfloat16):
        y = row_map(x.bfloat16().requires_grad_(), index, weights)
        y.sum().backward()
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    assert weights.grad.dtype == torch.float32


def test_bad_shapes_are_named():
    with pytest.raises(
        InputError, match=r"SparseMap: expected x of shape \(B, 9, C\), got \(4, 5, 3\)"
    ):
        SparseMap(random_matrix())(torch.zeros(4, 5, 3))
    index, weights = random_rows()
    with pytest.raises(
        InputError, match=r"row_map: expected x .* got \(4, 9, 3\), \(5, 3\) and \(5, 2\)"
    ):
        row_map(signal(9), index, weights[:, :2])


class EveryOperator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        ring = sp.csr_matrix(np.roll(np.eye(9), 1, 1) + np.roll(np.eye(9), -1, 1))
        spirals = np.random.default_rng(0).integers(-1, 9, (9, 4))
        self.chain = torch.nn.Sequential(
            ChebyshevConv(3, 4, ring), SpiralConv(4, 2, spirals), SparseMap(random_matrix(9, 9))
        )
        self.index, self.weights = random_rows()

    def forward(self, x):
        return row_map(self.chain(x), self.index, self.weights)


def test_operators_export_with_a_free_batch_size():
    model, batch = EveryOperator(), torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        model, (signal(9, batch=3),), dynamic_shapes=({0: batch},)
    ).module()
    for count in (1, 5):
        x = signal(9, batch=count)
        torch.testing.assert_close(exported(x), model(x), **EXACT)


def test_an_empty_batch_stays_empty():
    x = signal(9, batch=0).requires_grad_()
    y = EveryOperator()(x)
    y.sum().backward()
    assert y.shape == (0, 5, 2) and x.grad.shape == x.shape


def test_the_allocator_setting_is_made_where_malloc_is_glibcs():
    code = "from morphable.ops.allocator import keep_freed_memory as keep; print(keep())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert answer.strip() == str(sys.platform == "linux" and platform.libc_ver()[0] == "glibc")


def test_the_allocator_setting_is_refused_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
