"""FaceScape (Yang et al. 2020): 847 people with 20 expressions, OBJ files of the whole head with
26,317 vertices in millimeters.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from morphable.data.importers.files_source import FileOptions, files_source
from morphable.data.importers.labeling import completed
from morphable.data.importers.mesh_files import Placing, mesh_files
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.errors import InputError

LICENCE = "FaceScape: non-commercial research, by signed agreement"
NAME = re.compile(r"([0-9]+)/models_reg/([0-9]+)_(\w+)\.obj$")


def facescape(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str = "mm",
    template: Path | None = None,
    name: str = "head",
    licence: str = LICENCE,
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
    skip_bad: bool = False,
    faces: str = "same",
) -> MeshSource:
    """The topologically uniform models as they are unpacked: PERSON/models_reg/NUMBER_NAME.obj, such
    as 1/models_reg/1_neutral.obj. Head (26,317 vertices) and front (26,278) must not be mixed.
    """
    options = FileOptions(
        unit, template, "y", skip_bad, faces, None, Placing.of(align, align_on, mirror)
    )
    found = [path for path in mesh_files(raw) if NAME.search(path.as_posix())]
    if not found:
        raise InputError(f"{raw}: holds no PERSON/models_reg/NUMBER_NAME.obj as FaceScape unpacks")
    found.sort(key=lambda path: _key(path))

    def labels_of(files: list[Path]) -> LabelTable:
        parts = [_match(path).groups() for path in files]
        subject, number, expression = (np.array(column) for column in zip(*parts, strict=True))
        names = np.array([path.relative_to(raw).as_posix() for path in files])
        columns = {"file": names, "subject": subject, "expression": expression}
        columns["expression_number"] = number.astype(np.int64)
        return completed(LabelTable(columns, len(files)))

    info = {"licence": licence, "source": "FaceScape, registered models"}
    return files_source(raw, found, labels_of, name, info, reading, options)


def _match(path: Path) -> re.Match[str]:
    match = NAME.search(path.as_posix())
    assert match is not None  # others were left out
    return match


def _key(path: Path) -> tuple[int, int]:
    person, number, _ = _match(path).groups()
    return int(person), int(number)
