"""Importers of registered meshes that others made, one file each, and the literal table that finds
them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from morphable.data.dataset import MeshDataset, write_dataset
from morphable.data.importers.aflw2000 import aflw2000_3d
from morphable.data.importers.bu3dfe import bu3dfe
from morphable.data.importers.coma import coma
from morphable.data.importers.dfaust import dfaust
from morphable.data.importers.facescape import facescape
from morphable.data.importers.folder import folder
from morphable.data.importers.linear_models import handy, linear_model, uhm
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.importers.synhand import synhand
from morphable.data.options import checked_options, recorded_options
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.files import require_new

IMPORTERS: dict[str, Callable[..., MeshSource]] = {
    "folder": folder,
    "coma": coma,
    "dfaust": dfaust,
    "synhand": synhand,
    "bu3dfe": bu3dfe,
    "aflw2000-3d": aflw2000_3d,
    "facescape": facescape,
    "uhm": uhm,
    "handy": handy,
    "linear-model": linear_model,
}
"""What `data import NAME` reads: a path, then keyword options -> the set."""


def import_dataset(
    importer: str,
    raw: Path,
    out: Path,
    /,
    seed: int = 0,
    on_file: Callable[[int, int], None] | None = None,
    on_block: Callable[[int], None] | None = None,
    **options: Any,
) -> MeshDataset:
    """Import the meshes at `raw` into the dataset folder `out`. Every file is read once, and an
    import that was interrupted resumes with the same command. seed: of the splits, and of what the
    importer draws. on_file, on_block: called with the number of files read and of all, and of meshes written.

    Raises InputError as `import_source` and `write_dataset`; then nothing is left behind.
    """
    require_new(out)
    if importer in IMPORTERS and "seed" in signature(IMPORTERS[importer]).parameters:
        options["seed"] = seed
    with Reading.beside(out, on_file) as reading:
        return write_dataset(import_source(importer, raw, reading, **options), out, seed, on_block)


def import_source(
    importer: str, raw: Path, reading: Reading = READ_AGAIN, /, **options: Any
) -> MeshSource:
    """The meshes at `raw`, read by the named importer, which is recorded. Options that are None, and
    flags that are False, count as not given.

    reading: how files are read; by default again whenever they are needed.

    Raises InputError for a name that does not exist and for an option that the importer does not
    take.
    """
    if importer not in IMPORTERS:
        raise InputError(f"importer {importer!r}: expected one of {', '.join(IMPORTERS)}")
    function = IMPORTERS[importer]
    chosen = checked_options(importer, function, options)
    source = function(raw, reading, **chosen)
    record = {"name": importer, "options": recorded_options(function, chosen)}
    return replace(source, info={**source.info, "importer": record})
