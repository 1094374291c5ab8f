"""Errors by latent size, of linear models and of those that start linear, on the open sets."""

from __future__ import annotations

from morphable.bench.deep3dmm import ERRORS
from morphable.bench.opensets import open_sets
from morphable.bench.table import ERROR, MEDIAN, PARAMETERS, SECONDS, Row, Sweep, Table

SIZES = (4, 8, 16, 32, 64, 128, 256)
FAMILIES = ("pca", "pca-mlp", "rotation-mlp", "spiralnet++")
EPOCHS = {"hands": 6, "face-population": 3, "faces": 3, "bodies": 3}
"""Epochs in the quick size."""


def latent_sizes(quick: bool) -> Table:
    """PCA, our networks on its components, and the strongest of the mesh autoencoders."""
    own = {"pca-mlp", "rotation-mlp"}
    rows = [
        Row(
            name,
            name,
            latent=size,
            against=None if name == "pca" else "pca",
            own_epochs=name in own,
        )
        for size in SIZES
        for name in FAMILIES
    ]
    return Table(
        "latent-sizes",
        "Errors by latent size",
        open_sets(quick, EPOCHS),
        rows,
        (*ERRORS, PARAMETERS, SECONDS),
        "pca-mlp and rotation-mlp keep the epochs of their own recipes. Training meshes carry at "
        "most one number less than there are of them.",
        sweep=Sweep(
            "latent size", lambda row: row.size, lambda row: row.name, (ERROR, MEDIAN), log=True
        ),
    )
