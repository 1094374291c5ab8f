"""The down and up maps of a hierarchical autoencoder, by name of the aggregation; learned ones fold
to constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from torch import nn

from morphable.mesh.hierarchy import Level
from morphable.mesh.topology import adjacency
from morphable.models.mesh_geometry import FoldedMaps, MeshGeometry
from morphable.ops.aggregation import AttentionMap, DiffPool, FullMap, VariantMap, average_map
from morphable.ops.sparse import SparseMap

Aggregation = Literal["qem", "average", "full", "diffpool", "variant", "attention"]
NEIGHBORS = {"paper": (2, 32), "code": (8, 32)}
"""Entries in a row of the learned part, down and up, as the paper states them and as its code sets
them.
"""


@dataclass(frozen=True)
class Maps:
    """The maps of every step between levels, fine to coarse (`down`) and coarse to fine (`up`), in
    order of levels.
    """

    down: nn.ModuleList
    up: nn.ModuleList


def build_maps(
    geometry: MeshGeometry,
    aggregation: Aggregation,
    learned: str,
    neighbors: str,
    refresh: tuple[int, int],
    down_channels: tuple[int, ...],
    up_channels: tuple[int, ...],
) -> Maps:
    """All maps of one network.

    learned: `both`, or `encoder` / `decoder` alone, the other side staying with the precomputed
    map. refresh: (scores above which, steps between which) the learned maps select anew.
    down_channels, up_channels: channels that pass each map, in order of levels, for maps that look
    at the features. Maps that `geometry` holds folded are constant.
    """
    hierarchy, folded = geometry.hierarchy, geometry.folded
    sides: dict[str, list[nn.Module]] = {"down": [], "up": []}
    for level in range(len(hierarchy.down)):
        fine, coarse = hierarchy.levels[level], hierarchy.levels[level + 1]
        for side, prior, source, target, channels in (
            ("down", hierarchy.down[level], fine, coarse, down_channels[level]),
            ("up", hierarchy.up[level], coarse, fine, up_channels[level]),
        ):
            constant = getattr(folded, side)[level] if folded else None
            here = (
                aggregation
                if learned in ("both", "encoder" if side == "down" else "decoder")
                else "qem"
            )
            if constant is not None:
                sides[side].append(SparseMap(constant))
            elif here == "attention":
                steps = refresh[1] if prior.shape[0] * prior.shape[1] > refresh[0] else 1
                k = NEIGHBORS[neighbors][side == "up"]
                keys, queries = (_positions(part, hierarchy.levels[0]) for part in (source, target))
                sides[side].append(AttentionMap(prior, keys, queries, k, refresh=steps))
            else:
                sides[side].append(_plain_map(here, side, prior, source, target, channels))
    return Maps(nn.ModuleList(sides["down"]), nn.ModuleList(sides["up"]))


def _plain_map(
    aggregation: str, side: str, prior: sp.csr_matrix, source: Level, target: Level, channels: int
) -> nn.Module:
    if aggregation == "full":
        return FullMap(prior)
    if aggregation == "diffpool":
        return DiffPool(prior, adjacency(source.triangles, len(source.vertices)), channels)
    if aggregation == "variant":
        return VariantMap(_support(side, prior, source))
    return SparseMap(average_map(prior) if aggregation == "average" else prior)


def _support(side: str, prior: sp.csr_matrix, source: Level) -> sp.csr_matrix:
    """Where a variant map may have weights: a row's own entries, and the 1-ring (on the source) of
    the largest.
    """
    nearest = np.asarray(prior.argmax(axis=1)).ravel()
    ring = adjacency(source.triangles, len(source.vertices))[nearest]
    support = sp.csr_matrix(prior, copy=True)
    support.data = np.ones_like(support.data)
    return sp.csr_matrix((support + ring) > 0).astype(np.float64)


def _positions(level: Level, finest: Level) -> np.ndarray:
    """(n, 3) a tenth of the level's z-scores, by the mean and deviation of the finest level along
    each axis.
    """
    mean, std = finest.vertices.mean(0), finest.vertices.std(0)
    return 0.1 * (level.vertices - mean) / np.where(std > 0, std, 1.0)


def fold_maps(maps: Maps) -> FoldedMaps | None:
    """The learned maps whose weights do not depend on the input, as constants; None if there are
    none.
    """
    down, up = (tuple(map(_folded, side)) for side in (maps.down, maps.up))
    if all(matrix is None for matrix in (*down, *up)):
        return None
    return FoldedMaps(down, up)


def _folded(module: nn.Module) -> sp.csr_matrix | None:
    return module.folded() if isinstance(module, AttentionMap | VariantMap) else None
