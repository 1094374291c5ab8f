"""ReportContext: what the sections of a report share, computed once: the test meshes, their errors,
the camera.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.data.neutral import NeutralTargets, neutral_targets
from morphable.draw.camera import Camera, view_for
from morphable.draw.numbers import round_up
from morphable.draw.render import render
from morphable.errors import InputError
from morphable.evaluate.evaluation import MEAN_SHAPE, MODEL, PCA
from morphable.evaluate.record import Measured
from morphable.models.base import MorphableModel
from morphable.models.pca import Pca
from morphable.report.latent import Walk, all_walks, draw
from morphable.rows import evenly_spread

MAX_MESHES = 300
"""Test meshes, evenly spread, whose errors are drawn; the numbers of evaluation.json are over all
of them.
"""
SHOWN = 6
"""Test meshes in the gallery."""
SAMPLES = 12
MAX_GROWTH = 1.2
"""How much samples and walks may widen the frame that the measured meshes need."""


@dataclass(frozen=True, eq=False)
class ReportContext:
    """result: the evaluation and its measures. metrics: the rows of metrics.jsonl, empty for an
    estimated model. folder: the run's, if there is one.
    """

    result: Measured
    metrics: Sequence[Mapping[str, Any]]
    folder: Path | None = None

    @property
    def model(self) -> MorphableModel:
        return self.result.evaluation.model

    @property
    def dataset(self) -> MeshDataset:
        """The whole dataset, of which the measured meshes are a selection."""
        return self.result.evaluation.data.whole

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """The content of evaluation.json."""
        return self.result.measures

    @property
    def name(self) -> str:
        return self.model.family or type(self.model).__name__

    @property
    def latent(self) -> int:
        return self.model.parts.free_size

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.evaluation.get("provenance", {})

    @property
    def split(self) -> str:
        return self.result.evaluation.data.name

    @property
    def part(self) -> str:
        """The measured subset."""
        return self.result.evaluation.subset

    @property
    def measured(self) -> MeshDataset:
        """The meshes that evaluation.json is about."""
        return self.result.evaluation.measured

    @cached_property
    def rows(self) -> np.ndarray:
        """(N,) rows of the measured meshes that are drawn: at most MAX_MESHES, evenly spread."""
        return evenly_spread(len(self.measured), MAX_MESHES)

    @cached_property
    def test(self) -> MeshDataset:
        """The drawn test meshes."""
        return self.measured.select(self.rows)

    @cached_property
    def codes(self) -> Tensor:
        """(N, L) codes of the drawn test meshes."""
        return self.result.evaluation.codes[torch.from_numpy(self.rows)]

    @cached_property
    def subjects(self) -> np.ndarray:
        """(N,) subject number of each drawn test mesh; a number of its own if that is not known."""
        return self.result.evaluation.groups[self.rows]

    @cached_property
    def neutral(self) -> NeutralTargets:
        """The neutral mesh of each mesh of the whole dataset."""
        return neutral_targets(self.dataset)

    @property
    def pca(self) -> Pca | None:
        """PCA at the model's latent size; None if the model is PCA itself."""
        return None if isinstance(self.model, Pca) else self.result.evaluation.pca

    @property
    def mean_shape(self) -> np.ndarray:
        """(V, 3) mm mean of the training meshes."""
        return self.result.evaluation.mean_shape

    @cached_property
    def errors(self) -> Mapping[str, np.ndarray]:
        """(N, V) mm vertex errors of the drawn test meshes by method; PCA's unless it is the model."""
        methods = (MODEL, MEAN_SHAPE) if self.pca is None else (MODEL, PCA, MEAN_SHAPE)
        errors = self.result.evaluation.errors
        return {method: errors(method, self.rows) for method in methods}

    def mesh_errors(self, method: str) -> np.ndarray:
        """(N,) mm mean vertex error of each drawn test mesh by a method."""
        return self.result.evaluation.mesh_errors[method][self.rows]

    def method_name(self, method: str) -> str:
        """What a method is called in the report."""
        names = {MODEL: self.name, PCA: f"PCA, {self.latent} latents", MEAN_SHAPE: "mean shape"}
        return names[method]

    @cached_property
    def triangles(self) -> np.ndarray:
        return self.model.template.mesh.triangles

    @cached_property
    def samples(self) -> np.ndarray:
        """(SAMPLES, V, 3) mm draws from the prior. Raises InputError where the model has none to
        draw from.
        """
        return draw(self.model, SAMPLES)

    @cached_property
    def walks(self) -> list[Walk]:
        return all_walks(self.model)

    @cached_property
    def error_limit(self) -> float:
        """The end of the color scale of errors in mm, the same wherever single meshes are shown."""
        errors = self.errors
        return scale_end(np.stack([errors[name] for name in (MODEL, PCA) if name in errors]))

    @cached_property
    def camera(self) -> Camera:
        """One camera for all pictures: its frame holds the measured meshes, and samples and walks
        within reason.
        """
        camera = view_for(
            self.model.template, self.test.vertices[evenly_spread(len(self.test), 100)]
        )
        shapes = [shape for walk in self.walks for shape in walk.shapes]
        with contextlib.suppress(InputError):
            shapes += list(self.samples)
        return camera.widened(shapes, MAX_GROWTH)

    def picture(
        self, vertices: np.ndarray, height: int, colors: np.ndarray | None = None, yaw: float = 0
    ) -> np.ndarray:
        """(h, w, 4) picture of a shape (V, 3) mm under the report's camera, or from `yaw` degrees
        around.
        """
        camera = self.camera.turned(yaw) if yaw else self.camera
        return render(vertices, self.triangles, camera, self.camera.size(height), colors)

    def reconstruct(self, rows: np.ndarray, method: str = MODEL) -> np.ndarray:
        """(n, V, 3) mm shapes of drawn test meshes by the model, or by PCA."""
        return self.result.evaluation.reconstructions(self.rows[rows], method)

    def caption(self, row: int) -> str:
        """What is known of drawn test mesh `row`, in a few words."""
        labels = self.test.labels
        words = [
            str(labels[name][row])
            for name in ("subject", "expression", "sequence")
            if name in labels
        ]
        words = [word for word in words if word]
        if "frame" in labels:
            words.append(f"frame {labels['frame'][row]}")
        return ", ".join(words) or f"mesh {self.test.rows[row]}"


def middles(count: int, most: int) -> np.ndarray:
    """The middle of each of at most `most` equal runs of 0..count-1: evenly spread, without the
    ends.
    """
    parts = min(count, most)
    return ((np.arange(parts) + 0.5) * count / parts).astype(int)


def scale_end(values: np.ndarray) -> float:
    """The end of a color scale: a round number above 98 in 100 values."""
    return round_up(float(np.percentile(values, 98)))
