"""The folder importer: any folder of mesh files with one topology, labeled by a CSV or by a path
pattern, or one stack of vertices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from morphable.data.importers.files_source import FileOptions, files_source, stack_in_mm
from morphable.data.importers.labeling import check_descriptions, completed, label_files
from morphable.data.importers.mesh_files import (
    Placing,
    finished_source,
    mesh_files,
    read_template,
)
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.io import read_stack
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters


def folder(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str,
    template: Path | None = None,
    name: str | None = None,
    licence: str = "unknown",
    labels: Path | None = None,
    pattern: str | None = None,
    up: str = "y",
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
    skip_bad: bool = False,
    faces: str = "same",
    mesh: str | None = None,
) -> MeshSource:
    """Registered meshes from a folder of files (or an .npy/.npz stack with a template).

    unit: mm, cm or m, what the files hold. up: y or z. template: a mesh file with the faces and the
    reference shape; else the faces are those of the first file and the shape is the mean of all
    meshes. name: of the class, such as "hand"; else the folder's. licence: of the meshes. labels: a
    CSV with a `file` column of paths relative to `raw`; pattern: e.g.
    `{subject}/{expression}/{frame}`, matched from the end of the path without its suffix, each name
    as short as it can be. The `neutral` column is each subject's first mesh with the expression
    `neutral`, -1 where there is none; without expressions sequences name them. align: rigid (or
    True), similarity or translation, to the mean of all meshes; align_on: the vertices that count,
    as `counted_rows` takes them. mirror: whether to add the mirror image of each mesh. Every file is
    checked before anything is written; the first bad one raises InputError. skip_bad: leave out
    files that do not fit and meshes that the audit finds broken, with a warning each. faces: `same`
    refuses a file whose faces are not the template's; `template` takes its vertices as they come,
    with the template's faces. mesh: the name of the mesh in glTF files that hold several.
    """
    options = FileOptions(
        unit, template, up, skip_bad, faces, mesh, Placing.of(align, align_on, mirror)
    )
    check_descriptions(labels, pattern, name, licence)
    name = name or _class_name(raw, template)
    info: dict[str, Any] = {"licence": licence, "unit": unit}
    if raw.is_file():
        if pattern is not None or skip_bad:
            raise InputError(
                f"{raw}: `pattern` and `skip_bad` are for a folder of files, not for one stack",
                "pattern",
                "skip_bad",
            )
        return _stack_source(raw, options, labels, info, name)
    info |= {"source": f"meshes of the folder {raw.resolve().name}"}

    def labels_of(files: list[Path]) -> LabelTable:
        return label_files(files, raw, labels, pattern)

    return files_source(raw, mesh_files(raw), labels_of, name, info, reading, options)


def _class_name(raw: Path, template: Path | None) -> str:
    """What the class is called if the user does not say: as in a saved template, or as the folder
    or the stack of meshes.
    """
    if template is not None and template.suffix == ".npz":
        return Template.load(template).name
    return raw.stem if raw.is_file() else raw.resolve().name


def _stack_source(
    raw: Path, options: FileOptions, labels: Path | None, info: dict[str, Any], name: str
) -> MeshSource:
    if options.template is None:
        raise InputError(
            f"{raw}: a stack of vertices has no faces, name a mesh file with `template`", "template"
        )
    reference = read_template(options.template, millimeters(options.unit), options.up, options.mesh)
    stack = read_stack(raw)
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
    meshes = stack_in_mm(stack, options.unit, options.up, reference, str(raw))
    info = info | {"source": f"the stack {raw.name}"}
    template = replace(reference, name=name)
    return finished_source(template, completed(table), meshes, info, options.placing)
