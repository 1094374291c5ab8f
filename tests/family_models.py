"""One small trained model per family, for the tests that hold for every family."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from morphable.data.dataset import MeshDataset
from morphable.models.base import EstimatedModel, LearnedModel, MorphableModel, Origin
from morphable.models.families import MODELS, create
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.train.batches import TrainingData
from morphable.train.distributed import Workers
from morphable.train.learner import learner_for
from morphable.train.run import fit_prior

STEPS = 30
LIGHTER: dict[str, dict[str, Any]] = {
    "ib-vae": {"samples": (32, 16), "neighbors": 8},
    "cvae": {"samples": (32, 16), "neighbors": 8},
    "multilinear": {"expression": 2},
    "two-space": {"pair_count": 100},
    "rotation-mlp": {"features": "rotations", "triangles": 60, "rank": 64},
    "gan": {"resolution": 32, "search_steps": 60},
    "mae": {"identity": 7, "expression": 8},
    "deepflame": {"identity": 7, "expression": 8},
    "ac-gan": {"resolution": 32, "search_steps": 60},
}
"""Settings that make the training steps of a family fast enough for a test, and that two gestures
carry.
"""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{family}, start=random": (family, {"start": "random"}) for family in ("coma", "spiralnet++")
} | {
    "local-weights, start=linear": ("local-weights", {"start": "linear"}),
    "lamm, start=pca": ("lamm", {"start": "pca"}),
    "two-space, scans=true": ("two-space", {"scans": True}),
    "two-space, conditional=true": ("two-space", {"conditional": True}),
}
"""Options that change what encoder and decoder are, which are tested like families of their own."""

_MADE: dict[str, MorphableModel] = {}


def training(dataset: MeshDataset) -> TrainingData:
    return TrainingData.of(dataset, ("subject", "expression", "level"))


def progress(step: int) -> Progress:
    return Progress(step // 5, STEPS // 5, step, 5, torch.Generator().manual_seed(step))


def batch(data: TrainingData) -> Batch:
    vertices = torch.from_numpy(np.asarray(data.vertices[:]))
    labels = {name: torch.from_numpy(column) for name, column in data.labels.items()}
    return Batch(vertices, vertices[data.neutral.index], labels)


def trained_family(name: str, gestures: MeshDataset) -> MorphableModel:
    """A model of the family, trained for a few steps on two dozen hands, with its prior fitted.

    It is made once per process. Tests must not change it.
    """
    if name not in _MADE:
        _MADE[name] = _trained(name, gestures)
    return _MADE[name]


def _trained(name: str, gestures: MeshDataset) -> MorphableModel:
    torch.manual_seed(0)
    name, changes = VARIANTS.get(name, (name, {}))
    row = MODELS[name]
    data = training(gestures)
    config = dataclasses.replace(row.fast.model, **LIGHTER.get(name, {}), **changes)
    if issubclass(row.model, EstimatedModel):
        estimated = row.model.estimate(gestures.template, *data.at_start(with_neutral=True), config)
        return estimated.eval().with_origin(Origin(name))
    classes = {name: gestures.labels.classes(name).names for name in ("subject", "expression")}
    config = row.model.config_for(config, classes, len(data))
    shapes, people = gestures.vertices, gestures.labels.groups
    config = row.model.config_by_shapes(config, gestures.template, shapes, people)
    made = create(name, gestures.template, config)
    assert isinstance(made, LearnedModel)
    made.initialize(*data.at_start(with_neutral=True))
    settings = TrainConfig(learning_rate=1e-3, schedule="constant", warmup=0.0)
    learner = learner_for(made, settings, Workers(0, 1, torch.device("cpu")))
    for step in range(STEPS):
        learner.step(batch(data), progress(step))
    made.eval()
    if made.prior_is_fitted:
        fit_prior(made, data)
    return made
