"""`morphable edit region`, `sample-region` and `swap-region`: one region changes, all else stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphable.cli.train import Model
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.edit.region import RegionEdit
    from morphable.models.handles import RegionEditor

MeshFile = Annotated[
    Path, Parameter(help="a mesh file in correspondence with the model's template")
]
Unit = Annotated[
    Literal["mm", "cm", "m"], Parameter(help="the unit of the input files; results are in mm")
]
Region = Annotated[str, Parameter(help="name of the region, as `data info` lists them")]
OutFile = Annotated[Path, Parameter(help="mesh file to write; must not exist yet")]
Blending = Annotated[
    Literal["hard", "none"],
    Parameter(
        help="hard: nothing outside the region moves, a band inside its border is smoothed; none: as decoded"
    ),
]


def region(
    model: Model,
    mesh: MeshFile,
    /,
    *,
    region: Region,
    out: OutFile,
    move: Annotated[
        list[str] | None,
        Parameter(
            help="VERTEX:dx,dy,dz in mm of a control vertex, repeatable; the others follow",
            negative="",
        ),
    ] = None,
    target: Annotated[
        Path | None, Parameter(help="a mesh whose region is taken over, where it is")
    ] = None,
    blend: Blending = "hard",
    unit: Unit = "mm",
) -> None:
    """Edit one region of a mesh by its handles."""
    import torch

    from morphable.data.registered_mesh import read_registered
    from morphable.edit.region import edit_region, parse_moves, region_number
    from morphable.files import require_new

    if (move is None) == (target is None):
        raise InputError("edit region: expected either --move VERTEX:dx,dy,dz or --target FILE")
    require_new(out)
    loaded = _editor(model)
    shape = read_registered(mesh, loaded.template, unit)
    if target is not None:
        controls = loaded.regions.controls[region_number(loaded, region)]
        moved = torch.from_numpy((read_registered(target, loaded.template, unit) - shape)[controls])
    else:
        moved = parse_moves(loaded, region, move or [])
    _write(loaded, edit_region(loaded, shape, region, moved, blend), region, out)


def swap_region(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    region: Region,
    out: OutFile,
    blend: Blending = "hard",
    unit: Unit = "mm",
) -> None:
    """Shape A with the region of B, aligned at the region's border."""
    from morphable.data.registered_mesh import read_registered
    from morphable.edit.region import edit_region, region_number
    from morphable.files import require_new

    require_new(out)
    loaded = _editor(model)
    number = region_number(loaded, region)
    first, second = (read_registered(path, loaded.template, unit) for path in (a, b))
    moved = loaded.handles.swap(number, first, second)
    _write(loaded, edit_region(loaded, first, region, moved, blend), region, out)


def sample_region(
    model: Model,
    mesh: MeshFile,
    /,
    *,
    region: Region,
    out: Annotated[Path, Parameter(help="folder to write; must not exist yet")],
    number: Annotated[int, Parameter(name=["--number", "-n"], help="how many shapes")] = 8,
    seed: Annotated[int, Parameter(help="seed of the draws")] = 0,
    scale: Annotated[float, Parameter(help="multiplies the standard deviation of the draws")] = 1.0,
    blend: Blending = "hard",
    unit: Unit = "mm",
) -> None:
    """A mesh with one region drawn anew, from how that region differs between people when its
    border is aligned.
    """
    import torch

    from morphable.data.registered_mesh import read_registered, write_shape
    from morphable.edit.region import edit_region, region_number
    from morphable.files import atomic_folder, require_new

    if number < 1:
        raise InputError(f"-n {number}: expected at least 1")
    if not scale > 0:
        raise InputError(f"--scale {scale}: expected a positive number")
    require_new(out)
    loaded = _editor(model)
    place = region_number(loaded, region)
    shape = read_registered(mesh, loaded.template, unit)
    draws = loaded.handles.sample(place, number, torch.Generator().manual_seed(seed), scale)
    outside = 0.0
    with atomic_folder(out) as folder:
        for index, moved in enumerate(draws):
            edit = edit_region(loaded, shape, region, moved, blend)
            outside = max(outside, edit.outside_mm)
            write_shape(
                folder / f"{region}-{index:04d}{mesh.suffix}", edit.vertices, loaded.template
            )
    print(f"{out}: {number} shapes; outside {region} nothing moved more than {outside:.3g} mm")


def _editor(path: Path) -> RegionEditor:
    from morphable.edit.region import region_editor
    from morphable.models.io import load

    return region_editor(load(path))


def _write(model: RegionEditor, edit: RegionEdit, region: str, out: Path) -> None:
    from morphable.data.registered_mesh import write_shape

    write_shape(out, edit.vertices, model.template)
    inside = edit.movement[edit.inside]
    print(
        f"{out}: {region} moved by {inside.mean():.3g} mm on average, {inside.max():.3g} mm at most; "
        f"outside at most {edit.outside_mm:.3g} mm; seam {edit.seam_mm:.3g} mm"
    )
