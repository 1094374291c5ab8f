"""A picture of a template's regions and their control vertices."""

from __future__ import annotations

import numpy as np

from morphable.draw.camera import view_for
from morphable.draw.colors import region_colors
from morphable.draw.pictures import png, sheet
from morphable.draw.render import render
from morphable.errors import InputError
from morphable.mesh.template import Template

HEIGHT = 480
CONTROL = np.array([0.1, 0.1, 0.12])


def region_picture(template: Template, height: int = HEIGHT) -> bytes:
    """Draw the template from the front and the back, with one color per region and dark control
    vertices, as a PNG file. Raises InputError if the template has no regions.
    """
    regions = template.regions
    if regions is None:
        raise InputError(f"template {template.name!r}: has no regions to draw")
    colors = region_colors(len(regions.names))[regions.labels].copy()
    for controls in regions.controls:
        colors[controls] = CONTROL
    camera = view_for(template)
    size = camera.size(height)
    mesh = template.mesh
    views = [
        render(mesh.vertices, mesh.triangles, camera.turned(yaw), size, colors) for yaw in (0, 180)
    ]
    return png(sheet(views, 2))
