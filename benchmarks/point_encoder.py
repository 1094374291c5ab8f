"""The point encoder: what sampling and neighbor search cost beside the network, and what the
template's own save.

python benchmarks/point_encoder.py [--vertices 5023] [--batch 16] [--rounds 5]

One thread's processor time, medians of rounds taken in turns. The published sizes are 512 and 256
samples with 32 neighbors, those of the fast recipe 64 and 32 with 16. The floor is the arithmetic
of the matrix products on the template's path, at the speed that this machine reaches on a square
product.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from _common import Machine, in_turns, median_ratio, sphere_template
from morphable.models.families import MODELS
from morphable.ops.point_sampling import point_order, sample_points, shared_sampling
from morphable.ops.pointcloud import PointTransformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vertices", type=int, default=5023)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    template = (
        torch.from_numpy(sphere_template(options.vertices).mesh.vertices.astype(np.float32)) / 100
    )
    points = template + 0.01 * torch.randn(options.batch, options.vertices, 3)
    print(
        f"{options.batch} x {options.vertices} points, 1 thread, median ms of {options.rounds} rounds"
    )
    machine = Machine.measure()
    print(f"machine: {machine.gflops:.0f} GFLOP/s")
    print(
        "recipe   sampling  any points  template  any/template  sampling/rest  worst difference  floor  template/floor"
    )
    for recipe in ("paper", "fast"):
        print(f"{recipe:7s} {measured(recipe, template, points, options.rounds, machine)}")


@torch.no_grad()
def measured(
    recipe: str, template: torch.Tensor, points: torch.Tensor, rounds: int, machine: Machine
) -> str:
    config = MODELS["ib-vae"].recipe(recipe).model
    sizes = (config.samples[0], config.samples[1])
    model = PointTransformer(sizes, config.neighbors).eval()
    shared = shared_sampling(template, sizes, config.neighbors)
    ordered = torch.stack([cloud[point_order(cloud[None])[0]] for cloud in points])

    def sampling() -> None:
        point_order(points)
        sample_points(ordered, sizes, config.neighbors)

    times = in_turns([sampling, lambda: model(points), lambda: model(points, shared)], rounds)
    rest = [whole - part for whole, part in zip(times[1], times[0], strict=True)]
    # The template moved as a whole has the template's own indices: there both ways must give the
    # same features.
    moved = template + 0.1 * torch.randn(4, 1, 3)
    difference = float((model(moved) - model(moved, shared)).abs().max())
    with FlopCounterMode(display=False) as counter:
        model(points, shared)
    floor = machine.floor_ms(counter.get_total_flops(), 0)
    middle = [statistics.median(found) for found in times]
    return (
        f"{middle[0]:9.0f} {middle[1]:11.0f} {middle[2]:9.0f} {median_ratio(times[1], times[2]):13.2f} "
        f"{median_ratio(times[0], rest):14.2f} {difference:17.1e} {floor:6.0f} {middle[2] / floor:15.2f}"
    )


if __name__ == "__main__":
    main()
