"""Scans: how well a model that encodes points in any order reconstructs meshes from simulated scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.evaluate.errors import summary
from morphable.evaluate.evaluation import MODEL, Evaluation
from morphable.models.batched import decode_all
from morphable.models.point_encoder import SCAN_NOISE_MM
from morphable.ops.pointcloud import MIN_POINTS
from morphable.rows import evenly_spread

SHARE = 0.25
"""The share of the vertices that a simulated scan keeps."""
MESHES = 100
"""Scans of at most so many meshes, evenly spread, are measured."""


def scan_errors(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The vertex error of meshes that are reconstructed from a simulated scan each. Empty for a
    model that does not encode points.
    """
    if not evaluation.model.encodes_points:
        return {}
    rows = evenly_spread(len(evaluation.codes), MESHES)
    shapes = evaluation.measured.vertices[rows]
    found = decode_all(evaluation.model, codes_of_scans(evaluation, scattered(shapes), rows))
    errors = np.linalg.norm(found - shapes, axis=-1)
    return {MODEL: {"scan_error_mm": summary(errors, evaluation.groups[rows])}}


def scattered(vertices: np.ndarray) -> np.ndarray:
    """Return a random quarter (n, P, 3) float32 mm of vertices (n, V, 3), shuffled, with noise."""
    random = np.random.default_rng(0)
    count = max(MIN_POINTS, round(SHARE * vertices.shape[1]))
    kept = random.permutation(vertices.shape[1])[:count]
    noise = random.standard_normal((len(vertices), len(kept), 3))
    return (vertices[:, kept] + SCAN_NOISE_MM * noise).astype(np.float32)


@torch.no_grad()
def codes_of_scans(evaluation: Evaluation, clouds: np.ndarray, rows: np.ndarray) -> Tensor:
    """(n, L) codes of clouds (n, P, 3) mm of measured meshes, with the conditions that the labels of
    their meshes state; without labels with what the model finds from the points alone.

    rows: (n,) of the measured meshes.
    """
    model = evaluation.model
    codes = []
    for cloud, place in zip(clouds, evaluation.places[rows], strict=True):
        known = evaluation.conditions.known[place]
        given = evaluation.conditions.given(place[None]) if known else {}
        on_device = {part: value.to(model.device) for part, value in given.items()}
        points = torch.from_numpy(cloud)[None].to(model.device)
        codes.append(model.encode_points(points, on_device or None))
    return torch.cat(codes)
