"""Arithmetic on codes: interpolation between shapes, transfer, swaps of parts, and sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.models.base import MorphableModel
from morphable.models.families import families_with
from morphable.models.parts import Parts


def require_part(model: MorphableModel, name: str) -> None:
    """Raise InputError if the model's code has no part of this name. The message names the model's
    parts, and the families that have such a part.
    """
    if name in model.parts:
        return
    text = f"part {name!r}: the parts of this {model.name} are {', '.join(model.parts)}"
    regions = model.template.regions
    if families := families_with(name):
        text += f"; {', '.join(families)} have a part {name!r}"
    elif regions is not None and name in regions.names:
        text += f"; {name!r} is a region: use edit region or edit swap-region"
    raise InputError(text)


@torch.no_grad()
def neutralise(model: MorphableModel, code: Tensor) -> Tensor:
    """(B, L) codes -> (B, V, 3) mm: the neutral shape of each subject. Raises InputError, which
    names the families that can, if the model does not separate identity from expression.
    """
    require_part(model, "identity")
    return model.neutral(code)


def interpolate(
    parts: Parts, a: Tensor, b: Tensor, positions: Tensor, part: str | None = None
) -> Tensor:
    """(S, L) codes a + t (b - a) for each t in `positions` (S,), which may lie outside 0 to 1.

    part: if given, only this part changes; the other parts keep the values of `a`.
    """
    return a + positions[:, None].to(a) * _restrict(parts, b - a, part)


def transfer(
    parts: Parts, source: Tensor, changed: Tensor, target: Tensor, part: str | None = None
) -> Tensor:
    """(..., L) codes of deformation transfer (Chen and Kim 2021): target + (changed - source).

    The step in the code from `source` to `changed` is applied to `target`. part: if given, only
    this part of the step is applied.
    """
    return target + _restrict(parts, changed - source, part)


def _restrict(parts: Parts, step: Tensor, part: str | None) -> Tensor:
    """The step (..., L) with every other part set to zero; the whole step if `part` is None.

    Raises InputError if the part does not exist.
    """
    if part is None:
        return step
    kept = torch.zeros_like(step)
    kept[..., parts[part]] = step[..., parts[part]]
    return kept


def swap(parts: Parts, a: Tensor, b: Tensor, names: Iterable[str]) -> Tensor:
    """(..., L) codes `a`, with the parts in `names` replaced by those of `b`."""
    result = a.clone()
    for name in names:
        result[..., parts[name]] = b[..., parts[name]]
    return result


def sample_codes(
    model: MorphableModel,
    n: int,
    generator: torch.Generator,
    part: str | None = None,
    given: Mapping[str, Tensor] | None = None,
    scale: float = 1.0,
) -> Tensor:
    """(n, L) random codes from the model's prior, conditioned on the parts in `given`.

    part: if given, only this part varies; the other parts have the mean of the prior. scale:
    multiplies the standard deviation. Raises InputError if the model has no prior.
    """
    prior = model.require_prior()
    if given:
        prior = prior.given(given)
    codes = prior.sample(n, generator, scale)
    if part is None:
        return codes
    place = model.parts[part]
    result = prior.mean.repeat(n, 1)
    result[:, place] = codes[:, place]
    return result
