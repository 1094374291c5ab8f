"""`morphable reconstruct` and `sample`: encode and decode mesh files, and draw new shapes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from morphable.cli.arguments import (
    MeshFiles,
    MeshFormat,
    Model,
    Number,
    OutFolder,
    OutUnit,
    Scale,
    Seed,
    Unit,
)
from morphable.cli.mesh_files import suffix
from morphable.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from morphable.mesh.placement import Placement
    from morphable.models.base import MorphableModel


def reconstruct(
    model: Model,
    meshes: MeshFiles,
    /,
    *,
    out: OutFolder,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
    points: Annotated[
        bool,
        Parameter(
            help="the files are scans: any number of points in any order, placed and scaled as the "
            "model's meshes are, unless --fit-pose or --fit-scale is given",
            negative="",
        ),
    ] = False,
    given: Annotated[
        list[str] | None,
        Parameter(
            help="a known condition of the meshes: PART=V[,V...] or condition=NAME:LEVEL",
            negative="",
        ),
    ] = None,
    fit_pose: Annotated[
        bool,
        Parameter(
            help="first turn and shift each file to where the model's meshes lie; what is written "
            "lies there",
            negative="",
        ),
    ] = False,
    fit_scale: Annotated[
        bool, Parameter(help="as --fit-pose, and fit the size too", negative="")
    ] = False,
) -> None:
    """Encode and decode meshes. Writes the model's reconstruction of each mesh under the same file
    name, and prints its error in mm.
    """
    from morphable.cli.output import print_table
    from morphable.cli.parse import format_given
    from morphable.data.registered_mesh import read_points, read_registered, write_shape
    from morphable.files import atomic_folder
    from morphable.fitting.pose import fit_pose as fit
    from morphable.fitting.pose import misplaced
    from morphable.fitting.pose import reconstruct as encode_and_decode
    from morphable.mesh.units import unit_of
    from morphable.models.io import load

    names = [path.stem + suffix(path, form) for path in meshes]
    _require_differ(names)
    loaded = load(model)
    known = _conditions(loaded, given or [])
    read = read_points if points else read_registered
    shapes = [read(path, loaded.template, unit) for path in meshes]
    rows = []
    with atomic_folder(out) as folder:
        for path, name, shape in zip(meshes, names, shapes, strict=True):
            if fit_pose or fit_scale:
                _require_pose(path, shape)
                fitted = fit(loaded, shape, known, points=points, scale=fit_scale)
            else:
                fitted = encode_and_decode(loaded, shape, known, points=points)
                if found := misplaced(loaded, shape, fitted, known, points=points):
                    place, aligned = found
                    _warn_of_placement(path, place, fitted.error, aligned.error)
            write_shape(folder / name, fitted.vertices, loaded.template, out_unit)
            chosen = "" if known else format_given(loaded, fitted.code)
            distance = fitted.distance
            rows.append([name, f"{distance.mean():.3f}", f"{distance.max():.3f}", chosen])
    header = ["mesh", "mean distance of its points, mm" if points else "mean error, mm", "max, mm"]
    if any(row[-1] for row in rows):
        header.append("chosen by least error")
    title = (
        f"{out}, files in {' and '.join(sorted({unit_of(Path(name), out_unit) for name in names}))}"
    )
    print_table(title, header, [row[: len(header)] for row in rows])


def _warn_of_placement(path: Path, found: Placement, before: float, after: float) -> None:
    flag = "--fit-scale" if found.is_scaled else "--fit-pose"
    warnings.warn(
        f"{path}: {before:.3g} mm from the model as it lies, {after:.3g} mm if it is aligned; it "
        f"seems to be {' and '.join(found.causes)} against the model's meshes: add {flag}",
        stacklevel=2,
    )


def _require_pose(path: Path, shape: np.ndarray) -> None:
    from morphable.mesh.placement import on_one_line

    if on_one_line(shape):
        raise InputError(f"{path}: its points lie on one line, so there is no pose to fit")


def _require_differ(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{repeated[0]}: two inputs have this name and would overwrite each other")


def _conditions(model: MorphableModel, texts: Sequence[str]) -> dict[str, Tensor] | None:
    """Return the values of --given, or None if there are none.

    Raises InputError for a part that the model infers: only conditioning inputs can be given.
    """
    from morphable.cli.parse import parse_given

    known = parse_given(model, texts)
    inferred = sorted(set(known) - set(model.parts.pinned_names))
    if inferred:
        raise InputError(
            f"--given {inferred[0]}: the model infers this part from the mesh, it cannot be given"
        )
    return known or None


def sample(
    model: Model,
    /,
    *,
    number: Number,
    out: OutFolder,
    seed: Seed = 0,
    part: Annotated[
        str | None, Parameter(help="vary this part of the code only; the others keep their mean")
    ] = None,
    given: Annotated[
        list[str] | None,
        Parameter(help="condition on a part, PART=V[,V...] or condition=NAME:LEVEL", negative=""),
    ] = None,
    scale: Scale = 1.0,
    form: MeshFormat = "ply",
    out_unit: OutUnit = None,
) -> None:
    """Sample new shapes from the model's prior."""
    import torch

    from morphable.cli.parse import parse_given
    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import require_part, sample_codes
    from morphable.files import atomic_folder
    from morphable.mesh.units import unit_of
    from morphable.models.io import load

    loaded = load(model)
    if part is not None:
        require_part(loaded, part)
    known = parse_given(loaded, given or [])
    codes = sample_codes(loaded, number, torch.Generator().manual_seed(seed), part, known, scale)
    with atomic_folder(out) as folder, torch.no_grad():
        for index, code in enumerate(codes):
            vertices = loaded.decode(code[None])[0].numpy()
            file = folder / f"sample-{index:04d}.{form}"
            write_shape(file, vertices, loaded.template, out_unit)
    print(f"{out}: {number} shapes in {unit_of(file, out_unit)}")
