"""The meshes that are not like the others, each with its cause."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from morphable.data.audit.finding import Audited, Finding
from morphable.data.audit.measures import DEGENERATE, OVERLONG, Measures
from morphable.data.audit.usual import Usual, edge_lengths, misfit, shape_sizes
from morphable.errors import InputError
from morphable.mesh.intersections import self_intersecting_faces
from morphable.mesh.placement import align_shape, placement
from morphable.rows import evenly_spread

MIN_MESHES = 5
"""Of fewer meshes none is unlike the others."""
FEW_EDGES = 3
"""More stretched edges than these are those of a vertex out of place."""
OUTLIER_DEVIATIONS, OUTLIER_FACTOR = 6.0, 2.0
"""A mesh is an outlier if its distance from the usual shape exceeds the median distance by this
many robust standard deviations and this factor.
"""
FAR_DEVIATIONS = 10.0
MIN_SHIFT, MIN_DEGREES, MIN_SCALE = 0.15, 20.0, 1.6
"""Meshes that lie closer than this share of the diagonal, are turned by less and scaled by less are
not named, however alike the others are.
"""
MORE, FEW_FACES, FEW_FOLDS = 3.0, 3, 8
"""A mesh has unusually many faulty faces if it has MORE times as many as nine of ten meshes of the
set, and FEW_FACES or FEW_FOLDS besides.
"""
FEW_CROSSINGS, MANY_CROSSINGS = 4, 20
"""The same for faces of the coarse copy and of the mesh that pass through others."""
MAX_TESTED = 64
"""Meshes, evenly spread, whose self-intersections are usual, and suspicious ones that are tested."""
NEAR_EDGES = 2.0
"""A vertex that lies this many edges from others has taken their place."""


def unusual_meshes(audited: Audited, usual: Usual, measures: Measures) -> list[Finding]:
    """One finding for each unusual mesh, with the first cause that applies: order of the vertices,
    placement, surface.
    """
    if len(audited) < MIN_MESHES:
        return _order_only(audited, usual, measures)
    placed = list(_placed(audited, usual, measures))
    by_rank = [
        [finding for finding in placed if finding.kind == "far"],
        _crossing(audited, usual, measures),
        _faces(audited, usual, measures),
        [finding for finding in placed if finding.kind != "far"],
        _torn(audited, usual, measures),
    ]
    found = {finding.row: finding for findings in by_rank for finding in findings}
    return [found[row] for row in sorted(row for row in found if row is not None)]


def _order_only(audited: Audited, usual: Usual, measures: Measures) -> list[Finding]:
    return list(_torn(audited, usual, measures)) if len(audited) > 2 else []


def torn_rows(measures: Measures) -> np.ndarray:
    """The meshes with edges that are much longer than in the others."""
    return np.flatnonzero(measures.stretched > _limit(measures.stretched, FEW_EDGES))


def _torn(audited: Audited, usual: Usual, measures: Measures) -> Iterator[Finding]:
    """Meshes with overlong edges: vertices in another order, or pulled out of the surface."""
    for row in torn_rows(measures).tolist():
        if measures.mirrored[row]:
            continue
        mesh = audited.vertices[row].astype(np.float64)
        share = 100 * measures.stretched[row] / len(usual.edges)
        times = f"{OVERLONG:.0f} times as long as in other meshes"
        if _in_others_places(mesh, usual):
            text = (
                "vertices are not in the order that the faces expect, "
                f"{share:.1f} % of its edges are over {times}"
            )
            yield audited.finding("order", row, text)
        else:
            count = measures.stretched[row]
            yield audited.finding(
                "stretched", row, f"has stretched faces, {count:,} edges are over {times}"
            )


def _in_others_places(mesh: np.ndarray, usual: Usual) -> bool:
    """Whether the vertices (V, 3) with overlong edges lie where other vertices should be, instead
    of off the surface.
    """
    scale = float(shape_sizes(mesh)) / usual.size
    lengths = edge_lengths(mesh, usual.edges)
    overlong = lengths > usual.limits * scale
    # A vertex out of place has many overlong edges; its neighbors have few.
    ends = usual.edges.ravel()
    share = np.bincount(ends, np.repeat(overlong, 2), len(mesh)) / np.maximum(
        np.bincount(ends, minlength=len(mesh)), 1
    )
    displaced = np.flatnonzero(share > 0.5)
    if not len(displaced):
        return False
    # Those that stay define the surface, if they are many: else any vertex does.
    reach = NEAR_EDGES * float(np.median(usual.lengths)) * scale
    nearest = cKDTree(mesh).query(mesh[displaced], k=2)[0][:, 1]
    return bool((nearest < reach).mean() > 0.5)


def _placed(audited: Audited, usual: Usual, measures: Measures) -> Iterator[Finding]:
    """Meshes that are mirrored, turned, scaled, shifted, or just far from the others."""
    distance = measures.distance
    centers = np.linalg.norm(measures.center - np.median(measures.center, axis=0), axis=1)
    logarithm = np.log(measures.size)
    scaled = np.abs(logarithm - np.median(logarithm))
    degrees = np.where(measures.mirrored, 0, measures.degrees)
    suspicious = measures.mirrored | (
        distance
        > np.maximum(_robust(distance, OUTLIER_DEVIATIONS), OUTLIER_FACTOR * np.median(distance))
    )
    suspicious |= centers > max(_robust(centers, FAR_DEVIATIONS), MIN_SHIFT * usual.diagonal)
    suspicious |= scaled > max(_robust(scaled, FAR_DEVIATIONS), np.log(MIN_SCALE))
    suspicious |= degrees > max(_robust(degrees, FAR_DEVIATIONS), MIN_DEGREES)
    for row in np.flatnonzero(suspicious).tolist():
        shape = audited.vertices[row].astype(np.float64)
        kind, cause = _cause(shape, usual.shape, bool(measures.mirrored[row]))
        far = f"lies unusually far from the other meshes ({distance[row]:.1f} mm)"
        yield audited.finding(kind, row, f"{cause}; {far}" if cause else far)


def _cause(shape: np.ndarray, usual: np.ndarray, mirrored: bool) -> tuple[str, str]:
    """How a shape (V, 3) was moved: a kind of finding and words; no words if it was not."""
    try:
        if mirrored or misfit(shape * [-1, 1, 1], usual) < 0.6 * misfit(shape, usual):
            return "mirrored", "is mirrored, left and right are exchanged"
        place = placement(align_shape(shape, usual, scale=True), shape, usual)
    except InputError:  # shapes on one line, which have no rotation
        return "far", ""
    kinds = {cause.split(" ")[0]: cause for cause in place.causes}
    kind = next((kind for kind in ("scaled", "turned", "shifted") if kind in kinds), "far")
    return kind, f"is {', '.join(place.causes)}" if kinds else ""


def _faces(audited: Audited, usual: Usual, measures: Measures) -> Iterator[Finding]:
    """Meshes with more degenerate or flipped faces than the others."""
    for row in np.flatnonzero(measures.folded > _limit(measures.folded, FEW_FOLDS)).tolist():
        text = f"has flipped faces, at {measures.folded[row]} edges they fold over"
        yield audited.finding("flipped", row, text)
    for row in np.flatnonzero(
        measures.degenerate > _limit(measures.degenerate, FEW_FACES)
    ).tolist():
        text = (
            f"has {measures.degenerate[row]} degenerate faces, smaller than {DEGENERATE:g} of "
            "their usual area"
        )
        yield audited.finding("degenerate", row, text)


def _crossing(audited: Audited, usual: Usual, measures: Measures) -> Iterator[Finding]:
    """Meshes whose surface passes through itself more than that of the others."""
    suspicious = np.flatnonzero(measures.crossings > _limit(measures.crossings, FEW_CROSSINGS))
    suspicious = suspicious[np.argsort(-measures.crossings[suspicious])][:MAX_TESTED]
    if not len(suspicious):
        return

    def crossing(row: int) -> int:
        return len(self_intersecting_faces(audited.vertices[row], usual.triangles))

    sample = np.array([crossing(row) for row in evenly_spread(len(audited), MAX_TESTED).tolist()])
    for row in suspicious.tolist():
        count = crossing(row)
        if count > _limit(sample, MANY_CROSSINGS):
            text = (
                f"{count:,} of its faces pass through others, in nine of ten meshes at most "
                f"{np.quantile(sample, 0.9, method='lower'):,}"
            )
            yield audited.finding("intersecting", row, text)


def _limit(counts: np.ndarray, few: float) -> float:
    return few + MORE * float(np.quantile(counts, 0.9, method="lower"))


def _robust(values: np.ndarray, deviations: float) -> float:
    """The median, and so many robust standard deviations."""
    median = np.median(values)
    # 1.4826 times the median absolute deviation is the standard deviation of normal numbers.
    return float(median + deviations * 1.4826 * np.median(np.abs(values - median)))
