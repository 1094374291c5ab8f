"""What the linear start changes for every network that has one, at equal steps."""

from __future__ import annotations

from morphable.bench.opensets import open_sets
from morphable.bench.table import ERROR, MEDIAN, SECONDS, Row, Table

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
EPOCHS = {"hands": 6, "face-population": 3, "faces": 3}
"""Epochs in the quick size."""


def linear_start(quick: bool) -> Table:
    """Each network by its fast recipe without the linear start, and with it."""
    rows = []
    for family, name in NAMES.items():
        other = "pca" if family.startswith("lamm") else "random"
        without = Row(name, family, {"start": other})
        rows += [without, without.variant("linear start", model={"start": "linear"})]
    return Table(
        "linear-start",
        "The linear start at equal steps",
        open_sets(quick, EPOCHS),
        rows,
        (ERROR, MEDIAN, SECONDS),
        "A linear start puts PCA beside encoder and decoder (model.start=linear).",
    )
