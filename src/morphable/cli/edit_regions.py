"""`morphable edit region`, `sample-region` and `swap-region`: change one region of a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphable.cli.arguments import (
    MeshFile,
    MeshFormat,
    Model,
    Number,
    OutFile,
    OutFolder,
    OutUnit,
    Scale,
    Seed,
    Unit,
)
from morphable.cli.mesh_files import named, suffix
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.edit.region import RegionEdit
    from morphable.models.base import MorphableModel

RegionName = Annotated[str, Parameter(help="name of a region; `data info` lists them")]
Blending = Annotated[
    Literal["hard", "none"],
    Parameter(
        help="hard: nothing outside the region moves, and a band inside its border is smoothed; "
        "none: the model's output as it is"
    ),
]


def region(
    model: Model,
    mesh: MeshFile,
    /,
    *,
    region: RegionName,
    out: OutFile,
    move: Annotated[
        list[str] | None,
        Parameter(
            help="HANDLE:dx,dy,dz in mm, repeatable; the region's other handles follow. HANDLE is "
            "a number that `data regions` prints and draws, or the vertex of a handle",
            negative="",
        ),
    ] = None,
    target: Annotated[
        Path | None, Parameter(help="move the region to where it is in this mesh")
    ] = None,
    blend: Blending = "hard",
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Edit one region of a mesh by its handles, with a model of any family.

    A LAMM or region-pca has learned how the region follows; the code of any other model is fitted
    to the moved handles. Nothing outside the region moves.
    """
    if (move is None) == (target is None):
        raise InputError("edit region: expected either --move HANDLE:dx,dy,dz or --target FILE")

    from morphable.cli.parse import parse_moves
    from morphable.data.registered_mesh import read_registered
    from morphable.edit.region import find_region, move_handles
    from morphable.models.io import load

    out = named(out, form)
    loaded = load(model)
    shape = read_registered(mesh, loaded.template, unit)
    place = find_region(loaded, region)
    if target is not None:
        change = read_registered(target, loaded.template, unit) - shape
        moves = {int(vertex): change[vertex] for vertex in place.controls}
    else:
        moves = parse_moves(place, move or [])
    _write(loaded, move_handles(loaded, shape, place, moves, blend), region, out, out_unit)


def swap_region(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    region: RegionName,
    out: OutFile,
    blend: Blending = "hard",
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Give A the region of B, aligned at the region's border, with a model of any family."""
    from morphable.data.registered_mesh import read_registered
    from morphable.edit.region import find_region, move_handles, swap_moves
    from morphable.models.io import load

    out = named(out, form)
    loaded = load(model)
    place = find_region(loaded, region)
    first, second = (read_registered(path, loaded.template, unit) for path in (a, b))
    moves = swap_moves(place, first, second)
    _write(loaded, move_handles(loaded, first, place, moves, blend), region, out, out_unit)


def sample_region(
    model: Model,
    mesh: MeshFile,
    /,
    *,
    region: RegionName,
    out: OutFolder,
    number: Number = 8,
    seed: Seed = 0,
    scale: Scale = 1.0,
    blend: Blending = "hard",
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Sample one region of a mesh at random.

    A LAMM or region-pca draws from how that region differs between people when its border is
    aligned. With any other model, the region is that of a random shape, aligned at the border.
    """
    import torch

    from morphable.data.registered_mesh import read_registered, write_shape
    from morphable.edit.region import find_region, move_handles, sample_moves
    from morphable.files import atomic_folder
    from morphable.mesh.units import unit_of
    from morphable.models.io import load

    loaded = load(model)
    place = find_region(loaded, region)
    shape = read_registered(mesh, loaded.template, unit)
    draws = sample_moves(loaded, place, shape, number, torch.Generator().manual_seed(seed), scale)
    outside = 0.0
    with atomic_folder(out) as folder:
        for index, moves in enumerate(draws):
            edit = move_handles(loaded, shape, place, moves, blend)
            outside = max(outside, edit.outside_mm)
            file = folder / f"{region}-{index:04d}{suffix(mesh, form)}"
            write_shape(file, edit.vertices, loaded.template, out_unit)
    print(
        f"{out}: {number} shapes in {unit_of(file, out_unit)}; outside {region} nothing moved more "
        f"than {outside:.3g} mm"
    )


def _write(
    model: MorphableModel, edit: RegionEdit, region: str, out: Path, unit: str | None
) -> None:
    from morphable.data.registered_mesh import write_shape
    from morphable.mesh.units import unit_of

    write_shape(out, edit.vertices, model.template, unit)
    inside = edit.movement[edit.inside]
    print(
        f"{out}: in {unit_of(out, unit)}; {region} moved by {inside.mean():.3g} mm on average, "
        f"{inside.max():.3g} mm at most; outside at most {edit.outside_mm:.3g} mm; "
        f"seam {edit.seam_mm:.3g} mm"
    )
