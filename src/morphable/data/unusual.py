"""Find the meshes of a dataset that are not like the others, and say why: vertices in another
order, mirrored, turned, scaled or shifted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.align import procrustes
from morphable.mesh.placement import align_shape, placement
from morphable.mesh.topology import edges
from morphable.rows import evenly_spread

SAMPLE = 128
"""Meshes, evenly spread, whose median is what the others are compared with."""
MAX_EDGES, PAIRS = 4000, 4000
"""Edges of the template, evenly spread, and random pairs of vertices that are measured."""
SCRAMBLED, SCRAMBLED_BY_SIZE = 0.85, 10.0
"""Edges of a surface are short: about 3 / sqrt(V) of the distance of two random vertices. If they are
SCRAMBLED_BY_SIZE / sqrt(V) of it, or SCRAMBLED on a coarse mesh, many vertices are in another order
than the faces expect; the share is about 1 if all are.
"""
OVERLONG, OVERLONG_SHARE = 5.0, 0.004
"""A vertex out of order makes edges of a mesh more than OVERLONG times as long as they are in the
others. One swapped pair in a mesh of 3,000 edges is worth a word.
"""
OUTLIER_DEVIATIONS, OUTLIER_FACTOR, MIN_MESHES = 6.0, 2.0, 5
"""A mesh is an outlier if its distance from the median shape exceeds the median distance by this
many robust standard deviations and this factor. Fewer meshes than MIN_MESHES have none.
"""
ALIKE = 1e-5
"""Meshes that differ by less than this share of the diagonal do not vary."""
SPREAD = 0.1
"""Centers this far apart, as a share of the diagonal, are worth a word."""
TURNED = 45.0
"""Degrees between the meshes of a dataset that are worth a word. Posed bodies turn by up to 30."""
MIRRORED = 0.6
"""A mesh is mirrored if its mirror image fits the median shape by this much better."""
MAX_NAMED = 20


@dataclass(frozen=True, eq=False)
class Usual:
    """What the meshes of a dataset have in common.

    shape: (V, 3) mm, the median. edges: (E, 2) edges of the template that are measured. lengths:
    (E,) mm, the median of each. pair_distance: mm, the mean distance of two random vertices.
    """

    shape: np.ndarray
    edges: np.ndarray
    lengths: np.ndarray
    pair_distance: float

    @classmethod
    def of(cls, dataset: MeshDataset) -> Usual:
        sample = dataset.vertices[evenly_spread(len(dataset), SAMPLE)]
        measured = edges(dataset.template.mesh.faces)
        measured = measured[evenly_spread(len(measured), MAX_EDGES)]
        random = np.random.default_rng(0)
        pairs = random.integers(0, dataset.template.n_vertices, (PAIRS, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        return cls(
            np.median(sample, axis=0),
            measured,
            np.median(edge_lengths(sample, measured), axis=0),
            float(edge_lengths(sample, pairs).mean()),
        )

    @property
    def diagonal(self) -> float:
        return float(np.linalg.norm(np.ptp(self.shape, axis=0)))


def edge_lengths(shapes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(..., E) mm, of shapes (..., V, 3)."""
    return np.linalg.norm(shapes[..., pairs[:, 0], :] - shapes[..., pairs[:, 1], :], axis=-1)


def unusual_meshes(dataset: MeshDataset) -> list[str]:
    """One sentence per unusual mesh, and one on what concerns all. Every coordinate must be finite."""
    if not len(dataset.template.mesh.faces):
        return []
    usual = Usual.of(dataset)
    everywhere = _order_of_all(usual, dataset.template.n_vertices)
    if everywhere:
        return everywhere

    overlong, centers, distances = [], [], []
    for block in dataset.vertices.blocks():
        lengths = edge_lengths(block, usual.edges)
        overlong.append((lengths > OVERLONG * usual.lengths + 1e-6 * usual.diagonal).mean(axis=1))
        centers.append(block.mean(axis=1, dtype=np.float64))
        distances.append(np.linalg.norm(block - usual.shape, axis=-1).mean(axis=1))
    out_of_order = np.flatnonzero(np.concatenate(overlong) > OVERLONG_SHARE)
    if 2 * len(out_of_order) > len(dataset):
        return [
            f"{len(out_of_order)} of {len(dataset)} meshes have vertices that are not in the order "
            f"that the faces expect, {_name(dataset, int(out_of_order[0]))} is the first"
        ]
    distance = np.concatenate(distances)
    if len(dataset) > 1 and distance.mean() < ALIKE * usual.diagonal:
        return [f"the meshes are alike: they differ by {distance.mean():.2g} mm on average"]
    findings = [
        f"{_name(dataset, row)}: vertices are not in the order that the faces expect, "
        f"{100 * share:.1f} % of its edges are over {OVERLONG:.0f} times as long as in other meshes"
        for row, share in zip(
            out_of_order.tolist(), np.concatenate(overlong)[out_of_order], strict=True
        )
    ]
    misplaced = _placement_of_all(dataset, usual, np.concatenate(centers))
    findings += misplaced
    if not misplaced:
        rows = np.setdiff1d(_outliers(distance), out_of_order)
        findings += [
            f"{_name(dataset, row)}: {cause}" for row, cause in _causes(dataset, usual, rows)
        ]
    more = len(findings) - MAX_NAMED
    return findings[:MAX_NAMED] + ([f"and {more} more meshes"] if more > 0 else [])


def _name(dataset: MeshDataset, row: int) -> str:
    file = f" ({dataset.labels['file'][row]})" if "file" in dataset.labels else ""
    return f"mesh {row}{file}"


def _order_of_all(usual: Usual, n_vertices: int) -> list[str]:
    """Whether the vertices of all meshes are in another order than the faces expect."""
    if 4 * len(usual.edges) > n_vertices * (n_vertices - 1):
        return []  # of so few vertices that most pairs are edges
    share = usual.lengths.mean() / max(usual.pair_distance, 1e-30)
    if share > min(SCRAMBLED, SCRAMBLED_BY_SIZE / n_vertices**0.5):
        return [
            "the vertices of the meshes are not in the order that the faces expect: edges are "
            f"{share:.2f} times as long as the distance between two random vertices"
        ]
    long = (usual.lengths > OVERLONG * np.median(usual.lengths)) & (
        usual.lengths > usual.pair_distance / 2
    )
    if long.mean() > OVERLONG_SHARE:
        return [
            f"{100 * long.mean():.1f} % of the edges are as long as the meshes are wide: vertices "
            "are not in the order that the faces expect"
        ]
    return []


def _placement_of_all(dataset: MeshDataset, usual: Usual, centers: np.ndarray) -> list[str]:
    """Whether most meshes are shifted or turned against one another."""
    spread = float(np.median(np.linalg.norm(centers - np.median(centers, axis=0), axis=1)))
    if spread > SPREAD * usual.diagonal:
        return [
            f"the centers of the meshes lie {spread:.0f} mm from their middle (median), the meshes "
            f"are {usual.diagonal:.0f} mm across; bring them together with `align`"
        ]
    sample = dataset.vertices[evenly_spread(len(dataset), SAMPLE)].astype(np.float64)
    try:
        rotations = procrustes(sample, usual.shape).rotation
    except InputError:  # shapes on one line, which have no rotation
        return []
    traces = np.trace(rotations, axis1=-2, axis2=-1)
    degrees = float(np.median(np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))))
    if degrees > TURNED:
        return [
            f"the meshes are turned against one another, by {degrees:.0f} degrees (median); bring "
            "them together with `align`"
        ]
    return []


def _outliers(distances: np.ndarray) -> np.ndarray:
    median = np.median(distances)
    # 1.4826 times the median absolute deviation is the standard deviation of normal numbers.
    spread = 1.4826 * np.median(np.abs(distances - median))
    least = max(median + OUTLIER_DEVIATIONS * spread, OUTLIER_FACTOR * median)
    return np.flatnonzero(distances > least) if len(distances) >= MIN_MESHES else np.zeros(0, int)


def _causes(dataset: MeshDataset, usual: Usual, rows: np.ndarray) -> Iterator[tuple[int, str]]:
    """Why each of these meshes lies far from the median shape."""
    for row in rows[: MAX_NAMED + 1].tolist():
        shape = dataset.vertices[row].astype(np.float64)
        distance = float(np.linalg.norm(shape - usual.shape, axis=1).mean())
        far = f"lies unusually far from the other meshes ({distance:.1f} mm)"
        try:
            cause = _cause(shape, usual.shape)
        except InputError:  # shapes on one line, which have no rotation
            cause = ""
        yield row, f"{cause}; {far}" if cause else far


def _cause(shape: np.ndarray, usual: np.ndarray) -> str:
    """How a shape (V, 3) was moved, in words; "" if it was not."""
    if _misfit(shape * [-1, 1, 1], usual) < MIRRORED * _misfit(shape, usual):
        return "is mirrored, left and right are exchanged"
    causes = placement(align_shape(shape, usual, scale=True), shape, usual).causes
    return f"is {', '.join(causes)}" if causes else ""


def _misfit(shape: np.ndarray, usual: np.ndarray) -> float:
    """The mean distance (mm) that a similarity leaves."""
    fitted = procrustes(shape, usual, scale=True).apply(shape)
    return float(np.linalg.norm(fitted - usual, axis=1).mean())
