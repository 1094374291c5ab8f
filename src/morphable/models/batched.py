"""Encode and decode any number of meshes, and compute their neutral shapes: in batches of 16,
without gradients, on the model's device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from morphable.models.base import Given, MorphableModel, Shapes, blocks

BATCH = 16
"""Meshes per batch. The size is fixed because the last bits of a result depend on it: with one size
for all, a measure has the same value in the evaluation, the report and the benchmark.
"""


@torch.no_grad()
def encode_all(
    model: MorphableModel, shapes: Shapes, batch: int = BATCH, given: Given | None = None
) -> Tensor:
    """Encode shapes (N, V, 3) mm, which may be larger than memory; (N, L) codes on the model's
    device.

    given: values (N, size) of pinned parts.
    """
    codes = [torch.zeros(0, model.parts.size, device=model.device)]

    for number, block in enumerate(blocks(shapes, batch)):
        rows = slice(number * batch, number * batch + len(block))
        known = {name: value[rows].to(model.device) for name, value in (given or {}).items()}
        vertices = torch.from_numpy(np.asarray(block)).to(model.device)
        codes.append(model.encode(vertices, known) if known else model.encode(vertices))

    return torch.cat(codes)


def decode_all(model: MorphableModel, codes: Tensor) -> np.ndarray:
    """Decode codes (N, L) to shapes (N, V, 3) float32 mm."""
    return _shapes_of(model, codes, model.decode)


def neutral_all(model: MorphableModel, codes: Tensor) -> np.ndarray:
    """Compute the neutral shape of the subject of each code: (N, L) -> (N, V, 3) float32 mm.

    Raises InputError if the code has no identity part.
    """
    return _shapes_of(model, codes, model.neutral)


@torch.no_grad()
def _shapes_of(
    model: MorphableModel, codes: Tensor, shape_of: Callable[[Tensor], Tensor]
) -> np.ndarray:
    shapes = np.empty((len(codes), model.template.n_vertices, 3), np.float32)

    for start in range(0, len(codes), BATCH):
        chunk = codes[start : start + BATCH].to(model.device)
        shapes[start : start + BATCH] = shape_of(chunk).cpu().numpy()

    return shapes
