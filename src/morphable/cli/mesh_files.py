"""The names and the formats of the mesh files that commands write."""

from __future__ import annotations

from pathlib import Path

from morphable.errors import InputError
from morphable.files import require_new


def named(path: Path, form: str | None) -> Path:
    """The mesh file that a user means by --out and --format: a name without a suffix gets that of
    the format.

    Raises InputError if its suffix is that of another format, or the file exists.

    >>> named(Path("face"), "glb"), named(Path("face.obj"), None)
    (PosixPath('face.glb'), PosixPath('face.obj'))
    """
    if form is None:
        return path
    if not path.suffix:
        path = path.with_name(f"{path.name}.{form}")
        require_new(path)
    if path.suffix.lower() != f".{form}":
        raise InputError(f"--out {path}: --format {form} writes a file that ends in .{form}")
    return path


def suffix(path: Path, form: str | None) -> str:
    """The suffix of the files that are made from an input file: that of the format, else its own."""
    return f".{form}" if form else path.suffix
