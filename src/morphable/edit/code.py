"""Arithmetic on codes: lines between shapes, draws of one part, known parts read from text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.models.base import MorphableModel
from morphable.models.parts import Parts


def line(parts: Parts, a: Tensor, b: Tensor, positions: Tensor, part: str | None = None) -> Tensor:
    """(S, L) codes a + t (b - a) for each t of `positions` (S,); with `part`, that part moves and a's others stay."""
    return a + positions[:, None].to(a) * _only(parts, b - a, part)


def transferred(parts: Parts, source: Tensor, changed: Tensor, target: Tensor, part: str | None = None) -> Tensor:
    """(..., L) codes of deformation transfer (Chen and Kim 2021): target + (changed - source).

    What leads from one shape to another is applied to a third; with `part`, that part of it alone.
    """
    return target + _only(parts, changed - source, part)


def _only(parts: Parts, step: Tensor, part: str | None) -> Tensor:
    """The step (..., L) with the other parts at rest. Raises InputError for a part that does not exist."""
    if part is None:
        return step
    kept = torch.zeros_like(step)
    kept[..., parts[part]] = step[..., parts[part]]
    return kept


def draw(
    model: MorphableModel, n: int, generator: torch.Generator, part: str | None = None,
    given: Mapping[str, Tensor] | None = None, scale: float = 1.0,
) -> Tensor:  # fmt: skip
    """(n, L) codes from the prior, conditioned on `given`; with `part`, the other parts rest at their mean."""
    prior = model.prior.given(given) if given else model.prior
    codes = prior.sample(n, generator, scale)
    if part is None:
        return codes
    where = model.parts[part]
    result = prior.mean.repeat(n, 1)
    result[:, where] = codes[:, where]
    return result


def parse_given(model: MorphableModel, texts: Iterable[str]) -> dict[str, Tensor]:
    """`PART=V[,V...]` texts as values by part; InputError where a part is unknown or the count is not its size."""
    known = {}
    for text in texts:
        name, equals, values = text.partition("=")
        where = model.parts[name]
        size = where.stop - where.start
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if not equals or len(numbers) != size or not all(map(math.isfinite, numbers)):
            raise InputError(f"--given {text}: expected {name}= and {size} numbers separated by commas")
        known[name] = torch.tensor(numbers)
    return known
