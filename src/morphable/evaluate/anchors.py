"""anchors: the error of whole meshes that are fitted to a few known vertices, for any decoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from morphable.evaluate.errors import summary
from morphable.evaluate.evaluation import MODEL, PCA, Evaluation
from morphable.fitting.fit import fit
from morphable.fitting.problem import known_parts
from morphable.mesh.landmarks import Landmarks
from morphable.models.base import MorphableModel
from morphable.rows import evenly_spread

COUNTS = (50, 100, 200, 500)
"""Numbers of known vertices."""
MESHES = 4
"""Meshes, evenly spread, that are fitted: each takes some twenty decodings per number."""


def anchor_errors(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The anchors-to-mesh curve of the model and of PCA, which is what a decoder without an encoder
    is good for: the vertex error of whole meshes from 50 to 500 known vertices.

    Empty for a model without a prior, which could not tell what was not seen.
    """
    rows = evenly_spread(len(evaluation.codes), MESHES)
    given = known_parts(evaluation.model, evaluation.codes[rows].to(evaluation.model.device))
    result = {}
    for name, model in ((MODEL, evaluation.model), (PCA, evaluation.pca)):
        if model.prior is not None:
            known = given if name == MODEL else {}
            result[name] = _curve(model, evaluation, rows, known)
    return result if evaluation.model.prior is not None else {}


def _curve(
    model: MorphableModel, evaluation: Evaluation, rows: np.ndarray, given: Any
) -> dict[str, Any]:
    shapes, groups = evaluation.measured.vertices[rows], evaluation.groups[rows]
    order = np.random.default_rng(0).permutation(model.template.n_vertices)
    measures = {}
    for count in COUNTS:
        if count < model.template.n_vertices:
            anchors = Landmarks(order[:count], shapes[:, order[:count]])
            found = fit(model, anchors, given=given, pose="none")
            errors = np.linalg.norm(found.vertices - shapes, axis=-1).mean(1)
            measures[f"anchor_error_mm/{count}"] = summary(errors, groups)
    return measures
