"""Soft masks: parts that a model found by itself confine the edits of any model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel
from morphable.models.local_weights import LocalWeights

Decode = Callable[[Tensor], Tensor]


def part_mask(model: MorphableModel, part: str, template: Template) -> np.ndarray:
    """(V,) from 0 to 1: how much each vertex of `template` belongs to a part of the model.

    Raises InputError if the model has no part weights, has no such part, or is of another template.
    """
    if not isinstance(model, LocalWeights):
        raise InputError(f"{model.name}: has no weights of parts; a local-weights model has")
    if model.template.fingerprint != template.fingerprint:
        own, other = model.template, template
        raise InputError(
            f"{model.name}: its parts are of another template ({own.name}, {own.n_vertices} "
            f"vertices) than the mesh ({other.name}, {other.n_vertices} vertices)"
        )
    first = model.parts[part].start  # raises if there is no such part
    return model.weights[:, first // model.latent]


def masked(decode: Decode, mesh: np.ndarray, code: Tensor, mask: np.ndarray) -> Decode:
    """A decoder (B, L) -> (B, V, 3) mm whose edits reach only as far as a mask: mesh + mask *
    (decode(edited code) - decode(code)). Where the mask is zero, the mesh stays exactly.

    mesh: (V, 3) mm, the mesh that is edited. code: (L,) its code. mask: (V,).
    """
    base = torch.from_numpy(np.asarray(mesh, np.float32)).to(code.device)
    share = torch.from_numpy(np.asarray(mask, np.float32)).to(code.device)[:, None]

    def decode_masked(codes: Tensor) -> Tensor:
        # In one batch, so that an unchanged code gives a change of exactly zero.
        shapes = decode(torch.cat([code[None], codes]))
        return base + share * (shapes[1:] - shapes[:1])

    return decode_masked
