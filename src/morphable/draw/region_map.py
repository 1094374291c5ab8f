"""Pictures of a template's regions, and of what editing one region moves."""

from __future__ import annotations

import matplotlib
import numpy as np

from morphable.draw.camera import view_for
from morphable.draw.render import render
from morphable.draw.strips import png, sheet
from morphable.errors import InputError
from morphable.mesh.template import Template

HEIGHT = 480
CONTROL = np.array([0.1, 0.1, 0.12])


def region_colors(count: int) -> np.ndarray:
    """(count, 3) sRGB 0..1 colors that neighbors in the list do not share."""
    number_ = np.arange(max(count, 1))
    return matplotlib.colormaps["tab20"](number_ * 2 % 20 + number_ // 10 % 2)[:, :3]


def region_picture(template: Template, height: int = HEIGHT) -> bytes:
    """A PNG of the template from the front and the back in one color a region, with dark control
    vertices.
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
