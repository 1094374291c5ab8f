"""Turntable: a shape in 3D that the reader of a page turns, with a slider per direction in which it
varies. The browser draws it with WebGL; everything that it needs is in the page.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from morphable.draw.blocks import Block

STEPS = 65_535
"""The coordinates of each array are stored as whole numbers, in this many steps."""


@dataclass(frozen=True, eq=False)
class Turntable(Block):
    """A shape that varies in K directions. For the position s of a slider, from -reach to reach, a
    direction adds s * slope + s^2 * bend to the shape, which is exact in the middle and at both
    ends.

    mean: (V, 3) mm. ends: (K, 2, V, 3) mm, the shapes at -reach and at reach. triangles: (T, 3).
    names: (K,), of the directions. reach: in units of `unit`. rotation: (3, 3), that of the camera
    at the start.
    """

    template: ClassVar[str] = "turntable.html"

    mean: np.ndarray
    ends: np.ndarray
    triangles: np.ndarray
    names: Sequence[str]
    reach: float
    unit: str
    rotation: np.ndarray
    description: str

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The shape (V, 3) mm around its middle, and the slopes and bends (K, V, 3)."""
        low, high = self.ends[:, 0], self.ends[:, 1]
        slopes = (high - low) / (2 * self.reach)
        bends = (high + low - 2 * self.mean) / (2 * self.reach**2)
        middle = (self.mean.min(axis=0) + self.mean.max(axis=0)) / 2
        return self.mean - middle, slopes, bends

    @property
    def shapes(self) -> str:
        """All arrays one after another, as int16 multiples of their units."""
        pairs = zip(self.arrays, self.units, strict=True)
        whole = [np.round(array / unit).astype("<i2").ravel() for array, unit in pairs]
        return _packed(np.concatenate(whole))

    @property
    def units(self) -> list[float]:
        """The unit in mm of each array: as small as its largest coordinate allows."""
        largest = [float(np.abs(array).max(initial=0)) for array in self.arrays]
        return [2 * largest_ / (STEPS - 1) or 1.0 for largest_ in largest]

    @property
    def indices(self) -> str:
        """The corners of all triangles, as uint32."""
        return _packed(self.triangles.astype("<u4").ravel())

    @property
    def view(self) -> dict[str, Any]:
        """The numbers that the script reads besides the arrays."""
        return {
            "vertices": len(self.mean),
            "units": self.units,
            "rotation": self.rotation.ravel().tolist(),
            "unit": self.unit,
        }


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()
