"""measure: computes all measures of a model, and those of the baselines, the mean shape and PCA of
the same latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.evaluate.anchors import anchor_errors
from morphable.evaluate.conditions import sample_codes
from morphable.evaluate.directions import principal_directions
from morphable.evaluate.disentangle import disentanglement
from morphable.evaluate.edit_errors import editing
from morphable.evaluate.errors import summary
from morphable.evaluate.evaluation import MEAN_SHAPE, METHODS, MODEL, PCA, Evaluation
from morphable.evaluate.intervals import described
from morphable.evaluate.part_measures import part_measures
from morphable.evaluate.scans import scan_errors
from morphable.mesh.distance import surface_distance
from morphable.mesh.intersections import self_intersecting_faces
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Shapes
from morphable.models.batched import decode_all
from morphable.rows import evenly_spread

SURFACE_MESHES = 20
"""Surface distance and self-intersections are measured on this many meshes, evenly spread."""
SAMPLES = 100
"""Number of shapes sampled for specificity."""
SPECIFICITY_MESHES = 2000
"""Number of training meshes, evenly spread, among which the nearest to a sample is searched."""
COMPACTNESS_MESHES = 200
"""Number of meshes, evenly spread, on which compactness is measured."""
COMPACTNESS_DIRECTIONS = 32
"""Compactness is measured for up to this many directions."""

Measurer = Callable[[Evaluation], dict[str, dict[str, Any]]]
"""A function that computes measures of "model", and of baselines by name. Its result is empty if
the measures do not apply to the model.
"""
MEASURERS: tuple[Measurer, ...] = (
    disentanglement,
    editing,
    part_measures,
    anchor_errors,
    scan_errors,
)
"""Measures that apply only to some models. Each measurer decides to which."""


def measure(evaluation: Evaluation) -> dict[str, Any]:
    """Compute the content of evaluation.json:

    `{"model": R, "baselines": {"mean_shape": R, "pca": R}, "pca_curve": {latent size: mean mm},
    "provenance": {...}}`, where R holds measures by name.
    """
    template, groups = evaluation.model.template, evaluation.groups
    errors = {name: error_measures(template, evaluation.errors(name), groups) for name in METHODS}
    result: dict[str, Any] = {
        "model": errors[MODEL] | shape_measures(evaluation),
        "baselines": {MEAN_SHAPE: errors[MEAN_SHAPE], PCA: errors[PCA]},
        "pca_curve": dict(evaluation.pca_curve),
    }
    for name, values in evaluation.searched_errors.items():
        row = result["model"] if name == MODEL else result["baselines"][name]
        row["searched_vertex_error_mm"] = summary(values, groups)
    for measurer in MEASURERS:
        for name, measures in measurer(evaluation).items():
            row = result["model"] if name == "model" else result["baselines"].setdefault(name, {})
            row.update(measures)
    return result | {"provenance": provenance(evaluation)}


def provenance(evaluation: Evaluation) -> dict[str, Any]:
    """The model, the data and the settings of an evaluation, so that it can be repeated."""
    model, data = evaluation.model, evaluation.data
    subjects = len(set(evaluation.groups.tolist()))
    return {
        "model": dict(model.provenance),
        "data": str(data.whole.path.resolve()),
        "content_hash": data.whole.info["content_hash"],
        "split": data.name,
        "part": evaluation.subset,
        "split_hash": data.split.hash,
        "meshes": len(evaluation.measured),
        "subjects": subjects,
        "intervals": described(subjects),
        "train_meshes": len(data.train),
        "latent": model.latent,
        "pca_latent": evaluation.pca.latent,
        **_conditions(evaluation),
        "family": model.family,
        "threads": torch.get_num_threads(),
    }


def _conditions(evaluation: Evaluation) -> dict[str, int]:
    """On how many meshes the conditions are from labels, and on how many searched, each with the
    numbers that a search chooses; nothing for a model that does not search.
    """
    size = evaluation.model.searched_size
    if not size:
        return {}
    known = int(evaluation.known.sum())
    searched = len(evaluation.known) - known
    return {"labelled_meshes": known, "searched_meshes": searched, "searched_numbers": size}


def error_measures(
    template: Template, errors: np.ndarray, subjects: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Statistics of vertex errors (N, V) mm: pooled over all vertices, per mesh, and pooled over
    each region and mask of the template.
    """
    measures = {
        "vertex_error_mm": summary(errors, subjects, seed),
        "mesh_error_mm": summary(errors.mean(1, dtype=np.float64), subjects, seed),
    }
    for name, vertices in areas(template).items():
        measures[f"vertex_error_mm/{name}"] = summary(errors[:, vertices], subjects, seed)
    return measures


def areas(template: Template) -> Mapping[str, np.ndarray]:
    """Vertices of each region and mask of the template, by name."""
    names = template.regions.names if template.regions else ()
    return {name: template.region(name) for name in names} | {
        name: np.flatnonzero(mask) for name, mask in template.masks.items()
    }


def shape_measures(evaluation: Evaluation, seed: int = 0) -> dict[str, Any]:
    """Surface distance and self-intersections; specificity and compactness if the model has a prior."""
    model = evaluation.model
    rows = evenly_spread(len(evaluation.codes), SURFACE_MESHES)
    shapes, truth = evaluation.reconstructions(rows), evaluation.measured.vertices[rows]
    triangles = model.template.mesh.triangles
    distances = [surface_distance(a, b, triangles) for a, b in zip(shapes, truth, strict=True)]
    crossing = [len(self_intersecting_faces(shape, triangles)) for shape in shapes]
    of_truth = [len(self_intersecting_faces(shape, triangles)) for shape in truth]
    measures = {
        "surface_distance_mm": float(np.mean(distances)),
        "self_intersections": float(np.mean(crossing) - np.mean(of_truth)),
        "self_intersections_of_truth": float(np.mean(of_truth)),
    }
    if model.prior is None:
        return measures
    return measures | {
        "specificity_mm": specificity(
            model, evaluation.data.train.vertices, seed, conditions=evaluation.training_conditions
        ),
        "compactness": compactness(evaluation),
    }


@torch.no_grad()
def specificity(
    model: MorphableModel,
    train: Shapes,
    seed: int = 0,
    samples: int = SAMPLES,
    conditions: Tensor | None = None,
) -> float:
    """Mean vertex distance (mm) of a sampled shape to the nearest training mesh, averaged over
    samples (Styner et al. 2003).

    conditions: (M, n) pinned numbers of training meshes, from which those of the samples are drawn;
    if None, they are the prior's.
    """
    # One mesh at a time, because the training meshes may not fit in memory.

    rows = evenly_spread(len(train), SPECIFICITY_MESHES)
    generator = torch.Generator().manual_seed(seed)
    codes = sample_codes(model, samples, generator, conditions)
    drawn = model.decode(codes).cpu()
    nearest = torch.full((samples,), torch.inf)
    for row in rows:
        mesh = torch.from_numpy(np.asarray(train[int(row)]))
        nearest = torch.minimum(nearest, (drawn - mesh).norm(dim=-1).mean(-1))
    return float(nearest.mean())


@torch.no_grad()
def compactness(evaluation: Evaluation) -> list[float]:
    """Share of the variance of the meshes that the first k principal directions explain, for k = 1,
    2, ...

    The codes of the meshes are projected onto the first k directions of the prior and decoded. For
    PCA, this is the classical compactness. The conditions of a conditional model vary as those of
    the training meshes do. Empty if the meshes do not vary, as a single one.
    """
    model = evaluation.model
    rows = evenly_spread(len(evaluation.codes), COMPACTNESS_MESHES)
    shapes = torch.from_numpy(evaluation.measured.vertices[rows])
    total = (shapes - shapes.mean(0)).square().sum()
    if total == 0:
        return []
    prior = model.require_prior()
    if evaluation.training_conditions is not None:
        prior = prior.with_pinned(evaluation.training_conditions)
    mean = prior.mean
    directions = principal_directions(model, most=COMPACTNESS_DIRECTIONS, prior=prior)
    axes = torch.nn.functional.normalize(directions).T
    offsets = evaluation.codes[rows].to(mean) - mean
    shares = []
    for k in range(1, axes.shape[1] + 1):
        projected = mean + offsets @ axes[:, :k] @ axes[:, :k].T
        decoded = torch.from_numpy(decode_all(model, projected))
        shares.append(float(1 - (decoded - shapes).square().sum() / total))
    return shares
