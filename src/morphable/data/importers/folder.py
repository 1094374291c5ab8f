"""The folder importer: any folder of mesh files with one topology, labeled by a CSV or by a path
pattern, or one stack of vertices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.importers.labeling import completed, label_files
from morphable.data.importers.mesh_files import (
    finished_source,
    first_readable,
    mean_template,
    mesh_files,
    read_template,
    usable_files,
)
from morphable.data.labels import LabelTable
from morphable.data.registered_mesh import Registered, check_scale, registered, z_up_to_y_up
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.io import read_stack
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters


def folder(
    raw: Path,
    *,
    unit: str,
    template: Path | None = None,
    name: str | None = None,
    licence: str = "unknown",
    labels: Path | None = None,
    pattern: str | None = None,
    up: str = "y",
    align: bool = False,
    skip_bad: bool = False,
    faces: str = "same",
) -> MeshSource:
    """Registered meshes from a folder of files (or an .npy/.npz stack with a template).

    unit: mm, cm or m, what the files hold. up: y or z. template: a mesh file with the faces and the
    reference shape; else the faces are those of the first file and the shape is the mean of all
    meshes. name: of the class, such as "hand"; else the folder's. licence: of the meshes. labels: a
    CSV with a `file` column of paths relative to `raw`; pattern: e.g.
    `{subject}/{expression}/{frame}`, matched from the end of the path without its suffix, each name
    as short as it can be. The `neutral` column is each subject's first mesh with the expression
    `neutral`, -1 where there is none; without expressions sequences name them. align: rigid
    Procrustes alignment to the mean. Every file is checked before anything is written; the first
    bad one raises InputError, or is left out with a warning where `skip_bad`. faces: `same` refuses
    a file whose faces are not the template's; `template` takes its vertices as they come, with the
    template's faces.
    """
    if faces not in ("same", "template"):
        raise InputError(f"`faces` {faces}: expected same or template", "faces")
    if up not in ("y", "z"):
        raise InputError(f"`up` {up}: expected y or z", "up")
    if labels is not None and pattern is not None:
        raise InputError("`labels` and `pattern`: give one of the two", "labels", "pattern")
    for argument, text in (("name", name), ("licence", licence)):
        if text is not None and not text.strip():
            raise InputError(f"`{argument}`: is empty, expected some text", argument)
    scale = millimeters(unit)
    name = name or _class_name(raw, template)
    info: dict[str, Any] = {"licence": licence, "unit": unit}
    if raw.is_file():
        if pattern is not None or skip_bad:
            raise InputError(
                f"{raw}: `pattern` and `skip_bad` are for a folder of files, not for one stack",
                "pattern",
                "skip_bad",
            )
        return _stack_source(raw, scale, up, template, labels, align, info, name)
    found = mesh_files(raw)
    reference = read_template(
        template or (first_readable(found) if skip_bad else found[0]), scale, up
    )

    def registered_file(path: Path) -> Registered:
        return registered(path, reference, unit, up == "y", faces == "same")

    usable = usable_files(found, registered_file, skip_bad)
    files, bad = usable.files, usable.bad
    if template is None and len(bad) > len(found) / 2:
        raise InputError(
            f"{raw}: {len(bad)} of {len(found)} files do not fit the first, {reference.name}; "
            f"name the right one with `template` (the first that does not fit: {bad[0]})",
            "template",
        )
    table = label_files(files, raw, labels, pattern)
    info |= {"source": f"meshes of the folder {raw.resolve().name}", "skipped": bad}
    shown = replace(reference, name=name)
    if template is None and not align:
        shown = mean_template(shown, usable)

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([registered_file(files[row]).vertices for row in rows])

    return finished_source(shown, table, read, info, align, template is not None)


def _class_name(raw: Path, template: Path | None) -> str:
    """What the class is called if the user does not say: as in a saved template, or as the folder
    or the stack of meshes.
    """
    if template is not None and template.suffix == ".npz":
        return Template.load(template).name
    return raw.stem if raw.is_file() else raw.resolve().name


def _stack_source(
    raw: Path,
    scale: float,
    up: str,
    template: Path | None,
    labels: Path | None,
    align: bool,
    info: dict[str, Any],
    name: str,
) -> MeshSource:
    if template is None:
        raise InputError(
            f"{raw}: a stack of vertices has no faces, name a mesh file with `template`", "template"
        )
    reference, stack = read_template(template, scale, up), read_stack(raw)
    if stack.shape[1] != reference.n_vertices:
        raise InputError(
            f"{raw}: expected {reference.n_vertices} vertices as in the template, got {stack.shape[1]}"
        )
    table = LabelTable.read(labels) if labels is not None else LabelTable({}, len(stack))
    if table.count != len(stack):
        raise InputError(
            f"{labels}: expected {len(stack)} lines, one for each mesh, got {table.count}"
        )
    if labels is not None:
        table.check_neutral(labels)

    def read(rows: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # what is not finite is refused below
            block = np.asarray(stack[rows], np.float64) * scale
        for row, mesh in zip(rows, block, strict=True):
            if not np.isfinite(mesh).all():
                raise InputError(f"{raw}: mesh {row} has a coordinate that is not finite")
            check_scale(mesh, reference, f"{raw}: mesh {row}", info["unit"])
        return (z_up_to_y_up(block) if up == "z" else block).astype(np.float32)

    info = info | {"source": f"the stack {raw.name}"}
    return finished_source(replace(reference, name=name), completed(table), read, info, align)
