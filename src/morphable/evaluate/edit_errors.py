"""Editing measures: held-out pairs, all handles of one moved to the other's (LAMM), and where
single edits reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.models.base import MorphableModel, Shapes
from morphable.models.handles import RegionEditor
from morphable.models.region_pca import RegionPca, RegionPcaConfig
from morphable.rows import evenly_spread

Measurer = Callable[[MorphableModel, MeshDataset, MeshDataset], dict[str, dict[str, Any]]]
"""(model, training meshes, measured meshes) -> measures of "model" and of baselines by name; empty
where they do not apply to the model's family.
"""

BATCH = 16
MAX_PAIRS = 200


def editing(
    model: MorphableModel, train: MeshDataset, measured: MeshDataset
) -> dict[str, dict[str, Any]]:
    """Of a model with regions to edit, beside region-PCA with as many components."""
    if not isinstance(model, RegionEditor) or len(measured) < 2:
        return {}
    try:
        result = {"model": pair_errors(model, measured.vertices)}
    except InputError:  # its edits were not trained
        return {}
    if not isinstance(model, RegionPca):
        latent = min(model.parts.free_size, len(model.regions.names) * (len(train) - 1))
        baseline = RegionPca.estimate(model.template, train.vertices, {}, RegionPcaConfig(latent))
        result["region_pca"] = pair_errors(baseline, measured.vertices)
    return result


@torch.no_grad()
def pair_errors(model: RegionEditor, shapes: Shapes) -> dict[str, float]:
    """Mean vertex errors (mm) after moving all handles of one mesh to where another's are, and how
    far that was.

    Pairs are rows i and i + N // 2, which are different people where rows are sorted by subject.
    `control_error_mm` is at the handles, `other_error_mm` at all other vertices; `control_moved_mm`
    and `other_moved_mm` the distance between the two meshes there. `locality`: how far vertices
    outside an edited region move, as a share of those inside, over edits of one region at a time; 0
    = nothing else moves.
    """
    handles = torch.from_numpy(np.concatenate(model.regions.controls)).to(model.device)
    is_handle = torch.zeros(model.template.n_vertices, dtype=torch.bool, device=model.device)
    is_handle[handles] = True
    rows = evenly_spread(len(shapes), MAX_PAIRS)
    partners = np.roll(rows, -(len(rows) // 2))
    sums = dict.fromkeys(
        ("control_error_mm", "other_error_mm", "control_moved_mm", "other_moved_mm"), 0.0
    )
    inside = outside = 0.0
    for start in range(0, len(rows), BATCH):
        source, target = (
            torch.from_numpy(np.asarray(shapes[order[start : start + BATCH]])).to(model.device)
            for order in (rows, partners)
        )
        way = (target - source)[:, handles]
        error = (model.edit(source, way.flatten(1)) - target).norm(dim=-1)
        moved = (target - source).norm(dim=-1)
        for name, values in (("error", error), ("moved", moved)):
            sums[f"control_{name}_mm"] += float(values[:, is_handle].mean(1).sum())
            sums[f"other_{name}_mm"] += float(values[:, ~is_handle].mean(1).sum())
        if start == 0:
            inside, outside = _reach(model, source, way)
    measures = {name: total / len(rows) for name, total in sums.items()}
    return measures | {"locality": outside / max(inside, 1e-12)}


def _reach(model: RegionEditor, source: Tensor, way: Tensor) -> tuple[float, float]:
    """Mean movement (mm) inside and outside the region that is edited, over regions edited one at a
    time.
    """
    still = model.edit(source, torch.zeros_like(way).flatten(1))
    inside, outside, start = [], [], 0
    for region, controls in enumerate(model.regions.controls):
        part = way[:, start : start + len(controls)]
        start += len(controls)
        if not len(controls):
            continue
        movement = (model.edit(source, model.displacement(region, part)) - still).norm(dim=-1)
        member = torch.from_numpy(model.regions.labels == region).to(movement.device)
        inside.append(float(movement[:, member].mean()))
        outside.append(float(movement[:, ~member].mean()))
    return float(np.mean(inside)), float(np.mean(outside))
