"""open_stored: finds the files of a model in a folder, a zip, a run folder or the zoo, the models
that come with the package. It needs no torch, so that a wrong path is refused before torch is
imported, which takes seconds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from morphable.errors import InputError
from morphable.files import check_inflated_size, reading
from morphable.lock import require_idle

MEMBERS = ("model.json", "template.npz", "weights.safetensors")
"""The files of a model that are read; a zip may hold others, which are not even inflated."""
ZOO, ZOO_PREFIX = Path(__file__).parent / "zoo", "zoo:"
"""`scripts/make_zoo.py` makes the zips of this folder."""


def is_in_zoo(path: Path) -> bool:
    """Whether a path names a model of the zoo, as in zoo:hands."""
    return str(path).startswith(ZOO_PREFIX)


def zoo_names() -> list[str]:
    """The names of the models in the zoo, with their prefix."""
    return sorted(f"{ZOO_PREFIX}{path.stem}" for path in ZOO.glob("*.zip"))


def _located(path: Path) -> Path:
    """The zip of a name of the zoo; any other path as it is."""
    if not is_in_zoo(path):
        return path
    if str(path) not in zoo_names():
        raise InputError(f"{path}: no such model, the zoo has {', '.join(zoo_names())}")
    return ZOO / f"{str(path).removeprefix(ZOO_PREFIX)}.zip"


def open_stored(path: Path) -> tuple[Callable[[str], bytes], Callable[[str], str]]:
    """Two functions of a file's name in a stored model: one reads the file, the other gives its
    path for messages. The model of a run folder is in its `model` folder.

    Raises InputError if there is no model, if its run is still in training, if it lacks a file, or
    if it is an unsafe zip.
    """
    path = _located(path)
    require_idle(path)
    if (path / "model" / "model.json").exists():
        path = path / "model"
    return _open_folder(path) if path.is_dir() else _open_zip(path)


def _open_folder(path: Path) -> tuple[Callable[[str], bytes], Callable[[str], str]]:
    for name in MEMBERS:
        if not (path / name).exists():
            raise InputError(f"{path}: not a model or a finished run, it has no {name}")

    def read_file(name: str) -> bytes:
        with reading(path / name, "cannot be read"):
            return (path / name).read_bytes()

    return read_file, lambda name: str(path / name)


def _open_zip(path: Path) -> tuple[Callable[[str], bytes], Callable[[str], str]]:
    broken = "not a model folder or a readable zip, it may be truncated"
    with reading(path, broken, "no such model"):
        archive = zipfile.ZipFile(path)
    # Nothing is extracted, but a user may unpack the zip: reject names that leave the folder.
    for name in archive.namelist():
        member = PurePosixPath(name.replace("\\", "/"))
        if member.is_absolute() or ".." in member.parts or ":" in name:
            raise InputError(
                f"{path}: the member {name!r} would escape the folder; this is not a model we wrote"
            )
    for name in MEMBERS:
        if name not in archive.namelist():
            raise InputError(f"{path}: not a model, the zip has no {name}")
    check_inflated_size(path, archive, MEMBERS)

    def read_member(name: str) -> bytes:
        with reading(f"{path}:{name}", "is damaged"):
            return archive.read(name)

    return read_member, lambda name: f"{path}:{name}"
