"""What the locally weighted autoencoder costs: its factorization against scikit-learn's NMF, and its
training step against CoMA's.

    python benchmarks/part_training.py factorization [--vertices 5023] [--shapes 2000] [--rounds 3]
    python benchmarks/part_training.py step [--vertices 5023] [--batch 16] [--rounds 5]
    python benchmarks/part_training.py memory     # peak memory of a step, 71,926 vertices, batch 8

Times are CPU times on one thread, taken in turns. The factorization's floor is its matrix products
at the machine's speed. A step's floor is that of `training_step.py`: each layer's least arithmetic
or memory traffic.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import NMF
from torch import Tensor, nn

from _common import Machine, in_turns, median_ratio, sphere_template
from morphable.models.base import TrainableModel
from morphable.models.families import MODELS, create
from morphable.models.part_weights import PartWeightsConfig
from morphable.models.training import Batch, Progress
from morphable.ops.allocator import keep_freed_memory
from morphable.ops.sparse_nmf import Factorization, penalized
from training_step import floor_ms

FACTORIZATION_LIMIT = 20.0
RATIO_LIMITS = {False: 1.5, True: 3.0}
"""The largest ratio to CoMA's step, without and with the cycle loss."""
LARGE, LARGE_BATCH, LARGE_LIMIT = 71_926, 8, 4.0
READINGS: dict[str, dict[str, object]] = {
    "output": {},
    "features, level 1": {"reading": "features", "blend_level": 1},
    "features": {"reading": "features"},
    "outer": {"reading": "outer"},
    "latent": {"reading": "latent"},
}
CASES = [(reading, share) for reading in READINGS for share in (0.0, 0.25, 1.0)]
"""Readings, and the share of the batch that the cycle loss mixes; 0 = no cycle loss."""


def factorization(vertices: int, shapes: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    parts = rng.random((vertices, 6)) ** 4 @ rng.random((6, shapes)) ** 2
    matrix = (parts + 0.1 * rng.random((vertices, shapes))).astype(np.float32)
    config = PartWeightsConfig()
    results: dict[str, tuple[list[float], float, int]] = {}

    for name, solve in {
        "ours, penalized, 4 parts": lambda: _ours(
            matrix, 4, config.sparsity, config.weight_penalty
        ),
        "ours, plain, 4 parts": lambda: _ours(matrix, 4),
        "scikit-learn, plain, 4 parts": lambda: _theirs(matrix, 4),
        "ours, plain, 20 parts": lambda: _ours(matrix, 20),
        "scikit-learn, plain, 20 parts": lambda: _theirs(matrix, 20),
    }.items():
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            error, sweeps = solve()
            seconds.append(time.process_time() - start)
        results[name] = seconds, error, sweeps
    gflops = Machine.measure().gflops
    print(f"{vertices} vertices x {shapes} shapes, limit {FACTORIZATION_LIMIT:.0f} s")
    print("                               seconds  sweeps   error  floor s")
    for name, (seconds, error, sweeps) in results.items():
        count = 20 if "20" in name else 4
        floor = 2 * 2 * vertices * shapes * count * sweeps / gflops / 1e9
        middle = statistics.median(seconds)
        print(f"{name:30} {middle:7.2f} {sweeps:7} {error:7.4f} {floor:8.2f}")


def _ours(matrix: np.ndarray, parts: int, beta: float = 0.0, eta: float = 0.0) -> tuple[float, int]:
    result: Factorization = penalized(matrix, parts, beta=beta, eta=eta)
    return result.error, len(result.objective)


def _theirs(matrix: np.ndarray, parts: int) -> tuple[float, int]:
    solver = NMF(parts, init="nndsvda", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge is no matter here
        weights = solver.fit_transform(matrix)
    error = np.linalg.norm(matrix - weights @ solver.components_) / np.linalg.norm(matrix)
    return float(error), int(solver.n_iter_)


class Loss(nn.Module):
    """A model whose output is its loss, so that hooks see the layers that a training step runs."""

    def __init__(self, model: TrainableModel) -> None:
        super().__init__()
        self.model = model
        self.progress = Progress(0, 1, 0, 1, torch.Generator().manual_seed(0))

    def forward(self, vertices: Tensor) -> Tensor:
        return torch.stack([*self.model.loss(Batch(vertices), self.progress).values()]).sum()


def training_step(model: TrainableModel, vertices: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # every step does the same work
    loss = Loss(model)

    def step() -> None:
        optimizer.zero_grad()
        loss(vertices).backward()
        optimizer.step()

    return step


def build(family: str, vertices: int, **settings: object) -> TrainableModel:
    torch.manual_seed(0)
    model = create(family, sphere_template(vertices), latent=64, **settings)
    assert isinstance(model, TrainableModel)
    return model


def shapes_of(model: TrainableModel, batch: int) -> Tensor:
    shape = torch.tensor(np.asarray(model.template.mesh.vertices), dtype=torch.float32)
    return shape + 0.05 * torch.randn(batch, *shape.shape)


def step(vertices: int, batch: int, rounds: int) -> None:
    coma = build("coma", vertices)
    shapes = shapes_of(coma, batch)
    machine = Machine.measure()
    floor = floor_ms(Loss(coma), shapes, machine)
    print(f"{vertices} vertices, batch {batch}, latent size 64; CoMA's step is the unit")
    print(f"CoMA's floor: {floor:.0f} ms")
    print("reading           cycle share   ms  floor ms  of CoMA  limit")
    for reading, share in CASES:
        model = build(
            "local-weights",
            vertices,
            **READINGS[reading],
            cycle_weight=1.0 if share else 0.0,
            cycle_share=share or 1.0,
        )
        ours, theirs = in_turns([training_step(model, shapes), training_step(coma, shapes)], rounds)
        floor = floor_ms(Loss(model), shapes, machine)
        ratio, limit = median_ratio(ours, theirs), RATIO_LIMITS[share > 0]
        print(
            f"{reading:17} {share:11.2f} {statistics.median(ours):6.0f} {floor:8.0f} "
            f"{ratio:8.2f} {limit:6.1f}",
            flush=True,
        )


def memory(vertices: int, batch: int) -> None:
    keep_freed_memory()
    model = build("local-weights", vertices, **_fast())
    shapes = shapes_of(model, batch)
    before = _peak_gib()
    step = training_step(model, shapes)
    for _ in range(2):
        step()
    print(
        f"local-weights, {vertices} vertices, batch {batch}: peak {_peak_gib():.2f} GiB, limit "
        f"{LARGE_LIMIT:.0f} ({before:.2f} before the first step)"
    )


def _fast() -> dict[str, object]:
    config = MODELS["local-weights"].recipe("fast").model
    return {"cycle_weight": config.cycle_weight, "cycle_share": config.cycle_share}


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("factorization", "step", "memory"))
    parser.add_argument("--vertices", type=int, help=f"5023; of memory {LARGE}")
    parser.add_argument("--shapes", type=int, default=2000)
    parser.add_argument("--batch", type=int, help=f"16; of memory {LARGE_BATCH}")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    match args.what:
        case "factorization":
            factorization(args.vertices or 5023, args.shapes, args.rounds)
        case "step":
            step(args.vertices or 5023, args.batch or 16, args.rounds)
        case "memory":
            memory(args.vertices or LARGE, args.batch or LARGE_BATCH)


if __name__ == "__main__":
    main()
