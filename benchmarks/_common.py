"""What the benchmarks share: the machine's own speed, and medians taken in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from morphable.bench.complexity import in_turns, sphere_template

__all__ = ["Machine", "in_turns", "median_ratio", "sphere_template"]


@dataclass(frozen=True)
class Machine:
    """What this machine reaches here and now: arithmetic in GFLOP/s (float32) and memory traffic in
    GB/s.
    """

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


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
