"""What the linear start changes for every network that has one, at equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morphable.bench.table import ERROR, MEDIAN, SECONDS, Data, Row, Table

NAMES = {
    "coma": "CoMA",
    "spiralnet": "SpiralNet",
    "spiralnet++": "SpiralNet++",
    "deep3dmm": "Deep3DMM",
    "deep3dmm-spiral": "Deep3DMM, spirals",
    "lamm": "LAMM, transformer",
    "lamm-mixer": "LAMM, mixer",
    "local-weights": "local-weights",
}
"""The rows by family."""


def datasets(quick: bool) -> Sequence[Data]:
    """Posed hands, a population of faces, and face sequences of few people, all with held-out
    subjects.
    """
    size: dict[str, Any] = {"size": "5k"}
    hands = {"count": 1_000 if quick else 10_000, "seed": 3}
    population = {"count": 1_000 if quick else 6_000, "seed": 1}
    faces = {"count": 1_040 if quick else 8_652, "seed": 7}
    return [
        Data("hands", "hands", hands, "subject", 6 if quick else 30),
        Data(
            "face-population", "face-population", population | size, "subject", 3 if quick else 30
        ),
        Data("faces", "faces", faces | size, "subject", 3 if quick else 30),
    ]


def linear_start(quick: bool) -> Table:
    """Each network by its fast recipe without the linear start, and with it."""
    rows = []
    for family, name in NAMES.items():
        other = "pca" if family.startswith("lamm") else "random"
        rows.append(Row(name, family, {"start": other}))
        rows.append(Row(f"{name}, linear start", family, {"start": "linear"}, against=name))
    return Table(
        "linear-start",
        "The linear start at equal steps",
        datasets(quick),
        rows,
        (ERROR, MEDIAN, SECONDS),
        "A linear start puts PCA beside encoder and decoder (model.start=linear).",
    )
