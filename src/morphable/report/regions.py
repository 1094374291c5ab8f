"""Pictures of a template's regions, and of what editing one region moves."""

from __future__ import annotations

import numpy as np

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.report.camera import view_for
from morphable.report.gallery import region_colours
from morphable.report.render import render
from morphable.report.strips import png, sheet

HEIGHT = 480
CONTROL = np.array([0.1, 0.1, 0.12])


def region_picture(template: Template, height: int = HEIGHT) -> bytes:
    """A PNG of the template from the front and the back in one colour a region, with dark control vertices."""
    if template.regions is None:
        raise InputError(f"template {template.name!r}: has no regions to draw")
    colours = region_colours(len(template.region_names))[template.regions].copy()
    for controls in template.control_vertices:
        colours[controls] = CONTROL
    camera = view_for(template)
    size = camera.size(height)
    mesh = template.mesh
    views = [render(mesh.vertices, mesh.triangles, camera.turned(yaw), size, colours) for yaw in (0, 180)]
    return png(sheet(views, 2))
