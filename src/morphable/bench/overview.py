"""The families side by side at eight numbers: what a newcomer should pick."""

from __future__ import annotations

from morphable.bench.deep3dmm import faces, hands
from morphable.bench.table import ERROR, MEDIAN, PARAMETERS, SECONDS, Column, Row, Table

COLUMNS = (
    ERROR,
    MEDIAN,
    Column("95th percentile, mm", "vertex_error_mm", "p95"),
    PARAMETERS,
    SECONDS,
)


def main(quick: bool) -> Table:
    """PCA, pca-mlp and the hierarchical autoencoders on hands of unseen people and on face
    sequences.
    """
    rows = [Row(name, name) for name in ("coma", "spiralnet", "spiralnet++", "deep3dmm")]
    return Table(
        "main",
        "Vertex error at a code of eight numbers",
        [hands(quick), *([] if quick else [faces(quick)])],
        rows,
        COLUMNS,
        "Every network is trained by the fast recipe for the same number of epochs.",
    )
