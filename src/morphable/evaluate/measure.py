"""evaluate: a model's measures on held-out meshes, with the mean shape and PCA at equal size always
beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.evaluate.directions import principal_directions
from morphable.evaluate.errors import summary, vertex_errors
from morphable.mesh.distance import surface_distance
from morphable.mesh.intersections import self_intersecting_faces
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Shapes
from morphable.models.pca import Pca, PcaConfig
from morphable.rows import evenly_spread

SURFACE_MESHES = 20
"""Surface distance and self-intersections are measured on this many test meshes, evenly spread."""
SAMPLES = 100
"""Shapes drawn for specificity."""
SPECIFICITY_MESHES = 2000
"""Training meshes, evenly spread, among which a sample's nearest is looked for."""
CURVE_LATENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def evaluate(
    model: MorphableModel, train: Shapes, test: Shapes, subjects: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """`{"model": R, "baselines": {"mean_shape": R, "pca": R}, "pca_curve": {latents: mean mm}}`.

    train, test: (N, V, 3) mm; subjects: (N_test,) subject number of each test mesh, for the
    intervals.
    """
    template = model.template
    free = min(model.parts.free_size, len(train) - 1)  # PCA has no more components than that
    largest = min(max(free, 64), len(train) - 1)
    pca = Pca.estimate(template, train, {}, PcaConfig(max(free, largest)))
    errors = vertex_errors(model, test)
    result = error_measures(template, errors, subjects, seed) | shape_measures(
        model, train, test, seed
    )
    baselines = {
        "mean_shape": error_measures(template, _distance_to(pca.mean, test), subjects, seed),
        "pca": error_measures(template, vertex_errors(pca.truncate(free), test), subjects, seed),
    }
    curve = {
        k: float(vertex_errors(pca.truncate(k), test).mean()) for k in CURVE_LATENTS if k <= largest
    }
    return {"model": result, "baselines": baselines, "pca_curve": curve}


def error_measures(
    template: Template, errors: np.ndarray, subjects: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Statistics of vertex errors (N, V) mm: pooled, per mesh, and pooled on each region and mask
    of the template.
    """
    measures = {
        "vertex_error_mm": summary(errors, subjects, seed),
        "mesh_error_mm": summary(errors.mean(1, dtype=np.float64), subjects, seed),
    }
    for name, vertices in areas(template).items():
        measures[f"vertex_error_mm/{name}"] = summary(errors[:, vertices], subjects, seed)
    return measures


def areas(template: Template) -> Mapping[str, np.ndarray]:
    """Vertex indices of every region and mask of the template, by name."""
    names = template.regions.names if template.regions else ()
    return {name: template.region(name) for name in names} | {
        name: np.flatnonzero(mask) for name, mask in template.masks.items()
    }


def shape_measures(model: MorphableModel, train: Shapes, test: Shapes, seed: int) -> dict[str, Any]:
    """Surface distance, self-intersections, generalisation, specificity and compactness."""
    chosen = test[evenly_spread(len(test), SURFACE_MESHES)]
    with torch.no_grad():
        result = model(torch.from_numpy(chosen).to(model.device)).cpu().numpy()
    triangles = model.template.mesh.triangles
    surface = [surface_distance(a, b, triangles) for a, b in zip(result, chosen, strict=True)]
    crossing = [len(self_intersecting_faces(a, triangles)) for a in result]
    truth = [len(self_intersecting_faces(a, triangles)) for a in chosen]
    measures = {
        "surface_distance_mm": float(np.mean(surface)),
        "self_intersections": float(np.mean(crossing) - np.mean(truth)),
        "self_intersections_of_truth": float(np.mean(truth)),
        "generalisation_mm": float(vertex_errors(model, test).mean()),
    }
    if model.prior is None:
        return measures
    return measures | {
        "specificity_mm": specificity(model, train, seed),
        "compactness": compactness(model, test),
    }


@torch.no_grad()
def specificity(
    model: MorphableModel, train: Shapes, seed: int = 0, samples: int = SAMPLES
) -> float:
    """Mean over sampled shapes of the mean vertex distance (mm) to the nearest training mesh
    (Styner et al. 2003).
    """
    rows = evenly_spread(len(train), SPECIFICITY_MESHES)
    generator = torch.Generator().manual_seed(seed)
    drawn = model.sample(samples, generator).cpu()
    nearest = torch.full((samples,), torch.inf)
    for row in rows:
        mesh = torch.from_numpy(np.asarray(train[int(row)]))
        nearest = torch.minimum(nearest, (drawn - mesh).norm(dim=-1).mean(-1))
    return float(nearest.mean())


@torch.no_grad()
def compactness(
    model: MorphableModel, test: Shapes, most: int = 200, directions: int = 32
) -> list[float]:
    """Share of the test meshes' variance explained by the first k principal directions of the
    prior, k = 1, 2, ...

    For PCA this is the classical compactness; for a network the directions are those of its code
    distribution, and the codes of the meshes are projected onto the first k before they are
    decoded.
    """
    rows = evenly_spread(len(test), most)
    shapes = torch.from_numpy(test[rows]).to(model.device)
    codes = torch.cat([model.encode(part) for part in shapes.split(16)])
    mean = model.require_prior().mean
    axes = torch.nn.functional.normalize(principal_directions(model, most=directions)).T
    total = (shapes - shapes.mean(0)).square().sum()
    shares = []
    for k in range(1, axes.shape[1] + 1):
        centered = (codes - mean) @ axes[:, :k] @ axes[:, :k].T
        decoded = torch.cat([model.decode(part) for part in (mean + centered).split(16)])
        shares.append(float(1 - (decoded - shapes).square().sum() / total))
    return shares


def _distance_to(mean: Tensor, shapes: Shapes) -> np.ndarray:
    """(N, V) mm distances of the shapes to one mean (3V,)."""
    center = mean.numpy().reshape(1, -1, 3)
    parts = [
        np.linalg.norm(shapes[i : i + 256] - center, axis=-1) for i in range(0, len(shapes), 256)
    ]
    return np.concatenate(parts).astype(np.float32)
