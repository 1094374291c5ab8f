"""Strips: several shapes side by side under one camera, as one picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from morphable.draw.camera import Camera
from morphable.draw.render import render
from morphable.errors import InputError


def strip(
    shapes: Sequence[np.ndarray],
    triangles: np.ndarray,
    camera: Camera,
    height: int = 240,
    columns: int | None = None,
    colors: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """Shapes (V, 3) mm from left to right, then from top to bottom, (h, w, 4) uint8 on transparent
    ground.

    height: pixels of one picture, whose width follows the camera's frame; columns: pictures in a
    row, all where None. colors: for each shape (V, 3) sRGB 0..1 or None. Raises InputError where
    there is no shape.
    """
    size = camera.size(height)
    paints = colors if colors is not None else [None] * len(shapes)
    pictures = [
        render(shape, triangles, camera, size, paint)
        for shape, paint in zip(shapes, paints, strict=True)
    ]
    return sheet(pictures, columns or max(1, len(pictures)))


def sheet(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures (h, w, 4) of one size in rows of `columns`; the last row is filled up with nothing."""
    if not pictures or columns < 1:
        raise InputError(
            f"strip: expected at least one picture and one column, got {len(pictures)} and {columns}"
        )
    empty = [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    cells = [*pictures, *empty]
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows, axis=0)


def png(picture: np.ndarray) -> bytes:
    """A picture (h, w, 4) uint8 as a PNG file.

    Each byte is stored as the difference to the one above it (filter 2), which suits smooth
    shading. Raises InputError for another shape or type.
    """
    if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        raise InputError(f"picture: expected (h, w, 4) uint8, got {picture.shape} {picture.dtype}")
    height, width = picture.shape[:2]
    rows = picture.reshape(height, width * 4)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
