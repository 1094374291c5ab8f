"""Evaluation: the codes and errors of a model on held-out meshes, from which all measures are
computed.

Encoding can cost a thousand optimizer steps per mesh (a GAN is inverted), so each mesh is encoded
only once, here. Measures, report and benchmark use the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset, SplitDataset
from morphable.evaluate.conditions import Conditions
from morphable.models.base import MorphableModel, Shapes
from morphable.models.batched import BATCH, decode_all, encode_all
from morphable.models.carried import NOTHING
from morphable.models.pca import Pca, PcaConfig
from morphable.models.principal_basis import principal_basis

MODEL, PCA, MEAN_SHAPE = "model", "pca", "mean_shape"
METHODS = (MODEL, PCA, MEAN_SHAPE)
"""The model and its baselines: PCA of the same latent size, and the mean of the training meshes."""
CURVE_LATENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Latent sizes at which PCA's error is measured."""
CURVE_REACH = 64
"""PCA's error is measured up to this latent size, or up to the model's if that is larger."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model and its baselines on the meshes of one subset of a split.

    codes: (N, L), of the measured meshes. pca: PCA of the training meshes, at the size `latent` or,
    if there are too few training meshes, at the largest possible size. pca_codes: (N, K).
    pca_curve: PCA's mean vertex error in mm by latent size. mesh_errors: by method, (N,) mm, the
    mean vertex error of each mesh. conditions: what the labels state about the pinned parts, for
    every mesh of the dataset; the model searches the conditions of meshes without such labels.
    """

    model: MorphableModel
    data: SplitDataset
    subset: str
    codes: Tensor
    pca: Pca
    pca_codes: Tensor
    pca_curve: Mapping[int, float]
    mesh_errors: Mapping[str, np.ndarray]
    conditions: Conditions
    searched_errors: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    """Errors like `_errors`, of MODEL and PCA, if every condition is searched instead. PCA then has
    as many more numbers as are searched."""
    _errors: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    """Vertex errors (N, V) mm by method, kept so that the measures need not compute them again."""

    @classmethod
    def of(cls, model: MorphableModel, data: SplitDataset, subset: str = "test") -> Evaluation:
        """Encode every mesh of the subset once, with the model and with PCA of the training meshes.

        If the model can search conditions that the labels state, it also encodes without them.
        """
        # One PCA serves the baseline and the whole curve: its leading components are those of every
        # smaller PCA.
        shapes, conditions = data.subset(subset).vertices, Conditions.of(model, data.whole)
        places = data.split.subset(subset)
        known = conditions.known[places]
        most = len(data.train) - 1
        wide = min(model.latent + model.searched_size, most)
        latent = min(model.latent, most) if known.all() else wide
        reach = min(max(wide, CURVE_REACH), most)
        basis = principal_basis(data.train.vertices, reach).existing(NOTHING)
        largest = Pca.of_basis(model.template, basis, PcaConfig(len(basis.deviations))).eval()
        latent, wide = min(latent, largest.latent), min(wide, largest.latent)
        largest_codes = encode_all(largest, shapes)
        curve = {}
        for size in CURVE_LATENTS:
            if size <= largest.latent:
                truncated, codes = largest.truncate(size), largest_codes[:, :size]
                curve[size] = float(code_errors(truncated, codes, shapes).mean())
        pca, pca_codes = largest.truncate(latent), largest_codes[:, :latent]
        codes, searched_errors = encode_all(model, shapes), {}
        if known.any():
            wider, wider_codes = largest.truncate(wide), largest_codes[:, :wide]
            searched_errors[MODEL] = code_errors(model, codes, shapes)
            searched_errors[PCA] = code_errors(wider, wider_codes, shapes)
            rows = np.flatnonzero(known)
            given = conditions.given(places[rows])
            codes[torch.from_numpy(rows)] = encode_all(model, shapes.select(rows), given=given)
        errors = {
            MODEL: code_errors(model, codes, shapes),
            PCA: code_errors(pca, pca_codes, shapes),
            MEAN_SHAPE: _distances(_mean_shape(pca), shapes),
        }
        per_mesh = {name: error.mean(1, dtype=np.float64) for name, error in errors.items()}
        return cls(
            model,
            data,
            subset,
            codes,
            pca,
            pca_codes,
            curve,
            per_mesh,
            conditions,
            searched_errors,
            errors,
        )

    @property
    def latent(self) -> int:
        """The numbers that describe a measured mesh: the latent size, and the numbers that are
        searched if the labels do not say them of every mesh.
        """
        all_known = self.known.all()
        return self.model.latent + (0 if all_known else self.model.searched_size)

    @cached_property
    def places(self) -> np.ndarray:
        """(N,) row of each measured mesh in the whole dataset."""
        return self.data.split.subset(self.subset)

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) True for the measured meshes whose condition is that of their labels."""
        return self.conditions.known[self.places]

    @cached_property
    def training_conditions(self) -> Tensor | None:
        """(M, n) the pinned numbers of the training meshes that their labels say; None if they say
        none.
        """
        return self.conditions.pinned(self.model, self.data.split.train)

    @cached_property
    def measured(self) -> MeshDataset:
        """The measured meshes, in the order of `codes`."""
        return self.data.subset(self.subset)

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) group of each measured mesh: its subject, or a group of its own if that is unknown."""
        return self.measured.labels.groups()

    @cached_property
    def mean_shape(self) -> np.ndarray:
        """(V, 3) mm mean of the training meshes."""
        return _mean_shape(self.pca)

    def coded(self, method: str) -> tuple[MorphableModel, Tensor]:
        """The model of a method (`model` or `pca`), and its codes (N, L) of the measured meshes."""
        return (self.pca, self.pca_codes) if method == PCA else (self.model, self.codes)

    def reconstructions(self, rows: np.ndarray, method: str = MODEL) -> np.ndarray:
        """(n, V, 3) mm reconstructions by a method of the given rows of `measured`."""
        model, codes = self.coded(method)
        return decode_all(model, codes[torch.from_numpy(rows)])

    def errors(self, method: str, rows: np.ndarray | None = None) -> np.ndarray:
        """(n, V) float32 mm vertex errors of a method on the given rows of `measured`; on all if
        None.
        """
        if method in self._errors:
            known = self._errors[method]
            return known if rows is None else known[rows]
        rows = np.arange(len(self.codes)) if rows is None else rows
        shapes = self.measured.vertices.select(rows)
        if method == MEAN_SHAPE:
            return _distances(self.mean_shape, shapes)
        model, codes = self.coded(method)
        return code_errors(model, codes[torch.from_numpy(rows)], shapes)


def code_errors(model: MorphableModel, codes: Tensor, shapes: Shapes) -> np.ndarray:
    """(N, V) float32 mm distances between decoded codes (N, L) and `shapes` (N, V, 3) mm."""
    errors = np.empty(shapes.shape[:2], np.float32)
    for start in range(0, len(shapes), BATCH):
        rows = slice(start, start + BATCH)
        target = torch.from_numpy(np.asarray(shapes[rows])).to(model.device)
        with torch.no_grad():
            decoded = model.decode(codes[rows].to(model.device))
        errors[rows] = (decoded - target).norm(dim=-1).cpu().numpy()
    return errors


def _mean_shape(pca: Pca) -> np.ndarray:
    return np.asarray(pca.basis.mean.cpu().numpy().reshape(-1, 3))


def _distances(shape: np.ndarray, shapes: Shapes) -> np.ndarray:
    """(N, V) float32 mm distances between `shapes` (N, V, 3) mm and one shape (V, 3) mm."""
    chunks = [
        np.linalg.norm(shapes[start : start + 256] - shape, axis=-1)
        for start in range(0, len(shapes), 256)
    ]
    return np.concatenate(chunks).astype(np.float32)
