"""The open sets with held-out subjects, for tables of how a setting changes errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from morphable.bench.table import Data


def open_sets(quick: bool, epochs: Mapping[str, int | None]) -> Sequence[Data]:
    """Posed hands, a population of faces, face sequences of few people, and posed bodies, all with
    held-out subjects. epochs: by name of those that are wanted, in the quick size; in full, each
    trains for 30. None: every network trains as long as its own recipe says, in both sizes.
    """
    size: dict[str, Any] = {"size": "5k"}
    options: dict[str, dict[str, Any]] = {
        "hands": {"count": 1_000 if quick else 10_000, "seed": 3},
        "face-population": {"count": 1_000 if quick else 6_000, "seed": 1, **size},
        "faces": {"count": 1_040 if quick else 8_652, "seed": 7, **size},
        "bodies": {"count": 700 if quick else 5_600, "seed": 5},
    }
    return [
        Data(name, name, options[name], "subject", number if quick or number is None else 30)
        for name, number in epochs.items()
    ]
