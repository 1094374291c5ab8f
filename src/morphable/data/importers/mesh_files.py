"""What importers share: finding mesh files, the template, unusable files, units and alignment."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.registered_mesh import Registered, z_up_to_y_up
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.align import generalized_procrustes, procrustes
from morphable.mesh.io import MESH_SUFFIXES, read_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.placement import shape_size
from morphable.mesh.template import Template
from morphable.rows import evenly_spread

MIN_MEAN_SIZE = 0.7
"""A mean below this share of the size of the meshes is no shape of their class."""
MIN_MM, MAX_MM = 5.0, 10_000.0
"""A template outside these sizes is likely read in the wrong unit: a tooth is larger, a person
smaller.
"""
Read = Callable[[np.ndarray], np.ndarray]
"""Reads the meshes of the rows (n,): (n, V, 3) mm."""
BLOCK = 64
"""Meshes that are read at a time."""
MAX_ALIGNED = 512
"""The mean that meshes are aligned to is that of at most this many of them, evenly spread: the first
files may all be of one person.
"""


@dataclass(frozen=True, eq=False)
class Usable:
    """The mesh files that fit a template, and sentences about those that do not.

    mean: (V, 3) mm, of the meshes that fit. size: mm, the mean of their sizes.
    """

    files: list[Path]
    bad: list[str]
    mean: np.ndarray
    size: float


def mean_template(template: Template, usable: Usable) -> Template:
    """The template with the mean of the meshes as its reference shape.

    Warns if the mean is much smaller than the meshes, which then lie or bend in many ways.
    """
    share = shape_size(usable.mean) / usable.size
    if share < MIN_MEAN_SIZE:
        warnings.warn(
            f"the mean of the meshes, which becomes the template, has only {100 * share:.0f} % of "
            "their size, because they lie in different places or poses, or have their vertices in "
            "different orders: align them, or name one mesh as the template",
            stacklevel=3,
        )
    return replace(template, mesh=template.mesh.moved(usable.mean.astype(np.float32)))


def finished_source(
    template: Template,
    table: LabelTable,
    read: Read,
    info: dict[str, Any],
    align: bool,
    named: bool = True,
) -> MeshSource:
    """The source of imported meshes, aligned rigidly to their mean if asked to, with the template.

    named: whether the template's shape was named by the user; else it becomes the mean of the
    aligned meshes. Warns if the template has a size that suggests another unit.
    """
    size = np.linalg.norm(np.ptp(template.mesh.vertices, axis=0))
    if not MIN_MM < size < MAX_MM:
        warnings.warn(
            f"read in {info['unit']}, the template is {size:.3g} mm across; is the unit right?",
            stacklevel=3,
        )

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, table.count, BLOCK):
            yield read(np.arange(start, min(start + BLOCK, table.count)))

    if not align:
        return MeshSource(template, table, blocks, info | {"aligned": False})
    sample = read(evenly_spread(table.count, MAX_ALIGNED))
    mean = generalized_procrustes(sample.astype(np.float64)).mean
    mean = mean - mean.mean(0)
    own = np.asarray(template.mesh.vertices, np.float64)
    shape = procrustes(own, mean).apply(own) if named else mean
    template = replace(template, mesh=template.mesh.moved(shape.astype(np.float32)))

    def aligned() -> Iterator[np.ndarray]:
        for block in blocks():
            yield np.stack(
                [procrustes(mesh, mean).apply(mesh) for mesh in block.astype(np.float64)]
            )

    return MeshSource(template, table, aligned, info | {"aligned": True})


def mesh_files(raw: Path) -> list[Path]:
    """The mesh files in and under a folder, in natural order; hidden ones (macOS leaves `._a.ply`)
    do not count.
    """
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder of meshes")
    found = (
        path for path in raw.rglob("*") if path.suffix.lower() in MESH_SUFFIXES and path.is_file()
    )
    files = sorted((path for path in found if not path.name.startswith(".")), key=_natural)
    if not files:
        raise InputError(f"{raw}: holds no mesh file ({', '.join(sorted(MESH_SUFFIXES))})")
    return files


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which frame 10 comes after frame 9; `a01` and `a1` keep one order on every
    machine.
    """
    text = path.as_posix()
    return [(0, int(t)) if t.isdecimal() else (1, t) for t in re.split(r"(\d+)", text) if t], text


def first_readable(files: list[Path]) -> Path:
    """The first file that can be read; InputError if there is none."""
    for path in files:
        with contextlib.suppress(InputError):
            read_mesh(path)
            return path
    raise InputError(f"{files[0].parent}: none of the {len(files)} mesh files can be read")


def read_template(path: Path, scale: float, up: str) -> Template:
    """The template of a mesh file, in mm and y up; of an .npz, as it was saved."""
    if path.suffix == ".npz":
        return Template.load(path)
    file = read_mesh(path)
    vertices = np.asarray(file.mesh.vertices, np.float64) * scale
    if not len(file.mesh.faces):
        raise InputError(
            f"{path}: has no faces, so it cannot serve as the template; name one with `template`",
            "template",
        )
    vertices = z_up_to_y_up(vertices) if up == "z" else vertices
    return Template(
        Mesh(vertices.astype(np.float32), file.mesh.faces), path.stem, file.uv, file.uv_faces
    )


def usable_files(files: list[Path], read: Callable[[Path], Registered], skip_bad: bool) -> Usable:
    """Read every file once.

    Warns once per way in which the faces of usable files differ from the template's.
    """
    good: list[Path] = []
    bad: list[str] = []
    notes: dict[str, list[Path]] = {}
    total: np.ndarray | float = 0.0
    size = 0.0
    for path in files:
        try:
            vertices, note = read(path)
        except InputError as error:
            if not skip_bad:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
            bad.append(str(error))
            continue
        good.append(path)
        total = total + vertices.astype(np.float64)
        size += shape_size(vertices)
        if note:
            notes.setdefault(note, []).append(path)
    for note, paths in notes.items():
        more = f" and {len(paths) - 1:,} more files" if len(paths) > 1 else ""
        warnings.warn(f"{paths[0]}{more}: {note}; accepted", stacklevel=2)
    if not good:
        raise InputError(
            f"{files[0].parent}: none of the {len(files)} mesh files can be used; the first: {bad[0]}"
        )
    return Usable(good, bad, np.asarray(total / len(good)), size / len(good))
