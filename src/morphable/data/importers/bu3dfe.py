"""BU-3DFE (Yin et al. 2006): faces of 100 people with six expressions at four levels. The raw scans
have no correspondence; two registered versions of them have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.importers.files_source import FileOptions, files_source, stack_in_mm
from morphable.data.importers.labeling import completed
from morphable.data.importers.mesh_files import (
    Placing,
    finished_source,
    mesh_files,
    read_template,
)
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.data.splits import first_ten
from morphable.errors import InputError
from morphable.files import reading as reading_file
from morphable.mesh.align import generalized_procrustes, procrustes
from morphable.mesh.io import read_mesh, read_stack
from morphable.mesh.units import millimeters

LICENCE = "BU-3DFE: research only, by agreement with Binghamton University"
NAME = re.compile(r"([FM][0-9]{4})_([A-Z]{2})([0-9]{2})([A-Z]{2})(?:_F3D)?", re.IGNORECASE)
EXPRESSIONS = {
    "AN": "angry",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happy",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}
RACES = {
    "AE": "East Asian",
    "AM": "Middle Eastern",
    "BL": "Black",
    "IN": "Indian",
    "LA": "Latino",
    "WH": "White",
}
YORK, FLORENCE = 5996, 6704
"""Vertices of the two registered versions."""
STABLE_VERTICES = (4302, 954, 227, 1700, 2186, 1128, 4303, 1597, 4501, 4827, 41, 3604, 1143)
"""Vertices of the York version that no expression moves, by its authors' code: the ridge of the nose
and others.
"""
LEVELS = 4


def bu3dfe(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str = "mm",
    template: Path | None = None,
    name: str = "face",
    licence: str = LICENCE,
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
    skip_bad: bool = False,
    faces: str = "same",
) -> MeshSource:
    """A folder of registered .wrl files (York, 5,996 vertices), or one with template.obj, dataset.npy
    and identities.txt (Florence, 6,704 vertices). Raw scans have the same file names, but another
    number of vertices each; they are refused, because they have to be registered first.

    align: `paper` places them in the two steps of the York code: neutral meshes on the mean of the
    neutral training meshes by all vertices, then each expression on its subject's neutral mesh by
    the 13 stable vertices of the York version. The split `first-ten` tests on F0001 to F0010.
    """
    florence = raw / "dataset.npy"
    paper = align == "paper"
    placing = Placing.of(False if paper else align, align_on, mirror)
    info = {"licence": licence, "unit": unit}
    if florence.is_file():
        source = _florence(raw, unit, template, name, info, placing)
    else:
        source = _york(
            raw,
            reading,
            FileOptions(unit, template, "y", skip_bad, faces, None, placing),
            name,
            info,
        )
    if paper:
        source = _in_two_steps(source, raw)
    if mirror:
        return source
    return replace(source, splits=first_ten(source.labels))


def _york(
    raw: Path, reading: Reading, options: FileOptions, name: str, info: dict[str, Any]
) -> MeshSource:
    found = [path for path in mesh_files(raw) if NAME.match(path.stem)]
    if not found:
        raise InputError(f"{raw}: holds no file named as F0001_AN01WH_F3D.wrl")
    count = len(read_mesh(found[0]).mesh.vertices)
    if count != YORK:
        known = f"{YORK:,} vertices of the York version or {FLORENCE:,} of the Florence version"
        raise InputError(
            f"{found[0]}: has {count:,} vertices, expected the {known}; the raw scans of BU-3DFE "
            "have no correspondence, so register them to a template first"
        )

    def labels_of(files: list[Path]) -> LabelTable:
        names = [path.relative_to(raw).as_posix() for path in files]
        return bu3dfe_labels(names)

    info = info | {"source": "BU-3DFE, registered in York (5,996 vertices)"}
    return files_source(raw, found, labels_of, name, info, reading, options)


def _florence(
    raw: Path,
    unit: str,
    template: Path | None,
    name: str,
    info: dict[str, Any],
    placing: Placing,
) -> MeshSource:
    shown = replace(read_template(template or raw / "template.obj", millimeters(unit)), name=name)
    stack = read_stack(raw / "dataset.npy")
    if not shown.n_vertices == stack.shape[1] == FLORENCE:
        raise InputError(
            f"{raw / 'dataset.npy'}: expected {FLORENCE} vertices as in the Florence version, got "
            f"{stack.shape[1]}, and {shown.n_vertices} in the template"
        )
    with reading_file(raw / "identities.txt", "cannot be read"):
        names = (raw / "identities.txt").read_text(encoding="utf-8").split()
    if len(names) != len(stack):
        raise InputError(
            f"{raw / 'identities.txt'}: names {len(names)} meshes, dataset.npy has {len(stack)}"
        )
    meshes = stack_in_mm(stack, unit, "y", shown, str(raw / "dataset.npy"))
    info = info | {"source": "BU-3DFE, registered in Florence (6,704 vertices)"}
    return finished_source(shown, bu3dfe_labels(names), meshes, info, placing)


def bu3dfe_labels(names: list[str]) -> LabelTable:
    """The labels that the names of scans hold. Raises InputError for another name."""
    rows = []
    for name in names:
        match = NAME.match(Path(name).stem)
        if match is None or match[2].upper() not in EXPRESSIONS:
            raise InputError(f"{name}: expected a name as F0001_AN01WH_F3D")
        subject, expression, level, race = (part.upper() for part in match.groups())
        strength = 0.0 if expression == "NE" else int(level) / LEVELS
        sex = "female" if subject.startswith("F") else "male"
        rows.append((subject, EXPRESSIONS[expression], strength, RACES.get(race, race), sex))
    subjects, expressions, levels, races, sexes = zip(*rows, strict=True)
    columns = {
        "file": np.array(names),
        "subject": np.array(subjects),
        "expression": np.array(expressions),
        "level": np.array(levels, np.float64),
        "race": np.array(races),
        "sex": np.array(sexes),
    }
    return completed(LabelTable(columns, len(names)))


def _in_two_steps(source: MeshSource, raw: Path) -> MeshSource:
    """The source with its meshes placed as the York code does."""
    if source.template.n_vertices != YORK:
        raise InputError("`align` paper: its 13 stable vertices are those of the York version")
    labels = source.labels
    neutral, subject = labels["neutral"], labels["subject"].astype(str)
    splits = first_ten(labels)
    test = subject[splits["first-ten"].test] if splits else np.zeros(0, str)
    shapes: dict[int, np.ndarray] = {}
    for row, mesh in enumerate(mesh for block in source.blocks() for mesh in block):
        if neutral[row] == row:
            shapes[row] = mesh.astype(np.float64)
    if not shapes or (neutral < 0).any():
        missing = subject[neutral < 0]
        raise InputError(
            f"{raw}: {missing[0]} has no neutral mesh, which `align` paper needs", "align"
        )
    training = np.stack([mesh for row, mesh in shapes.items() if subject[row] not in test])
    mean = generalized_procrustes(training).mean
    mean = mean - mean.mean(axis=0)
    shapes = {row: procrustes(mesh, mean).apply(mesh) for row, mesh in shapes.items()}
    stable = np.array(STABLE_VERTICES)

    def blocks() -> Iterator[np.ndarray]:
        row = 0
        for block in source.blocks():
            placed = []
            for mesh in block.astype(np.float64):
                own = shapes[int(neutral[row])]
                aligned = (
                    own if neutral[row] == row else procrustes(mesh, own, rows=stable).apply(mesh)
                )
                placed.append(aligned)
                row += 1
            yield np.stack(placed)

    template = replace(source.template, mesh=source.template.mesh.moved(mean.astype(np.float32)))
    return replace(
        source, template=template, blocks=blocks, info={**source.info, "aligned": "paper"}
    )
