"""LAMM's complexity table: decoder parameters and the time to decode one mesh, beside CoMA and SpiralNet++.

    python benchmarks/lamm_complexity.py [--vertices 11916 71926] [--device cpu|cuda] [--rounds 20]

Batch 1, medians over rounds taken in turns. The paper's seconds (CPU / GPU) at 12k: CoMA 0.5 / 0.015,
SpiralNet++ 0.075 / 0.003, LAMM 0.015 / 0.006; at 72k: 3.80 / 0.089, 0.58 / 0.016, 0.047 / 0.011. Its decoder parameters
at 12k / 72k: CoMA 3.88 / 19.38 M, SpiralNet++ 4.27 / 19.67 M; LAMM's 9.45 M (mixer 0.8 M) and 19.5 / 110 M of inverse
tokeniser.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
from torch import Tensor

from _common import in_turns, synthetic_template
from morphable.models.base import MorphableModel
from morphable.models.families import MODELS
from morphable.models.io import create
from morphable.models.lamm import Lamm

ROWS = {"CoMA": "coma", "SpiralNet++": "spiralnet++", "LAMM, transformer": "lamm", "LAMM, mixer": "lamm-mixer"}


def decoder_parameters(model: MorphableModel) -> int:
    """Numbers that decoding reads: all that a gradient of the decoded shape reaches."""
    code = torch.zeros(1, model.parts.size, device=model.device)
    model.decode(code).sum().backward()
    return sum(p.numel() for p in model.parameters() if p.grad is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vertices", type=int, nargs="+", default=[11_916])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    print(f"{options.device}, {torch.get_num_threads()} threads, batch 1, latent 256, paper recipes")
    for count in options.vertices:
        template = synthetic_template(count)
        models = [
            create(family, template, replace(MODELS[family].paper.model, latent=256)).to(options.device).eval()
            for family in ROWS.values()
        ]
        sizes = [decoder_parameters(model) for model in models]

        @torch.no_grad()
        def decode(model: MorphableModel) -> Tensor:
            shape = model.decode(torch.zeros(1, model.parts.size, device=model.device))
            if options.device == "cuda":
                torch.cuda.synchronize()
            return shape

        times = in_turns([lambda model=model: decode(model) for model in models], options.rounds)
        for name, model, size, taken in zip(ROWS, models, sizes, times, strict=True):
            median = statistics.median(taken)
            print(f"{count:>7,} vertices  {name:<18} {size / 1e6:7.2f} M numbers decode, {median:8.1f} ms")
            if isinstance(model, Lamm):
                inverse = sum(p.numel() for p in model.inverse_tokeniser.parameters())
                print(f"{'':>18}of these {inverse / 1e6:.2f} M in the inverse tokeniser")


if __name__ == "__main__":
    main()
