"""The two recipes of every published family: does `fast` reach `paper`'s error in a tenth of the
steps?

    python benchmarks/recipes.py --count 600 --seeds 1 --out runs/recipes

Trains each family twice on posed hands (unseen subjects): the paper's recipe whole, and ours for a
tenth of its steps. Prints the test error of both in mm, and PCA's. A killed study continues where
it was.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from morphable.data.dataset import load_dataset, write_dataset
from morphable.data.makers.hands import hands
from morphable.evaluate.errors import mean_vertex_error
from morphable.models.families import MODELS, with_latent
from morphable.models.io import load
from morphable.models.pca import Pca, PcaConfig
from morphable.ops.allocator import keep_freed_memory
from morphable.train.distributed import workers
from morphable.train.run import RunConfig, run

FAMILIES = ("coma", "spiralnet", "spiralnet++")


def trained(
    name: str, recipe: str, epochs: int, seed: int, data: Path, latent: int, out: Path
) -> tuple[float, int]:
    """Test error in mm and steps taken of one run, trained unless it is there already."""
    row = MODELS[name].recipe(recipe)
    assert row.train is not None
    config = dataclasses.replace(row.train, epochs=epochs, seed=seed)
    split = load_dataset(data).split("subject")
    folder = out / f"{name}-{recipe}-{epochs}-s{seed}"
    if not (folder / "model" / "model.json").exists():
        with workers("cpu") as here:
            chosen = RunConfig(name, with_latent(row.model, latent), config, recipe)
            run(chosen, split, folder, here, resume=(folder / "config.toml").exists())
    error = mean_vertex_error(load(folder), split.test.vertices)
    return error, epochs * -(-len(split.train) // config.batch_size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--latent", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=300, help="of the paper recipe")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    options = parser.parse_args()
    keep_freed_memory()
    data = options.out / "hands"
    if not data.exists():
        write_dataset(hands(count=options.count, seed=3), data, 3)
    split = load_dataset(data).split("subject")
    train, test = (split.subset(part).vertices[:] for part in ("train", "test"))
    pca = Pca.estimate(split.whole.template, train, {}, PcaConfig(options.latent)).eval()
    threads = torch.get_num_threads()
    print(
        f"{len(train)} training hands, latent {options.latent}, {threads} threads, {options.seeds} seeds"
    )
    print(
        f"{'PCA':12} {mean_vertex_error(pca, test):.3f} mm on {len(test)} hands of unseen subjects"
    )
    for name in options.families:
        paper, fast = MODELS[name].published.train, MODELS[name].fast.train
        assert paper is not None and fast is not None
        tenth = max(1, round(options.epochs / 10 * fast.batch_size / paper.batch_size))
        for recipe, epochs in (("paper", options.epochs), ("fast", tenth)):
            results = [
                trained(name, recipe, epochs, s, data, options.latent, options.out)
                for s in range(options.seeds)
            ]
            errors = [error for error, _ in results]
            spread = f"{min(errors):.3f} .. {max(errors):.3f}" if len(errors) > 1 else "one seed"
            print(
                f"{name:12} {recipe:6} {results[0][1]:6d} steps  {np.mean(errors):.3f} mm  ({spread})",
                flush=True,
            )


if __name__ == "__main__":
    main()
