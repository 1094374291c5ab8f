"""How exactly and how fast inversion finds codes again: draws codes, decodes them, fits codes to the
shapes, and prints the errors.

    python benchmarks/inversion.py runs/pca runs/coma runs/gan [--number 100]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import morphable
from morphable.models.inversion import invert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--number", type=int, default=100)
    options = parser.parse_args()
    for run in options.runs:
        model = morphable.load(run)
        with torch.no_grad():
            shapes = model.sample(options.number, torch.Generator().manual_seed(1))
        start = time.perf_counter()
        found = invert(model, shapes)
        seconds = time.perf_counter() - start
        print(
            f"{model.family}, {model.latent} latent dimensions, {model.template.n_vertices:,} "
            f"vertices: {options.number} codes in {seconds:.0f} s and "
            f"{found.steps.float().mean():.0f} steps, mean error {found.errors.mean():.5f} mm, "
            f"largest {found.errors.max():.5f} mm, restarts {int(found.restarts.sum())}",
            flush=True,
        )


if __name__ == "__main__":
    main()
