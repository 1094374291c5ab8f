"""`morphable data regions`: divide a dataset's template into regions, and draw them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.mesh.regions import Regions
    from morphable.mesh.template import Template


def regions(
    dataset: Annotated[Path, Parameter(help="a dataset folder")],
    /,
    *,
    count: Annotated[
        int | None,
        Parameter(help="make this many automatic regions; 11 if the template has none yet"),
    ] = None,
    labels: Annotated[
        Path | None, Parameter(help="file of region labels: .json, .csv, .npy, .npz, .obj groups")
    ] = None,
    merged_from: Annotated[
        list[int] | None,
        Parameter(
            help="make this many first and merge them down to --count: such sets nest; repeat it "
            "to pass through several numbers",
            negative="",
        ),
    ] = None,
    from_weights: Annotated[
        Path | None,
        Parameter(
            help="a local-weights model: each vertex goes to the part that it belongs to most"
        ),
    ] = None,
) -> None:
    """Print the regions of the dataset's template with their numbered handles, and draw them into
    DATASET/regions.png.

    --count, --merged-from, --labels and --from-weights give the template new regions first. Models trained before
    keep the regions they were trained with.
    """
    from dataclasses import replace

    from morphable.cli.output import print_table
    from morphable.data.dataset import load_dataset
    from morphable.draw.region_map import region_picture
    from morphable.files import atomic_path
    from morphable.mesh.regions import handle_list

    automatic = count is not None or merged_from is not None
    if (labels is not None) + (from_weights is not None) + automatic > 1:
        raise InputError(
            "--labels reads regions from a file, --from-weights from a model, --count and "
            "--merged-from make automatic ones: use one of them"
        )
    template = load_dataset(dataset).template
    if from_weights is not None:
        made = _regions_of_model(template, from_weights)
    else:
        made = _regions_of(template, count, labels, merged_from)
    changed = replace(template, regions=made)
    # The picture first: if it cannot be drawn, the template on disk stays as it was.
    with atomic_path(dataset / "regions.png") as picture:
        picture.write_bytes(region_picture(changed))
    if made is not template.regions:
        changed.save(dataset / "template.npz")
    rows = [
        [name, f"{(made.labels == number).sum():,}", handle_list(made.controls[number])]
        for number, name in enumerate(made.names)
    ]
    print_table(
        f"{dataset}: {len(rows)} regions, drawn in {dataset / 'regions.png'}",
        ["region", "vertices", "handles: number=vertex"],
        rows,
    )


def _regions_of(
    template: Template, count: int | None, labels: Path | None, merged_from: list[int] | None
) -> Regions:
    """The regions that the options ask for; without options those that a model would train with."""
    from morphable.mesh.automatic_regions import COUNT, automatic_regions, template_regions
    from morphable.mesh.region_files import read_regions

    if labels is not None:
        return read_regions(labels, template.mesh)
    if count is None and merged_from is None:
        return template_regions(template)
    count = COUNT if count is None else count
    return automatic_regions(template.mesh, count, template.mirror, merged_from or ())


def _regions_of_model(template: Template, path: Path) -> Regions:
    """The regions where each part of a local-weights model has the largest weight."""
    import numpy as np

    from morphable.edit.mask import part_mask
    from morphable.mesh.regions import regions_of_weights
    from morphable.models.io import load

    model = load(path)
    weights = np.stack([part_mask(model, part, template) for part in model.parts], 1)
    names = [f"part-{part}" for part in model.parts]
    return regions_of_weights(template.mesh, weights, names)
