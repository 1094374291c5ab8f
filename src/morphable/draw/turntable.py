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
MARGIN = 1.15
"""The frame is this much larger than the shapes at both ends of each slider."""


@dataclass(frozen=True)
class Slider:
    """A slider from low to high, at 0 in the beginning. unit: follows its number on the page.
    heading: words above it, if it is the first of a group.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    heading: str = ""


@dataclass(frozen=True, eq=False)
class Layer:
    """y = activation(weight x + bias). weight: (O, I). activation: a name that turntable.js knows,
    or "" for none.
    """

    weight: np.ndarray
    bias: np.ndarray
    activation: str = ""


ACTIVATIONS = {
    "": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@dataclass(frozen=True, eq=False)
class Amounts:
    """How much of each component K sliders s give: a = linear s + bend s^2 + layers(s) - layers(0),
    so that the shape in the beginning is the mean alone.

    linear: (C, K). bend: (C, K), or None. layers: the last one has C outputs; may be empty.
    """

    linear: np.ndarray
    bend: np.ndarray | None = None
    layers: Sequence[Layer] = ()

    @property
    def at_rest(self) -> np.ndarray:
        """(C,) what the layers give for sliders at 0."""
        return self._network(np.zeros(self.linear.shape[1]))

    def at(self, sliders: np.ndarray) -> np.ndarray:
        """(B, K) -> (B, C), as the page computes them."""
        found = sliders @ self.linear.T
        if self.bend is not None:
            found = found + sliders**2 @ self.bend.T
        return found + self._network(sliders) - self.at_rest if self.layers else found

    def _network(self, sliders: np.ndarray) -> np.ndarray:
        hidden = sliders
        for layer in self.layers:
            hidden = ACTIVATIONS[layer.activation](hidden @ layer.weight.T + layer.bias)
        return hidden


@dataclass(frozen=True, eq=False)
class Turntable(Block):
    """A shape that varies with sliders: mean + sum_c a_c components_c, with the amounts a of the
    sliders.

    mean: (V, 3) mm. components: (C, V, 3) mm. triangles: (T, 3). rotation: (3, 3), that of the
    camera at the start. numbers: whether the page shows the positions of all sliders as text, to
    copy and to paste.
    """

    template: ClassVar[str] = "turntable.html"

    mean: np.ndarray
    components: np.ndarray
    triangles: np.ndarray
    sliders: Sequence[Slider]
    amounts: Amounts
    rotation: np.ndarray
    description: str
    numbers: bool = False

    @classmethod
    def of_ends(
        cls,
        mean: np.ndarray,
        ends: np.ndarray,
        triangles: np.ndarray,
        sliders: Sequence[Slider],
        rotation: np.ndarray,
        description: str,
    ) -> Turntable:
        """A shape that varies in K directions, each added as slope s + bend s^2, which is exact in
        the middle and at both ends.

        ends: (K, 2, V, 3) mm, the shapes at the low and the high end of each slider, which are
        equally far from 0.
        """
        reach = np.array([slider.high for slider in sliders])[:, None, None]
        low, high = ends[:, 0], ends[:, 1]
        slopes = (high - low) / (2 * reach)
        bends = (high + low - 2 * mean) / (2 * reach**2)
        one = np.eye(len(sliders))
        amounts = Amounts(np.concatenate([one, 0 * one]), np.concatenate([0 * one, one]))
        components = np.concatenate([slopes, bends])
        return cls(mean, components, triangles, sliders, amounts, rotation, description)

    @cached_property
    def middle(self) -> np.ndarray:
        """(3,) mm what the shape turns around."""
        middle: np.ndarray = (self.mean.min(axis=0) + self.mean.max(axis=0)) / 2
        return middle

    @cached_property
    def units(self) -> list[float]:
        """The unit in mm of the mean and of each component: as small as its largest coordinate
        allows.
        """
        arrays = [self.mean - self.middle, *self.components]
        largest = [float(np.abs(array).max(initial=0)) for array in arrays]
        return [2 * largest_ / (STEPS - 1) or 1.0 for largest_ in largest]

    @cached_property
    def whole(self) -> np.ndarray:
        """(1 + C, V, 3) int16: the mean and the components, in their units."""
        arrays = [self.mean - self.middle, *self.components]
        pairs = zip(arrays, self.units, strict=True)
        return np.stack([np.round(array / unit).astype("<i2") for array, unit in pairs])

    def shapes_at(self, sliders: np.ndarray) -> np.ndarray:
        """(B, K) positions of the sliders -> (B, V, 3) mm, the shapes that the page shows."""
        amounts = self.amounts.at(np.asarray(sliders, np.float64)) * self.units[1:]
        moved = amounts @ self.whole[1:].reshape(len(self.components), self.mean.size)
        rest = self.units[0] * self.whole[0].astype(np.float64)
        return self.middle + rest + moved.reshape(len(sliders), -1, 3)

    @property
    def shapes(self) -> str:
        """The mean and all components one after another, as int16 multiples of their units."""
        return _packed(self.whole)

    @property
    def indices(self) -> str:
        """The corners of all triangles, as uint32."""
        return _packed(self.triangles.astype("<u4"))

    @property
    def weights(self) -> str:
        """The numbers of the amounts, as float32: linear, bend, then weight and bias by layer."""
        arrays = [self.amounts.linear]
        arrays += [] if self.amounts.bend is None else [self.amounts.bend]
        arrays += [each for layer in self.amounts.layers for each in (layer.weight, layer.bias)]
        return _packed(np.concatenate([array.astype("<f4").ravel() for array in arrays]))

    @property
    def view(self) -> dict[str, Any]:
        """The numbers that the script reads besides the arrays."""
        return {
            "vertices": len(self.mean),
            "units": self.units,
            "bend": self.amounts.bend is not None,
            "layers": [[*layer.weight.shape, layer.activation] for layer in self.amounts.layers],
            "rotation": self.rotation.ravel().tolist(),
            "frame": self.frame,
            "slider_units": [slider.unit for slider in self.sliders],
        }

    @property
    def frame(self) -> list[float]:
        """Width and height in mm that hold the shapes at both ends of each slider, however far they
        are turned around the vertical axis, and how far the farthest vertex is from the middle.
        """
        count = len(self.sliders)
        positions = np.zeros((1 + 2 * count, count))
        for number, slider in enumerate(self.sliders):
            positions[1 + 2 * number : 3 + 2 * number, number] = slider.low, slider.high
        x, y, z = np.moveaxis((self.shapes_at(positions) - self.middle) @ self.rotation.T, -1, 0)
        radius, top = np.hypot(x, z).max(), np.abs(y).max()
        reach = np.sqrt(x**2 + y**2 + z**2).max()
        return [2 * MARGIN * float(radius), 2 * MARGIN * float(top), float(reach)]


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
