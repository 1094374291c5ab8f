"""Deep3DMM's training step against CoMA's and against the dense formulation of the learned maps;
its memory.

Dense means, for every map: the full cosine matrix, clamp, top k, scatter, row sums, mixing with the
dense prior and a dense product, all differentiated by autograd. It stands in our own network, and
in the network written plainly as the published code has it (gather, multiply, `index_add`). All
have the same weights, and their outputs are compared first. The recipes differ in how fast the keys
move: at the paper's rate hardly a row of the selection changes in a step; at the full rate of
`fast` most do, which is the worst case.

    python benchmarks/aggregation_step.py [--vertices 5023] [--batch 16] [--threads 1] [--rounds 7]
    python benchmarks/aggregation_step.py --selection    # cost of the selection alone
    python benchmarks/aggregation_step.py --memory       # peak memory over the vertex count, batch
    8
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _common import in_turns, median_ratio, sphere_template
from morphable.mesh.template import Template
from morphable.models.autoencoder import HierarchicalAutoencoder
from morphable.models.families import MODELS, create
from morphable.models.recipes import Recipe
from morphable.models.training import Batch, Progress
from morphable.ops.allocator import keep_freed_memory
from morphable.ops.attention_map import AttentionMap
from morphable.ops.best_keys import select_best
from morphable.train.optimizer import make_optimizer
from training_step import plain

AGAINST_COMA, AGAINST_DENSE, LIMIT_GIB = 1.8, 6.0, 10.0
MEMORY_SIZES, MEMORY_BATCH = (4_500, 9_000, 18_000, 36_000, 71_926), 8


class DenseMap(nn.Module):
    """An AttentionMap written with dense matrices, with its own parameters."""

    def __init__(self, sparse: AttentionMap) -> None:
        super().__init__()
        self.keys, self.queries, self.mixing, self.k = (
            sparse.keys,
            sparse.queries,
            sparse.mixing,
            sparse.k,
        )
        prior = torch.tensor(sparse.prior.toarray(), dtype=torch.float32)
        self.prior = nn.Buffer(prior, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        scores = (F.normalize(self.queries, dim=1) @ F.normalize(self.keys, dim=1).T).clamp(
            1e-25, 1e25
        )
        if self.k < scores.shape[1]:
            best, index = scores.topk(self.k, dim=1)
            scores = torch.zeros_like(scores).scatter(1, index, best)
        learned = F.normalize(scores, p=1, dim=1)
        return ((self.mixing[0] * self.prior + self.mixing[1] * learned) / self.mixing.sum()) @ x


def dense(module: nn.Module) -> nn.Module:
    """The module with every learned map, at any depth, computed densely."""
    if isinstance(module, AttentionMap):
        return DenseMap(module)
    for name, child in module.named_children():
        setattr(module, name, dense(child))
    return module


def build(
    template: Template, family: str, recipe: Recipe, **settings: object
) -> HierarchicalAutoencoder:
    torch.manual_seed(0)
    config = replace(recipe.model, **settings)
    model = create(family, template, config)
    assert isinstance(model, HierarchicalAutoencoder)
    return model.train()


def meshes(template: Template, batch: int) -> Tensor:
    shape = torch.tensor(template.mesh.vertices, dtype=torch.float32)
    return shape + 3 * torch.randn(batch, *shape.shape, generator=torch.Generator().manual_seed(0))


def training_step(
    model: HierarchicalAutoencoder, recipe: Recipe, vertices: Tensor
) -> Callable[[], object]:
    """A step of the recipe at its full rate: keys and queries move, and the selection with them."""
    assert recipe.train is not None
    optimizer = make_optimizer(model.parameters(), recipe.train)
    progress = Progress(0, 1, 0, 1, torch.Generator())

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(model.loss(Batch(vertices), progress).values())).sum().backward()
        optimizer.step()

    return step


def compare(template: Template, batch: int, rounds: int) -> None:
    keep_freed_memory()
    vertices = meshes(template, batch)
    print(
        "recipe   CoMA ms  ours ms  dense ms  plain ms | ours/CoMA target | dense/ours  plain/ours target"
    )
    for name in ("paper", "fast"):
        recipe = MODELS["deep3dmm"].recipe(name)
        ours = build(template, "deep3dmm", recipe)
        coma = build(template, "coma", MODELS["coma"].recipe(name))
        for model in (ours, coma):
            model.initialize(vertices.numpy())
        theirs, published = dense(copy.deepcopy(ours)), plain(dense(copy.deepcopy(ours)))
        with torch.no_grad():
            for other in (theirs, published):
                torch.testing.assert_close(other(vertices), ours(vertices), rtol=1e-3, atol=1e-2)
        models = (coma, ours, theirs, published)
        times = in_turns([training_step(model, recipe, vertices) for model in models], rounds)  # type: ignore[arg-type]
        first, second, third, fourth = times
        shown = "".join(f"{statistics.median(taken):10.1f}" for taken in times)
        print(
            f"{name:6}{shown} | {median_ratio(second, first):9.2f} {AGAINST_COMA:6.1f} |"
            f" {median_ratio(third, second):10.1f} {median_ratio(fourth, second):11.1f} {AGAINST_DENSE:6.1f}"
        )


def selection(rounds: int) -> None:
    """From nothing, from an earlier selection that is still right, and from one that the keys moved
    away from.
    """
    keep_freed_memory()
    print(
        "rows x keys, k        scores |  first selection  no row changed  a tenth changed  all rows changed, ms"
    )
    for n_out, n_in, k in (
        (1256, 5023, 2),
        (5023, 1256, 32),
        (17_982, 71_926, 2),
        (71_926, 17_982, 32),
    ):
        queries, keys = (F.normalize(torch.randn(n, 21), dim=1) for n in (n_out, n_in))
        right = select_best(queries, keys, k)
        few = right.clone()
        few[::10, 0] = _not_in(right[::10])
        wrong = torch.arange(k).repeat(n_out, 1)
        actions = [
            lambda q=queries, s=keys, k=k, b=before: select_best(q, s, k, b)
            for before in (None, right, few, wrong)
        ]
        times = [
            statistics.median(taken) for taken in in_turns(actions, rounds if n_out < 10_000 else 1)
        ]
        print(
            f"{n_out:6} x {n_in:6}, {k:2} {n_out * n_in / 1e6:9.0f}M | "
            + "".join(f"{t:14.1f}" for t in times)
        )


def _not_in(index: Tensor) -> Tensor:
    """(n,) a column that each row of index does not name."""
    candidates = torch.arange(index.shape[1] + 1).expand(len(index), -1)
    free = ~(candidates[:, :, None] == index[:, None]).any(2)
    return free.int().argmax(1)


def memory() -> None:
    """Each size in a process of its own, since a process's peak never falls."""
    print(
        f"vertices  peak GiB, batch {MEMORY_BATCH}  limit   (before the first step)  s / step between selections"
    )
    for vertices in MEMORY_SIZES:
        done = subprocess.run(
            [sys.executable, __file__, "--peak", str(vertices)],
            capture_output=True,
            text=True,
            check=True,
        )
        print(done.stdout.strip(), flush=True)


def peak(vertices: int) -> None:
    keep_freed_memory()
    recipe = MODELS["deep3dmm"].published
    template = sphere_template(vertices)
    model, shapes = build(template, "deep3dmm", recipe), meshes(template, MEMORY_BATCH)
    model.initialize(shapes.numpy())
    before = _peak_gib()
    times = in_turns([training_step(model, recipe, shapes)], 3)[0]
    row = f"{vertices:8} {_peak_gib():10.2f} {LIMIT_GIB:15.0f} {before:17.2f}"
    print(f"{row} {statistics.median(times) / 1e3:19.2f}")


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vertices", type=int, default=5023)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--selection", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        peak(args.peak)
    elif args.memory:
        memory()
    elif args.selection:
        selection(args.rounds)
    else:
        clock = "CPU time" if args.threads == 1 else "wall time"
        print(
            f"{args.vertices} vertices, batch {args.batch}, {args.threads} thread(s), median {clock}"
        )
        compare(sphere_template(args.vertices), args.batch, args.rounds)


if __name__ == "__main__":
    main()
