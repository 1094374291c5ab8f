"""The Chebyshev convolution against cases worked by hand, a dense eigen-decomposition, and its
laws.
"""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from morphable.errors import InputError
from morphable.ops import gather
from morphable.ops.chebyshev import ChebyshevConv, rescaled_laplacian

torch.set_num_threads(1)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def in_double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_graph(n: int = 12, seed: int = 0, isolated: int = 1) -> sp.csr_matrix:
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < 0.35, 1)
    upper[:, n - isolated :] = False
    return sp.csr_matrix((upper | upper.T).astype(float))


def cycle(n: int = 7) -> sp.csr_matrix:
    return sp.csr_matrix(np.roll(np.eye(n), 1, 1) + np.roll(np.eye(n), -1, 1))


def conv(
    graph: sp.csr_matrix, c_in: int, c_out: int, terms: int = 6, bias: bool = True
) -> ChebyshevConv:
    torch.manual_seed(0)
    layer = ChebyshevConv(c_in, c_out, graph, terms=terms, bias=bias)
    torch.nn.init.normal_(layer.weight)
    return layer


def signal(graph: sp.csr_matrix, channels: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, graph.shape[0], channels, generator=torch.Generator().manual_seed(1))


def dense_chebyshev(graph: sp.csr_matrix, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum_k U cos(k arccos(eigenvalue)) U^T x W_k."""
    values, vectors = np.linalg.eigh(rescaled_laplacian(graph).toarray())
    angle = np.arccos(np.clip(values, -1, 1))
    total = torch.zeros(*x.shape[:2], weight.shape[2])
    for k, w in enumerate(weight):
        polynomial = torch.as_tensor(vectors * np.cos(k * angle) @ vectors.T)
        total += polynomial @ x @ w
    return total


def test_laplacian_of_a_path_worked_by_hand():
    path = sp.csr_matrix(np.array([[0, 2, 0, 0], [2, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 5.0]]))
    half = -1 / np.sqrt(2)
    expected = np.array([[0, half, 0, 0], [half, 0, half, 0], [0, half, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(rescaled_laplacian(path).toarray(), expected, atol=1e-15)


def test_the_first_weight_alone_is_the_identity_and_the_second_the_operator():
    graph = random_graph()
    layer, x = conv(graph, 4, 4), signal(graph, 4)
    for k, operator in ((0, np.eye(12)), (1, rescaled_laplacian(graph).toarray())):
        with torch.no_grad():
            layer.weight.zero_()[k] = torch.eye(4)
        torch.testing.assert_close(layer(x), torch.as_tensor(operator) @ x, **EXACT)


def test_a_constant_on_a_regular_graph_alternates_in_sign():
    layer = conv(cycle(), 1, 1, terms=4, bias=False)
    ones = torch.ones(2, 7, 1)
    for k in range(4):
        with torch.no_grad():
            layer.weight.zero_()[k] = 1
        torch.testing.assert_close(layer(ones), (-1) ** k * ones, **EXACT)


@pytest.mark.parametrize("terms", [1, 2, 3, 6])
@pytest.mark.parametrize(("c_in", "c_out"), [(2, 5), (4, 4), (5, 2)])
def test_values_and_gradients_equal_the_dense_eigen_decomposition(c_in, c_out, terms):
    graph = random_graph()
    layer, x = conv(graph, c_in, c_out, terms), signal(graph, c_in).requires_grad_()
    y, reference = layer(x), dense_chebyshev(graph, x, layer.weight)
    torch.testing.assert_close(y, reference, **EXACT)
    seed = torch.randn_like(y)
    inputs = (x, layer.weight)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(reference, inputs, seed),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize(("c_in", "c_out"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("wants_x", [True, False])
def test_gradcheck(c_in, c_out, wants_x):
    graph = random_graph(6)
    layer, x = (
        conv(graph, c_in, c_out, terms=4),
        signal(graph, c_in, batch=2).requires_grad_(wants_x),
    )
    bias = layer.bias

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.weight, bias))
    assert torch.autograd.gradgradcheck(run, (x, layer.weight, bias))


@pytest.mark.parametrize(("c_in", "c_out"), [(2, 3), (3, 2)])
def test_renumbering_the_vertices_renumbers_the_output(c_in, c_out):
    graph, order = random_graph(), np.random.default_rng(3).permutation(12)
    x = signal(graph, c_in)
    moved = conv(sp.csr_matrix(graph[order][:, order]), c_in, c_out)(x[:, order])
    torch.testing.assert_close(moved, conv(graph, c_in, c_out)(x)[:, order], **EXACT)


@pytest.mark.parametrize(("c_in", "c_out"), [(2, 3), (3, 2)])
def test_a_batch_equals_its_samples_however_it_is_cut_into_passes(monkeypatch, c_in, c_out):
    graph = random_graph()
    layer, x = conv(graph, c_in, c_out), signal(graph, c_in, batch=5).requires_grad_()
    (whole,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(layer(x), torch.cat([layer(sample[None]) for sample in x]), **EXACT)
    monkeypatch.setattr(
        gather, "CACHE_BYTES", 12 * 2 * 8 * 2
    )  # passes of two samples, the last of one
    torch.testing.assert_close(
        torch.autograd.grad(layer(x).square().sum(), layer.weight)[0], whole, **EXACT
    )


def test_an_isolated_vertex_sees_itself_through_the_even_terms_only():
    graph = random_graph(isolated=1)
    layer, x = conv(graph, 3, 3, bias=False), signal(graph, 3)
    expected = x[:, -1] @ (layer.weight[0] - layer.weight[2] + layer.weight[4])
    torch.testing.assert_close(layer(x)[:, -1], expected, **EXACT)


def test_parameters_and_state():
    layer = ChebyshevConv(3, 16, random_graph(), terms=6)
    assert sum(p.numel() for p in layer.parameters()) == 6 * 3 * 16 + 16 == 304
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert ChebyshevConv(16, 3, random_graph(), bias=False).bias is None
    assert layer.weight.any() and not layer.bias.any()


def test_runs_under_bfloat16_autocast_and_as_a_bfloat16_module():
    graph = random_graph(40)
    layer, x = ChebyshevConv(8, 8, graph).float(), signal(graph, 8).float()
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
        y.sum().backward()
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    assert layer.weight.grad.dtype == torch.float32
    low = layer.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, rtol=0.1, atol=0.1)


def test_bad_arguments_are_named():
    graph = random_graph()
    with pytest.raises(InputError, match="terms: expected at least 1"):
        ChebyshevConv(3, 3, graph, terms=0)
    with pytest.raises(InputError, match="symmetric"):
        ChebyshevConv(3, 3, sp.triu(graph))
    with pytest.raises(InputError, match=r"expected x of shape \(B, 12, 3\), got \(2, 11, 3\)"):
        ChebyshevConv(3, 3, graph)(torch.zeros(2, 11, 3))
