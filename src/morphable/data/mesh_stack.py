"""MeshStack: vertices of many meshes in memory-mapped arrays, read when they are indexed."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence

import numpy as np

from morphable.errors import InputError

MAX_MM = 1e9
"""Coordinates beyond this (1,000 km) cannot be meant, and their squares overflow float32."""


class MeshStack:
    """Vertices (N, V, 3) float32 mm, read-only, kept in one or more memory-mapped arrays.

    `stack[i]` is one mesh; `stack[rows]` or `stack[a:b]` is a copied array of meshes. `len` and
    `shape` are those of an array. shards: the arrays, whose meshes follow each other. rows: (N,)
    the selected meshes; by default all. name: what error messages call the stack.

    Indexing raises InputError if a mesh holds a coordinate that is not finite or beyond MAX_MM.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        rows: np.ndarray | None = None,
        name: str = "vertices",
    ) -> None:
        self._shards, self._name = list(shards), name
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
        meshes = self._read(rows)
        # The smallest and the largest number is nan if any number is.
        if meshes.size and not (meshes.min() >= -MAX_MM and meshes.max() <= MAX_MM):
            bad = rows[~within_limit(meshes)][0]
            raise InputError(
                f"{self._name}: mesh {bad} has a coordinate that is not finite or beyond {MAX_MM:g} mm"
            )
        return meshes[0] if isinstance(index, (int, np.integer)) else meshes

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if len(self._shards) == 1:
            meshes = np.asarray(self._shards[0][rows])
        else:
            meshes = np.empty((len(rows), *self.shape[1:]), np.float32)
            shard_of = np.searchsorted(self._starts, rows, side="right") - 1
            for shard in np.unique(shard_of):
                here = shard_of == shard
                meshes[here] = self._shards[shard][rows[here] - self._starts[shard]]
        return meshes

    def select(self, rows: np.ndarray) -> MeshStack:
        return MeshStack(self._shards, self._rows[rows], self._name)

    def joined(self, meshes: np.ndarray) -> MeshStack:
        """Return the stack of these meshes followed by others (M, V, 3)."""
        rows = np.concatenate([self._rows, self._starts[-1] + np.arange(len(meshes))])
        return MeshStack([*self._shards, meshes], rows, self._name)

    def blocks(self, size: int = 256) -> Iterator[np.ndarray]:
        """Yield the meshes in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]
            self._release()

    def unchecked_blocks(self, size: int = 256) -> Iterator[np.ndarray]:
        """Like `blocks`, but whatever the meshes hold."""
        for start in range(0, len(self), size):
            yield self._read(self._rows[start : start + size])
            self._release()

    def _release(self) -> None:
        """Give the memory of pages that were read back, where the system can be asked to: a pass
        over a large file would otherwise fill the memory of the process with it.
        """
        for shard in self._shards:
            mapped = getattr(getattr(shard, "stack", shard), "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def within_limit(meshes: np.ndarray) -> np.ndarray:
    """Whether each of the meshes (N, V, 3) has finite coordinates up to MAX_MM only; (N,)."""
    return (np.abs(meshes) <= MAX_MM).all(axis=(1, 2))
