"""`morphable data regions`: divide a dataset's template into regions, and draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from morphable.errors import InputError


def regions(
    dataset: Annotated[Path, Parameter(help="a dataset folder")],
    /,
    *,
    count: Annotated[int | None, Parameter(help="number of automatic regions; default: 11")] = None,
    labels: Annotated[
        Path | None, Parameter(help="file of region labels: .json, .csv, .npy, .npz, .obj groups")
    ] = None,
    merged_from: Annotated[
        int | None,
        Parameter(help="make this many first and merge them down to --count: such sets nest"),
    ] = None,
) -> None:
    """Give the dataset's template regions and control vertices, and draw them into
    DATASET/regions.png.

    Models that were trained earlier keep the regions that they were trained with.
    """
    from dataclasses import replace

    from morphable.cli.output import print_table
    from morphable.data.dataset import load_dataset
    from morphable.draw.region_map import region_picture
    from morphable.files import atomic_path
    from morphable.mesh.automatic_regions import automatic_regions
    from morphable.mesh.region_files import read_regions

    if labels is not None and (count is not None or merged_from is not None):
        raise InputError(
            "--labels reads regions from a file, --count and --merged-from make automatic ones: "
            "use one of the two"
        )
    template = load_dataset(dataset).template
    if labels is not None:
        made = read_regions(labels, template.mesh)
    else:
        made = automatic_regions(
            template.mesh, 11 if count is None else count, template.mirror, merged_from or 0
        )
    template = replace(template, regions=made)
    # The picture first: if it cannot be drawn, the template on disk stays as it was.
    with atomic_path(dataset / "regions.png") as picture:
        picture.write_bytes(region_picture(template))
    template.save(dataset / "template.npz")
    rows = [
        [name, f"{(made.labels == number).sum():,}", str(len(made.controls[number]))]
        for number, name in enumerate(made.names)
    ]
    print_table(
        f"{dataset}: {len(rows)} regions, drawn in {dataset / 'regions.png'}",
        ["region", "vertices", "controls"],
        rows,
    )
