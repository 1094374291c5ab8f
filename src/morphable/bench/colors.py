"""The colors of models in charts: PCA and `pca-mlp` look alike on every page."""

from __future__ import annotations

from collections.abc import Iterable

COLORS = (3, 4, 5, 6, 7, 8, 9, 10, 2, 11, 12)
"""Chart colors of all other lines, in the order of the table."""
OWN_COLORS = {"PCA": 1, "pca": 1, "pca-mlp": 0}


def line_colors(names: Iterable[str]) -> dict[str, int]:
    """The color number of each line of a chart; lines for which no color is left have none."""
    left = iter(COLORS)
    colors = {name: OWN_COLORS[name] if name in OWN_COLORS else next(left, -1) for name in names}
    return {name: color for name, color in colors.items() if color >= 0}
