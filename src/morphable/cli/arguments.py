"""Arguments that several commands share, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from morphable.errors import InputError

Model = Annotated[Path, Parameter(help="a run folder, a model folder or a model zip")]
ModelData = Annotated[
    Path | None, Parameter(help="dataset folder; default: the one the model was trained on")
]
MeshFile = Annotated[
    Path, Parameter(help="a mesh file in correspondence with the model's template")
]
Unit = Annotated[
    Literal["mm", "cm", "m"] | None,
    Parameter(help="the unit of the input files; default: mm, and m for GLB and glTF"),
]
OutUnit = Annotated[
    Literal["mm", "cm", "m"] | None,
    Parameter(help="the unit of the files to write; default: mm, and m for GLB and glTF"),
]
OutFile = Annotated[Path, Parameter(help="mesh file to write; must not exist yet")]
OutFolder = Annotated[Path, Parameter(help="folder to write; must not exist yet")]
Part = Annotated[
    str | None, Parameter(help="change this part of the code only; default: the whole code")
]
Number = Annotated[int, Parameter(name=["--number", "-n"], help="how many shapes")]
Seed = Annotated[int, Parameter(help="seed of the random draws")]
Scale = Annotated[float, Parameter(help="multiplies the standard deviation of the draws")]


def check_draws(number: int, seed: int, scale: float) -> None:
    """Raise InputError unless `number` shapes can be sampled with this seed and scale."""
    if number < 1:
        raise InputError(f"-n {number}: expected at least 1")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: expected a whole number from 0 to below 2^32")
    if not 0 < scale < float("inf"):
        raise InputError(f"--scale {scale}: expected a positive number")
