"""The papers' tables, made again on open data: one file a paper, one literal table of names."""

from __future__ import annotations

from collections.abc import Callable

from morphable.bench import deep3dmm, ibvae, lamm, overview
from morphable.bench.table import Table
from morphable.config import suggestion
from morphable.errors import InputError

TABLES: dict[str, Callable[[bool], Table]] = {
    "main": overview.main,
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
    "ibvae-disentanglement": ibvae.disentanglement,
    "ibvae-reconstruction": ibvae.reconstruction,
    "ibvae-ablation": ibvae.ablation,
}
"""Name -> the table in its quick (True: a CPU in minutes) or full (False) size."""


def find_table(name: str, quick: bool) -> Table:
    """Raises InputError for a table that does not exist."""
    if name not in TABLES:
        raise InputError(f"table {name!r}: there is no such table; {suggestion(name, TABLES)}")
    return TABLES[name](quick)
