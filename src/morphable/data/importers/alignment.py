"""Alignment of imported meshes to their mean: rigid, similarity or translation, never a reflection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.data.mesh_stack import MeshStack
from morphable.errors import InputError
from morphable.files import map_npy, read_json, reading
from morphable.mesh.align import Similarity, generalized_procrustes, procrustes
from morphable.mesh.template import Template
from morphable.rows import evenly_spread

KINDS = ("rigid", "similarity", "translation")
MAX_SAMPLE = 512
"""The frame is that of the mean of at most this many meshes, evenly spread: the first files may all
be of one person. The mean of all meshes in that frame is what each is aligned to.
"""
STABLE = 1 / 3
"""Share of the vertices that are stable: those that vary least among aligned meshes."""
STABLE_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Alignment:
    """How meshes are aligned. kind: one of KINDS. rows: (K,) the vertices that count; None: all.
    mean: (V, 3) mm, what they are aligned to.
    """

    kind: str
    rows: np.ndarray | None
    mean: np.ndarray

    @classmethod
    def of(cls, kind: str, rows: np.ndarray | None, stack: MeshStack) -> Alignment:
        """The alignment of the meshes of a stack to their mean, whose center is the origin."""
        sample = stack[evenly_spread(len(stack), MAX_SAMPLE)].astype(np.float64)
        if kind == "translation":
            pick = slice(None) if rows is None else rows
            start = sample - sample[:, pick].mean(axis=1, keepdims=True)
            mean = start.mean(axis=0)
        else:
            mean = generalized_procrustes(sample, rows=rows, scale=kind == "similarity").mean
        found = cls(kind, rows, mean - mean.mean(axis=0))
        if len(stack) > MAX_SAMPLE:
            total = np.zeros_like(found.mean)
            for block in stack.blocks():
                total += found.apply(block.astype(np.float64)).sum(axis=0)
            found = cls(kind, rows, total / len(stack))
        return found

    def apply(self, meshes: np.ndarray) -> np.ndarray:
        """Meshes (n, V, 3) mm where they lie, aligned."""
        return self.maps(meshes).apply(meshes)

    def maps(self, meshes: np.ndarray) -> Similarity:
        """The map of each of the meshes (n, V, 3)."""
        if self.kind == "translation":
            pick = slice(None) if self.rows is None else self.rows
            count = len(meshes)
            shift = self.mean[pick].mean(axis=0) - meshes[:, pick].mean(axis=1, dtype=np.float64)
            return Similarity(np.tile(np.eye(3), (count, 1, 1)), shift, np.ones(count))
        if self.kind == "rigid":
            return procrustes(meshes, self.mean, rows=self.rows)
        # Every mesh gets the centroid size of the mean; least squares would shrink them.
        size = self._size(self.mean[None]) / self._size(meshes)
        rigid = procrustes(meshes * size[:, None, None], self.mean, rows=self.rows)
        return Similarity(rigid.rotation, rigid.translation, size)

    def _size(self, meshes: np.ndarray) -> np.ndarray:
        pick = slice(None) if self.rows is None else self.rows
        return np.maximum(np.sqrt(meshes[:, pick].var(axis=1).sum(axis=-1)), 1e-30)


def alignment_kind(align: bool | str) -> str | None:
    """The kind of alignment that an option names; True is rigid, False and None are none."""
    if align in (True, "rigid"):
        return "rigid"
    if align in (False, None, ""):
        return None
    if align not in KINDS:
        raise InputError(f"`align` {align}: expected one of {', '.join(KINDS)}", "align")
    return str(align)


def counted_rows(choice: str | None, template: Template, stack: MeshStack) -> np.ndarray | None:
    """The vertices that the alignment counts. choice: `all` (or None), `stable` (those that vary
    least, found from the meshes), `template` (its rigid vertices), or a file of vertex indices.
    """
    count = template.n_vertices
    if choice in (None, "all"):
        return None
    if choice == "stable":
        return stable_rows(stack)
    if choice == "template":
        if template.rigid is None or not len(template.rigid):
            raise InputError(
                "`align_on` template: the template names no rigid vertices; name a file of vertex "
                "indices, or `stable`",
                "align_on",
            )
        return template.rigid
    return _rows_of_file(Path(str(choice)), count)


def stable_rows(stack: MeshStack) -> np.ndarray:
    """The third of the vertices that vary least. Meshes are aligned on all vertices first, then on
    those that vary least, a few times: what moves with expression no longer turns the rest.
    """
    sample = stack[evenly_spread(len(stack), MAX_SAMPLE)].astype(np.float64)
    rows: np.ndarray | None = None
    for _ in range(STABLE_ROUNDS):
        shapes = generalized_procrustes(sample, rows=rows).shapes
        spread = shapes.var(axis=0).sum(axis=-1)
        rows = np.sort(np.argsort(spread, kind="stable")[: max(4, int(STABLE * len(spread)))])
    assert rows is not None
    return rows


def _rows_of_file(path: Path, count: int) -> np.ndarray:
    """Vertex indices of an .npy, .json (a list) or text file."""
    if path.suffix == ".npy":
        values = map_npy(path)
    elif path.suffix == ".json":
        values = np.asarray(read_json(path))
    else:
        with reading(path, "expected vertex indices, one a line"):
            values = np.array(path.read_text(encoding="utf-8").replace(",", " ").split(), np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu" or len(values) < 3:
        raise InputError(f"{path}: expected a list of at least three vertex indices")
    if values.min() < 0 or values.max() >= count:
        raise InputError(f"{path}: vertex indices must lie in 0..{count - 1}")
    return np.unique(values.astype(np.int64))
