"""Pictures (h, w, 4) uint8: join several, mark a place with a ring, and write PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from morphable.errors import InputError

RING, RING_WIDTH = 13.0, 4.0
"""Radius and line width in pixels of the ring that marks a place."""
RING_COLOR = (0.86, 0.30, 0.05)
PALETTE = 256
EDGE_COLORS = 15
"""Colors of the palette per degree of transparency. Transparent pixels are all on outlines."""
OPACITIES = 4
"""Steps of opacity in a palette picture: as many as the renderer casts rays per pixel."""


def sheet(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Join pictures (h, w, 4) of one size in rows of `columns`; the last row is filled up with
    empty ones.

    Raises InputError if there is no picture or no column.
    """
    if not pictures or columns < 1:
        raise InputError(
            "sheet: expected at least one picture and one column, "
            f"got {len(pictures)} and {columns}"
        )
    empty = [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    cells = [*pictures, *empty]
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows, axis=0)


def ringed(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the picture with a smooth-edged ring around a place (x, y) in pixels."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    distance = np.abs(np.hypot(x - place[0], y - place[1]) - RING)
    cover = np.clip(RING_WIDTH / 2 + 0.5 - distance, 0, 1)[..., None]
    result = picture.astype(np.float64)
    result[..., :3] = (1 - cover) * result[..., :3] + cover * 255 * np.array(RING_COLOR)
    result[..., 3:] = np.maximum(result[..., 3:], 255 * cover)
    return np.round(result).astype(np.uint8)


def png(picture: np.ndarray) -> bytes:
    """Return the picture as a lossless PNG file. Raises InputError for another shape or type."""
    return _saved(Image.fromarray(_checked(picture)))


def palette_png(picture: np.ndarray) -> bytes:
    """Return the picture as a PNG file of at most 256 colors. It is half as large, and shaded
    shapes look the same.

    Median cut over all pixels would give each degree of transparency its own shades and leave few
    for the surface. So the opaque pixels get a palette of their own, and the outlines, which are a
    small share of the pixels, get a small palette per step of opacity.
    """
    pixels = _checked(picture)
    opacity = np.round(pixels[..., 3] * (OPACITIES / 255)).astype(np.uint8)
    index = np.zeros(opacity.shape, np.uint8)
    colors, alphas = [(0, 0, 0)], [0]
    for step in range(1, OPACITIES + 1):
        here = opacity == step
        if here.any():
            room = EDGE_COLORS if step < OPACITIES else PALETTE - len(colors)
            own, number = _median_cut(pixels[here, :3], room)
            index[here] = number + len(colors)
            colors += own
            alphas += [round(255 * step / OPACITIES)] * len(own)
    image = Image.frombytes("P", (pixels.shape[1], pixels.shape[0]), index.tobytes())
    image.putpalette(np.array(colors, np.uint8).tobytes())
    return _saved(image, transparency=bytes(alphas))


def _median_cut(pixels: np.ndarray, count: int) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Choose at most `count` colors for pixels (P, 3), and return them with the number (P,) of each
    pixel's color.

    Each distinct color counts once, however many pixels have it. Otherwise the few pixels of a
    large error, which are what a reader looks for, would all get one shade.
    """
    red, green, blue = pixels.T.astype(np.int32)
    packed = red << 16 | green << 8 | blue
    distinct, place = np.unique(packed, return_inverse=True)
    line = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=-1)[None]
    image = Image.fromarray(line.astype(np.uint8))
    cut = image.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    number = np.asarray(cut)[0]
    palette = np.array(cut.getpalette()).reshape(-1, 3)[: number.max() + 1]
    return [(int(r), int(g), int(b)) for r, g, b in palette], number[place]


def _checked(picture: np.ndarray) -> np.ndarray:
    if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        raise InputError(f"picture: expected (h, w, 4) uint8, got {picture.shape} {picture.dtype}")
    return np.ascontiguousarray(picture)


def _saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "png", **options)
    return file.getvalue()
