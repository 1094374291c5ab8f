"""What the benchmarks share: a synthetic template of any size, the machine's own speed, and medians taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import ConvexHull

from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template


def synthetic_template(vertices: int, seed: int = 0) -> Template:
    """A bumpy closed surface with exactly `vertices` vertices in shuffled order, about 100 mm in radius."""
    rank = np.random.default_rng(seed).permutation(vertices) + 0.5
    height, turn = 1 - 2 * rank / vertices, rank * np.pi * (1 + 5**0.5)  # Fibonacci's spiral, even over the sphere
    ring = np.sqrt(1 - height**2)
    points = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1)
    hull = ConvexHull(points)
    outward = (
        np.einsum(
            "fi,fi->f", np.cross(*np.diff(points[hull.simplices], axis=1).transpose(1, 0, 2)), hull.equations[:, :3]
        )
        > 0
    )
    faces = np.where(outward[:, None], hull.simplices, hull.simplices[:, ::-1])
    radius = 100 + 10 * np.sin(3 * points[:, 0]) * np.cos(4 * points[:, 1])
    return Template(Mesh(points * radius[:, None], faces))


@dataclass(frozen=True)
class Machine:
    """What this machine reaches here and now: arithmetic in GFLOP/s (float32) and memory traffic in GB/s."""

    gflops: float
    gbytes: float

    @classmethod
    def measure(cls) -> Machine:
        square, large = torch.randn(1536, 1536), torch.randn(1 << 26)
        target = torch.empty_like(large)
        product, copy = in_turns([lambda: square @ square, lambda: target.copy_(large)], rounds=7)
        return cls(2 * 1536**3 / min(product) / 1e6, 2 * 4 * len(large) / min(copy) / 1e6)

    def floor_ms(self, flops: float, bytes_moved: float) -> float:
        """No faster than its arithmetic, nor than its memory traffic."""
        return max(flops / self.gflops, bytes_moved / self.gbytes) / 1e6


def in_turns(actions: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Milliseconds of every action in every round, after one warm-up; in turns, so that a busy spell hits all alike.

    With one thread it is the process's CPU time, which other programs hardly disturb; with more it is wall time.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in actions]
    for round_number in range(rounds + 1):
        for action, taken in zip(actions, times, strict=True):
            start = clock()
            action()
            if round_number:
                taken.append(1e3 * (clock() - start))
    return times


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
