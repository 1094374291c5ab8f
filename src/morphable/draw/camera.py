"""Cameras: one parallel projection per template, so that all its pictures are seen from the same
direction and at the same scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from morphable.errors import InputError
from morphable.mesh.template import Template

VIEWS: dict[str, tuple[float, float]] = {
    "hand": (-24.0, 8.0),
    "face": (-16.0, 4.0),
    "head": (-16.0, 4.0),
    "body": (-14.0, 6.0),
}
"""Yaw and pitch of the camera in degrees, by a word in the template's name. With a negative yaw it
shows more of the shape's right side. Shapes of these classes stand upright and face +z.
"""

MARGIN = 1.06
"""The frame is larger than the shapes by this factor."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A parallel projection.

    rotation: (3, 3), whose rows are the directions right, up and towards the viewer. center: (3,)
    mm, the point in the middle of the picture. extent: (2,) mm, width and height of the frame that
    the picture shows.
    """

    rotation: np.ndarray
    center: np.ndarray
    extent: np.ndarray

    def project(self, vertices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Project vertices (V, 3) mm to pixels (V, 3) of a picture of `size` (width, height), with
        x to the right, y down and z towards the viewer.
        """
        scale = min(size[0] / self.extent[0], size[1] / self.extent[1])
        points = (np.asarray(vertices, np.float64) - self.center) @ self.rotation.T * scale
        return points * [1, -1, 1] + [size[0] / 2, size[1] / 2, 0]

    def size(self, height: int) -> tuple[int, int]:
        """Return the size (width, height) in pixels of a picture of this height that the frame
        fills.
        """
        return max(1, round(height * self.extent[0] / self.extent[1])), height

    def turned(self, yaw: float) -> Camera:
        """Return the camera moved by `yaw` degrees around the shape, at the same height."""
        return replace(self, rotation=self.rotation @ rotation_y(-yaw))

    def fitted(self, shapes: Iterable[np.ndarray]) -> Camera:
        """Return a camera with the same direction whose frame holds all `shapes` (V, 3) mm."""
        boxes = [self._box(vertices) for vertices in shapes]
        return self._framed(
            np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0), MARGIN
        )

    def widened(self, shapes: Iterable[np.ndarray], at_most: float) -> Camera:
        """Return a camera whose frame also holds `shapes`, but grows by a factor of at most
        `at_most`. What lies further outside is cut off, so that one outlier does not make all other
        shapes small.
        """
        low, high = self._now(1)
        for vertices in shapes:
            box = self._box(vertices)
            low, high = np.minimum(low, box[0]), np.maximum(high, box[1])
        lowest, highest = self._now(at_most)
        return self._framed(np.maximum(low, lowest), np.minimum(high, highest), 1.0)

    def _now(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower left and upper right corners of the frame, scaled about its middle."""
        middle = (self.rotation @ self.center)[:2]
        return middle - share * self.extent / 2, middle + share * self.extent / 2

    def _framed(self, low: np.ndarray, high: np.ndarray, margin: float) -> Camera:
        # Only the directions right and up are framed: keep the depth of the center.
        center = self.rotation.T @ [*(low + high) / 2, self.rotation[2] @ self.center]
        return replace(self, center=center, extent=np.maximum((high - low) * margin, 1e-6))

    def _box(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = np.asarray(vertices, np.float64) @ self.rotation[:2].T
        return flat.min(axis=0), flat.max(axis=0)


def view_for(template: Template, shapes: Iterable[np.ndarray] = ()) -> Camera:
    """Return the camera for all pictures of a template. Its frame holds the template and all
    `shapes` (V, 3) mm.

    The direction depends on the template's name (`VIEWS`). For other classes, the longest principal
    axis is up in the picture and the shortest one points to the viewer, each along the positive
    side of the coordinate axis nearest to it. Raises InputError for a template without vertices.
    """
    reference = np.asarray(template.mesh.vertices, np.float64)
    if not len(reference):
        raise InputError(
            f"template {template.name!r}: there is nothing to look at, it has no vertices"
        )
    center = (reference.min(axis=0) + reference.max(axis=0)) / 2
    return Camera(_direction(template.name, reference), center, np.ones(2)).fitted(
        [reference, *shapes]
    )


def _direction(name: str, vertices: np.ndarray) -> np.ndarray:
    for word, (yaw, pitch) in VIEWS.items():
        if word in name.lower():
            return rotation_x(pitch) @ rotation_y(-yaw)
    # Eigenvectors come by rising variance, and their signs are arbitrary.
    axes = np.linalg.eigh(np.cov(vertices.T))[1]
    up, towards = axes[:, 2], axes[:, 0]
    up = up if up[np.abs(up).argmax()] > 0 else -up
    towards = towards if towards[np.abs(towards).argmax()] > 0 else -towards
    return np.stack([np.cross(up, towards), up, towards])


def rotation_y(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rotation_x(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
