"""The families at latent size 8, to help a newcomer choose: after as many epochs, and after their own
trainings.
"""

from __future__ import annotations

from dataclasses import replace

from morphable.bench.deep3dmm import faces, hands
from morphable.bench.opensets import open_sets
from morphable.bench.table import (
    EPOCHS,
    ERROR,
    MEDIAN,
    PARAMETERS,
    SECONDS,
    TRAINING,
    Column,
    Row,
    Table,
)
from morphable.models.families import ADDED

COLUMNS = (
    ERROR,
    MEDIAN,
    Column("95th percentile, mm", "vertex_error_mm", "p95"),
    PARAMETERS,
    SECONDS,
)

COMPARED = (
    "coma",
    "spiralnet",
    "spiralnet++",
    "deep3dmm",
    "deep3dmm-spiral",
    "lamm",
    "lamm-mixer",
    "local-weights",
)
PARTED = ("two-space", "ib-vae")
"""Families that split the latent size between identity and expression."""
ROTATIONS = Row("rotation-mlp", "rotation-mlp")
COMPONENTS = Row("pca-mlp", "pca-mlp")
SPACES = Row("linear-two-space", "linear-two-space", latent={"identity": 4, "expression": 4})
SETS = ("hands", "face-population", "faces", "bodies")


def _compared() -> list[Row]:
    rows = [Row(name, name) for name in (*COMPARED, *ADDED)]
    return rows + [Row(name, name, latent=SPACES.latent) for name in PARTED]


def main(quick: bool) -> Table:
    """Compare PCA, pca-mlp, every autoencoder that needs no label to read a mesh, and families from
    outside the package.

    The data are hands of held-out people and, in the full size, face sequences.
    """
    return Table(
        "main",
        "Vertex error at latent size 8",
        [hands(quick), *([] if quick else [faces(quick)])],
        [*_compared(), replace(ROTATIONS, own_epochs=True)],
        COLUMNS,
        "Every network is trained by the fast recipe for the same number of epochs, except pca-mlp "
        "and rotation-mlp, which keep those of their own recipes.",
    )


def defaults(quick: bool) -> Table:
    """The same families, each as `train FAMILY` trains it, beside PCA on all open sets, and beside the
    linear model of two spaces that those with a divided code start from.
    """
    return Table(
        "defaults",
        "Vertex error at latent size 8 after the default training",
        open_sets(quick, dict.fromkeys(SETS)),
        [replace(row, against="PCA") for row in (*_compared(), ROTATIONS, COMPONENTS, SPACES)],
        (ERROR, MEDIAN, PARAMETERS, EPOCHS, TRAINING),
        "Every network is trained by its fast recipe, for the epochs of that recipe.",
    )
