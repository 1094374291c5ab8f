"""View: shapes of one template under one camera, as pictures for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from morphable.draw.blocks import Cell, Picture
from morphable.draw.camera import Camera
from morphable.draw.colors import heat_colors
from morphable.draw.numbers import millimeters
from morphable.draw.render import render

HEIGHT = 300
"""Pixels of a picture in a table. It is shown at about half of that, so that it is crisp on dense
screens.
"""


@dataclass(frozen=True, eq=False)
class View:
    """A camera, and the triangles (T, 3) of the shapes it looks at."""

    camera: Camera
    triangles: np.ndarray

    def widened(self, shapes: Sequence[np.ndarray], at_most: float) -> View:
        """The view whose frame also holds `shapes`, but grows at most so many times."""
        return replace(self, camera=self.camera.widened(shapes, at_most))

    def pixels(
        self,
        shape: np.ndarray,
        colors: np.ndarray | None = None,
        yaw: float = 0,
        height: int | None = None,
    ) -> np.ndarray:
        """(h, w, 4) uint8 of a shape (V, 3) mm: clay, or in vertex colors (V, 3); seen from `yaw`
        degrees around it.
        """
        camera = self.camera.turned(yaw) if yaw else self.camera
        return render(shape, self.triangles, camera, self.camera.size(height or HEIGHT), colors)

    def picture(
        self,
        shape: np.ndarray,
        description: str,
        colors: np.ndarray | None = None,
        caption: str = "",
    ) -> Picture:
        """A picture of a shape (V, 3) mm for a table."""
        return Picture(self.pixels(shape, colors), description, caption)

    def row(self, title: str, shapes: np.ndarray, names: Sequence[str]) -> list[Cell]:
        """A row of a table of pictures: its heading, then one picture per shape (n, V, 3) mm.

        names: (n,) what each shape is.
        """
        pairs = zip(shapes, names, strict=True)
        return [title, *(self.picture(shape, f"{title}: {name}") for shape, name in pairs)]

    def distance_row(
        self,
        title: str,
        shapes: np.ndarray,
        distances: np.ndarray,
        names: Sequence[str],
        limit_mm: float,
    ) -> list[Cell]:
        """A row of shapes (n, V, 3) mm colored by distances (n, V) mm, with their means below."""
        cells: list[Cell] = [title]
        for shape, distance, name in zip(shapes, distances, names, strict=True):
            mean = millimeters(float(distance.mean()))
            colors = heat_colors(distance, limit_mm)
            cells.append(self.picture(shape, f"{title}: {name}, mean {mean}", colors, mean))
        return cells
