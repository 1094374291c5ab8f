"""Labels that are missing, and sequences that are shorter than the others."""

from __future__ import annotations

import numpy as np

from morphable.data.audit.finding import Audited, Finding
from morphable.data.labels import LabelTable

HOLES = 0.1
"""A label that fewer meshes lack has holes; if more lack it, it is sparse on purpose."""
SHORT = 0.3
"""A sequence is short if it has less than this share of the median number of frames."""
MIN_SEQUENCES = 4
NAMED = ("subject", "expression", "sequence", "frame")


def label_holes(audited: Audited) -> list[Finding]:
    """Meshes without a label that almost all others have."""
    findings = []
    # A neutral mesh is of no sequence.
    neutral = np.zeros(len(audited), bool)
    if "neutral" in audited.labels:
        neutral = audited.labels["neutral"] == np.arange(len(audited))
    for name in NAMED:
        if name not in audited.labels:
            continue
        column = audited.labels[name]
        empty = np.isnan(column) if column.dtype.kind == "f" else column.astype(str) == ""
        rows = np.flatnonzero(empty & ~neutral)
        if 0 < len(rows) < HOLES * len(audited):
            text = f"has no label {name}, which {len(audited) - len(rows):,} meshes have"
            findings += [audited.finding("label hole", row, text) for row in rows.tolist()]
    return findings


def sequence_lengths(labels: LabelTable) -> dict[str, int]:
    """Number of frames of each sequence, by "subject/sequence" as far as they are known."""
    if "sequence" not in labels:
        return {}
    names = labels["sequence"].astype(str)
    known = names != ""
    if "subject" in labels:
        known &= labels["subject"].astype(str) != ""
        names = np.char.add(np.char.add(labels["subject"].astype(str), "/"), names)
    found, counts = np.unique(names[known], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def short_sequences(audited: Audited) -> list[Finding]:
    """Sequences with far fewer frames than the others: incomplete downloads are common."""
    lengths = sequence_lengths(audited.labels)
    if len(lengths) < MIN_SEQUENCES:
        return []
    median = float(np.median(list(lengths.values())))
    return [
        Finding(
            "short sequence",
            f"sequence {name} has {count} frames, the others have {median:.0f} (median)",
        )
        for name, count in lengths.items()
        if count < SHORT * median
    ]
