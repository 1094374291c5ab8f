"""Arithmetic on codes: lines between shapes, draws of one part, known parts read from text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from morphable.config import suggestion
from morphable.errors import InputError
from morphable.models.base import MorphableModel
from morphable.models.parts import Parts


def line(parts: Parts, a: Tensor, b: Tensor, positions: Tensor, part: str | None = None) -> Tensor:
    """(S, L) codes a + t (b - a) for each t of `positions` (S,); with `part`, that part moves and
    a's others stay.
    """
    return a + positions[:, None].to(a) * _only(parts, b - a, part)


def transfer(
    parts: Parts, source: Tensor, changed: Tensor, target: Tensor, part: str | None = None
) -> Tensor:
    """(..., L) codes of deformation transfer (Chen and Kim 2021): target + (changed - source).

    What leads from one shape to another is applied to a third; with `part`, that part of it alone.
    """
    return target + _only(parts, changed - source, part)


def _only(parts: Parts, step: Tensor, part: str | None) -> Tensor:
    """The step (..., L) with the other parts at rest. Raises InputError for a part that does not
    exist.
    """
    if part is None:
        return step
    kept = torch.zeros_like(step)
    kept[..., parts[part]] = step[..., parts[part]]
    return kept


def draw(
    model: MorphableModel,
    n: int,
    generator: torch.Generator,
    part: str | None = None,
    given: Mapping[str, Tensor] | None = None,
    scale: float = 1.0,
) -> Tensor:
    """(n, L) codes from the prior, conditioned on `given`; with `part`, the other parts rest at
    their mean.
    """
    prior = model.require_prior()
    if given:
        prior = prior.given(given)
    codes = prior.sample(n, generator, scale)
    if part is None:
        return codes
    where = model.parts[part]
    result = prior.mean.repeat(n, 1)
    result[:, where] = codes[:, where]
    return result


def swap(parts: Parts, a: Tensor, b: Tensor, taken: Iterable[str]) -> Tensor:
    """(..., L) codes a with the parts named in `taken` from b."""
    result = a.clone()
    for name in taken:
        result[..., parts[name]] = b[..., parts[name]]
    return result


def named_values(model: MorphableModel, code: Tensor) -> str:
    """The numbers of a code (L,) that have names and are not zero, as `--given` reads them; else
    `none`.

    Empty for a model without such numbers.
    """
    named = [
        (part, name, value) for part in model.parts for name, value in _named(model, part, code)
    ]
    if not any(model.names_of(part) for part in model.parts):
        return ""
    return ", ".join(f"{part}={name}:{value:.3g}" for part, name, value in named) or "none"


def _named(model: MorphableModel, part: str, code: Tensor) -> list[tuple[str, float]]:
    values = code[model.parts[part]].tolist()
    return [
        (name, value) for name, value in zip(model.names_of(part), values, strict=False) if value
    ]


def parse_given(model: MorphableModel, texts: Iterable[str]) -> dict[str, Tensor]:
    """`PART=V[,V...]` texts as values by part, or `PART=NAME[:V][,...]` where the part's numbers
    have names.

    Raises InputError where a part or a name is unknown or the count is not the part's size.
    """
    known = {}
    for text in texts:
        name, equals, values = text.partition("=")
        where = model.parts[name]
        size = where.stop - where.start
        names = model.names_of(name)
        try:
            numbers = (
                _by_name(names, values, text)
                if names
                else [float(value) for value in values.split(",")]
            )
        except InputError:
            raise
        except ValueError:
            numbers = []
        if not equals or len(numbers) != size or not all(map(math.isfinite, numbers)):
            raise InputError(
                f"--given {text}: expected {name}= and {size} numbers separated by commas"
            )
        known[name] = torch.tensor(numbers)
    return known


def _by_name(names: tuple[str, ...], values: str, text: str) -> list[float]:
    """`NAME[:V],...` as one number a name, 1 where a name stands alone and 0 for the others; plain
    numbers also do.
    """
    items = [item.partition(":") for item in values.split(",")]
    if not any(item[0] in names for item in items) and len(items) == len(names):
        return [float(value) for value in values.split(",")]
    numbers = dict.fromkeys(names, 0.0)
    for name, colon, value in items:
        if name not in names:
            raise InputError(f"--given {text}: there is no {name!r}; {suggestion(name, names)}")
        numbers[name] = float(value) if colon else 1.0
    return list(numbers.values())
