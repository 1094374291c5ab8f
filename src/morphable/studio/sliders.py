"""Sliders: the directions of a model's code that a person moves, part by part, those that move the
surface most first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphable.evaluate.directions import principal_directions
from morphable.models.base import MorphableModel

PER_PART = 12
"""At most so many sliders per part of the code."""
REACH = 3.0
"""A slider goes from -REACH to REACH standard deviations of the prior."""


@dataclass(frozen=True, eq=False)
class Slider:
    """One direction of the code: value 0 is the prior's mean, 1 one standard deviation from it.

    part: the part of the code. number: 1, 2, ... within the part. step: (L,) one standard
    deviation. reader: (L,) with value = reader . (code - mean).
    """

    part: str
    number: int
    step: Tensor
    reader: Tensor
    mean: Tensor

    @property
    def name(self) -> str:
        """Unique within the model."""
        return f"{self.part} {self.number}"

    def value(self, code: Tensor) -> float:
        return float(self.reader @ (code - self.mean))

    def moved(self, code: Tensor, value: float) -> Tensor:
        """The code (L,) with this slider at another value, and every other one where it is."""
        return code + (value - self.value(code)) * self.step


@torch.no_grad()
def sliders_of(model: MorphableModel, per_part: int = PER_PART) -> list[Slider]:
    """The sliders of all free parts, in the order of the parts. A model without a prior has none:
    nothing says how far apart its codes lie.
    """
    if model.prior is None:
        return []
    return [
        Slider(part, number + 1, step, step / step.square().sum(), model.prior.mean)
        for part in model.parts.free_names
        for number, step in enumerate(principal_directions(model, part, per_part))
    ]
