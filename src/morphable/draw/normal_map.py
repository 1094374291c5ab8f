"""Draw normal maps: pictures of a shape in which each pixel holds the unit normal of the surface,
as a network sees it that judges shapes by their look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morphable.draw.camera import Camera, view_for
from morphable.mesh.decimate import decimate
from morphable.mesh.raster import rasterize
from morphable.mesh.template import Template

PER_PIXEL = 2
"""A mesh with more than this many triangles per pixel is drawn by a decimated one."""


@dataclass(frozen=True, eq=False)
class NormalMaps:
    """Draws shapes of one template, all with one camera.

    kept: (n,) the vertices that are drawn. triangles: (T, 3) of these vertices. incidence: (n, T),
    which sums the normals of the triangles around each vertex. size: pixels per side.
    """

    camera: Camera
    kept: np.ndarray
    triangles: np.ndarray
    incidence: sp.csr_matrix
    size: int

    @classmethod
    def of(cls, template: Template, shapes: Sequence[np.ndarray], size: int) -> NormalMaps:
        """A camera that sees all `shapes` (V, 3) mm, and a mesh as fine as `size` pixels can show."""
        camera, mesh = view_for(template, shapes), template.mesh
        kept, triangles = np.arange(template.n_vertices), mesh.triangles
        enough = PER_PIXEL * size**2 // 4  # a closed surface covers half a picture, twice
        if len(triangles) > 2 * enough:
            coarse = decimate(mesh.vertices, triangles, enough)
            kept, triangles = coarse.kept, coarse.triangles
        corners = (triangles.ravel(), np.repeat(np.arange(len(triangles)), 3))
        shape = (len(kept), len(triangles))
        incidence = sp.csr_matrix((np.ones(triangles.size, np.float32), corners), shape)
        return cls(camera, kept, triangles, incidence, size)

    def draw(self, shapes: np.ndarray) -> np.ndarray:
        """Draw shapes (N, V, 3) mm: (N, 3, size, size) float32, each pixel the unit normal in the
        frame of the camera (right, up, towards the viewer), zero on the background.
        """
        return np.stack([self._draw(shape[self.kept]) for shape in shapes])

    def _draw(self, vertices: np.ndarray) -> np.ndarray:
        size = self.size
        seen = rasterize(self.camera.project(vertices, (size, size)), self.triangles, size, size)
        turned = vertices @ self.camera.rotation.T.astype(vertices.dtype)
        a, b, c = (turned[self.triangles[:, i]] for i in range(3))
        normals = self.incidence @ np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)

        corners = self.triangles[seen.triangle]
        drawn = (normals[corners] * seen.weights[:, :, None]).sum(1)
        drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-30)
        image = np.zeros((size * size, 3), np.float32)
        image[seen.pixel] = drawn
        return image.reshape(size, size, 3).transpose(2, 0, 1)
