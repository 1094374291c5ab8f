"""MeshStack: vertices of many meshes in memory-mapped arrays, read when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class MeshStack:
    """Vertices (N, V, 3) float32 mm, read-only, kept in one or more memory-mapped arrays.

    `stack[i]` is one mesh; `stack[rows]` or `stack[a:b]` is a copied array of meshes. `len` and
    `shape` are those of an array. shards: the arrays, whose meshes follow each other. rows: (N,)
    the selected meshes; by default all.
    """

    def __init__(self, shards: Sequence[np.ndarray], rows: np.ndarray | None = None) -> None:
        self._shards = list(shards)
        self._starts = np.cumsum([0] + [len(shard) for shard in shards])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self._shards[0].shape[1:])

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * 4

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> np.ndarray:
        rows = np.atleast_1d(self._rows[index])
        if len(self._shards) == 1:
            meshes = np.asarray(self._shards[0][rows])
        else:
            meshes = np.empty((len(rows), *self.shape[1:]), np.float32)
            shard_of = np.searchsorted(self._starts, rows, side="right") - 1
            for shard in np.unique(shard_of):
                here = shard_of == shard
                meshes[here] = self._shards[shard][rows[here] - self._starts[shard]]
        return meshes[0] if isinstance(index, (int, np.integer)) else meshes

    def select(self, rows: np.ndarray) -> MeshStack:
        return MeshStack(self._shards, self._rows[rows])

    def joined(self, meshes: np.ndarray) -> MeshStack:
        """Return the stack of these meshes followed by others (M, V, 3)."""
        rows = np.concatenate([self._rows, self._starts[-1] + np.arange(len(meshes))])
        return MeshStack([*self._shards, meshes], rows)

    def blocks(self, size: int = 256) -> Iterator[np.ndarray]:
        """Yield the meshes in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]
