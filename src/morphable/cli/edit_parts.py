"""`morphable edit synthesize`: meshes with single parts of other meshes, and the option `--mask`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from morphable.cli.arguments import (
    MAX_SHAPES,
    MeshFormat,
    Model,
    ModelData,
    OutFolder,
    OutUnit,
    Seed,
)
from morphable.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from morphable.mesh.template import Template

Mask = Annotated[
    str | None,
    Parameter(
        help="LOCAL_WEIGHTS_MODEL:PART: move only what belongs to this part, softly; the rest of "
        "the mesh stays as it is"
    ),
]


def synthesize(
    model: Model,
    /,
    *,
    out: OutFolder,
    data: ModelData = None,
    split: Annotated[
        str | None,
        Parameter(help="[NAME:]train|val|test, the meshes to draw from; default: test"),
    ] = None,
    sources: Annotated[int, Parameter(help="how many meshes get parts of others")] = 5,
    targets: Annotated[int, Parameter(help="how many other meshes the parts are taken from")] = 11,
    part: Annotated[
        list[str] | None,
        Parameter(help="exchange this part; repeatable; default: each part", negative=""),
    ] = None,
    seed: Seed = 0,
    form: MeshFormat = "ply",
    out_unit: OutUnit = None,
) -> None:
    """Draw meshes of a dataset at random, and write every source with each single part of every
    target: sources x targets x parts shapes.
    """
    import torch

    from morphable.data.registered_mesh import write_shape
    from morphable.edit.code import require_part
    from morphable.evaluate.protocol import chosen_subset, open_dataset
    from morphable.files import atomic_folder
    from morphable.models.batched import decode_all, encode_all
    from morphable.models.io import load
    from morphable.models.parts import recombine

    for flag, number in (("--sources", sources), ("--targets", targets)):
        if not 1 <= number <= MAX_SHAPES:
            raise InputError(f"{flag} {number}: expected at least 1, at most {MAX_SHAPES:,}")
    loaded = load(model)
    names = part or list(loaded.parts.free_names)
    for name in names:
        require_part(loaded, name)
    total = sources * targets * len(names)
    if total > MAX_SHAPES:
        raise InputError(
            f"--sources {sources} --targets {targets}: {total:,} shapes with {len(names)} parts, "
            f"at most {MAX_SHAPES:,} are written"
        )
    split_data, subset = chosen_subset(loaded, open_dataset(loaded, data), split)
    meshes = split_data.subset(subset)
    if sources + targets > len(meshes):
        raise InputError(
            f"--sources {sources} --targets {targets}: expected at most {len(meshes)} together, "
            f"the number of meshes in {split_data.name}:{subset}"
        )

    order = torch.randperm(len(meshes), generator=torch.Generator().manual_seed(seed)).numpy()
    drawn = order[: sources + targets]
    codes = encode_all(loaded, meshes.vertices.select(drawn))
    shapes = decode_all(loaded, recombine(loaded.parts, codes[:sources], codes[sources:], names))
    rows = meshes.rows[drawn]
    files = [
        f"{source}-with-{name}-of-{target}.{form}"
        for source in rows[:sources]
        for target in rows[sources:]
        for name in names
    ]
    with atomic_folder(out) as folder:
        for file, shape in zip(files, shapes, strict=True):
            write_shape(folder / file, shape, loaded.template, out_unit)
    print(f"{out}: {total} shapes, named by their rows in the dataset")


def read_mask(text: str, template: Template) -> np.ndarray:
    """Parse `MODEL:PART` and read the part's weights (V,) for meshes of this template."""
    from morphable.edit.mask import part_mask
    from morphable.models.io import load

    path, colon, part = text.rpartition(":")
    if not colon or not path or not part:
        raise InputError(f"--mask {text}: expected MODEL:PART, as in runs/parts:2")
    return part_mask(load(Path(path)), part, template)
