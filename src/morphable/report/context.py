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

from morphable.data.dataset import MeshDataset
from morphable.draw.camera import Camera, view_for
from morphable.draw.numbers import round_up
from morphable.draw.render import render
from morphable.errors import InputError
from morphable.evaluate.errors import vertex_errors
from morphable.models.base import MorphableModel
from morphable.models.pca import Pca, PcaConfig
from morphable.report.latent import Walk, all_walks, draw
from morphable.rows import evenly_spread

MAX_MESHES = 300
"""Test meshes, evenly spread, whose errors are drawn; the numbers of evaluation.json are over all
of them.
"""
MAX_PCA_MESHES = 2000
"""Training meshes, evenly spread, that PCA's pictures are made from; its numbers are from
evaluation.json.
"""
SHOWN = 6
"""Test meshes in the gallery."""
SAMPLES = 12
MAX_GROWTH = 1.2
"""How much samples and walks may widen the frame that the measured meshes need."""
MODEL, PCA, MEAN = "model", "PCA", "mean shape"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Errors (N, V) mm of the drawn test meshes by method: `model`, `PCA` (unless the model is
    PCA), `mean shape`.
    """

    errors: Mapping[str, np.ndarray]

    def per_mesh(self, name: str) -> np.ndarray:
        """(N,) mm"""
        return np.asarray(self.errors[name].mean(axis=1, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class ReportContext:
    """model: in evaluation mode. dataset: the whole set, of the model's template. evaluation:
    evaluation.json's content. metrics: the rows of metrics.jsonl, empty for an estimated model.
    folder: the run's, where there is one.
    """

    model: MorphableModel
    dataset: MeshDataset
    evaluation: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    folder: Path | None = None

    @property
    def name(self) -> str:
        return self.model.family or type(self.model).__name__

    @property
    def latent(self) -> int:
        return self.model.parts.free_size

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        return self.evaluation.get("provenance", {})

    @cached_property
    def split(self) -> str:
        known = self.provenance.get("split") or self.model.provenance.get("split")
        return str(known or self.dataset.default_split())

    @cached_property
    def part(self) -> str:
        return str(self.provenance.get("part") or "test")

    @cached_property
    def measured(self) -> MeshDataset:
        """The meshes that evaluation.json is about."""
        return self.dataset.part(self.split, self.part)

    @cached_property
    def test(self) -> MeshDataset:
        """At most MAX_MESHES of them, evenly spread."""
        if not len(self.measured):
            raise InputError(f"split {self.split}: subset {self.part} has no mesh to show")
        return self.measured.select(evenly_spread(len(self.measured), MAX_MESHES))

    @cached_property
    def subjects(self) -> np.ndarray:
        """(N,) group of each drawn test mesh: its subject, or its own if that is not known."""
        return self.test.labels.groups()

    @cached_property
    def pca(self) -> Pca | None:
        """PCA at the model's latent size; None where the model is PCA itself."""
        if isinstance(self.model, Pca):
            return None
        train = self.dataset.part(self.split, "train")
        chosen = train.vertices.select(evenly_spread(len(train), MAX_PCA_MESHES))
        pca = Pca.estimate(self.model.template, chosen, {}, PcaConfig(self.latent))
        pca.eval()
        return pca

    @cached_property
    def pca_meshes(self) -> tuple[int, int]:
        """How many training meshes PCA's pictures are made from, and how many there are."""
        count = len(self.dataset.split(self.split).train)
        return min(count, MAX_PCA_MESHES), count

    @cached_property
    def mean_shape(self) -> np.ndarray:
        """(V, 3) mm mean of the training meshes, at most MAX_PCA_MESHES of them."""
        linear = self.model if isinstance(self.model, Pca) else self.pca
        assert linear is not None
        return linear.mean.detach().cpu().numpy().reshape(-1, 3)

    @cached_property
    def comparison(self) -> Comparison:
        vertices = self.test.vertices
        errors = {MODEL: vertex_errors(self.model, vertices)}
        if self.pca is not None:
            errors[PCA] = vertex_errors(self.pca, vertices)
        center = self.mean_shape.astype(np.float32)
        errors[MEAN] = np.concatenate(
            [np.linalg.norm(part - center, axis=-1) for part in vertices.blocks()]
        )
        return Comparison(errors)

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
        errors = self.comparison.errors
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

    def reconstruct(self, vertices: np.ndarray, model: MorphableModel | None = None) -> np.ndarray:
        """(n, V, 3) mm -> (n, V, 3) mm by the model, or by another one."""
        model = model or self.model
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(vertices).to(model.device)).cpu().numpy())

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
