"""The folder source: any folder of mesh files with one topology, labelled by a CSV or by a path
pattern.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable, typed
from morphable.data.registered_mesh import check_scale, millimeters, read_registered, z_up_to_y_up
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.align import generalized_procrustes, procrustes
from morphable.mesh.io import MESH_SUFFIXES, read_mesh, read_stack
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template

BLOCK = 64
MIN_MM, MAX_MM = 5.0, 10_000.0
"""A template outside these sizes is likely read in the wrong unit: a tooth is larger, a person
smaller.
"""
Blocks = Callable[[], Iterator[np.ndarray]]


def folder(
    raw: Path,
    *,
    unit: str,
    template: Path | None = None,
    labels: Path | None = None,
    pattern: str | None = None,
    up: str = "y",
    align: bool = False,
    skip_bad: bool = False,
) -> MeshSource:
    """Registered meshes from a folder of files (or an .npy/.npz stack with a template).

    unit: mm, cm or m, what the files hold. up: y or z. template: a mesh file; else the first mesh
    in sorted order. labels: a CSV with a `file` column of paths relative to `raw`; pattern: e.g.
    `{subject}/{expression}/{frame}`, matched from the end of the path without its suffix, each name
    as short as it can be. The `neutral` column is each subject's first mesh with the expression
    `neutral`, -1 where there is none; without expressions sequences name them. align: rigid
    Procrustes alignment to the mean. Every file is checked before anything is written; the first
    bad one raises InputError, or is left out with a warning where `skip_bad`.
    """
    if up not in ("y", "z"):
        raise InputError(f"`up` {up}: expected y or z", "up")
    if labels is not None and pattern is not None:
        raise InputError("`labels` and `pattern`: give one of the two", "labels", "pattern")
    scale = millimeters(unit)
    if raw.is_file():
        if pattern is not None or skip_bad:
            raise InputError(
                f"{raw}: `pattern` and `skip_bad` are for a folder of files, not for one stack",
                "pattern",
                "skip_bad",
            )
        return _stack_source(raw, scale, up, template, labels, align, unit)
    found = _mesh_files(raw)
    reference = _template(template or (_first_readable(found) if skip_bad else found[0]), scale, up)
    files, bad = _usable(found, reference, unit, up, skip_bad)
    if template is None and len(bad) > len(found) / 2:
        raise InputError(
            f"{raw}: {len(bad)} of {len(found)} files do not fit the first, {reference.name}; "
            f"name the right one with `template` (the first that does not fit: {bad[0]})",
            "template",
        )
    table = _labels(files, raw, labels, pattern)
    info = {
        "source": f"meshes of the folder {raw.name}",
        "licence": "unknown",
        "unit": unit,
        "skipped": bad,
    }

    def read(path: Path) -> np.ndarray:
        return read_registered(path, reference, unit, up == "y")

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(files), BLOCK):
            yield np.stack([read(path) for path in files[start : start + BLOCK]])

    return _finish(reference, table, blocks, info, align)


def _finish(
    template: Template, table: LabelTable, blocks: Blocks, info: dict[str, Any], align: bool
) -> MeshSource:
    size = np.linalg.norm(np.ptp(template.mesh.vertices, axis=0))
    if not MIN_MM < size < MAX_MM:
        warnings.warn(
            f"read in {info['unit']}, the template is {size:.3g} mm across; is the unit right?",
            stacklevel=3,
        )
    if not align:
        return MeshSource(template, table, blocks, info | {"aligned": False})
    sample = np.concatenate([block for _, block in zip(range(8), blocks(), strict=False)])
    mean = generalized_procrustes(sample.astype(np.float64)).mean
    mean = mean - mean.mean(0)

    def aligned() -> Iterator[np.ndarray]:
        for block in blocks():
            yield np.stack(
                [procrustes(mesh, mean).apply(mesh) for mesh in block.astype(np.float64)]
            )

    return MeshSource(template, table, aligned, info | {"aligned": True})


def _mesh_files(raw: Path) -> list[Path]:
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


def _first_readable(files: list[Path]) -> Path:
    for path in files:
        with contextlib.suppress(InputError):
            read_mesh(path)
            return path
    raise InputError(f"{files[0].parent}: none of the {len(files)} mesh files can be read")


def _template(path: Path, scale: float, up: str) -> Template:
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


def _usable(
    files: list[Path], template: Template, unit: str, up: str, skip_bad: bool
) -> tuple[list[Path], list[str]]:
    """Read every file once; the good ones and the sentences about the bad ones."""
    good, bad = [], []
    for path in files:
        try:
            read_registered(path, template, unit, up == "y")
            good.append(path)
        except InputError as error:
            if not skip_bad:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
            bad.append(str(error))
    if not good:
        raise InputError(
            f"{files[0].parent}: none of the {len(files)} mesh files can be used; the first: {bad[0]}"
        )
    return good, bad


def _labels(files: list[Path], raw: Path, labels: Path | None, pattern: str | None) -> LabelTable:
    names = [path.relative_to(raw).as_posix() for path in files]
    columns = {"file": np.array(names)}
    if labels is not None:
        columns |= _from_csv(LabelTable.read(labels), labels, names)
    elif pattern is not None:
        columns |= _from_pattern(pattern, names)
    table = LabelTable(columns, len(files))
    return _completed(table)


def _from_csv(table: LabelTable, path: Path, names: list[str]) -> dict[str, np.ndarray]:
    if "file" not in table:
        raise InputError(f"{path}: has no `file` column that names the meshes")
    listed = [Path(name.replace("\\", "/")).as_posix() for name in table["file"].tolist()]
    position = {name: row for row, name in enumerate(listed)}
    if len(position) < len(listed):
        twice = next(name for row, name in enumerate(listed) if position[name] != row)
        raise InputError(f"{path}: has two lines for {twice}")
    missing = [name for name in names if name not in position]
    if missing:
        raise InputError(
            f"{path}: has no line for {missing[0]} ({len(missing)} of {len(names)} meshes are missing)"
        )
    taken = table.take(np.array([position[name] for name in names]))
    return {
        name: column for name, column in taken.columns.items() if name not in ("file", "neutral")
    }


def _from_pattern(pattern: str, names: list[str]) -> dict[str, np.ndarray]:
    fields = re.findall(r"\{(\w+)\}", pattern)
    if not fields or len(set(fields)) != len(fields):
        raise InputError(
            f"`pattern` {pattern}: expected names in braces, each once, as in {{subject}}/{{frame}}",
            "pattern",
        )
    pieces = re.split(r"\{\w+\}", pattern)
    body = re.escape(pieces[0]) + "".join(
        f"(?P<{name}>[^/]+?){re.escape(piece)}"
        for name, piece in zip(fields, pieces[1:], strict=True)
    )
    expression = re.compile(rf"(?:^|.*/){body}$")
    rows = []
    for name in names:
        match = expression.match(name.rsplit(".", 1)[0])
        if match is None:
            raise InputError(f"{name}: its path does not match the pattern {pattern}")
        rows.append(match.groupdict())
    return {field: typed(field, [row[field] for row in rows]) for field in fields}


def _completed(table: LabelTable) -> LabelTable:
    """With a sequence's name as its expression where none is given, and each subject's first mesh
    called neutral.
    """
    if "sequence" in table and "expression" not in table:
        table = LabelTable(
            {**table.columns, "expression": table["sequence"].astype(str)}, table.count
        )
    if "subject" not in table or "expression" not in table:
        return table
    subject, expression = table["subject"].astype(str), table["expression"].astype(str)
    rows: dict[str, int] = {}
    for row in np.flatnonzero(np.char.lower(expression) == "neutral")[::-1]:
        rows[subject[row]] = int(row)
    neutral = np.array([rows.get(name, -1) for name in subject.tolist()], np.int64)
    return LabelTable({**table.columns, "neutral": neutral}, table.count)


def _stack_source(
    raw: Path,
    scale: float,
    up: str,
    template: Path | None,
    labels: Path | None,
    align: bool,
    unit: str,
) -> MeshSource:
    if template is None:
        raise InputError(
            f"{raw}: a stack of vertices has no faces, name a mesh file with `template`", "template"
        )
    reference, stack = _template(template, scale, up), read_stack(raw)
    if stack.shape[1] != reference.n_vertices:
        raise InputError(
            f"{raw}: expected {reference.n_vertices} vertices as in the template, got {stack.shape[1]}"
        )
    table = LabelTable.read(labels) if labels is not None else LabelTable({}, len(stack))
    if table.count != len(stack):
        raise InputError(
            f"{labels}: expected {len(stack)} lines, one for each mesh, got {table.count}"
        )

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(stack), 256):
            block = np.asarray(stack[start : start + 256], np.float64) * scale
            for row, mesh in enumerate(block, start):
                if not np.isfinite(mesh).all():
                    raise InputError(f"{raw}: mesh {row} has a coordinate that is not finite")
                check_scale(mesh, reference, f"{raw}: mesh {row}", unit)
            yield (z_up_to_y_up(block) if up == "z" else block).astype(np.float32)

    info = {"source": f"the stack {raw.name}", "licence": "unknown", "unit": unit}
    return _finish(reference, _completed(table), blocks, info, align)
