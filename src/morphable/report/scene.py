"""Scene: what can be drawn of an evaluation, namely its meshes with their errors and the model's
samples and walks, all under one camera. Each is computed once, on first use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.data.neutral import NeutralTargets, neutral_targets
from morphable.draw.camera import view_for
from morphable.draw.colors import scale_end
from morphable.draw.view import View
from morphable.errors import InputError
from morphable.evaluate.evaluation import MEAN_SHAPE, MODEL, PCA, Evaluation
from morphable.evaluate.referee import REAL
from morphable.models.base import MorphableModel
from morphable.models.pca import Pca
from morphable.report.latent import Walk, all_walks, draw
from morphable.rows import evenly_spread

MAX_MESHES = 300
"""Pictures and charts show at most this many of the measured meshes, evenly spread. The numbers of
evaluation.json are of all measured meshes.
"""
SAMPLES = 12
MAX_GROWTH = 1.2
"""Samples and walks may widen the frame of the measured meshes by at most this factor."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The drawable side of an evaluation. N: the number of drawn meshes, at most MAX_MESHES."""

    evaluation: Evaluation

    @property
    def model(self) -> MorphableModel:
        return self.evaluation.model

    @property
    def name(self) -> str:
        return self.model.family or type(self.model).__name__

    @property
    def latent(self) -> int:
        return self.evaluation.latent

    @cached_property
    def rows(self) -> np.ndarray:
        """(N,) rows of the measured meshes that are drawn, evenly spread."""
        return evenly_spread(len(self.evaluation.measured), MAX_MESHES)

    @cached_property
    def meshes(self) -> MeshDataset:
        """The drawn meshes."""
        return self.evaluation.measured.select(self.rows)

    @cached_property
    def codes(self) -> Tensor:
        """(N, L) their codes."""
        return self.evaluation.codes[torch.from_numpy(self.rows)]

    @cached_property
    def subjects(self) -> np.ndarray:
        """(N,) their subject numbers. A mesh whose subject is not known has a number of its own."""
        return self.evaluation.groups[self.rows]

    @cached_property
    def neutral(self) -> NeutralTargets:
        """The neutral mesh of each mesh of the whole dataset."""
        return neutral_targets(self.evaluation.data.whole)

    @property
    def pca(self) -> Pca | None:
        """PCA at the model's latent size; None if the model is PCA itself."""
        return None if isinstance(self.model, Pca) else self.evaluation.pca

    @cached_property
    def errors(self) -> Mapping[str, np.ndarray]:
        """(N, V) mm vertex errors by method; without PCA if the model is PCA itself."""
        methods = (MODEL, MEAN_SHAPE) if self.pca is None else (MODEL, PCA, MEAN_SHAPE)
        return {method: self.evaluation.errors(method, self.rows) for method in methods}

    def mesh_errors(self, method: str) -> np.ndarray:
        """(N,) mm mean vertex error of each drawn mesh by a method."""
        return self.evaluation.mesh_errors[method][self.rows]

    def reconstructions(self, rows: np.ndarray, method: str = MODEL) -> np.ndarray:
        """Return the reconstructions (n, V, 3) mm of drawn meshes by the model, or by PCA."""
        return self.evaluation.reconstructions(self.rows[rows], method)

    def method_name(self, method: str) -> str:
        """The name of a method on the page."""
        names = {
            MODEL: self.name,
            PCA: f"PCA, {self.evaluation.pca.latent}",
            MEAN_SHAPE: "mean shape",
            REAL: "real meshes",
        }
        return names.get(method, method.replace("_", "-"))

    def caption(self, row: int) -> str:
        """Describe a drawn mesh by its labels."""
        labels = self.meshes.labels
        columns = [name for name in ("subject", "expression", "sequence") if name in labels]
        # A sequence often has the name of its expression, which should not be repeated.
        words = [word for word in dict.fromkeys(str(labels[name][row]) for name in columns) if word]
        if "frame" in labels and np.isfinite(labels["frame"][row]):
            words.append(f"frame {str(labels['frame'][row]).removesuffix('.0')}")
        return ", ".join(words) or f"mesh {self.meshes.rows[row]}"

    @cached_property
    def samples(self) -> np.ndarray:
        """(SAMPLES, V, 3) mm draws from the prior. Raises InputError if the model has none."""
        return draw(self.model, SAMPLES)

    @cached_property
    def walks(self) -> list[Walk]:
        """Walks along the principal directions of the prior."""
        return all_walks(self.model)

    @cached_property
    def error_limit(self) -> float:
        """The end in mm of the color scale of errors, one for all pictures of single meshes."""
        errors = self.errors
        return scale_end(np.stack([errors[name] for name in (MODEL, PCA) if name in errors]))

    @cached_property
    def view(self) -> View:
        """The view of all pictures. Its frame holds the measured meshes; samples and walks may
        widen it by MAX_GROWTH.
        """
        template = self.model.template
        camera = view_for(template, self.meshes.vertices[evenly_spread(len(self.meshes), 100)])
        shapes = [shape for walk in self.walks for shape in walk.shapes]
        with contextlib.suppress(InputError):  # a model without a prior has no samples
            shapes += list(self.samples)
        return View(camera.widened(shapes, MAX_GROWTH), template.mesh.triangles)


def middles(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` evenly spread numbers of 0..count-1: the middles of equal runs, which
    leave out the ends.
    """
    runs = min(count, limit)
    return ((np.arange(runs) + 0.5) * count / runs).astype(int)
