"""Importers of registered meshes that others made, one file each, and the literal table that finds
them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from morphable.data.importers.folder import folder
from morphable.data.options import checked_options, recorded_options
from morphable.data.source import MeshSource
from morphable.errors import InputError

IMPORTERS: dict[str, Callable[..., MeshSource]] = {"folder": folder}
"""What `data import NAME` reads: a path, then keyword options -> the set."""


def import_source(importer: str, raw: Path, /, **options: Any) -> MeshSource:
    """The meshes at `raw`, read by the named importer, which is recorded. Options that are None, and
    flags that are False, count as not given.

    Raises InputError for a name that does not exist and for an option that the importer does not
    take.
    """
    if importer not in IMPORTERS:
        raise InputError(f"importer {importer!r}: expected one of {', '.join(IMPORTERS)}")
    function = IMPORTERS[importer]
    chosen = checked_options(importer, function, options)
    source = function(raw, **chosen)
    record = {"name": importer, "options": recorded_options(function, chosen)}
    return replace(source, info={**source.info, "importer": record})
