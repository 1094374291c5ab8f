"""`morphable reconstruct` and `sample`: mesh files in, mesh files out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from morphable.cli.train import Model
from morphable.errors import InputError


def reconstruct(
    model: Model,
    meshes: Annotated[
        list[Path],
        Parameter(help="mesh files in correspondence with the model's template", negative=""),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="folder to write; must not exist yet")],
    unit: Annotated[
        Literal["mm", "cm", "m"], Parameter(help="the unit of the files; results are in mm")
    ] = "mm",
    points: Annotated[
        bool,
        Parameter(
            help="the files are scans: points in any number and order, placed as the template",
            negative="",
        ),
    ] = False,
    given: Annotated[
        list[str] | None,
        Parameter(help="what is known of them, PART=V[,V...] or condition=NAME:LEVEL", negative=""),
    ] = None,
) -> None:
    """Encode and decode meshes: what the model makes of each, under the same file name, with the
    error in mm.
    """
    import torch

    from morphable.cli.output import print_table
    from morphable.data.registered_mesh import read_points, read_registered, write_shape
    from morphable.edit.code import named_values, parse_given
    from morphable.files import atomic_folder, require_new
    from morphable.mesh.distance import point_to_surface
    from morphable.models.io import load

    require_new(out)
    names = [path.name for path in meshes]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(
            f"{sorted(twice)[0]}: two inputs have this name and would overwrite each other"
        )
    loaded = load(model)
    known = parse_given(loaded, given or []) or None
    inferred = sorted(set(known or {}) - set(loaded.parts.pinned_names))
    if inferred:
        raise InputError(
            f"--given {inferred[0]}: the model infers this part from the mesh, it cannot be given"
        )
    read = read_points if points else read_registered
    shapes = [read(path, loaded.template, unit) for path in meshes]
    rows = []
    with atomic_folder(out) as folder, torch.no_grad():
        for name, shape in zip(names, shapes, strict=True):
            target = torch.from_numpy(shape)[None]
            code = loaded.encode_points(target, known) if points else loaded.encode(target, known)
            result = loaded.decode(code)
            vertices = result[0].numpy()
            write_shape(folder / name, vertices, loaded.template)
            if points:
                distance = point_to_surface(shape, vertices, loaded.template.mesh.triangles)
            else:
                distance = (result - target).norm(dim=-1).numpy()
            chosen = "" if known else named_values(loaded, code[0])
            rows.append([name, f"{distance.mean():.3f}", f"{distance.max():.3f}", chosen])
    chosen_any = any(row[-1] for row in rows)
    header = ["mesh", "mean distance of its points, mm" if points else "mean error, mm", "max, mm"]
    header += ["chosen by least error"] if chosen_any else []
    print_table(str(out), header, [row[: len(header)] for row in rows])


def sample(
    model: Model,
    /,
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="how many shapes")],
    out: Annotated[Path, Parameter(help="folder to write; must not exist yet")],
    seed: Annotated[int, Parameter(help="seed of the draws")] = 0,
    part: Annotated[
        str | None, Parameter(help="vary this part of the code alone, the others at their mean")
    ] = None,
    given: Annotated[
        list[str] | None,
        Parameter(help="condition on a part, PART=V[,V...] or condition=NAME:LEVEL", negative=""),
    ] = None,
    scale: Annotated[float, Parameter(help="multiplies the standard deviation of the draws")] = 1.0,
    suffix: Annotated[
        Literal["ply", "obj", "off", "glb"], Parameter(name="--format", help="file format")
    ] = "ply",
) -> None:
    """Draw new shapes from the model's prior."""
    import torch

    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import draw, parse_given
    from morphable.files import atomic_folder, require_new
    from morphable.models.io import load

    if number < 1:
        raise InputError(f"-n {number}: expected at least 1")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: expected a whole number from 0 to below 2^32")
    if not 0 < scale < float("inf"):
        raise InputError(f"--scale {scale}: expected a positive number")
    require_new(out)
    loaded = load(model)
    known = parse_given(loaded, given or [])
    codes = draw(loaded, number, torch.Generator().manual_seed(seed), part, known, scale)
    with atomic_folder(out) as folder, torch.no_grad():
        for index, code in enumerate(codes):
            vertices = loaded.decode(code[None])[0].numpy()
            write_shape(folder / f"sample-{index:04d}.{suffix}", vertices, loaded.template)
    print(f"{out}: {number} shapes")
