"""CoMA (Ranjan et al. 2018): registered faces of 12 people with 12 extreme expressions, 20,466 PLY
files of 5,023 vertices in meters.
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

LICENCE = "CoMA: research only, see coma.is.tue.mpg.de"
SUBJECTS, EXPRESSIONS, MESHES = 12, 12, 20_466
NAME = re.compile(r"([^/]+)/([^/]+)/[^/]*?([0-9]+)\.[a-z]+$", re.IGNORECASE)


def coma(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str = "m",
    template: Path | None = None,
    name: str = "face",
    licence: str = LICENCE,
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
    skip_bad: bool = False,
    faces: str = "same",
) -> MeshSource:
    """The registered meshes as they are unpacked: SUBJECT/EXPRESSION/EXPRESSION.NNNNNN.ply, sorted
    by subject, expression and frame number, whatever the file system says.

    The set has no neutral scans; the mean of each subject's first frames is used instead. The
    published split is `frames`: positions 0 to 9 of each hundred are tested on, 2,050 of 20,466.
    `frames-deep3dmm` and `expression-NAME` are those of Deep3DMM and of the extrapolation.
    """
    options = FileOptions(
        unit, template, "y", skip_bad, faces, None, Placing.of(align, align_on, mirror)
    )
    found = [path for path in mesh_files(raw) if path.relative_to(raw).parent != Path()]

    def labels_of(files: list[Path]) -> LabelTable:
        return coma_labels([path.relative_to(raw).as_posix() for path in files])

    info = {"licence": licence, "source": "CoMA, registered meshes"}
    if not found:
        raise InputError(f"{raw}: expected SUBJECT/EXPRESSION/FRAME files as CoMA unpacks")
    return files_source(raw, found, labels_of, name, info, reading, options)


def coma_labels(names: list[str]) -> LabelTable:
    """The labels of files by their paths. Raises InputError for a path of another layout."""
    rows = []
    for name in names:
        match = NAME.search(name)
        if match is None:
            raise InputError(f"{name}: expected SUBJECT/EXPRESSION/EXPRESSION.NNNNNN.ply")
        rows.append(match.groups())
    subject, sequence, frame = (np.array(column) for column in zip(*rows, strict=True))
    columns = {
        "file": np.array(names),
        "subject": subject,
        "sequence": sequence,
        "frame": frame.astype(np.int64),
    }
    return completed(LabelTable(columns, len(names)))
