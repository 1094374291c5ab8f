"""GLB files of a model: its mean shape with a morph target per named way to vary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from morphable.data.registered_mesh import write_shape
from morphable.errors import InputError
from morphable.export.directions import Offset, Step, mean_code
from morphable.export.linear import TEST_SAMPLES, Distance
from morphable.mesh.io import Morphs
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all


def export_glb(
    model: MorphableModel,
    path: Path | str,
    ways: Sequence[Step | Offset],
    reach: float = 2.0,
    unit: str | None = None,
) -> Distance | None:
    """Write the mean shape with these morph targets. With one target at weight 1, the shape is the
    model's own, `reach` standard deviations away, or the whole expression.

    Returns how far the file is from the model when several latent targets are mixed, with random
    weights as the prior draws them; None if there is no latent target.

    Raises InputError if there is no target, two have the same name, or the mesh has no faces.
    """
    path = Path(path)
    if not ways:
        raise InputError(f"{path}: nothing to write, there is no part, region or expression")
    mean = mean_code(model)
    steps = [way for way in ways if isinstance(way, Step)]
    amounts = [1.0 if step.is_expression else reach for step in steps]
    ends = [mean + amount * step.code for amount, step in zip(amounts, steps, strict=True)]
    shapes = decode_all(model, torch.stack([mean, *ends]))
    moved = dict(zip((step.name for step in steps), shapes[1:] - shapes[0], strict=True))
    offsets = [moved[way.name] if isinstance(way, Step) else reach * way.offset for way in ways]
    morphs = Morphs([way.name for way in ways], np.stack(offsets))
    write_shape(path, shapes[0], model.template, unit, morphs)
    latent = [step for step in steps if not step.is_expression]
    if not latent:
        return None
    weights = torch.randn(TEST_SAMPLES, len(latent), generator=torch.Generator().manual_seed(0))
    exact = decode_all(model, mean + weights @ torch.stack([step.code for step in latent]))
    slopes = np.stack([moved[step.name] for step in latent]) / reach
    return Distance.between(exact, shapes[0] + np.tensordot(weights.numpy(), slopes, 1))
