"""Pictures (h, w, 4) uint8: join several, mark a place with a ring, and write PNG and WebP files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from morphable.errors import InputError

RING, RING_WIDTH = 13.0, 4.0
"""Radius and line width in pixels of the ring that marks a place."""
RING_COLOR = (0.86, 0.30, 0.05)
QUALITY = 85
"""Of WebP, up to 100. Colors of errors stay within a few steps of 255 of those of the color bar."""


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
    return _saved(Image.fromarray(_checked(picture)), "png")


def webp(picture: np.ndarray) -> bytes:
    """Return the picture as a WebP file for a page. It has a quarter of the size of a PNG of 256
    colors, and shaded shapes look the same. Transparency is kept exactly.
    """
    return _saved(Image.fromarray(_checked(picture)), "webp", quality=QUALITY, method=4)


def _checked(picture: np.ndarray) -> np.ndarray:
    if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        raise InputError(f"picture: expected (h, w, 4) uint8, got {picture.shape} {picture.dtype}")
    return np.ascontiguousarray(picture)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
