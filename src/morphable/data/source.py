"""MeshSource: the meshes, labels and origin of a dataset, ready to be written as a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.splits import Split
from morphable.mesh.template import Template


@dataclass(frozen=True, eq=False)
class MeshSource:
    """Registered meshes of one template, produced in blocks so that no set has to fit into memory.

    template: the shared topology. labels: N rows. blocks: each call starts a new pass over the
    meshes and yields arrays (n, V, 3) float32 mm, in row order. info: `source`, `licence`, `unit`
    (the unit of the original data) and anything else about the data's origin. splits: published
    ones, by name, which are written besides those that follow from the labels.
    """

    template: Template
    labels: LabelTable
    blocks: Callable[[], Iterator[np.ndarray]]
    info: Mapping[str, Any]
    splits: Mapping[str, Split] = field(default_factory=dict)
