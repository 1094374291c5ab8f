"""Batches: batches of a dataset in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset, MeshStack
from morphable.data.neutral import expression_levels, neutral_targets
from morphable.models.base import Shapes
from morphable.models.training import Batch

RESIDENT_BYTES = 3 * 1024**3
"""Sets up to this size are kept in memory (on the GPU, where one trains); larger ones are read
batch by batch.
"""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What training reads: `vertices` (N, V, 3) mm, `neutral` (N,) rows of their neutral meshes (-1
    = none), `labels` (N,) classes, `level` in float32.

    Neutral meshes are training meshes, unless they were computed: then they are `neutral_shapes`
    (M, V, 3) mm.
    """

    vertices: Shapes
    neutral: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    neutral_shapes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.vertices)

    @classmethod
    def of(cls, dataset: MeshDataset, labels: tuple[str, ...] = ()) -> TrainingData:
        named = [name for name in labels if name != "level" and name in dataset.labels]
        columns = {name: dataset.labels.classes(name).numbers for name in named}
        targets = neutral_targets(dataset)
        levels = expression_levels(dataset, targets) if "level" in labels else None
        if levels is not None:
            columns["level"] = levels.astype(np.float32)
        vertices: Shapes = dataset.vertices
        if dataset.vertices.nbytes <= RESIDENT_BYTES:
            vertices = dataset.vertices[:]
        return cls(vertices, targets.rows, columns, targets.computed)

    def with_neutral_meshes(self) -> TrainingData:
        """The same with computed neutral meshes among the meshes, after all others: without a name,
        of level 0.
        """
        if self.neutral_shapes is None:
            return self
        stack = (
            self.vertices
            if isinstance(self.vertices, MeshStack)
            else MeshStack([np.asarray(self.vertices)])
        )
        known = self.neutral >= 0
        used, place = np.unique(self.neutral[known], return_inverse=True)
        own = len(self) + np.arange(len(used))
        rows = np.full(len(self), -1)
        rows[known] = own[place]
        labels = {
            name: np.pad(
                column, (0, len(own)), constant_values=0 if column.dtype.kind == "f" else -1
            )
            for name, column in self.labels.items()
        }
        return TrainingData(
            stack.joined(self.neutral_shapes[used]), np.concatenate([rows, own]), labels
        )


class Batches:
    """Batches for one process of `world`; every process sees its share of the same global batches."""

    def __init__(
        self,
        data: TrainingData,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.rank, self.world = rank, world
        resident = data.vertices if isinstance(data.vertices, np.ndarray) else None
        self._resident = None if resident is None else torch.from_numpy(resident).to(device)

    @property
    def steps(self) -> int:
        """Batches per epoch; a last batch too small to give every process a mesh is left out."""
        full, rest = divmod(len(self.data), self.batch_size)
        return full + (rest >= self.world)

    def rows(self, epoch: int) -> list[np.ndarray]:
        """The rows of each batch of an epoch that this process works on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.data))
        starts = range(0, self.steps * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size][self.rank :: self.world] for start in starts]

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `skip` on; the next one is read while the current one
        is worked on.
        """
        rows = self.rows(epoch)[skip:]
        if self._resident is not None or not rows:
            yield from map(self.batch, rows)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self.batch, item) for item in rows[:1]]
            for item in [*rows[1:], None]:
                ready = waiting.pop().result()
                if item is not None:
                    waiting.append(pool.submit(self.batch, item))
                yield ready

    def batch(self, rows: np.ndarray) -> Batch:
        neutral_rows = self.data.neutral[rows]
        neutral = self._neutral(neutral_rows) if (neutral_rows >= 0).all() else None
        labels = {
            name: torch.from_numpy(column[rows]).to(self.device)
            for name, column in self.data.labels.items()
        }
        return Batch(self._meshes(rows), neutral, labels)

    def _neutral(self, rows: np.ndarray) -> Tensor:
        if self.data.neutral_shapes is None:
            return self._meshes(rows)
        return torch.from_numpy(self.data.neutral_shapes[rows]).to(self.device)

    def _meshes(self, rows: np.ndarray) -> Tensor:
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)]
        return torch.from_numpy(self.data.vertices[rows]).to(self.device)
