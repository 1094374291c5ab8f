"""Data beside the work it feeds: making 10,000 hands, and reading a batch against a training step.

    python benchmarks/data.py [--count 10000] [--batch 16] [--threads 1]

The step is SpiralNet++ and CoMA on 1,609 vertices, the smallest set here and so the hardest case
for loading. Batches are read as training reads them, resident in memory and from the memory-mapped
file.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from morphable.data.dataset import load_dataset, write_dataset
from morphable.data.makers.hands import hands
from morphable.data.neutral import neutral_targets
from morphable.models.base import TrainableModel
from morphable.models.families import MODELS, create
from morphable.models.training import Progress
from morphable.ops.allocator import keep_freed_memory
from morphable.train.batches import Batches, TrainingData


def median_ms(work: Callable[[], object], rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_dataset(hands(count=options.count), Path(folder) / "hands")
        print(f"{options.count} hands made and written in {time.perf_counter() - start:.1f} s")
        dataset = load_dataset(Path(folder) / "hands")
        neutral, device = neutral_targets(dataset), torch.device("cpu")
        feeds = {
            "resident": Batches(
                TrainingData(dataset.vertices[:], neutral), options.batch, 0, device
            ),
            "memory-mapped": Batches(
                TrainingData(dataset.vertices, neutral), options.batch, 0, device
            ),
        }
        rows = iter(np.random.default_rng(0).integers(len(dataset), size=(1000, options.batch)))
        batch = feeds["resident"].batch(next(rows))
        for name in ("coma", "spiralnet++"):
            model = create(name, dataset.template, MODELS[name].fast.model)
            assert isinstance(model, TrainableModel)
            model.initialize(dataset.vertices[:200])
            optimizer = torch.optim.Adam(model.parameters())
            progress = Progress(0, 1, 0, 1, torch.Generator())

            def step(
                model: TrainableModel = model,
                optimizer: torch.optim.Adam = optimizer,
                progress: Progress = progress,
            ) -> None:
                loss = torch.stack(list(model.loss(batch, progress).values())).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            step_ms = median_ms(step, 15)
            for kind, batches in feeds.items():
                read_ms = median_ms(lambda batches=batches: batches.batch(next(rows)), 60)  # type: ignore[misc]
                share = f"{100 * read_ms / step_ms:.2f} % of a {name} step ({step_ms:.0f} ms)"
                print(
                    f"batch {options.batch}, {options.threads} threads, {kind:13}: {read_ms:.2f} ms, {share}"
                )


if __name__ == "__main__":
    main()
