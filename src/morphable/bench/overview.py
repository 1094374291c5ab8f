"""The families at latent size 8, to help a newcomer choose."""

from __future__ import annotations

from morphable.bench.deep3dmm import faces, hands
from morphable.bench.table import ERROR, MEDIAN, PARAMETERS, SECONDS, Column, Row, Table
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


def main(quick: bool) -> Table:
    """Compare PCA, pca-mlp, every autoencoder that needs no label to read a mesh, and families from
    outside the package.

    The data are hands of held-out people and, in the full size, face sequences.
    """
    rows = [Row(name, name) for name in (*COMPARED, *ADDED)]
    rows += [Row(name, name, latent={"identity": 4, "expression": 4}) for name in PARTED]
    rows.append(Row("rotation-mlp", "rotation-mlp", baseline=True))
    return Table(
        "main",
        "Vertex error at latent size 8",
        [hands(quick), *([] if quick else [faces(quick)])],
        rows,
        COLUMNS,
        "Every network is trained by the fast recipe for the same number of epochs, except pca-mlp "
        "and rotation-mlp, which keep those of their own recipes.",
    )
