"""Meshes that occur more than once, exactly or nearly, and whether a split is leaky thereby."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from morphable.data.audit.finding import Audited, Finding
from morphable.data.audit.measures import Measures
from morphable.data.audit.usual import Usual

NEAR = 1e-4
"""Two meshes are near-duplicates if no vertex differs by more than this share of the diagonal, 0.03
mm on a face: one was written with fewer digits.
"""


def copies(audited: Audited, measures: Measures) -> list[Finding]:
    """Exact copies of an earlier mesh. Frames of one sequence in which nothing moves are none."""
    digests = np.array([digest.hex() for digest in measures.digests])
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    findings = []
    for row in np.flatnonzero(first[inverse] != np.arange(len(digests))).tolist():
        earlier = int(first[inverse[row]])
        if not _same(audited, ("subject", "sequence"), row, earlier):
            text = f"repeats an earlier mesh exactly, {audited.name(earlier)}"
            text += _leak(audited, row, earlier)
            # The same face at rest in two sequences is no fault of either.
            kind = "rest" if _same(audited, ("subject",), row, earlier) else "copy"
            findings.append(audited.finding(kind, row, text, earlier))
    return findings


def near_copies(audited: Audited, usual: Usual, measures: Measures) -> list[Finding]:
    """Near-duplicates of an earlier mesh. Frames of one subject may be alike, since the next frame
    of a recording is.
    """
    if len(audited) < 2:
        return []
    reach = NEAR * usual.diagonal
    pairs = cKDTree(measures.projected).query_pairs(2 * reach, output_type="ndarray")
    findings: dict[int, Finding] = {}
    for low, high in pairs[np.lexsort(pairs.T[::-1])].tolist():
        same = measures.digests[low] == measures.digests[high]
        if same or high in findings or _same(audited, ("subject",), low, high):
            continue
        meshes = audited.vertices[np.array([low, high])]
        gap = float(np.linalg.norm(meshes[0] - meshes[1], axis=-1).max())
        if gap <= reach:
            leak = _leak(audited, low, high)
            text = f"nearly repeats {audited.name(low)}, within {gap:.2g} mm{leak}"
            findings[high] = audited.finding("near copy", high, text, low)
    return list(findings.values())


def _leak(audited: Audited, a: int, b: int) -> str:
    """The splits that train on one of the two meshes and hold out the other, in words."""
    names = [
        name
        for name, (train, held_out) in audited.splits.items()
        if (a in train and b in held_out) or (b in train and a in held_out)
    ]
    if not names:
        return ""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"; one is in training, the other held out by split {', '.join(names[:2])}{more}"


def _same(audited: Audited, columns: tuple[str, ...], a: int, b: int) -> bool:
    """Whether two meshes of a recording have the same known labels in these columns."""
    labels = audited.labels
    return ("sequence" in labels or "frame" in labels) and all(
        name in labels and labels[name][a] == labels[name][b] and str(labels[name][a]) != ""
        for name in columns
    )
