"""Deformation transfer without a model against the true mesh of the target with the source's
expression or pose, and its time.

    python benchmarks/transport.py                  # hands and bodies; faces too if MORPHABLE_ICT is set
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

import morphable
from morphable.data.makers import MAKERS
from morphable.data.makers.ict import VARIABLE
from morphable.edit import Transport

PAIRS = 200
SETS: dict[str, dict[str, Any]] = {
    "hands": {"count": 1000},
    "bodies": {"count": 300},
    "faces": {"count": 1440, "size": "5k"},
    "face-population": {"count": 400, "size": "5k"},
}


def main() -> None:
    print("set | vertices | moves, mm | gradients, mm | offsets, mm | ms per pair")
    for name, options in SETS.items():
        if name.startswith("face") and VARIABLE not in os.environ:
            continue
        source = morphable.make_source(name, **options)
        meshes = np.concatenate(list(source.blocks()))
        labels, template = source.labels, source.template
        neutral = labels["neutral"]

        random = np.random.default_rng(0)
        posed = random.choice(np.flatnonzero(neutral != np.arange(len(meshes))), PAIRS)
        people = random.choice(len(meshes), PAIRS)
        true = MAKERS[name].true_meshes(
            source.info["maker"]["options"], labels.take(people), labels.take(posed)
        )
        given = meshes[neutral[posed]], meshes[posed], meshes[neutral[people]]

        made = Transport.of(template.mesh.triangles, template.n_vertices)
        made.apply(*(shapes[:1] for shapes in given))  # the factorization
        clock = time.perf_counter()
        by_gradients = made.apply(*given)
        milliseconds = 1000 * (time.perf_counter() - clock) / PAIRS
        found = (given[2], by_gradients, made.apply(*given, "offsets"))
        errors = [float(np.linalg.norm(shapes - true, axis=-1).mean()) for shapes in found]
        print(
            f"{name} | {template.n_vertices:,} | {errors[0]:.2f} | {errors[1]:.2f} | "
            f"{errors[2]:.2f} | {milliseconds:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
