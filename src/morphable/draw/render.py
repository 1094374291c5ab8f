"""Render a mesh as a picture: as smooth clay under two lights, or in vertex colors under a softer
light in which they can be read off a color bar.

Creases darken by unsharp masking the depth buffer (Luft, Colditz & Deussen, SIGGRAPH 2006).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from morphable.draw.camera import Camera
from morphable.errors import InputError
from morphable.mesh.raster import Visible, rasterize
from morphable.mesh.topology import vertex_normals

OVERSAMPLING = 2
"""Rays per side of a pixel, so its square per pixel."""
GAMMA = 2.2
CLAY = np.array([0.81, 0.745, 0.685])
"""Color of the material, sRGB 0..1."""
INSIDE = np.array([0.50, 0.47, 0.50])
"""The material is multiplied by this color on the inner side of a surface."""
KEY_LIGHT = np.array([-0.50, 0.62, 0.70])
FILL_LIGHT = np.array([0.80, 0.05, 0.55])
"""Directions to the lights: x right, y up, z towards the viewer. The lights move with the
camera.
"""
KEY_COLOR = np.array([0.88, 0.85, 0.81])
FILL_COLOR = np.array([0.16, 0.18, 0.21])
AMBIENT = np.array([0.155, 0.16, 0.175])
WRAP = 0.25
"""How far a light reaches around the shape. It softens the edge of the shadow, as a large lamp
does.
"""
CREASE_RADIUS = 0.018
CREASE_STRENGTH = 12.0


def render(
    vertices: np.ndarray,
    triangles: np.ndarray,
    camera: Camera,
    size: tuple[int, int],
    colors: np.ndarray | None = None,
) -> np.ndarray:
    """Render a mesh as a picture (height, width, 4) uint8, in sRGB on a transparent background
    (alpha is not premultiplied).

    vertices: (V, 3) mm. triangles: (T, 3). size: (width, height) in pixels. colors: (V, 3) sRGB
    0..1, interpolated over the faces; clay if None. Raises InputError if a size is below 1 or the
    colors do not fit the vertices.
    """
    if min(size) < 1:
        raise InputError(f"picture size: expected at least 1 x 1 pixel, got {size[0]} x {size[1]}")
    if colors is not None and colors.shape != vertices.shape:
        raise InputError(
            f"colors: expected {vertices.shape}, one color per vertex, got {colors.shape}"
        )
    width, height = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    points = camera.project(vertices, (width, height))
    seen = rasterize(points, triangles, width, height)
    color = _shade(seen, points, triangles, colors) * _creases(seen, width, height)[:, None]
    picture = np.zeros((height * width, 4), np.float32)
    picture[seen.pixel, :3] = color
    picture[seen.pixel, 3] = 1
    return _finished(picture.reshape(height, width, 4))


def _shade(
    seen: Visible, points: np.ndarray, triangles: np.ndarray, colors: np.ndarray | None
) -> np.ndarray:
    """Shade the P pixels that are covered: (P, 3) in linear light."""
    upright = points * [1, -1, 1]  # pixels count down, lights are given with y up
    corners = triangles[seen.triangle]
    facing = _faces_viewer(upright, triangles)[seen.triangle]
    normal = _interpolate(vertex_normals(upright, triangles), corners, seen.weights)
    # Interpolated normals are shorter than 1, and those of inner sides point away from the viewer.
    normal *= np.where(facing, 1.0, -1.0)[:, None] / np.maximum(
        np.linalg.norm(normal, axis=1, keepdims=True), 1e-12
    )
    light = _light(normal)
    if colors is None:
        return _clay(normal, facing, light)
    paint = _interpolate(np.asarray(colors, np.float64) ** GAMMA, corners, seen.weights)
    return paint * _readable(light)


def _light(normal: np.ndarray) -> np.ndarray:
    """Return the light (P, 3) of both lamps and the sky on surfaces with normals (P, 3)."""
    ambient = AMBIENT * (1 + 0.45 * normal[:, 1:2])
    key, fill = _unit(KEY_LIGHT), _unit(FILL_LIGHT)
    return ambient + _wrapped(normal @ key) * KEY_COLOR + _wrapped(normal @ fill) * FILL_COLOR


def _readable(light: np.ndarray) -> np.ndarray:
    """Return the shade (P, 1) of a color: about half the contrast of the lights, so that the shape
    can be seen and the color still matches the color bar.
    """
    towards_viewer = np.array([0.0, 0.0, 1.0])
    key, fill = _unit(KEY_LIGHT), _unit(FILL_LIGHT)
    # Relative to a surface that faces the viewer, whose color is then exactly that of the bar.
    frontal = (
        AMBIENT
        + _wrapped(towards_viewer @ key) * KEY_COLOR
        + _wrapped(towards_viewer @ fill) * FILL_COLOR
    )
    return 0.45 + 0.55 * (light / frontal).mean(axis=1, keepdims=True)


def _clay(normal: np.ndarray, facing: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the linear light (P, 3) of clay: its material, a gleam, and a light rim at its
    outline.
    """
    halfway = _unit(_unit(KEY_LIGHT) + np.array([0.0, 0.0, 1.0]))
    gleam = 0.075 * np.clip(normal @ halfway, 0, None) ** 28
    rim = 0.07 * (1 - np.clip(normal[:, 2], 0, 1)) ** 3
    material = np.where(facing[:, None], CLAY, CLAY * INSIDE) ** GAMMA
    return material * light * 1.12 + (gleam + rim)[:, None]


def _wrapped(cosine: np.ndarray) -> np.ndarray:
    return (np.clip(cosine + WRAP, 0, None) / (1 + WRAP))[..., None]


def _interpolate(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Interpolate vertex values (V, C) at P pixels; returns (P, C) float32."""
    values, weights = values.astype(np.float32), weights.astype(np.float32)
    first, second, third = (weights[:, i : i + 1] * values[corners[:, i]] for i in range(3))
    return first + second + third


def _faces_viewer(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return whether the outer side of each triangle faces the viewer, (T,) bool. Its corners are
    counterclockwise there, with y up.
    """
    a, b, c = (points[triangles[:, i], :2] for i in range(3))
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) > 0


def _creases(seen: Visible, width: int, height: int) -> np.ndarray:
    """Return how much light reaches each pixel, (P,) from 0.45 to 1: less if it lies deeper than
    its surroundings. Computed at half the resolution.
    """
    half = (height // 2, width // 2)
    where = np.minimum(seen.pixel // width // 2, half[0] - 1) * half[1] + seen.pixel % width // 2
    reach = CREASE_RADIUS * min(half)
    offset = seen.depth.mean() if len(seen.depth) else 0.0

    # Sums over the covered pixels only, divided by their number: the background has no depth.
    def blurred(values: np.ndarray | None) -> np.ndarray:
        total = np.bincount(where, values, half[0] * half[1]).reshape(half).astype(np.float32)
        return gaussian_filter(total, reach, truncate=2.5).ravel()[where]

    depth = seen.depth - offset
    surroundings = blurred(depth) / np.maximum(blurred(None), 1e-3)
    buried = np.clip(surroundings - depth, 0, None) / min(width, height)
    return 1 - 0.55 * (1 - np.exp(-CREASE_STRENGTH * buried))


def _finished(picture: np.ndarray) -> np.ndarray:
    """Average the rays of each pixel in linear light and convert to uint8 sRGB with straight
    alpha.
    """
    n = OVERSAMPLING
    rays = [picture[i::n, j::n] for i in range(n) for j in range(n)]
    mean = sum(rays, np.zeros((1, 1, 4), np.float32)) / len(rays)
    alpha = mean[..., 3:]
    color = np.clip(mean[..., :3] / np.maximum(alpha, 1e-6), 0, 1) ** (1 / GAMMA)
    return np.round(255 * np.concatenate([color * (alpha > 0), alpha], axis=-1)).astype(np.uint8)


def _unit(vector: np.ndarray) -> np.ndarray:
    return (np.asarray(vector) / np.linalg.norm(vector)).astype(np.float32)
