"""Batches: the training batches, in an order that depends only on the seed and the epoch."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.data.mesh_stack import MeshStack
from morphable.data.neutral import NeutralTargets, expression_levels, neutral_targets
from morphable.models.base import Shapes
from morphable.models.training import Batch
from morphable.train.transported import Transported

RESIDENT_BYTES = 3 * 1024**3 // 2
"""Training meshes up to this size are kept in the memory of the device; larger sets are read batch
by batch.
"""

SPARSE = 0.5
"""A label that less than this share of the training meshes have is drawn in batches of its own."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What training reads.

    vertices: (N, V, 3) mm. neutral: the neutral mesh of each. labels: by name, (N,) class numbers
    with -1 = unknown; `level` is float32.
    """

    vertices: Shapes
    neutral: NeutralTargets
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vertices)

    @classmethod
    def of(cls, dataset: MeshDataset, labels: tuple[str, ...] = ()) -> TrainingData:
        """The training data of a dataset, with those of `labels` that it has."""
        numbers = ("level", "neutral")
        named = [name for name in labels if name not in numbers and name in dataset.labels]
        columns = {name: dataset.labels.classes(name).numbers for name in named}
        targets = neutral_targets(dataset)
        levels = expression_levels(dataset, targets) if "level" in labels else None
        if levels is not None:
            columns["level"] = levels.astype(np.float32)
        vertices: Shapes = dataset.vertices
        if dataset.vertices.nbytes <= RESIDENT_BYTES:
            vertices = dataset.vertices[:]
        return cls(vertices, targets, columns)

    def with_neutral_meshes(self) -> TrainingData:
        """Return the same data, with neutral meshes that were computed added at the end. Added
        meshes have no class (-1) and level 0.
        """
        if not self.neutral.computed:
            return self
        own = self.vertices
        stack = own if isinstance(own, MeshStack) else MeshStack([np.asarray(own)])
        known = self.neutral.index >= 0
        # Several meshes can share a neutral mesh. Add each that is used once, and point to it.
        used, place = np.unique(self.neutral.index[known], return_inverse=True)
        added = len(self) + np.arange(len(used))
        index = np.full(len(self), -1)
        index[known] = added[place]
        labels = {
            name: np.pad(
                column, (0, len(added)), constant_values=0 if column.dtype.kind == "f" else -1
            )
            for name, column in self.labels.items()
        }
        joined = stack.joined(self.neutral.meshes[used])
        targets = NeutralTargets(np.concatenate([index, added]), joined)
        return TrainingData(joined, targets, labels)

    def at_start(self, *, with_neutral: bool) -> tuple[Shapes, Mapping[str, np.ndarray]]:
        """The meshes and labels that a model is estimated or initialized from.

        with_neutral: whether neutral meshes that were computed are among them.
        """
        data = self.with_neutral_meshes() if with_neutral else self
        return data.vertices, {**data.labels, "neutral": data.neutral.index}


class Batches:
    """The batches of process `rank` out of `world`. Each process gets its share of the same global
    batches.

    made: meshes that replace their share of each epoch's training meshes. Their numbers follow
    those of the training meshes.
    """

    def __init__(
        self,
        data: TrainingData,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        drawn: Sequence[str] = (),
        made: Transported | None = None,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.rank, self.world, self.made = rank, world, made
        known = {name: np.flatnonzero(data.labels[name] >= 0) for name in drawn}
        # A label of most meshes is in every batch anyway.
        self.sparse = {
            name: rows for name, rows in known.items() if 0 < len(rows) < SPARSE * len(data)
        }
        resident = data.vertices if isinstance(data.vertices, np.ndarray) else None
        self._resident = None if resident is None else torch.from_numpy(resident).to(device)

    def of_size(self, batch_size: int) -> Batches:
        """The same meshes in batches of another size. Both share the meshes in memory."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    @property
    def steps(self) -> int:
        """Number of batches per epoch. A last batch that is too small to give every process a mesh
        is left out.
        """
        full, rest = divmod(len(self.data), self.batch_size)
        return full + (rest >= self.world)

    def rows(self, epoch: int) -> list[np.ndarray]:
        """The numbers of this process's meshes, for each batch of an epoch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self._drawn_in(epoch))
        starts = range(0, self.steps * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size][self.rank :: self.world] for start in starts]

    def _drawn_in(self, epoch: int) -> np.ndarray:
        """The numbers of the meshes of an epoch, as many as there are training meshes."""
        count = len(self.data)
        if self.made is None:
            return np.arange(count)
        made = round(self.made.share * count)
        own = self._following(count, count - made, epoch, 0)
        return np.concatenate([own, count + self._following(len(self.made), made, epoch, 1)])

    def _following(self, total: int, count: int, epoch: int, kind: int) -> np.ndarray:
        """The next `count` out of `total` numbers, in rounds that draw each number once."""
        start, end = epoch * count, (epoch + 1) * count
        rounds = [
            np.random.default_rng((self.seed, number, kind, 0)).permutation(total)
            for number in range(start // total, -(-end // total))
        ]
        skipped = start // total * total
        return np.concatenate([*rounds, np.arange(0)])[start - skipped : end - skipped]

    def labelled_rows(self, epoch: int, name: str) -> list[np.ndarray]:
        """Like `rows`, but only of meshes that have the label `name`, as often as it takes."""
        number = sorted(self.sparse).index(name)
        random = np.random.default_rng((self.seed, epoch, number))
        own, needed = self.sparse[name], self.steps * self.batch_size
        rounds = [random.permutation(own) for _ in range(-(-needed // len(own)))]
        order = np.concatenate(rounds)
        return [
            order[start : start + self.batch_size][self.rank :: self.world]
            for start in range(0, needed, self.batch_size)
        ]

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, starting at number `skip`. A thread reads the next batch from
        disk while the current one is in use.
        """
        labelled = {name: self.labelled_rows(epoch, name) for name in self.sparse}
        drawn = [
            (own, {name: rows[step] for name, rows in labelled.items()})
            for step, own in enumerate(self.rows(epoch))
        ]
        rows = drawn[skip:]
        if self._resident is not None or not rows:
            yield from itertools.starmap(self.batch, rows)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self.batch, *item) for item in rows[:1]]
            for item in [*rows[1:], None]:
                ready = waiting.pop().result()
                if item is not None:
                    waiting.append(pool.submit(self.batch, *item))
                yield ready

    def batch(self, rows: np.ndarray, labelled: Mapping[str, np.ndarray] | None = None) -> Batch:
        """The batch of these meshes. labelled: the meshes that come with it, for each sparse
        label.
        """
        labels = {
            name: torch.from_numpy(self._label(name, column, rows)).to(self.device)
            for name, column in self.data.labels.items()
        }
        drawn = {name: self.batch(own) for name, own in (labelled or {}).items()}
        return Batch(self._meshes(rows), self._neutral(rows), labels, drawn)

    def _label(self, name: str, column: np.ndarray, rows: np.ndarray) -> np.ndarray:
        own = rows < len(column)
        if self.made is None or own.all():
            return column[rows]
        values = np.empty(len(rows), column.dtype)
        values[own] = column[rows[own]]
        values[~own] = self.made.label(name, column, rows[~own] - len(column))
        return values

    def _neutral(self, rows: np.ndarray) -> Tensor | None:
        """The neutral meshes of a batch; None if one of its meshes has none."""
        targets, count = self.data.neutral, len(self.data)
        own = rows < count
        if not targets.known(rows[own]).all():
            return None
        if self.made is not None and not own.all():
            meshes = np.empty((len(rows), *self.data.vertices.shape[1:]), np.float32)
            meshes[own] = targets.of(rows[own])
            meshes[~own] = self.made.neutral_of(rows[~own] - count)
            return torch.from_numpy(meshes).to(self.device)
        if targets.computed:
            return torch.from_numpy(targets.of(rows)).to(self.device)
        return self._meshes(targets.index[rows])  # they are training meshes, already on the device

    def _meshes(self, rows: np.ndarray) -> Tensor:
        own = rows < len(self.data)
        if self.made is not None and not own.all():
            meshes = torch.empty(len(rows), *self.data.vertices.shape[1:], device=self.device)
            made = self.made.vertices[rows[~own] - len(self.data)]
            meshes[torch.from_numpy(own)] = self._meshes(rows[own])
            meshes[torch.from_numpy(~own)] = torch.from_numpy(made).to(self.device)
            return meshes
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)]
        return torch.from_numpy(self.data.vertices[rows]).to(self.device)


def whole_batch(data: TrainingData, device: torch.device) -> Batch:
    """All meshes of `data` as one batch."""
    return Batches(data, len(data), 0, device).batch(np.arange(len(data)))
