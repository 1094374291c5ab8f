"""What training on transported meshes changes, for every kind of network, at equal steps."""

from __future__ import annotations

from morphable.bench.opensets import open_sets
from morphable.bench.table import ERROR, MEDIAN, SECONDS, Row, Table

SHARE = 0.8
FAMILIES = ("pca-mlp", "rotation-mlp", "coma", "spiralnet++", "deep3dmm", "lamm", "ib-vae")
EPOCHS = {"hands": 40, "face-population": 6, "faces": 6, "bodies": 3}
"""Epochs in the quick size; on hands so many that networks begin to over-fit."""


def transported(quick: bool) -> Table:
    """Each family by its fast recipe, on the training meshes alone and with transported meshes."""
    rows = []
    for name in FAMILIES:
        alone = Row(name, name, own_epochs=name in ("pca-mlp", "rotation-mlp"))
        rows += [alone, alone.variant("transported", train={"transport": SHARE})]
    return Table(
        "transported",
        "Training on transported meshes",
        open_sets(quick, EPOCHS),
        rows,
        (ERROR, MEDIAN, SECONDS),
        f"Of the meshes of each epoch, {SHARE:.0%} are mixtures of two training people with the "
        f"expression or pose of a third (train.transport={SHARE}). Epochs have as many steps as "
        "without. pca-mlp and rotation-mlp keep the epochs of their own recipes.",
    )
