"""What importers share: finding mesh files, the template, unusable files, units and alignment."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.importers.alignment import Alignment, alignment_kind, counted_rows
from morphable.data.importers.labeling import mirrored_labels
from morphable.data.importers.reading import MeshFiles
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.registered_mesh import z_up_to_y_up
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.io import READ_SUFFIXES, read_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.mirror import mirror_map
from morphable.mesh.placement import shape_size
from morphable.mesh.template import Template

MIN_MEAN_SIZE = 0.7
"""A mean below this share of the size of the meshes is no shape of their class."""
MIN_MM, MAX_MM = 5.0, 10_000.0
"""A template outside these sizes is likely read in the wrong unit: a tooth is larger, a person
smaller.
"""
BLOCK = 64
"""Meshes that are read at a time."""


@dataclass(frozen=True)
class Placing:
    """How imported meshes are placed. kind: of alignment, None: where they lie. on: the vertices
    that count, as `counted_rows` takes them. mirror: whether a mirror image of each is added.
    """

    kind: str | None = None
    on: str | None = None
    mirror: bool = False

    @classmethod
    def of(cls, align: bool | str, align_on: str | None, mirror: bool) -> Placing:
        """Raises InputError unless the options go together."""
        kind = alignment_kind(align)
        if align_on is not None and kind is None:
            raise InputError("`align_on`: needs `align`", "align_on", "align")
        return cls(kind, align_on, mirror)


AS_THEY_LIE = Placing()
"""Neither aligned nor mirrored."""


def mean_template(template: Template, usable: MeshFiles) -> Template:
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
    stack: MeshStack,
    info: dict[str, Any],
    placing: Placing = AS_THEY_LIE,
    named: bool = True,
) -> MeshSource:
    """The source of imported meshes (N, V, 3) mm with the template, aligned and mirrored as asked.

    named: whether the template's shape was named by the user; else it becomes the mean of the
    aligned meshes. Warns if the template has a size that suggests another unit.
    """
    size = np.linalg.norm(np.ptp(template.mesh.vertices, axis=0))
    if not MIN_MM < size < MAX_MM:
        warnings.warn(
            f"read in {info['unit']}, the template is {size:.3g} mm across; is the unit right?",
            stacklevel=3,
        )
    alignment = None
    if placing.kind is not None:
        rows = counted_rows(placing.on, template, stack)
        alignment = Alignment.of(placing.kind, rows, stack)
        template = _placed_template(template, alignment, named)
        info = info | {"aligned_on": template.n_vertices if rows is None else len(rows)}
    info = info | {"aligned": placing.kind or False, "mirrored": placing.mirror}

    def blocks() -> Iterator[np.ndarray]:
        for block in stack.blocks(BLOCK):
            yield alignment.apply(block.astype(np.float64)) if alignment else block

    if not placing.mirror:
        return MeshSource(template, table, blocks, info)
    mirror = template.mirror
    if mirror is None:
        mirror = mirror_map(template.mesh.vertices, template.mesh.faces)
        template = replace(template, mirror=mirror)

    middle = np.asarray(template.mesh.vertices, np.float64)[:, 0]
    plane = np.array([(middle + middle[mirror]).mean(), 0, 0])

    def both() -> Iterator[np.ndarray]:
        yield from blocks()
        for block in blocks():
            yield block[:, mirror] * [-1, 1, 1] + plane

    return MeshSource(template, mirrored_labels(table), both, info)


def _placed_template(template: Template, alignment: Alignment, named: bool) -> Template:
    """The template where the aligned meshes lie, or their mean as its shape."""
    shape = alignment.mean
    if named:
        own = np.asarray(template.mesh.vertices, np.float64)
        shape = alignment.apply(own[None])[0]
    return replace(template, mesh=template.mesh.moved(shape.astype(np.float32)))


def mesh_files(raw: Path) -> list[Path]:
    """The mesh files in and under a folder, in natural order; hidden ones (macOS leaves `._a.ply`)
    do not count.
    """
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder of meshes")
    found = (
        path for path in raw.rglob("*") if path.suffix.lower() in READ_SUFFIXES and path.is_file()
    )
    files = sorted((path for path in found if not path.name.startswith(".")), key=_natural)
    if not files:
        raise InputError(f"{raw}: holds no mesh file ({', '.join(sorted(READ_SUFFIXES))})")
    return files


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which frame 10 comes after frame 9; `a01` and `a1` keep one order on every
    machine.
    """
    text = path.as_posix()
    return [(0, int(t)) if t.isdecimal() else (1, t) for t in re.split(r"(\d+)", text) if t], text


def first_readable(files: list[Path], mesh: str | None = None) -> Path:
    """The first file that can be read; InputError if there is none."""
    for path in files:
        with contextlib.suppress(InputError):
            read_mesh(path, mesh)
            return path
    raise InputError(f"{files[0].parent}: none of the {len(files)} mesh files can be read")


def read_template(path: Path, scale: float, up: str = "y", mesh: str | None = None) -> Template:
    """The template of a mesh file, in mm and y up; of an .npz, as it was saved."""
    if path.suffix == ".npz":
        return Template.load(path)
    file = read_mesh(path, mesh)
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
