"""Encode, decode and neutral shapes of any number of meshes: in batches of 16, without gradients,
on the model's device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from morphable.models.base import MorphableModel, Shapes, blocks

BATCH = 16
"""Meshes per batch. A fixed size, because the last bits of a result depend on the size of the batch
that it was computed in: every number of an evaluation is then the same wherever it is computed.
"""


@torch.no_grad()
def encode_all(model: MorphableModel, shapes: Shapes, batch: int = BATCH) -> Tensor:
    """(N, V, 3) mm, which may be larger than memory -> (N, L) codes on the model's device."""
    codes = [torch.zeros(0, model.parts.size, device=model.device)]

    for block in blocks(shapes, batch):
        codes.append(model.encode(torch.from_numpy(np.asarray(block)).to(model.device)))

    return torch.cat(codes)


def decode_all(model: MorphableModel, codes: Tensor) -> np.ndarray:
    """(N, L) -> (N, V, 3) float32 mm."""
    return _shapes_of(model, codes, model.decode)


def neutral_all(model: MorphableModel, codes: Tensor) -> np.ndarray:
    """(N, L) -> (N, V, 3) float32 mm, the neutral shape of each code's person.

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
