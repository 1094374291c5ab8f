"""The locally weighted autoencoder (Kim and Kim 2021), which was published without a number: what
its parts are worth, and what each of its pieces is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from morphable.bench.table import ALONE, ERROR, PARAMETERS, SECONDS, Column, Data, Row, Table

LATENT = 64
LOCALITY = Column("locality", "part_locality")
OVERLAP = Column("overlap", "part_overlap")
DEAD = Column("dead parts", "dead_parts")
AREA = Column("area of syntheses", "synthesis_area")
AREA_HELD_OUT = Column("of held-out meshes", "held_out_area")
AREA_MIXTURES = Column("of mixtures", "mixture_area")
COVERAGE = Column("coverage by syntheses", "synthesis_coverage")
COVERAGE_MIXTURES = Column("by mixtures", "mixture_coverage")
COVERAGE_TRAINING = Column("by training meshes", "training_coverage")
PART_COLUMNS = (
    LOCALITY,
    OVERLAP,
    DEAD,
    AREA,
    AREA_MIXTURES,
    AREA_HELD_OUT,
    COVERAGE,
    COVERAGE_MIXTURES,
    COVERAGE_TRAINING,
)
NOTE = (
    "The paper prints no number, so there is nothing to compare with. Locality: the code of one "
    "part becomes that of another mesh; how far vertices move inside the part, divided by how far "
    "they move outside, weighted by how much they belong to it. The overlap is a Dice coefficient "
    "of the weights, 0 = disjoint. Syntheses are 5 held-out meshes with each part of 11 others; in "
    "mixtures, every part comes from a held-out mesh of its own. Their area is that of their "
    "ellipse in the plane of the training codes' two principal directions, relative to the ellipse "
    "of 220 training codes. Coverage is the share of held-out meshes with a synthesis, or one of "
    "220 training meshes, nearer than their fifth neighbor."
)
OURS = "local-weights"


def datasets(quick: bool) -> Sequence[Data]:
    """Neutral heads of a population, posed hands, and bodies."""
    heads: dict[str, Any] = {"count": 2_000, "size": "5k", "neutral_only": True}
    return [
        Data("face-population", "face-population", heads, epochs=5 if quick else 100),
        Data("hands", "hands", {"count": 1_000 if quick else 10_000}, epochs=10 if quick else 100),
        Data("bodies", "bodies", {"count": 400 if quick else 10_000}, epochs=6 if quick else 100),
    ]


def parts(quick: bool) -> Table:
    """How local the parts are, and what they cost in reconstruction against CoMA."""
    rows = [
        Row("CoMA", "coma", ALONE, latent=LATENT),
        Row(OURS, "local-weights", latent=LATENT, against="CoMA"),
        Row("with 6 parts", "local-weights", {"parts": 6}, latent=LATENT, against="CoMA"),
    ]
    return Table(
        "localweights-parts",
        "Parts without segmentation",
        datasets(quick),
        rows,
        (ERROR, *PART_COLUMNS, PARAMETERS, SECONDS),
        NOTE,
    )


PIECES: Mapping[str, Mapping[str, Any]] = {
    OURS: {},
    "reading: features, coarsest level": {"reading": "features"},
    "reading: features, level 1": {"reading": "features", "blend_level": 1},
    "reading: outer product": {"reading": "outer"},
    "reading: latent-size weights": {"reading": "latent"},
    "without local weights": {"reading": "sum"},
    "without projections": {"projections": False},
    "without cycle loss": {"cycle_weight": 0.0},
    "cycle loss with weight 1": {"cycle_weight": 1.0},
    "with partition loss": {"partition_weight": 0.01},
    "with 6 parts": {"parts": 6},
    "factorization: not aligned": {"displacement": "relative"},
    "factorization: penalized, mm": {"displacement": "mm"},
    "factorization: Hoyer 0.75, mm": {
        "displacement": "mm",
        "factorization": "hoyer",
        "sparsity": 0.75,
    },
}
"""The rows of the ablation: what each changes in the recipe."""


def ablation(quick: bool) -> Table:
    """Each piece of the model left out or replaced, one at a time."""
    rows = [
        Row(name, "local-weights", changes, latent=LATENT, against=OURS)
        for name, changes in PIECES.items()
    ]
    heads, *others = datasets(quick)
    few = Data(heads.name, heads.kind, {**heads.options, "count": 600}, epochs=5)
    return Table(
        "localweights-ablation",
        "What each piece is worth",
        [few] if quick else [heads, *others],
        rows,
        (ERROR, *PART_COLUMNS, SECONDS),
        NOTE,
    )
