"""`morphable edit`: arithmetic on codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from morphable.cli.models import Model
from morphable.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from morphable.models.base import MorphableModel

app = App(name="edit", help="Edit shapes through a model's code.")

MeshFile = Annotated[Path, Parameter(help="a mesh file in correspondence with the model's template")]
Unit = Annotated[Literal["mm", "cm", "m"], Parameter(help="the unit of the input files; results are in mm")]
Steps = Annotated[int, Parameter(help="number of shapes")]
Folder = Annotated[Path, Parameter(help="folder to write; must not exist yet")]
OnePart = Annotated[str | None, Parameter(help="move this part of the code alone")]


@app.command
def interpolate(
    model: Model, a: MeshFile, b: MeshFile, /, *,
    out: Folder, steps: Steps = 9, part: OnePart = None, unit: Unit = "mm",
) -> None:  # fmt: skip
    """Shapes on the way from A to B: codes a + t (b - a) for t from 0 to 1."""
    _line(model, a, b, (0.0, 1.0), steps, part, unit, out)


def _line(
    model: Path, a: Path, b: Path, ends: tuple[float, float], steps: int, part: str | None, unit: str, out: Path
) -> None:
    import torch

    from morphable.data.registered import write_shape
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
            write_shape(folder / f"step-{number:03d}{a.suffix}", loaded.decode(code[None])[0].numpy(), loaded.template)
    print(f"{out}: {steps} shapes")


def _code(model: MorphableModel, path: Path, unit: str) -> Tensor:
    """(L,) code of a mesh file."""
    import torch

    from morphable.data.registered import read_registered

    with torch.no_grad():
        return model.encode(torch.from_numpy(read_registered(path, model.template, unit))[None])[0]
