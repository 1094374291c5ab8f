"""How much better or worse runs keep identity and expression apart than a reference run, paired by
mesh and swap, with 95 % confidence intervals over subjects.

    python benchmarks/apart.py runs/linear runs/two-space-0 runs/two-space-1 runs/two-space-2

The first run is the reference. The differences of the others, which should differ in their seeds
only, are averaged. All runs are of one dataset and split.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import morphable
from morphable.evaluate.disentangle import neutral_errors, swap_errors
from morphable.evaluate.evaluation import MODEL, Evaluation
from morphable.evaluate.intervals import Bounds, mean_interval, pair_interval, ratio_interval
from morphable.evaluate.protocol import chosen_subset, open_dataset
from morphable.evaluate.record import Measured


class Errors:
    """Errors of a run on N test meshes, in mm: `vertex` and `neutral` (N,), `swap` (n,) of swaps of
    the meshes of two subjects, (n,) `first` and `second`. missed, moved: (N,) squared mm, how far
    each mesh is from the mean of its subject, in what reconstructions lack and in all.
    """

    def __init__(self, run: Path) -> None:
        model = morphable.load(run)
        dataset = open_dataset(model, None)
        measured = Measured.read(run, model, dataset)
        evaluation = (
            measured.evaluation
            if measured
            else Evaluation.of(model, *chosen_subset(model, dataset))
        )
        chosen, codes = evaluation.measured, evaluation.codes
        self.subjects = chosen.labels.groups()
        self.vertex = evaluation.mesh_errors[MODEL]
        self.neutral = neutral_errors(model, codes, dataset, chosen)
        self.swap, first, second = swap_errors(model, codes, dataset, chosen)
        self.first, self.second = self.subjects[first], self.subjects[second]
        self.missed, self.moved = np.zeros((2, len(codes)))
        for subject in np.unique(self.subjects):
            rows = np.flatnonzero(self.subjects == subject)
            truth = np.asarray(chosen.vertices[rows], np.float64)
            found = evaluation.reconstructions(rows).astype(np.float64)
            moved = truth - truth.mean(0)
            self.moved[rows] = np.square(moved).sum((1, 2))
            self.missed[rows] = np.square(found - found.mean(0) - moved).sum((1, 2))


def compared(reference: Errors, others: Sequence[Errors]) -> dict[str, tuple[float, Bounds | None]]:
    """By measure, the mean difference from the reference, and its interval."""

    def difference(name: str) -> np.ndarray:
        own = np.mean([getattr(other, name) for other in others], 0)
        return own - getattr(reference, name)

    subjects, swap = reference.subjects, difference("swap")
    by_mesh = {name: difference(name) for name in ("vertex", "neutral")}
    kept, moved = -difference("missed"), reference.moved
    return {
        **{name: (v.mean(), mean_interval(v, subjects)) for name, v in by_mesh.items()},
        "swap": (swap.mean(), pair_interval(swap, reference.first, reference.second)),
        "kept": (kept.sum() / moved.sum(), ratio_interval(kept, moved, subjects)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    found = compared(Errors(options.reference), [Errors(run) for run in options.runs])
    for name, (mean, bounds) in found.items():
        unit = "" if name == "kept" else " mm"
        interval = "no interval" if bounds is None else f"{bounds.low:+.4f} .. {bounds.high:+.4f}"
        print(f"{name:8s} {mean:+.4f}{unit} ({interval})")


if __name__ == "__main__":
    main()
