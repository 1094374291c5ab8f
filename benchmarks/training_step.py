"""A training step (forward, backward, optimizer) of CoMA and SpiralNet++ against the same networks
written plainly.

Plainly means: Chebyshev terms and level maps by message passing (gather, multiply, `index_add`,
which is faster than the `scatter_add` of message passing libraries), and spirals by `index_select`
and a linear layer; autograd does the rest. The two networks have the same weights, and their
outputs are compared first.

    python benchmarks/training_step.py [--vertices 5023] [--batch 16] [--threads 1] [--rounds 9]
    python benchmarks/training_step.py --memory          # peak memory of CoMA's step, 71,926
    vertices, batch 8
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from _common import Machine, in_turns, median_ratio, sphere_template
from morphable.mesh.template import Template
from morphable.models.autoencoder import HierarchicalAutoencoder
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.recipes import COMA, SPIRALNET_PLUS
from morphable.ops.allocator import keep_freed_memory
from morphable.ops.chebyshev import ChebyshevConv, plain_chebyshev
from morphable.ops.gather import plain_bag_sum
from morphable.ops.sparse import SparseMap
from morphable.ops.spiral import SpiralConv, plain_spiral

NETWORKS = {"CoMA": COMA.model, "SpiralNet++": SPIRALNET_PLUS.model}
TARGETS = {"CoMA": 5.0, "SpiralNet++": 1.2}
LARGE, LARGE_BATCH, LARGE_LIMIT = 71_926, 8, 8.0


class Plain(nn.Module):
    """One of our operators computed plainly, with its own weights."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        match self.operator:
            case ChebyshevConv() as conv:
                return plain_chebyshev(x, conv.weight, conv.bias, conv.laplacian)
            case SpiralConv() as conv:
                return plain_spiral(x, conv.weight, conv.bias, conv.geometry)
            case SparseMap() as mapping:
                return plain_bag_sum(x, mapping.rows)
        raise TypeError(type(self.operator))


def plain(module: nn.Module) -> nn.Module:
    """The module with every operator of ours, at any depth, computed plainly."""
    if isinstance(module, (ChebyshevConv, SpiralConv, SparseMap)):
        return Plain(module)
    for name, child in module.named_children():
        setattr(module, name, plain(child))
    return module


def training_step(model: nn.Module, vertices: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.0, momentum=0.9
    )  # lr 0: every step does the same work

    def step() -> None:
        optimizer.zero_grad()
        (model(vertices) - vertices).abs().mean().backward()
        optimizer.step()

    return step


def floor_ms(model: nn.Module, vertices: Tensor, machine: Machine) -> float:
    """The step's floor: for each layer its least arithmetic or its least memory traffic, whichever
    takes longer.

    Least arithmetic: the products with the weights, once forward and for each gradient, and a
    recurrence on the narrower side. Least traffic: read the input and write the output forward;
    read both and write a gradient backward.
    """
    total = 0.0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        nonlocal total
        x = inputs[0]
        passes = 2 + x.requires_grad
        flops = 0
        if isinstance(module, (ChebyshevConv, SpiralConv, nn.Linear)):
            flops = passes * 2 * len(x) * (x.shape[1] if x.ndim == 3 else 1) * module.weight.numel()
        if isinstance(module, ChebyshevConv):
            narrow = min(x.shape[2], y.shape[2])
            flops += 2 * 2 * (module.terms - 1) * len(module.laplacian.entries) * len(x) * narrow
        if isinstance(module, SparseMap):
            flops = 2 * 2 * len(module.rows.entries) * len(x) * x.shape[2]
        total += machine.floor_ms(flops, 4 * (passes * x.numel() + 2 * y.numel()))

    layers = [
        m
        for m in model.modules()
        if isinstance(m, (ChebyshevConv, SpiralConv, SparseMap, nn.Linear, nn.ReLU, nn.ELU))
    ]
    handles = [layer.register_forward_hook(add) for layer in layers]
    model(vertices)
    for handle in handles:
        handle.remove()
    return total


def build(template: Template, name: str, batch: int) -> tuple[HierarchicalAutoencoder, Tensor]:
    torch.manual_seed(0)
    config = NETWORKS[name]
    model = HierarchicalAutoencoder(template, config, MeshGeometry.of(template, config))
    shape = torch.tensor(template.mesh.vertices, dtype=torch.float32) / 100
    return model, shape + 0.05 * torch.randn(batch, *shape.shape)


def compare(template: Template, batch: int, rounds: int) -> None:
    pairs = {}
    for name in NETWORKS:
        ours, vertices = build(template, name, batch)
        theirs = plain(copy.deepcopy(ours))
        torch.testing.assert_close(ours(vertices), theirs(vertices), rtol=1e-3, atol=1e-4)
        pairs[name] = ours, theirs, vertices
    before = {
        name: in_turns([training_step(ours, vertices), training_step(theirs, vertices)], rounds)
        for name, (ours, theirs, vertices) in pairs.items()
    }
    kept = keep_freed_memory()
    machine = Machine.measure()
    print(
        f"machine: {machine.gflops:.0f} GFLOP/s float32, {machine.gbytes:.1f} GB/s; allocator kept: {kept}"
    )
    print(
        "network        ours ms  plain ms   ratio  target  floor ms  ours/floor | allocator's gain: ours  plain"
    )
    for name, (ours, theirs, vertices) in pairs.items():
        fast, slow = in_turns(
            [training_step(ours, vertices), training_step(theirs, vertices)], rounds
        )
        floor, middle = floor_ms(ours, vertices, machine), statistics.median(fast)
        gain, plain_gain = (
            statistics.median(old) / statistics.median(new)
            for old, new in zip(before[name], (fast, slow), strict=True)
        )
        print(
            f"{name:12} {middle:9.1f} {statistics.median(slow):9.1f} {median_ratio(slow, fast):7.2f}"
            f" {TARGETS[name]:7.1f} {floor:9.1f} {middle / floor:11.1f} | {gain:22.2f} {plain_gain:6.2f}"
        )


def memory(vertices: int, batch: int) -> None:
    keep_freed_memory()
    model, shapes = build(sphere_template(vertices), "CoMA", batch)
    before = _peak_gib()
    step = training_step(model, shapes)
    for _ in range(2):
        step()
    verdict = (
        f"peak {_peak_gib():.2f} GiB, limit {LARGE_LIMIT:.0f} ({before:.2f} before the first step)"
    )
    print(f"CoMA, {vertices} vertices, batch {batch}: {verdict}")


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vertices", type=int, help=f"5023; with --memory {LARGE}")
    parser.add_argument("--batch", type=int, help=f"16; with --memory {LARGE_BATCH}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        memory(args.vertices or LARGE, args.batch or LARGE_BATCH)
        return
    vertices, batch = args.vertices or 5023, args.batch or 16
    clock = "CPU time" if args.threads == 1 else "wall time"
    print(
        f"{vertices} vertices, batch {batch}, {args.threads} thread(s), median {clock} of {args.rounds} rounds in turns"
    )
    compare(sphere_template(vertices), batch, args.rounds)


if __name__ == "__main__":
    main()
