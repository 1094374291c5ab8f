"""A training step of `gan`: a critic and a generator step against their arithmetic floor.

    python benchmarks/gan_step.py --device cpu

Each recipe is measured in two layouts of the weights, as created (channels last) and contiguous,
in turns within one process. The floor is the time that the step's multiplications would take at
the speed of a large matrix product. Prints medians in ms, the cost of the whole training on the
data of --meshes, and what geometry images cost at --size: rasterizing 64 meshes and reading them
back, bilinearly and by the factored solve.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from _common import Machine, in_turns, sphere_template
from morphable.mesh.geometry_image import GeometryImage, LaplacianReadout
from morphable.models.families import MODELS, create
from morphable.models.gan import Gan
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.ops.allocator import keep_freed_memory
from morphable.train.distributed import Workers
from morphable.train.learner import Learner, learner_for

PEOPLE, EXPRESSIONS = 240, 7
ROUNDS = 15


def made(recipe: str, vertices: int, device: torch.device) -> tuple[Gan, TrainConfig]:
    """A model with classifiers for 240 people and seven expressions, on a sphere."""
    row = MODELS["gan"].recipe(recipe)
    people = [f"identity/{number}" for number in range(PEOPLE)]
    expressions = [f"expression/{number}" for number in range(EXPRESSIONS)]
    config = dataclasses.replace(row.model, classes=(*people, *expressions))
    model = create("gan", sphere_template(vertices), config)
    assert isinstance(model, Gan) and row.train is not None
    return model.to(device), row.train


def batch_of(model: Gan, size: int) -> Batch:
    """Random meshes, with as many more that have an expression."""
    device = model.device

    def meshes() -> Batch:
        vertices = torch.randn(size, model.template.n_vertices, 3, device=device)
        people = torch.randint(PEOPLE, (size,), device=device)
        named = torch.randint(EXPRESSIONS, (size,), device=device)
        return Batch(vertices, None, {"subject": people, "expression": named})

    return dataclasses.replace(meshes(), labelled={"expression": meshes()})


def contiguous(model: Gan) -> Gan:
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


class Flops(TorchDispatchMode):
    """Counts the floating point operations of convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class Steps:
    """Critic and generator steps of one model, one after the other."""

    def __init__(self, model: Gan, config: TrainConfig) -> None:
        self.model, self.step = model, 0
        self.batch = batch_of(model, config.batch_size)
        self.learner: Learner = learner_for(model, config, Workers(0, 1, model.device))
        self.generator = torch.Generator().manual_seed(0)
        model.train()

    def take(self, player: str) -> None:
        """Take the next step of this player, and skip those of the other."""
        turns = self.model.critic_steps + 1
        while (self.step % turns == self.model.critic_steps) != (player == "generator"):
            self.step += 1
        self.learner.step(self.batch, Progress(0, 1, self.step, 10**9, self.generator))
        self.step += 1
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    def flops(self, player: str) -> float:
        """Floating point operations of a step, the mean over one period of a lazy penalty."""
        with Flops() as counter:
            self.take_many(player)
        return counter.total / self.model.config.penalty_every

    def take_many(self, player: str) -> None:
        """One period of a lazy penalty, so that every measurement costs the same."""
        for _ in range(self.model.config.penalty_every):
            self.take(player)


def measure(recipe: str, options: argparse.Namespace, machine: Machine) -> None:
    device = torch.device(options.device)
    model, train = made(recipe, options.size, device)
    other, _ = made(recipe, options.size, device)
    steps = {"channels last": Steps(model, train), "contiguous": Steps(contiguous(other), train)}
    cost = 0.0
    for player in ("critic", "generator"):
        flops = steps["channels last"].flops(player)
        actions = [functools.partial(own.take_many, player) for own in steps.values()]
        for action in actions:
            action()
        repeats = model.config.penalty_every
        times = in_turns(actions, rounds=max(3, ROUNDS // repeats))
        medians = [statistics.median(own) / repeats for own in times]
        floor = machine.floor_ms(flops, 0)
        text = "  ".join(
            f"{name} {median:7.1f} ms ({median / floor:4.1f} x floor)"
            for name, median in zip(steps, medians, strict=True)
        )
        print(f"{recipe:6} {player:10} {flops / 1e9:6.1f} GFLOP, floor {floor:6.1f} ms  {text}")
        cost += medians[0] * (model.critic_steps if player == "critic" else 1)
    rounds = train.epochs * -(-options.meshes // train.batch_size) / (model.critic_steps + 1)
    print(
        f"{recipe:6} training on {options.meshes} meshes, {train.epochs} epochs: "
        f"{rounds:,.0f} generator steps, {rounds * cost / 60_000:.0f} minutes"
    )


def geometry_images(size: int) -> None:
    template = sphere_template(size)
    start = time.perf_counter()
    layout = GeometryImage.of(template, 64)
    laid_out = time.perf_counter()
    solve = LaplacianReadout(layout, template.mesh)
    factored = time.perf_counter()
    shapes = np.random.default_rng(0).normal(size=(64, size, 3)).astype(np.float32)
    images = layout.rasterize(shapes)
    actions = (
        lambda: layout.rasterize(shapes),
        lambda: layout.read(images),
        lambda: solve.read(images),
    )
    raster, read, solved = (statistics.median(own) for own in in_turns(actions, rounds=5))
    print(
        f"64 meshes of {size:,} vertices, 64 x 64: rasterize {raster:.0f} ms, read bilinearly "
        f"{read:.0f} ms, by the solve {solved:.0f} ms; once per template: layout "
        f"{1e3 * (laid_out - start):.0f} ms, factors {1e3 * (factored - laid_out):.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", type=int, default=10_000, help="vertices of the template")
    parser.add_argument("--meshes", type=int, default=4_800, help="training meshes")
    parser.add_argument("--recipes", nargs="+", default=["fast", "paper"])
    options = parser.parse_args()
    keep_freed_memory()
    machine = Machine.measure()
    print(f"{torch.get_num_threads()} threads, {machine.gflops:.0f} GFLOP/s, {options.device}")
    geometry_images(options.size)
    for recipe in options.recipes:
        measure(recipe, options, machine)


if __name__ == "__main__":
    main()
