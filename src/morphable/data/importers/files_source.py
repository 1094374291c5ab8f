"""The source of any set of mesh files: read once, audited if bad ones are to be left out, labeled and
placed. Importers of file collections say which files there are and what their labels are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.audit import Audited, audit_meshes
from morphable.data.importers.mesh_files import (
    AS_THEY_LIE,
    Placing,
    finished_source,
    first_readable,
    mean_template,
    read_template,
)
from morphable.data.importers.reading import MeshFiles, Reading, read_files, sound_files
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.registered_mesh import Registered, check_scale, registered, z_up_to_y_up
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters


@dataclass(frozen=True)
class FileOptions:
    """What importers of mesh files have in common; `folder` explains each."""

    unit: str
    template: Path | None = None
    up: str = "y"
    skip_bad: bool = False
    faces: str = "same"
    mesh: str | None = None
    placing: Placing = AS_THEY_LIE

    def __post_init__(self) -> None:
        if self.faces not in ("same", "template"):
            raise InputError(f"`faces` {self.faces}: expected same or template", "faces")
        if self.up not in ("y", "z"):
            raise InputError(f"`up` {self.up}: expected y or z", "up")
        millimeters(self.unit)


def files_source(
    raw: Path,
    found: list[Path],
    labels_of: Callable[[list[Path]], LabelTable],
    name: str,
    info: dict[str, Any],
    reading: Reading,
    options: FileOptions,
) -> MeshSource:
    """The source of the mesh files `found` under `raw`. labels_of: the labels of those that are kept.
    name: of the class.

    Raises InputError for the first file that does not fit; with `skip_bad` those are left out, and
    so are meshes that the audit finds broken.
    """
    first = first_readable(found, options.mesh) if options.skip_bad else found[0]
    reference = read_template(
        options.template or first, millimeters(options.unit), options.up, options.mesh
    )

    def read(path: Path) -> Registered:
        same = options.faces == "same"
        return registered(path, reference, options.unit, options.up == "y", same, options.mesh)

    labels_of(found)  # before the long work
    settings = [options.unit, options.up, options.faces, options.mesh, reference.fingerprint]
    files = read_files(found, read, reference.n_vertices, reading, options.skip_bad, settings)
    if options.template is None and len(files.bad) > len(found) / 2:
        raise InputError(
            f"{raw}: {len(files.bad)} of {len(found)} files do not fit the first, {reference.name}; "
            f"name the right one with `template` (the first that does not fit: {files.bad[0]})",
            "template",
        )
    table = labels_of(files.files)
    if options.skip_bad:
        files = sound_files(files, _broken(files, reference, table))
        table = labels_of(files.files)
    shown = replace(reference, name=name)
    if options.template is None and options.placing.kind is None:
        shown = mean_template(shown, files)
    return finished_source(
        shown,
        table,
        files.stack,
        info | {"unit": options.unit, "skipped": files.bad},
        options.placing,
        options.template is not None,
    )


def _broken(files: MeshFiles, template: Template, table: LabelTable) -> list[tuple[int, str]]:
    findings = audit_meshes(Audited(files.stack, template, table), at_most=len(files.files))
    return [(f.row, f.text) for f in findings if f.is_broken and f.row is not None]


class StackInMm:
    """Looks like an array (N, V, 3) float32 mm, y up, of the vertices in an array of any unit."""

    def __init__(
        self,
        stack: Any,
        unit: str,
        up: str = "y",
        template: Template | None = None,
        name: str = "stack",
    ) -> None:
        self.stack, self.unit, self.up = stack, unit, up
        self.template, self.name = template, name
        self.shape = tuple(stack.shape)

    def __len__(self) -> int:
        return len(self.stack)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # what is not finite is refused below
            block = np.asarray(self.stack[rows], np.float64) * millimeters(self.unit)
        for row, mesh in zip(np.atleast_1d(rows), block, strict=True):
            if not np.isfinite(mesh).all():
                raise InputError(f"{self.name}: mesh {row} has a coordinate that is not finite")
            if self.template is not None:
                check_scale(mesh, self.template, f"{self.name}: mesh {row}", self.unit)
        return (z_up_to_y_up(block) if self.up == "z" else block).astype(np.float32)


def stack_in_mm(
    stack: Any, unit: str, up: str = "y", template: Template | None = None, name: str = "stack"
) -> MeshStack:
    """The meshes of an array (N, V, 3) in any unit as a stack in mm. template: what their size is
    compared with.
    """
    wrapped: Any = StackInMm(stack, unit, up, template, name)
    return MeshStack([wrapped], name=name)
