"""Arguments that several commands share, each with its help text, and with a check of its own if
one is possible before torch is imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from morphable.errors import InputError
from morphable.files import require_new


def _check_model(_: object, path: Path) -> None:
    from morphable.models.stored import open_stored

    open_stored(path)


def _check_runs(_: object, paths: Path | Sequence[Path]) -> None:
    from morphable.models.stored import is_in_zoo

    for path in [paths] if isinstance(paths, Path) else paths:
        given = path.exists() or is_in_zoo(path)
        if given and not (path / "config.toml").exists():
            raise InputError(f"{path}: not a run folder, it has no config.toml")
        _check_model(_, path)


def _check_data(_: object, path: Path | None) -> None:
    if path is None:
        return
    from morphable.data.dataset import require_dataset

    require_dataset(path)


def _check_files(_: object, paths: Path | Sequence[Path] | None) -> None:
    if paths is None:
        return
    for path in [paths] if isinstance(paths, Path) else paths:
        if not path.exists():
            raise InputError(f"{path}: no such file")


def _check_new(_: object, path: Path | None) -> None:
    if path is not None:
        require_new(path)


MAX_SHAPES = 100_000
"""The most files that one command writes."""
MAX_AMOUNT = 1e6
"""The largest factor or movement in mm that can be meant; far beyond, float32 overflows."""


def _check_number(_: object, number: int) -> None:
    if not 1 <= number <= MAX_SHAPES:
        raise InputError(f"-n {number}: expected at least 1, at most {MAX_SHAPES:,}")


def _check_steps(_: object, steps: int) -> None:
    if not 2 <= steps <= MAX_SHAPES:
        raise InputError(f"--steps {steps}: expected at least 2, at most {MAX_SHAPES:,}")


def _check_seed(_: object, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: expected a whole number from 0 to below 2^32")


def _check_split_seed(_: object, seed: int) -> None:
    if seed < 0:
        raise InputError(f"--seed {seed}: expected a whole number of at least 0")


def _check_scale(_: object, scale: float) -> None:
    if not 0 < scale <= MAX_AMOUNT:
        raise InputError(f"--scale {scale}: expected a positive number, at most {MAX_AMOUNT:,.0f}")


Model = Annotated[
    Path,
    Parameter(
        help="a run folder, a model folder, a model zip, or a model that comes with morphable, such "
        "as zoo:hands",
        validator=_check_model,
    ),
]
Run = Annotated[Path, Parameter(help="a run folder", validator=_check_runs)]
Runs = Annotated[
    list[Path],
    Parameter(
        help="run folders; the others are compared with the first",
        negative="",
        validator=_check_runs,
    ),
]
Data = Annotated[Path, Parameter(help="dataset folder", validator=_check_data)]
ModelData = Annotated[
    Path | None,
    Parameter(
        help="dataset folder; default: the one the model was trained on", validator=_check_data
    ),
]
MeshFile = Annotated[
    Path,
    Parameter(
        help="a mesh file in correspondence with the model's template", validator=_check_files
    ),
]
MeshFiles = Annotated[
    list[Path],
    Parameter(
        help="mesh files in correspondence with the model's template",
        negative="",
        validator=_check_files,
    ),
]
Unit = Annotated[
    Literal["mm", "cm", "m"] | None,
    Parameter(help="the unit of the input files; default: mm, and m for GLB and glTF"),
]
Jobs = Annotated[int, Parameter(help="processes of this machine that work side by side")]
Scheduler = Annotated[
    str | None,
    Parameter(
        help="address of a Dask scheduler, such as tcp://host:8786, whose workers do the work; they "
        "see the same files and have the same version; needs pip install 'morphable[cluster]'"
    ),
]
OutUnit = Annotated[
    Literal["mm", "cm", "m"] | None,
    Parameter(help="the unit of the files to write; default: mm, and m for GLB and glTF"),
]
OutFile = Annotated[
    Path, Parameter(help="mesh file to write; must not exist yet", validator=_check_new)
]
OutFolder = Annotated[
    Path, Parameter(help="folder to write; must not exist yet", validator=_check_new)
]
MeshFormat = Annotated[
    Literal["ply", "obj", "off", "glb"] | None,
    Parameter(
        name="--format",
        help="format of the mesh files to write; glb holds triangles only, off no texture "
        "coordinates; default: that of the input file, or of the name after --out",
    ),
]
OutTable = Annotated[
    Path | None,
    Parameter(
        help="folder to write: the table as Markdown, HTML page, CSV and LaTeX; must not exist yet",
        validator=_check_new,
    ),
]
OutModel = Annotated[
    Path, Parameter(help="model folder or .zip to write; must not exist yet", validator=_check_new)
]
Part = Annotated[
    str | None, Parameter(help="change this part of the code only; default: the whole code")
]
Number = Annotated[
    int, Parameter(name=["--number", "-n"], help="how many shapes", validator=_check_number)
]
Steps = Annotated[int, Parameter(help="number of shapes", validator=_check_steps)]
Seed = Annotated[int, Parameter(help="seed of the random draws", validator=_check_seed)]
SplitSeed = Annotated[int, Parameter(help="seed of the splits", validator=_check_split_seed)]
Labels = Annotated[Path | None, Parameter(help="CSV with a `file` column and any label columns")]
Pattern = Annotated[
    str | None, Parameter(help="labels from paths, as in {subject}/{expression}/{frame}")
]
Scale = Annotated[
    float,
    Parameter(help="multiplies the standard deviation of the draws", validator=_check_scale),
]
