"""`morphable edit`: arithmetic on codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from morphable.cli.arguments import (
    MAX_AMOUNT,
    MeshFile,
    MeshFormat,
    Model,
    OutFile,
    OutFolder,
    OutUnit,
    Part,
    Steps,
    Unit,
    _check_files,
    _check_model,
)
from morphable.cli.edit_parts import Mask, read_mask, synthesize
from morphable.cli.edit_regions import region, sample_region, swap_region
from morphable.cli.edit_transport import transport_files
from morphable.cli.mesh_files import named, suffix
from morphable.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from morphable.models.base import MorphableModel

app = App(name="edit", help="Edit shapes through a model's code.")

for command in (synthesize, region, sample_region, swap_region):
    app.command(command)


@app.command
def interpolate(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    out: OutFolder,
    steps: Steps = 9,
    part: Part = None,
    mask: Mask = None,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Write shapes on the way from A to B: decodes a + t (b - a) for t from 0 to 1.

    With `--format glb`, OUT is one file in which the shapes follow each other as an animation.
    """
    _interpolate(model, a, b, (0.0, 1.0), steps, part, mask, (unit, out_unit), form, out)


@app.command
def extrapolate(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    out: OutFolder,
    start: Annotated[
        float, Parameter(name="--from", help="t of the first shape: 0 is A, below 0 lies before A")
    ] = -1.0,
    end: Annotated[
        float, Parameter(name="--to", help="t of the last shape: 1 is B, above 1 lies beyond B")
    ] = 2.0,
    steps: Steps = 13,
    part: Part = None,
    mask: Mask = None,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Write shapes before A and beyond B: decodes a + t (b - a), by default for t from -1 (the
    change from A to B reversed) to 2 (the change doubled).

    If A is the neutral shape of the person in B, t above 1 exaggerates the expression and t below 0
    inverts it. With `--format glb`, OUT is one animated file.
    """
    if not (abs(start) <= MAX_AMOUNT and abs(end) <= MAX_AMOUNT) or start == end:
        raise InputError(
            f"--from {start} --to {end}: expected two different numbers, at most {MAX_AMOUNT:,.0f} "
            "from zero"
        )
    _interpolate(model, a, b, (start, end), steps, part, mask, (unit, out_unit), form, out)


@app.command
def transfer(
    *paths: Annotated[
        Path,
        Parameter(
            name="PATHS",
            help="MODEL S0 S1 T0, or S0 S1 T0 without a model. S0: a shape of the source, usually "
            "its neutral one. S1: a deformed shape of the same source. T0: the target, a shape of "
            "another subject, to be deformed like S0",
        ),
    ],
    out: OutFile,
    method: Annotated[
        Literal["gradients", "offsets"] | None,
        Parameter(
            help="without a model: `gradients` (default) turns the deformation with the surface, "
            "`offsets` adds S1 - S0"
        ),
    ] = None,
    part: Part = None,
    mask: Mask = None,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Deformation transfer: apply the step from S0 to S1 to T0. With a MODEL first, decodes
    code(T0) + code(S1) - code(S0); without one, carries the step over triangle by triangle.
    """
    if len(paths) not in (3, 4):
        raise InputError(f"edit transfer: expected MODEL S0 S1 T0 or S0 S1 T0, got {len(paths)}")
    *first, s0, s1, t0 = paths
    for model in first:
        _check_model(None, model)
    _check_files(None, [s0, s1, t0])
    out = named(out, form)
    if not first:
        if part is not None or mask is not None:
            flag = "--part" if part is not None else "--mask"
            raise InputError(f"{flag}: needs a model, as in edit transfer MODEL S0 S1 T0")
        transport_files(s0, s1, t0, method or "gradients", (unit, out_unit), out)
        return
    if method is not None:
        raise InputError(
            "--method: is for a transfer without a model, as in edit transfer S0 S1 T0"
        )
    from morphable.edit.code import transfer

    loaded = _load_with(first[0], [part] if part else [])
    source, changed, target = (_encode(loaded, path, unit) for path in (s0, s1, t0))
    code = transfer(loaded.parts, source, changed, target, part)
    _write(out, out_unit, loaded, code, _decoder(loaded, mask, t0, unit, target))


@app.command
def swap(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    part: Annotated[
        list[str], Parameter(help="part to take from B, e.g. expression; repeatable", negative="")
    ],
    out: OutFile,
    mask: Mask = None,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Replace parts of A's code with those of B, e.g. to give one person another's expression."""
    from morphable.edit.code import swap

    out = named(out, form)
    loaded = _load_with(model, part)
    first, second = (_encode(loaded, path, unit) for path in (a, b))
    code = swap(loaded.parts, first, second, part)
    _write(out, out_unit, loaded, code, _decoder(loaded, mask, a, unit, first))


@app.command
def combine(
    model: Model,
    base: MeshFile,
    /,
    *,
    part: Annotated[
        list[str],
        Parameter(help="PART=FILE: take this part of the code from FILE; repeatable", negative=""),
    ],
    out: OutFile,
    mask: Mask = None,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Replace parts of BASE's code with those of other shapes, each from its own file."""
    from morphable.cli.parse import parse_part_files
    from morphable.edit.code import require_part, swap
    from morphable.models.io import load

    out = named(out, form)
    loaded = load(model)
    files = parse_part_files(part, loaded.parts)
    for name in files:
        require_part(loaded, name)
    code = own = _encode(loaded, base, unit)
    for name, file in files.items():
        code = swap(loaded.parts, code, _encode(loaded, file, unit), [name])
    _write(out, out_unit, loaded, code, _decoder(loaded, mask, base, unit, own))


@app.command
def neutralise(
    model: Model,
    mesh: MeshFile,
    /,
    *,
    out: OutFile,
    unit: Unit = None,
    form: MeshFormat = None,
    out_unit: OutUnit = None,
) -> None:
    """Remove the expression from a mesh and keep the person."""
    from morphable.edit.code import neutralise, require_part
    from morphable.models.io import load

    out = named(out, form)
    loaded = load(model)
    require_part(loaded, "identity")
    code = _encode(loaded, mesh, unit)
    _write(out, out_unit, loaded, code, lambda codes: neutralise(loaded, codes))


def _interpolate(
    model: Path,
    a: Path,
    b: Path,
    ends: tuple[float, float],
    steps: int,
    part: str | None,
    mask: str | None,
    units: tuple[str | None, str | None],
    form: str | None,
    out: Path,
) -> None:
    """units: of the input files and of the files to write."""
    import numpy as np
    import torch

    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import interpolate
    from morphable.files import atomic_folder
    from morphable.mesh.io import in_sequence
    from morphable.mesh.units import unit_of

    animated = form == "glb"
    if animated:
        out = named(out, form)
    loaded = _load_with(model, [part] if part else [])
    unit, out_unit = units
    first, second = (_encode(loaded, path, unit) for path in (a, b))
    codes = interpolate(loaded.parts, first, second, torch.linspace(*ends, steps), part)
    decode = _decoder(loaded, mask, a, unit, first)
    if animated:
        shapes = np.stack([_shape(code, decode) for code in codes])
        write_shape(out, shapes[0], loaded.template, out_unit, in_sequence(shapes))
        print(f"{out}: {steps} shapes as one animation, in {unit_of(out, out_unit)}")
        return
    with atomic_folder(out) as folder:
        for number, code in enumerate(codes):
            file = folder / f"step-{number:03d}{suffix(a, form)}"
            write_shape(file, _shape(code, decode), loaded.template, out_unit)
    print(f"{out}: {steps} shapes in {unit_of(file, out_unit)}")


def _load_with(path: Path, parts: list[str]) -> MorphableModel:
    """Load a model whose code must have these parts."""
    from morphable.edit.code import require_part
    from morphable.models.io import load

    model = load(path)
    for name in parts:
        require_part(model, name)
    return model


def _encode(model: MorphableModel, path: Path, unit: str | None) -> Tensor:
    """Encode a mesh file; returns its code (L,)."""
    import torch

    from morphable.data.registered_mesh import read_registered

    vertices = read_registered(path, model.template, unit)
    with torch.no_grad():
        return model.encode(torch.from_numpy(vertices)[None])[0]


def _decoder(
    model: MorphableModel, mask: str | None, path: Path, unit: str | None, code: Tensor
) -> Callable[[Tensor], Tensor]:
    """The model's decoder; with a mask, one that edits the mesh at `path`, which has this code."""
    from morphable.data.registered_mesh import read_registered
    from morphable.edit.mask import masked

    if mask is None:
        return model.decode
    vertices = read_registered(path, model.template, unit)
    return masked(model.decode, vertices, code, read_mask(mask, model.template))


def _shape(code: Tensor, decode: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Decode one code (L,) into a shape (V, 3) mm."""
    import torch

    with torch.no_grad():
        return decode(code[None])[0].numpy()


def _write(
    out: Path,
    unit: str | None,
    model: MorphableModel,
    code: Tensor,
    decode: Callable[[Tensor], Tensor],
) -> None:
    """Write the shape of one code (L,) as a mesh file."""
    from morphable.data.registered_mesh import write_shape
    from morphable.mesh.units import unit_of

    write_shape(out, _shape(code, decode), model.template, unit)
    print(f"{out}: in {unit_of(out, unit)}")
