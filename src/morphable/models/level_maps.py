"""The maps between the levels of a mesh network: precomputed, learned, or learned and then folded
to constants. The setting `aggregation` chooses which.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
from torch import nn

from morphable.config import Configuration, Count, Range
from morphable.errors import InputError
from morphable.mesh.hierarchy import Level
from morphable.mesh.topology import adjacency
from morphable.models.mesh_geometry import FoldedMaps, MeshGeometry
from morphable.models.mesh_network import Filters
from morphable.ops.aggregation import DiffPool, FullMap, VariantMap, average_map
from morphable.ops.attention_map import AttentionMap
from morphable.ops.sparse import SparseMap

NEIGHBORS = {"paper": (2, 32), "code": (8, 32)}
"""Entries per row of the attention maps, (down, up), as the paper states and as its code sets them.
"""


@dataclass(frozen=True)
class LevelMapsConfig(Configuration):
    """aggregation: how features move between levels; `qem` = by the precomputed maps. learned: the
    side of the network on which `aggregation` replaces the precomputed maps. neighbors: entries per
    row of the attention maps, `paper` = 2 down and 32 up, `code` = 8 down and 32 up. refresh_above,
    refresh_every: an attention map with more than `refresh_above` scores (n_out n_in) selects its
    entries again only every `refresh_every` steps.
    """

    aggregation: Literal["qem", "average", "full", "diffpool", "variant", "attention"] = "qem"
    learned: Literal["both", "encoder", "decoder"] = "both"
    neighbors: Literal["paper", "code"] = "paper"
    refresh_above: Annotated[int, Range("at least 0", lambda scores: scores >= 0)] = 1 << 24
    refresh_every: Count = 10


@dataclass(frozen=True)
class Maps:
    """The maps of all steps between levels: fine to coarse (`down`) and coarse to fine (`up`), both
    listed from the finest level on. Each maps (B, n_in, C) to (B, n_out, C).
    """

    down: nn.ModuleList
    up: nn.ModuleList

    def folded(self) -> FoldedMaps | None:
        """The learned maps as constants, if their weights do not depend on the input; None if there
        are no such maps.
        """
        down, up = (tuple(map(_folded, side)) for side in (self.down, self.up))
        if all(matrix is None for matrix in (*down, *up)):
            return None
        return FoldedMaps(down, up)


def _folded(module: nn.Module) -> sp.csr_matrix | None:
    return module.folded() if isinstance(module, AttentionMap | VariantMap) else None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the hierarchy: the precomputed map (n_out, n_in) from level `source` to level
    `target`, and the number of channels of the features that it maps.
    """

    side: Literal["down", "up"]
    matrix: sp.csr_matrix
    source: Level
    target: Level
    channels: int


def build_maps(geometry: MeshGeometry, channels: Filters, config: LevelMapsConfig) -> Maps:
    """Build all maps of one network. If `geometry` holds a folded map for a step, that one is
    used.
    """
    hierarchy = geometry.hierarchy
    steps = len(hierarchy.down)
    if steps > len(channels.encoder):
        raise InputError(f"hierarchy: expected at most {len(channels.encoder)} steps, got {steps}")
    channels = channels.for_steps(steps)
    finest, last = hierarchy.levels[0], len(hierarchy.down) - 1
    none = (None,) * len(hierarchy.down)
    folded = geometry.folded or FoldedMaps(none, none)
    maps = Maps(nn.ModuleList(), nn.ModuleList())

    for level, (fine, coarse) in enumerate(itertools.pairwise(hierarchy.levels)):
        down = Step("down", hierarchy.down[level], fine, coarse, channels.encoder[level])
        # The decoder lists its channels from the coarsest level, the hierarchy from the finest.
        up = Step("up", hierarchy.up[level], coarse, fine, channels.decoder[last - level])

        maps.down.append(_map(down, config, finest, folded.down[level]))
        maps.up.append(_map(up, config, finest, folded.up[level]))

    return maps


def _map(
    step: Step, config: LevelMapsConfig, finest: Level, folded: sp.csr_matrix | None
) -> nn.Module:
    side = "encoder" if step.side == "down" else "decoder"
    if folded is not None:
        return SparseMap(folded)
    if config.learned not in ("both", side):
        return SparseMap(step.matrix)

    match config.aggregation:
        case "qem":
            return SparseMap(step.matrix)
        case "average":
            return SparseMap(average_map(step.matrix))
        case "full":
            return FullMap(step.matrix)
        case "diffpool":
            graph = adjacency(step.source.triangles, len(step.source.vertices))
            return DiffPool(step.matrix, graph, step.channels)
        case "variant":
            return VariantMap(_support(step))
        case "attention":
            return _attention(step, config, finest)


def _attention(step: Step, config: LevelMapsConfig, finest: Level) -> AttentionMap:
    n_out, n_in = step.matrix.shape
    refresh = config.refresh_every if n_out * n_in > config.refresh_above else 1
    k = NEIGHBORS[config.neighbors][step.side == "up"]
    keys, queries = (_positions(level, finest) for level in (step.source, step.target))
    return AttentionMap(step.matrix, keys, queries, k, refresh=refresh)


def _positions(level: Level, finest: Level) -> np.ndarray:
    """(n, 3) vertex positions, from which keys and queries start: a tenth of their z-scores, with
    the mean and standard deviation of the finest level along each axis.
    """
    mean, std = finest.vertices.mean(0), finest.vertices.std(0)
    return 0.1 * (level.vertices - mean) / np.where(std > 0, std, 1.0)


def _support(step: Step) -> sp.csr_matrix:
    """The sparsity pattern of a variant map: the entries of the precomputed map, and the 1-ring of
    the source vertex with the largest weight in each row.
    """
    nearest = np.asarray(step.matrix.argmax(axis=1)).ravel()
    ring = adjacency(step.source.triangles, len(step.source.vertices))[nearest]
    support = sp.csr_matrix(step.matrix, copy=True)
    support.data = np.ones_like(support.data)
    return sp.csr_matrix((support + ring) > 0).astype(np.float64)
