"""The spiral convolution against a hand case, the published dummy-vertex formulation, and its laws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from morphable.errors import InputError
from morphable.ops import gather
from morphable.ops.spiral import SpiralConv

torch.set_num_threads(1)
EXACT = {"rtol": 1e-10, "atol": 1e-12}
SIDES = [(2, 5), (4, 4), (5, 2)]  # gather first; transform first, twice


@pytest.fixture(autouse=True)
def in_double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_spirals(
    n: int = 10, length: int = 4, padding: float = 0.25, seed: int = 0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spirals = rng.integers(0, n, (n, length))
    spirals[rng.random((n, length)) < padding] = -1
    return spirals


def conv(c_in: int, c_out: int, spirals: np.ndarray) -> SpiralConv:
    torch.manual_seed(0)
    layer = SpiralConv(c_in, c_out, spirals)
    with torch.no_grad():
        layer.bias.normal_()
    return layer


def signal(n: int, channels: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, n, channels, generator=torch.Generator().manual_seed(1))


def with_dummy_vertex(
    x: torch.Tensor, spirals: np.ndarray, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Neural3DMM's form: an extra all-zero vertex at the end, which index -1 addresses."""
    x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    neighbors = x[:, torch.as_tensor(spirals).reshape(-1)]
    return F.linear(neighbors.reshape(len(x), len(spirals), -1), weight, bias)


def test_slots_are_read_in_order_and_padding_reads_zero():
    layer = conv(1, 1, np.array([[0, 1, 2], [1, 2, -1], [2, -1, 0]]))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 10, 100]]))
        layer.bias.fill_(0.5)
    x = torch.tensor([[[1.0], [2], [3]]])
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([321.5, 32.5, 103.5]), **EXACT)


@pytest.mark.parametrize(("c_in", "c_out"), SIDES)
@pytest.mark.parametrize("padding", [0.0, 0.25])
def test_values_and_gradients_equal_the_dummy_vertex_formulation(c_in, c_out, padding):
    spirals = random_spirals(padding=padding)
    layer, x = conv(c_in, c_out, spirals), signal(10, c_in).requires_grad_()
    y, reference = layer(x), with_dummy_vertex(x, spirals, layer.weight, layer.bias)
    torch.testing.assert_close(y, reference, **EXACT)
    seed, inputs = torch.randn_like(y), (x, layer.weight, layer.bias)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(reference, inputs, seed),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize(("c_in", "c_out"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("wants_x", [True, False])
def test_gradcheck(c_in, c_out, wants_x):
    layer, x = (
        conv(c_in, c_out, random_spirals(5, 3)),
        signal(5, c_in, batch=2).requires_grad_(wants_x),
    )

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.weight, layer.bias))
    assert torch.autograd.gradgradcheck(run, (x, layer.weight, layer.bias))


@pytest.mark.parametrize(("c_in", "c_out"), SIDES)
def test_a_batch_equals_its_samples_however_it_is_cut_into_passes(monkeypatch, c_in, c_out):
    spirals = random_spirals()
    layer, x = conv(c_in, c_out, spirals), signal(10, c_in, batch=5).requires_grad_()
    inputs = (x, layer.weight)
    whole = torch.autograd.grad(layer(x).square().sum(), inputs)
    torch.testing.assert_close(layer(x), torch.cat([layer(sample[None]) for sample in x]), **EXACT)
    monkeypatch.setattr(
        gather, "CACHE_BYTES", 10 * 4 * min(c_in, c_out) * 8 * 2
    )  # passes of two samples, then one
    for ours, theirs in zip(
        torch.autograd.grad(layer(x).square().sum(), inputs), whole, strict=True
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize(("c_in", "c_out"), SIDES)
def test_renumbering_the_vertices_renumbers_the_output(c_in, c_out):
    spirals, order = random_spirals(), np.random.default_rng(3).permutation(10)
    new_number = np.append(np.argsort(order), -1)
    x = signal(10, c_in)
    moved = conv(c_in, c_out, new_number[spirals[order]])(x[:, order])
    torch.testing.assert_close(moved, conv(c_in, c_out, spirals)(x)[:, order], **EXACT)


def test_parameters_and_state():
    layer = SpiralConv(3, 32, random_spirals(length=9))
    assert layer.weight.shape == torch.nn.Linear(9 * 3, 32).weight.shape
    assert sum(p.numel() for p in layer.parameters()) == 9 * 3 * 32 + 32
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert SpiralConv(3, 3, random_spirals(), bias=False).bias is None


@pytest.mark.parametrize(("c_in", "c_out"), SIDES)
def test_runs_under_bfloat16_autocast_and_as_a_bfloat16_module(c_in, c_out):
    layer, x = SpiralConv(c_in, c_out, random_spirals()).float(), signal(10, c_in).float()
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
    with pytest.raises(
        InputError, match=r"spirals: expected integers of shape \(V, L\), got float64"
    ):
        SpiralConv(3, 3, np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"spirals: expected vertices in -1\.\.3, got -2\.\.0"):
        SpiralConv(3, 3, np.array([[0], [-2], [0], [0]]))
    with pytest.raises(InputError, match=r"expected x of shape \(B, 10, 3\), got \(2, 10, 4\)"):
        SpiralConv(3, 3, random_spirals())(torch.zeros(2, 10, 4))
