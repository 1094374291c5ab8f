"""`morphable edit`: arithmetic on codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from morphable.cli.edit_regions import region, sample_region, swap_region
from morphable.cli.train import Model
from morphable.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from morphable.models.base import MorphableModel

app = App(name="edit", help="Edit shapes through a model's code.")

for command in (region, sample_region, swap_region):
    app.command(command)

MeshFile = Annotated[
    Path, Parameter(help="a mesh file in correspondence with the model's template")
]
Unit = Annotated[
    Literal["mm", "cm", "m"], Parameter(help="the unit of the input files; results are in mm")
]
Steps = Annotated[int, Parameter(help="number of shapes")]
Folder = Annotated[Path, Parameter(help="folder to write; must not exist yet")]
OneFile = Annotated[Path, Parameter(help="mesh file to write; must not exist yet")]
OnePart = Annotated[str | None, Parameter(help="move this part of the code alone")]


@app.command
def interpolate(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    out: Folder,
    steps: Steps = 9,
    part: OnePart = None,
    unit: Unit = "mm",
) -> None:
    """Shapes on the way from A to B: codes a + t (b - a) for t from 0 to 1."""
    _line(model, a, b, (0.0, 1.0), steps, part, unit, out)


@app.command
def extrapolate(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    out: Folder,
    start: Annotated[
        float, Parameter(name="--from", help="t of the first shape: 0 is A, below lies before it")
    ] = -1.0,
    end: Annotated[
        float, Parameter(name="--to", help="t of the last shape: 1 is B, above lies beyond it")
    ] = 2.0,
    steps: Steps = 13,
    part: OnePart = None,
    unit: Unit = "mm",
) -> None:
    """Shapes before A and beyond B: codes a + t (b - a), by default from the reverse of the change
    to its double.

    With A the neutral shape of the person in B, t above 1 exaggerates the expression and t below 0
    inverts it.
    """
    if not (math.isfinite(start) and math.isfinite(end)) or start == end:
        raise InputError(f"--from {start} --to {end}: expected two different numbers")
    _line(model, a, b, (start, end), steps, part, unit, out)


@app.command
def transfer(
    model: Model,
    s0: Annotated[Path, Parameter(help="a shape of the source, usually its neutral one")],
    s1: Annotated[Path, Parameter(help="the same source deformed")],
    t0: Annotated[Path, Parameter(help="the shape of another that is to be deformed alike")],
    /,
    *,
    out: Annotated[Path, Parameter(help="mesh file to write; must not exist yet")],
    part: OnePart = None,
    unit: Unit = "mm",
) -> None:
    """Deformation transfer: what leads from S0 to S1, applied to T0; decodes code(T0) + code(S1) -
    code(S0).
    """
    import torch

    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import transfer as transfer_code
    from morphable.files import require_new
    from morphable.models.io import load

    require_new(out)
    loaded = load(model)
    codes = [_code(loaded, path, unit) for path in (s0, s1, t0)]
    with torch.no_grad():
        shape = loaded.decode(
            transfer_code(loaded.parts, codes[0], codes[1], codes[2], part)[None]
        )[0].numpy()
    write_shape(out, shape, loaded.template)
    print(out)


@app.command
def swap(
    model: Model,
    a: MeshFile,
    b: MeshFile,
    /,
    *,
    part: Annotated[
        list[str],
        Parameter(help="part to take from B, e.g. expression; may be given again", negative=""),
    ],
    out: OneFile,
    unit: Unit = "mm",
) -> None:
    """A with a part of B: one person with another's expression."""
    from morphable.edit.code import swap as swapped
    from morphable.files import require_new
    from morphable.models.io import load

    require_new(out)
    loaded = load(model)
    first, second = (_code(loaded, path, unit) for path in (a, b))
    _write(out, loaded, swapped(loaded.parts, first, second, part), loaded.decode)


@app.command
def combine(
    model: Model,
    base: MeshFile,
    /,
    *,
    part: Annotated[
        list[str], Parameter(help="PART=FILE: take this part of the code from FILE", negative="")
    ],
    out: OneFile,
    unit: Unit = "mm",
) -> None:
    """A shape put together: BASE with parts of other shapes, each from its own file."""
    from morphable.edit.code import swap as swapped
    from morphable.files import require_new
    from morphable.models.io import load

    require_new(out)
    loaded = load(model)
    code = _code(loaded, base, unit)
    for item in part:
        name, equals, file = item.partition("=")
        if not (equals and file):
            raise InputError(
                f"--part {item}: expected PART=FILE; parts are {', '.join(loaded.parts)}"
            )
        code = swapped(loaded.parts, code, _code(loaded, Path(file), unit), [name])
    _write(out, loaded, code, loaded.decode)


@app.command
def neutralise(model: Model, mesh: MeshFile, /, *, out: OneFile, unit: Unit = "mm") -> None:
    """The person of a mesh without expression."""
    from morphable.files import require_new
    from morphable.models.io import load

    require_new(out)
    loaded = load(model)
    _write(out, loaded, _code(loaded, mesh, unit), loaded.neutral)


def _write(
    out: Path, model: MorphableModel, code: Tensor, shape: Callable[[Tensor], Tensor]
) -> None:
    """Write the shape of one code (L,) as a mesh file."""
    import torch

    from morphable.data.registered_mesh import write_shape

    with torch.no_grad():
        vertices = shape(code[None])[0].numpy()
    write_shape(out, vertices, model.template)
    print(out)


def _line(
    model: Path,
    a: Path,
    b: Path,
    ends: tuple[float, float],
    steps: int,
    part: str | None,
    unit: str,
    out: Path,
) -> None:
    import torch

    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import line
    from morphable.files import atomic_folder, require_new
    from morphable.models.io import load

    if steps < 2:
        raise InputError(f"--steps {steps}: expected at least 2")
    require_new(out)
    loaded = load(model)
    first, second = (_code(loaded, path, unit) for path in (a, b))
    codes = line(loaded.parts, first, second, torch.linspace(*ends, steps), part)
    with atomic_folder(out) as folder, torch.no_grad():
        for number, code in enumerate(codes):
            write_shape(
                folder / f"step-{number:03d}{a.suffix}",
                loaded.decode(code[None])[0].numpy(),
                loaded.template,
            )
    print(f"{out}: {steps} shapes")


def _code(model: MorphableModel, path: Path, unit: str) -> Tensor:
    """(L,) code of a mesh file."""
    import torch

    from morphable.data.registered_mesh import read_registered

    with torch.no_grad():
        return model.encode(torch.from_numpy(read_registered(path, model.template, unit))[None])[0]
