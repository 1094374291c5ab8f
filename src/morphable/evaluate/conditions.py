"""Conditions: what the labels of a dataset say of the pinned parts of a model, such as the
expression of a conditional VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.data.neutral import expression_levels, neutral_targets
from morphable.models.base import MorphableModel


@dataclass(frozen=True, eq=False)
class Conditions:
    """values: by part, (N, size). known: (N,) False for meshes whose labels do not say it; their
    values mean nothing.
    """

    values: Mapping[str, Tensor]
    known: np.ndarray

    @classmethod
    def of(cls, model: MorphableModel, dataset: MeshDataset) -> Conditions:
        """The conditions of every mesh of a dataset. None is known if the model does not search
        any part, because then no label decides a code.

        A mesh counts as known if the model has a class for its label. A model whose only condition
        is the level knows a mesh by its level.
        """
        if not model.searched_size:
            return cls({}, np.zeros(len(dataset), bool))
        labels: dict[str, Tensor] = {}
        known = np.ones(len(dataset), bool)
        for name, classes in model.label_classes.items():
            if name not in dataset.labels:
                return cls({}, np.zeros(len(dataset), bool))
            number = {text: index for index, text in enumerate(classes)}
            texts = dataset.labels[name].astype(str).tolist()
            numbers = np.array([number.get(text, -1) for text in texts], np.int64)
            labels[name] = torch.from_numpy(numbers)
            known &= numbers >= 0
        levels = expression_levels(dataset, neutral_targets(dataset))
        if levels is not None:
            labels["level"] = torch.from_numpy(levels.astype(np.float32))
        if not model.label_classes:
            known &= False if levels is None else np.isfinite(levels)
        given = model.given_by_labels(labels, len(dataset)) if known.any() else {}
        return cls({part: value.cpu() for part, value in given.items()}, known)

    def given(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The values of these rows, as `encode` takes them."""
        index = torch.from_numpy(rows)
        return {part: value[index] for part, value in self.values.items()}

    def pinned(self, model: MorphableModel, rows: np.ndarray) -> Tensor | None:
        """(M, n) the pinned numbers of those of the rows whose labels say them; None if none do."""
        rows = rows[self.known[rows]]
        if not len(rows):
            return None
        values = self.given(rows)
        return torch.cat([values[part] for part in model.parts.pinned_names], 1)


def sample_codes(
    model: MorphableModel, count: int, generator: torch.Generator, pinned: Tensor | None = None
) -> Tensor:
    """(count, L) codes from the prior. Raises InputError if the model has none.

    pinned: (M, n) pinned numbers of training meshes, from which those of the codes are drawn; if
    None, they are the prior's.
    """
    codes = model.require_prior().sample(count, generator)
    if pinned is not None:
        chosen = torch.randint(len(pinned), (count,), generator=generator)
        codes[:, torch.from_numpy(~model.parts.free)] = pinned[chosen].to(codes)
    return codes
