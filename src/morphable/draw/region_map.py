"""A picture of a template's regions and their numbered handles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from morphable.draw.camera import Camera, view_for
from morphable.draw.colors import region_colors
from morphable.draw.pictures import png, sheet
from morphable.draw.render import render
from morphable.errors import InputError
from morphable.mesh.raster import rasterize
from morphable.mesh.template import Template

HEIGHT = 900
"""Pixels of one view."""
YAWS = (0, 90, 180, 270)
"""Degrees around the shape, so that each handle is seen in at least one view."""
TEXT = 15
INK, PAPER = (20, 20, 24, 255), (255, 255, 255, 255)
ROOM = 1.06
NEAR = 0.02
"""A handle is drawn if the surface in front of it is nearer by at most this share of the height."""


def region_picture(template: Template, height: int = HEIGHT) -> bytes:
    """A PNG file of the template from four sides, one color per region, with the names of the
    regions and the number of each handle within its region. Raises InputError if the template has
    no regions.
    """
    regions = template.regions
    if regions is None:
        raise InputError(f"template {template.name!r}: has no regions to draw")
    colors = region_colors(len(regions.names))
    camera = view_for(template)
    views = [_view(template, camera.turned(yaw), height, colors) for yaw in YAWS]
    return png(_with_names(sheet(_same_width(views), 2), regions.names, colors))


def _view(template: Template, camera: Camera, height: int, colors: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8 of the regions from one side, with the handles that are seen from there."""
    assert template.regions is not None
    mesh = template.mesh
    camera = camera.fitted([np.asarray(mesh.vertices)])
    # Numbers stand to the right of their handles, also of one at the outline.
    camera = replace(camera, extent=camera.extent * ROOM)
    size = camera.size(height)
    painted = colors[template.regions.labels]
    image = Image.fromarray(render(mesh.vertices, mesh.triangles, camera, size, painted))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT)

    points = camera.project(mesh.vertices, size)
    seen = rasterize(points, mesh.triangles, *size)
    surface = np.full(size[0] * size[1], -np.inf)
    surface[seen.pixel] = seen.depth
    for controls in template.regions.controls:
        for number, (x, y, depth) in enumerate(points[controls]):
            column, row = (int(np.clip(v, 0, n - 1)) for v, n in zip((x, y), size, strict=True))
            if surface[row * size[0] + column] > depth + NEAR * height:
                continue  # behind the shape
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=INK)
            place = (x + 4, y - TEXT)
            draw.text(place, str(number), INK, font, stroke_width=2, stroke_fill=PAPER)
    return np.asarray(image)


def _same_width(views: list[np.ndarray]) -> list[np.ndarray]:
    """The views with empty columns on both sides, as wide as the widest one."""
    widest = max(view.shape[1] for view in views)
    spare = [widest - view.shape[1] for view in views]
    return [
        np.pad(view, ((0, 0), (rest // 2, rest - rest // 2), (0, 0)))
        for view, rest in zip(views, spare, strict=True)
    ]


def _with_names(picture: np.ndarray, names: tuple[str, ...], colors: np.ndarray) -> np.ndarray:
    """The picture with a column at its right that says which color is which region."""
    font, line = ImageFont.load_default(TEXT), TEXT + 9
    width = round(max(font.getlength(name) for name in names)) + 2 * line + 8
    height = max(picture.shape[0], line * (len(names) + 1))
    image = Image.new("RGBA", (picture.shape[1] + width, height), PAPER)
    drawn = Image.fromarray(picture)
    image.paste(drawn, (0, 0), drawn)
    draw, left = ImageDraw.Draw(image), picture.shape[1]
    for number, name in enumerate(names):
        top = line // 2 + number * line
        red, green, blue = np.round(255 * colors[number]).astype(int).tolist()
        draw.rectangle((left, top, left + TEXT, top + TEXT), fill=(red, green, blue))
        draw.text((left + line, top - 2), name, INK, font)
    return np.asarray(image)
