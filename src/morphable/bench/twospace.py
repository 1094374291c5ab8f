"""Our own family for identity and expression, against the linear model that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morphable.bench.ibvae import (
    KEPT,
    LEAKS,
    NEUTRAL,
    SPREAD,
    SWAP,
    SWAP_COST,
    datasets,
)
from morphable.bench.table import ERROR, SECONDS, Row, Sweep, Table

SIZES = ((4, 4), (4, 8), (40, 40))
QUICK_GRID = (4, 8), (4, 8, 16, 32)
FULL_GRID = (2, 4, 8, 16, 32), (2, 4, 8, 16, 32, 64)
"""Sizes of the identity, and of the expression."""
WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "without pairs": {"pairs": "none"},
    "with an information term": {"information_weight": 0.01},
}


def two_space(quick: bool) -> Table:
    """`two-space` and `linear-two-space` at several latent sizes, and two-space with parts left out
    or added at the smallest.
    """
    rows = []
    for identity, expression in SIZES:
        latent = {"identity": identity, "expression": expression}
        size = f"{identity} + {expression}"
        linear = f"linear {size}"
        rows.append(Row(linear, "linear-two-space", latent=latent))
        # Every row keeps the epochs of the recipe: the gates are chosen after them.
        rows.append(
            Row(f"two-space {size}", "two-space", latent=latent, against=linear, own_epochs=True)
        )
    rows += [
        Row(name, "two-space", changes, against="two-space 4 + 4", own_epochs=True)
        for name, changes in WITHOUT.items()
    ]
    columns = (ERROR, SWAP, SWAP_COST, SPREAD, NEUTRAL, KEPT, *LEAKS, SECONDS)
    return Table(
        "two-space",
        "Two spaces, linear and not",
        datasets(quick),
        rows,
        columns,
        "Swap minus vertex is the error of a swap less that of the two meshes that it combines. A "
        "leak is the share of subjects that a classifier guesses from the expression code, or of "
        "expressions from the identity code; chance is the least to expect.",
    )


def sizes(quick: bool) -> Table:
    """`two-space` by the sizes of identity and pose, on posed hands. PCA and `pca-mlp` beside it
    have as many numbers in total, and do not separate the two.
    """
    identities, expressions = QUICK_GRID if quick else FULL_GRID
    rows = [
        Row(
            f"two-space {identity} + {expression}",
            "two-space",
            latent={"identity": identity, "expression": expression},
            against="pca-mlp",
            own_epochs=True,
        )
        for identity in identities
        for expression in expressions
    ]
    return Table(
        "two-space-sizes",
        "Numbers for the identity and for the pose",
        [data for data in datasets(quick) if data.kind == "hands"],
        rows,
        (ERROR, SWAP, SWAP_COST, SPREAD, NEUTRAL, KEPT, SECONDS),
        "Every row keeps the epochs of its own recipe.",
        sweep=Sweep(
            "size of the expression",
            _expression,
            lambda row: f"identity {row.size - (_expression(row) or 0)}",
            (ERROR, SWAP, NEUTRAL, SPREAD),
            log=True,
        ),
    )


def _expression(row: Row) -> int | None:
    """The size of the expression; None if the row has none of its own."""
    return None if isinstance(row.latent, int) else row.latent["expression"]
