"""`morphable reconstruct` and `sample`: encode and decode mesh files, and draw new shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphable.cli.arguments import MeshFiles, Model, Number, OutFolder, Scale, Seed, Unit
from morphable.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from morphable.models.base import MorphableModel


def reconstruct(
    model: Model,
    meshes: MeshFiles,
    /,
    *,
    out: OutFolder,
    unit: Unit = "mm",
    points: Annotated[
        bool,
        Parameter(
            help="the files are scans: any number of points in any order, placed and scaled as the "
            "template is",
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
) -> None:
    """Encode and decode meshes. Writes the model's reconstruction of each mesh under the same file
    name, and prints its error in mm.
    """
    import torch

    from morphable.cli.output import print_table
    from morphable.cli.parse import format_given
    from morphable.data.registered_mesh import read_points, read_registered, write_shape
    from morphable.files import atomic_folder, require_new
    from morphable.mesh.distance import point_to_surface
    from morphable.models.io import load

    require_new(out)
    _require_names_differ(meshes)
    loaded = load(model)
    known = _conditions(loaded, given or [])
    read = read_points if points else read_registered
    shapes = [read(path, loaded.template, unit) for path in meshes]
    rows = []
    with atomic_folder(out) as folder, torch.no_grad():
        for path, shape in zip(meshes, shapes, strict=True):
            target = torch.from_numpy(shape)[None]
            code = loaded.encode_points(target, known) if points else loaded.encode(target, known)
            result = loaded.decode(code)
            vertices = result[0].numpy()
            write_shape(folder / path.name, vertices, loaded.template)
            if points:
                distance = point_to_surface(shape, vertices, loaded.template.mesh.triangles)
            else:
                distance = (result - target).norm(dim=-1).numpy()
            chosen = "" if known else format_given(loaded, code[0])
            rows.append([path.name, f"{distance.mean():.3f}", f"{distance.max():.3f}", chosen])
    header = ["mesh", "mean distance of its points, mm" if points else "mean error, mm", "max, mm"]
    if any(row[-1] for row in rows):
        header.append("chosen by least error")
    print_table(str(out), header, [row[: len(header)] for row in rows])


def _require_names_differ(paths: Sequence[Path]) -> None:
    names = [path.name for path in paths]
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
    suffix: Annotated[
        Literal["ply", "obj", "off", "glb"], Parameter(name="--format", help="file format")
    ] = "ply",
) -> None:
    """Sample new shapes from the model's prior."""
    import torch

    from morphable.cli.parse import parse_given
    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import sample_codes
    from morphable.files import atomic_folder, require_new
    from morphable.models.io import load

    require_new(out)
    loaded = load(model)
    known = parse_given(loaded, given or [])
    codes = sample_codes(loaded, number, torch.Generator().manual_seed(seed), part, known, scale)
    with atomic_folder(out) as folder, torch.no_grad():
        for index, code in enumerate(codes):
            vertices = loaded.decode(code[None])[0].numpy()
            write_shape(folder / f"sample-{index:04d}.{suffix}", vertices, loaded.template)
    print(f"{out}: {number} shapes")
