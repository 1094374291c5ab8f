"""Editing measures: the error if all handles of one held-out mesh are moved to those of another
(LAMM), and how far edits of single regions reach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.evaluate.evaluation import Evaluation
from morphable.models.base import Shapes
from morphable.models.batched import BATCH, encode_all
from morphable.models.handles import RegionEditor
from morphable.models.region_pca import RegionPca, RegionPcaConfig
from morphable.rows import evenly_spread

MAX_PAIRS = 200
"""At most this many pairs are measured, evenly spread."""


def editing(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Measure a model whose regions can be edited, and region-PCA of the same latent size as a
    baseline. Empty for other models.
    """
    model, train = evaluation.model, evaluation.data.train
    shapes = evaluation.measured.vertices
    if not isinstance(model, RegionEditor) or len(shapes) < 2:
        return {}
    try:
        result = {"model": pair_errors(model, shapes, evaluation.codes)}
    except InputError:  # a LAMM whose stage `manipulate` was not trained
        return {}
    if not isinstance(model, RegionPca):
        latent = min(model.latent, len(model.regions.names) * (len(train) - 1))
        baseline = RegionPca.estimate(model.template, train.vertices, {}, RegionPcaConfig(latent))
        result["region_pca"] = pair_errors(baseline, shapes, encode_all(baseline, shapes))
    return result


@torch.no_grad()
def pair_errors(model: RegionEditor, shapes: Shapes, codes: Tensor) -> dict[str, float]:
    """Mean vertex errors (mm) after all handles of one mesh are moved to their positions on another
    mesh, and the distance between the two meshes.

    Pairs are rows i and i + N // 2, which are different subjects if rows are sorted by subject.
    `control_error_mm` is the error at the handles, `other_error_mm` at all other vertices;
    `control_moved_mm` and `other_moved_mm` are the distances between the two meshes there.
    `locality` is the mean movement outside an edited region divided by that inside, over edits of
    single regions of all pairs; 0 means that nothing outside moves. On a template whose vertices are all handles,
    or all in one region, the measures of other vertices are left out.

    shapes: (N, V, 3) mm; codes: (N, L) of these shapes.
    """
    handles = torch.from_numpy(np.concatenate(model.regions.controls)).to(model.device)
    is_handle = torch.zeros(model.template.n_vertices, dtype=torch.bool, device=model.device)
    is_handle[handles] = True
    rows = evenly_spread(len(shapes), MAX_PAIRS)
    partners = np.roll(rows, -(len(rows) // 2))
    areas = {"control": is_handle, "other": ~is_handle}
    areas = {name: members for name, members in areas.items() if members.any()}
    sums = {f"{area}_{kind}_mm": 0.0 for kind in ("error", "moved") for area in areas}
    inside = outside = 0.0
    for start in range(0, len(rows), BATCH):
        chunk = slice(start, start + BATCH)
        source, target = (
            torch.from_numpy(np.asarray(shapes[order[chunk]])).to(model.device)
            for order in (rows, partners)
        )
        code = codes[torch.from_numpy(rows[chunk])].to(model.device)
        displacement = (target - source)[:, handles]
        edited = model.decode(model.displace(code, displacement.flatten(1)))
        for name, values in (
            ("error", (edited - target).norm(dim=-1)),
            ("moved", (target - source).norm(dim=-1)),
        ):
            for area, members in areas.items():
                sums[f"{area}_{name}_mm"] += float(values[:, members].mean(1).sum())
        if len(model.regions.names) > 1:
            within, beyond = _reach(model, code, displacement)
            inside, outside = inside + within * len(code), outside + beyond * len(code)
    measures = {name: total / len(rows) for name, total in sums.items()}
    if len(model.regions.names) > 1:
        measures["locality"] = outside / max(inside, 1e-12)
    return measures


def _reach(model: RegionEditor, code: Tensor, displacement: Tensor) -> tuple[float, float]:
    """Mean movement (mm) inside and outside the edited region, over edits of single regions."""
    unedited = model.decode(model.displace(code, torch.zeros_like(displacement).flatten(1)))
    inside, outside, start = [], [], 0
    for region, controls in enumerate(model.regions.controls):
        moved = displacement[:, start : start + len(controls)]
        start += len(controls)
        if not len(controls):
            continue
        edited = model.decode(model.displace(code, model.displacement(region, moved)))
        movement = (edited - unedited).norm(dim=-1)
        member = torch.from_numpy(model.regions.labels == region).to(movement.device)
        inside.append(float(movement[:, member].mean()))
        outside.append(float(movement[:, ~member].mean()))
    return float(np.mean(inside)), float(np.mean(outside))
