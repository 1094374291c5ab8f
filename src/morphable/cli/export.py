"""`morphable export`: a model as a file for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphable.cli.arguments import MAX_AMOUNT, Model, ModelData, OutUnit
from morphable.errors import InputError
from morphable.files import require_new, require_writable

if TYPE_CHECKING:
    from morphable.export.directions import Offset, Step
    from morphable.models.base import MorphableModel

Format = Literal["onnx", "glb", "html", "npz", "h5"]
_ALL = "all"
_ONLY = {
    "encoder": ("onnx",),
    "part": ("glb", "html"),
    "region": ("glb", "html"),
    "expression": ("glb", "html"),
    "data": ("glb", "html"),
    "directions": ("glb", "html"),
    "scale": ("glb", "html"),
    "out_unit": ("glb",),
}
"""The formats that each option is for."""


def export(
    model: Model,
    /,
    *,
    out: Annotated[Path, Parameter(help="file to write; must not exist yet")],
    form: Annotated[
        Format | None,
        Parameter(
            name="--format",
            help="onnx: the decoder as a network; glb: the mean shape with named morph targets; "
            "html: a page with sliders that needs no server; npz, h5 (statismo): a linear model; "
            "default: the ending of --out",
        ),
    ] = None,
    encoder: Annotated[
        bool, Parameter(help="onnx: write the encoder instead of the decoder", negative="")
    ] = False,
    part: Annotated[
        list[str] | None,
        Parameter(
            help="glb, html: the principal directions of this part of the code, or all; repeatable",
            negative="",
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        Parameter(help="glb, html: what moves this region only, or all; repeatable", negative=""),
    ] = None,
    expression: Annotated[
        list[str] | None,
        Parameter(
            help="glb, html: the named expression of the model or else of the dataset, or all; "
            "repeatable",
            negative="",
        ),
    ] = None,
    data: ModelData = None,
    directions: Annotated[
        int | None,
        Parameter(
            help="how many directions per part; default: as many as give 16 targets or 64 sliders"
        ),
    ] = None,
    scale: Annotated[
        float | None,
        Parameter(
            help="glb, html: standard deviations that a target at weight 1, or the end of a slider, "
            "is away from the mean; default: 2"
        ),
    ] = None,
    out_unit: OutUnit = None,
) -> None:
    """Write a model as a file for other programs, and say how far the file is from the model.

    Without --part, --region and --expression, a glb or html file has the directions of every part
    of the code, one per region of the template and the named expressions of the model.
    """
    form = _format(out, form)
    given = {
        "encoder": encoder,
        "part": part,
        "region": region,
        "expression": expression,
        "data": data,
        "directions": directions,
        "scale": scale,
        "out_unit": out_unit,
    }
    for name, value in given.items():
        if value and form not in _ONLY[name]:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag}: is for {' and '.join(_ONLY[name])} files, not for {form}")
    if data is not None and expression is None:
        raise InputError("--data: is where --expression finds its names, which is missing")
    if expression is not None and part is None and region is None:
        for flag, number in (("--directions", directions), ("--scale", scale)):
            if number is not None:
                raise InputError(f"{flag}: is for parts and regions, and none is chosen")
    if directions is not None and not 1 <= directions <= 1000:
        raise InputError(f"--directions {directions}: expected at least 1, at most 1,000")
    if scale is not None and not 0 < scale <= MAX_AMOUNT:
        raise InputError(f"--scale {scale}: expected a positive number, at most {MAX_AMOUNT:,.0f}")
    require_writable(out)
    require_new(out)

    from morphable.export.directions import MAX_SLIDERS, MAX_TARGETS
    from morphable.models.io import load

    loaded = load(model)
    reach = 2.0 if scale is None else scale
    match form:
        case "onnx":
            _onnx(loaded, out, encoder)
        case "npz" | "h5":
            _linear(loaded, out)
        case "glb":
            ways = _ways(loaded, part, region, expression, data, (directions, MAX_TARGETS))
            _glb(loaded, out, ways, reach, out_unit)
        case "html":
            ways = _ways(loaded, part, region, expression, data, (directions, MAX_SLIDERS))
            _page(loaded, out, ways, reach)


def _format(out: Path, form: Format | None) -> Format:
    known: tuple[Format, ...] = ("onnx", "glb", "html", "npz", "h5")
    for name in known:
        if out.suffix.lower() == f".{name}" and form in (None, name):
            return name
    endings = f".{form}" if form else " or ".join(f".{name}" for name in known)
    raise InputError(f"--out {out}: expected the name of a file that ends in {endings}")


def _ways(
    model: MorphableModel,
    parts: list[str] | None,
    regions: list[str] | None,
    expressions: list[str] | None,
    data: Path | None,
    directions: tuple[int | None, int],
) -> list[Step | Offset]:
    """The ways to vary that the options choose. directions: how many per part, and in all if that
    is None.
    """
    from morphable.export.directions import latent_steps, named_conditions, region_offsets

    every = parts is None and regions is None and expressions is None
    template_regions = model.template.regions.names if model.template.regions else ()
    ways: list[Step | Offset] = []
    if every or parts is not None:
        chosen_parts = None if every or _ALL in (parts or ()) else parts
        ways += latent_steps(model, chosen_parts, *directions)
    if every:
        ways += named_conditions(model)
    if expressions is not None:
        ways += _expressions(model, expressions, data)
    if every or regions is not None:
        chosen = template_regions if every or _ALL in (regions or ()) else regions or ()
        ways += region_offsets(model, list(chosen), directions[0] or 1)
    return _distinct(ways)


def _distinct(ways: Sequence[Step | Offset]) -> list[Step | Offset]:
    """The ways with names that differ: a region that is also a part of the code is that part."""
    names: set[str] = set()
    found = []
    for way in ways:
        if way.name not in names:
            found.append(way)
        names.add(way.name)
    return found


def _expressions(model: MorphableModel, names: list[str], data: Path | None) -> list[Step]:
    from morphable.config import suggestion
    from morphable.evaluate.protocol import open_dataset
    from morphable.export.directions import expressions_of_data, named_conditions

    known = named_conditions(model) if data is None else []
    if not known:
        known = expressions_of_data(model, open_dataset(model, data))
    by_name = {step.name: step for step in known}
    if _ALL in names:
        return known
    for name in names:
        if name not in by_name:
            raise InputError(f"--expression {name}: {suggestion(name, by_name)}")
    return [by_name[name] for name in names]


def _onnx(model: MorphableModel, out: Path, encoder: bool) -> None:
    from morphable.export.onnx import export_onnx

    made = export_onnx(model, out, "encoder" if encoder else "decoder")
    print(
        f"{out}: {made.inputs} -> {made.outputs}, any B; differs from torch by at most "
        f"{made.difference:.1g} of the output's size"
    )


def _linear(model: MorphableModel, out: Path) -> None:
    from morphable.export.linear import linearized
    from morphable.mesh.io.linear_model import write_linear_model

    linear, distance = linearized(model)
    write_linear_model(out, linear)
    print(f"{out}: a linear model of {len(linear.variances)} components in mm, {distance}")


def _glb(
    model: MorphableModel, out: Path, ways: list[Step | Offset], reach: float, unit: str | None
) -> None:
    from morphable.export.glb import export_glb
    from morphable.mesh.units import unit_of

    distance = export_glb(model, out, ways, reach, unit)
    print(f"{out}: {len(ways)} morph targets in {unit_of(out, unit)}: {_listed(ways)}")
    if distance is not None:
        print(f"one latent target at weight 1 is the model's own shape; mixed ones are {distance}")


def _listed(ways: Sequence[Step | Offset], most: int = 12) -> str:
    names = ", ".join(way.name for way in ways[:most])
    return names + (f" and {len(ways) - most} more" if len(ways) > most else "")


def _page(model: MorphableModel, out: Path, ways: list[Step | Offset], reach: float) -> None:
    from morphable.export.page import export_page

    made = export_page(model, out, ways, reach)
    print(f"{out}: {len(ways)} sliders, {made.megabytes:.1f} MB; {made.words}")
