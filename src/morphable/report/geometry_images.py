"""Section on the geometry images of a `gan`: real and generated ones, how smooth they are, and what
is lost between an image and the surface.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from morphable.draw.blocks import Cell, Picture, Section, Table, Text
from morphable.draw.numbers import millimeters, number
from morphable.mesh.geometry_image import LaplacianReadout
from morphable.models.gan import Gan
from morphable.models.image_geometry import total_variation
from morphable.report.context import ReportContext
from morphable.rows import evenly_spread

SHOWN = 6
MEASURED = 100
"""Images, real and generated, whose total variation is measured."""
ROUND_TRIPS = 32
"""Measured meshes that are turned into images and back."""
ENLARGED = 3


@torch.no_grad()
def geometry_images(context: ReportContext) -> Section | None:
    """Show geometry images. Red, green and blue are the displacements along x, y and z."""
    model = context.model
    if not isinstance(model, Gan):
        return None
    meshes = context.scene.meshes.vertices
    real = model.image_of(torch.from_numpy(meshes[evenly_spread(len(meshes), MEASURED)]))
    codes = model.require_prior().sample(MEASURED, torch.Generator().manual_seed(0))
    drawn = model.image(codes)
    limit = float(torch.quantile(real[:, :, model.maps.mask].abs().flatten()[:1_000_000], 0.99))
    lines: list[list[Cell]] = []
    for title, images in (("Measured mesh", real), ("Random sample", drawn)):
        shown = enumerate(images[:SHOWN], start=1)
        lines.append([title, *(_picture(one, limit, f"{title} {n}", model) for n, one in shown)])
    side = model.config.resolution
    lead = (
        f"Displacements from the mean in {side} x {side} pixels: red, green and blue are x, y and "
        f"z. The total variation of a sample is {number(float(total_variation(drawn).mean()), 4)} "
        f"on average, that of a measured mesh {number(float(total_variation(real).mean()), 4)}: "
        "noise on the surface would make it much larger."
    )
    table = Table([""] * (SHOWN + 1), lines, "pictures")
    return Section(
        "Geometry images", [Text(lead, "lead"), table, Text(_round_trip(context, model))]
    )


def _picture(image: Tensor, limit: float, description: str, model: Gan) -> Picture:
    values = (127.5 + 127.5 * (image / limit).clamp(-1, 1)).round().byte()
    mask = 255 * model.maps.mask.byte()
    pixels = torch.cat([values, mask[None]]).permute(1, 2, 0).cpu().numpy()
    return Picture(np.kron(pixels, np.ones((ENLARGED, ENLARGED, 1), np.uint8)), description)


def _round_trip(context: ReportContext, model: Gan) -> str:
    """A sentence on the error of turning measured meshes into images and back, both ways."""
    meshes = context.scene.meshes.vertices
    mean = model.mean.cpu().numpy()
    shapes = meshes[evenly_spread(len(meshes), ROUND_TRIPS)] - mean
    layout = model.geometry.layout
    images = layout.rasterize(shapes)
    solve = LaplacianReadout(layout, model.template.mesh)
    errors = [
        float(np.linalg.norm(back - shapes, axis=-1).mean())
        for back in (layout.read(images), solve.read(images))
    ]
    return (
        f"Turned into an image and back, a measured mesh moves by {millimeters(errors[0])} if its "
        f"vertices are read bilinearly, and by {millimeters(errors[1])} if they are solved for "
        "with the Laplacian."
    )
