"""What concerns all meshes of a dataset: the order of their vertices, copies, placement, hands."""

from __future__ import annotations

import numpy as np

from morphable.data.audit.finding import Audited, Finding
from morphable.data.audit.measures import Measures
from morphable.data.audit.meshes import torn_rows
from morphable.data.audit.usual import SAMPLE, Usual, is_mirrored
from morphable.rows import evenly_spread

SCRAMBLED, SCRAMBLED_BY_SIZE = 0.85, 10.0
"""Edges of a surface are short: about 3 / sqrt(V) of the distance of two random vertices. If they are
SCRAMBLED_BY_SIZE / sqrt(V) of it, or SCRAMBLED on a coarse mesh, many vertices are in another order
than the faces expect; the share is about 1 if all are.
"""
OVERLONG, OVERLONG_SHARE = 5.0, 0.004
ALIKE = 1e-5
"""Meshes that differ by less than this share of the diagonal do not vary."""
SPREAD = 0.1
"""Centers this far apart, as a share of the diagonal, are worth a word."""
TURNED = 45.0
"""Degrees between the meshes of a dataset that are worth a word. Posed bodies turn by up to 30."""
SIZES = 3.0
"""A range of sizes that is worth a word; children and adults differ by a factor of two."""
MIXED = 0.3
"""If this share of the meshes are mirror images of the others, left and right are mixed."""


def order_of_all(usual: Usual, n_vertices: int) -> list[Finding]:
    """Whether the vertices of all meshes are in another order than the faces expect."""
    if 4 * len(usual.edges) > n_vertices * (n_vertices - 1):
        return []  # of so few vertices that most pairs are edges
    share = usual.lengths.mean() / max(usual.pair_distance, 1e-30)
    if share > min(SCRAMBLED, SCRAMBLED_BY_SIZE / n_vertices**0.5):
        text = (
            "the vertices of the meshes are not in the order that the faces expect: edges are "
            f"{share:.2f} times as long as the distance between two random vertices"
        )
        return [Finding("order", text)]
    long = (usual.lengths > OVERLONG * np.median(usual.lengths)) & (
        usual.lengths > usual.pair_distance / 2
    )
    if long.mean() > OVERLONG_SHARE:
        text = (
            f"{100 * long.mean():.1f} % of the edges are as long as the meshes are wide: vertices "
            "are not in the order that the faces expect"
        )
        return [Finding("order", text)]
    return []


def faults_of_all(audited: Audited, usual: Usual, measures: Measures) -> list[Finding]:
    """What most meshes have, so that none of them is unusual; empty if there is nothing."""
    torn = torn_rows_of_most(measures)
    if 2 * len(torn) > len(audited):
        text = (
            f"{len(torn)} of {len(audited)} meshes have vertices that are not in the order that "
            f"the faces expect, {audited.name(int(torn[0]))} is the first"
        )
        return [Finding("order", text)]
    if len(audited) > 1 and measures.distance.mean() < ALIKE * usual.diagonal:
        mean = measures.distance.mean()
        return [Finding("alike", f"the meshes are alike: they differ by {mean:.2g} mm on average")]
    return _sides(audited) or _placement(usual, measures)


def torn_rows_of_most(measures: Measures) -> np.ndarray:
    """Meshes with many overlong edges, also if most meshes have them."""
    rows = np.flatnonzero(measures.overlong > OVERLONG_SHARE)
    return rows if 2 * len(rows) > len(measures.overlong) else torn_rows(measures)


def _sides(audited: Audited) -> list[Finding]:
    """Whether some meshes are left ones and others right ones."""
    rows = evenly_spread(len(audited), SAMPLE)
    sample = audited.vertices[rows].astype(np.float64)
    other = is_mirrored(sample, sample[0])
    smaller = min(other.mean(), 1 - other.mean())
    if len(rows) < 5 or smaller < MIXED:
        return []
    fewer = np.flatnonzero(other if other.mean() <= 0.5 else ~other)
    text = (
        f"left and right are mixed: about {100 * smaller:.0f} % of the meshes are mirror images of "
        f"the others, {audited.name(int(rows[fewer[0]]))} is the first"
    )
    return [Finding("sides", text)]


def _placement(usual: Usual, measures: Measures) -> list[Finding]:
    """Whether most meshes are shifted or turned against one another."""
    centers = measures.center
    spread = float(np.median(np.linalg.norm(centers - np.median(centers, axis=0), axis=1)))
    if spread > SPREAD * usual.diagonal:
        text = (
            f"the centers of the meshes lie {spread:.0f} mm from their middle (median), the meshes "
            f"are {usual.diagonal:.0f} mm across"
        )
        return [Finding("shifted", text)]
    degrees = float(np.median(measures.degrees))
    if degrees > TURNED:
        text = f"the meshes are turned against one another, by {degrees:.0f} degrees (median)"
        return [Finding("turned", text)]
    sizes = np.quantile(measures.size, [0.1, 0.9])
    if sizes[1] > SIZES * sizes[0]:
        text = (
            f"the sizes of the meshes differ by a factor of {sizes[1] / sizes[0]:.1f} between the "
            "smallest and the largest tenth"
        )
        return [Finding("scaled", text)]
    return []
