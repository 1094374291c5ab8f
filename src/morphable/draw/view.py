"""View: draws shapes of one template with one camera, as pictures for a page."""

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
"""Height in pixels of a picture in a table. It is shown at about half that size, so that it is
sharp on dense screens.
"""


@dataclass(frozen=True, eq=False)
class View:
    """A camera, and the triangles (T, 3) of the shapes it looks at."""

    camera: Camera
    triangles: np.ndarray

    def widened(self, shapes: Sequence[np.ndarray], at_most: float) -> View:
        """Return a view whose frame also holds `shapes`, but grows by a factor of at most
        `at_most`.
        """
        return replace(self, camera=self.camera.widened(shapes, at_most))

    def pixels(
        self,
        shape: np.ndarray,
        colors: np.ndarray | None = None,
        yaw: float = 0,
        height: int | None = None,
    ) -> np.ndarray:
        """Render a shape (V, 3) mm as pixels (h, w, 4) uint8, in vertex colors (V, 3) or as clay,
        with the camera moved by `yaw` degrees around it.
        """
        camera = self.camera.turned(yaw) if yaw else self.camera
        return render(shape, self.triangles, camera, self.camera.size(height or HEIGHT), colors)

    def picture(
        self,
        shape: np.ndarray,
        description: str,
        colors: np.ndarray | None = None,
        caption: str = "",
        yaw: float = 0,
    ) -> Picture:
        """Draw a shape (V, 3) mm as a picture for a table, with the camera moved by `yaw` degrees
        around it.
        """
        return Picture(self.pixels(shape, colors, yaw), description, caption)

    def row(self, title: str, shapes: np.ndarray, names: Sequence[str]) -> list[Cell]:
        """Return a row of a table of pictures: its heading, then one picture per shape.

        shapes: (n, V, 3) mm. names: (n,) what each shape is.
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
        """Return a row of shapes (n, V, 3) mm in colors of distances (n, V) mm, with means
        below.
        """
        cells: list[Cell] = [title]
        for shape, distance, name in zip(shapes, distances, names, strict=True):
            mean = millimeters(float(distance.mean()))
            colors = heat_colors(distance, limit_mm)
            cells.append(self.picture(shape, f"{title}: {name}, mean {mean}", colors, mean))
        return cells
