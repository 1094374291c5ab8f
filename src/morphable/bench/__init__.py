"""The papers' tables reproduced on open data: one file per paper, and the table of their names."""

from __future__ import annotations

from collections.abc import Callable

from morphable.bench import (
    deep3dmm,
    gan,
    ibvae,
    lamm,
    latentsizes,
    linearstart,
    localweights,
    overview,
    transported,
    twospace,
)
from morphable.bench.table import Table
from morphable.config import suggestion
from morphable.errors import InputError

TABLES: dict[str, Callable[[bool], Table]] = {
    "main": overview.main,
    "defaults": overview.defaults,
    "deep3dmm-aggregation": deep3dmm.aggregation,
    "deep3dmm-filters": deep3dmm.filters,
    "deep3dmm-ablation": deep3dmm.ablation,
    "deep3dmm-latents": deep3dmm.latents,
    "lamm-reconstruction": lamm.reconstruction,
    "lamm-expressions": lamm.expressions,
    "lamm-70k": lamm.fine,
    "lamm-hands": lamm.hands,
    "lamm-ablation": lamm.ablation,
    "lamm-manipulation": lamm.manipulation,
    "lamm-complexity": lamm.complexity,
    "lamm-complexity-70k": lamm.fine_complexity,
    "localweights-parts": localweights.parts,
    "localweights-ablation": localweights.ablation,
    "ibvae-disentanglement": ibvae.disentanglement,
    "ibvae-reconstruction": ibvae.reconstruction,
    "ibvae-ablation": ibvae.ablation,
    "two-space": twospace.two_space,
    "two-space-sizes": twospace.sizes,
    "latent-sizes": latentsizes.latent_sizes,
    "linear-start": linearstart.linear_start,
    "transported": transported.transported,
    "gan-table1": gan.table1,
}
"""Functions by name. Each returns its table in the quick size (True) or in full."""


def find_table(name: str, quick: bool) -> Table:
    """Return a table by name, in its quick or full size. Raises InputError if there is none."""
    if name not in TABLES:
        raise InputError(f"table {name!r}: there is no such table; {suggestion(name, TABLES)}")
    return TABLES[name](quick)
