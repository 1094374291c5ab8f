"""The named ways in which the shapes of a model vary: what a file has morph targets or sliders for.

There are three kinds. A latent direction is a principal direction of the prior within a part of the
code. A region's direction moves one region of the template and nothing else. An expression is a
named change from the neutral shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.data.neutral import neutral_targets
from morphable.edit.region import confine
from morphable.errors import InputError
from morphable.evaluate.directions import principal_directions
from morphable.mesh.regions import border_vertices
from morphable.mesh.topology import adjacency
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all, encode_all
from morphable.models.condition import NEUTRAL
from morphable.models.handles import aligned_displacement
from morphable.rows import evenly_spread

MAX_TARGETS = 16
"""By default, a file of morph targets has at most this many latent directions in all."""
MAX_SLIDERS = 64
"""The same of a page, which stores no shape per slider if it runs a network."""
SAMPLES = 200
"""Samples of the prior that a region's directions are computed from."""
MESHES_PER_EXPRESSION = 8


@dataclass(frozen=True, eq=False)
class Step:
    """A way to vary that is a step in the code. code: (L,), one standard deviation of the prior,
    or the whole expression. is_expression: from 0 to 1, not in both directions.
    """

    name: str
    code: Tensor
    is_expression: bool = False


@dataclass(frozen=True, eq=False)
class Offset:
    """A way to vary that is an offset of vertices, (V, 3) mm for one standard deviation. It is
    exactly zero outside a region.
    """

    name: str
    offset: np.ndarray


def mean_code(model: MorphableModel) -> Tensor:
    """(L,) the code of the mean shape; zero for a model without a prior."""
    if model.prior is None:
        return torch.zeros(model.parts.size)
    return model.prior.mean.cpu()


def latent_steps(
    model: MorphableModel,
    parts: Sequence[str] | None = None,
    per_part: int | None = None,
    most: int = MAX_TARGETS,
) -> list[Step]:
    """The principal directions of the prior within each part, named `PART NUMBER`, the one that
    moves the surface most first.

    parts: free parts of the code; None: all of them. per_part: how many of each; None: as many as
    give `most` in all.

    Raises InputError if the model has no prior or no such free part.
    """
    model.require_prior()
    free = model.parts.free_names
    for name in parts or ():
        _ = model.parts[name]  # raises if there is none
        if name not in free:
            raise InputError(f"part {name!r}: is given by the caller, so it has no directions")
    chosen = list(parts or free[:most])
    count = per_part or max(1, most // len(chosen))
    return [
        Step(f"{name} {number + 1}", code.cpu())
        for name in chosen
        for number, code in enumerate(principal_directions(model, name, count))
    ]


def region_offsets(
    model: MorphableModel, names: Sequence[str], per_region: int = 1, seed: int = 0
) -> list[Offset]:
    """The principal ways in which samples of the prior differ in a region, once the region's border
    is aligned to that of the mean shape. They fall to zero at the border as in `edit region`.

    Raises InputError if the model has no prior, or the template no such region.
    """
    template, prior = model.template, model.require_prior()
    numbers = [(name, template.region(name)) for name in names]
    if not numbers:
        return []
    assert template.regions is not None
    codes = prior.sample(SAMPLES, torch.Generator().manual_seed(seed)).cpu()
    shapes = decode_all(model, torch.cat([prior.mean.cpu()[None], codes]))
    mean, samples = shapes[:1], shapes[1:]
    neighbors = adjacency(template.mesh.faces, template.n_vertices).tocsr()
    labels, found = template.regions.labels, []
    for name, inside in numbers:
        border = border_vertices(template.mesh.faces, labels, template.regions.number(name))
        fixed = border if len(border) else inside
        source = np.broadcast_to(mean, samples.shape)
        moved, _ = aligned_displacement(source, samples, fixed, inside)
        flat = moved.reshape(SAMPLES, -1)
        _, sizes, ways = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
        for number in range(min(per_region, len(sizes))):
            # The sign of a singular vector is free; the largest movement is made positive.
            way = ways[number] * np.sign(ways[number][np.abs(ways[number]).argmax()])
            offset = np.zeros((template.n_vertices, 3))
            offset[inside] = (way * sizes[number] / np.sqrt(SAMPLES - 1)).reshape(-1, 3)
            mask = np.zeros(template.n_vertices, bool)
            mask[inside] = True
            found.append(Offset(f"{name} {number + 1}", confine(offset, mask, neighbors)))
    return found


def named_conditions(model: MorphableModel) -> list[Step]:
    """The named dimensions of a model's pinned parts, such as the expressions of a `cvae`."""
    found = []
    for part in model.parts:
        for number, name in enumerate(model.names_of(part)):
            code = torch.zeros(model.parts.size)
            code[model.parts[part].start + number] = 1
            found.append(Step(name, code, True))
    return found


def expressions_of_data(model: MorphableModel, data: MeshDataset) -> list[Step]:
    """The mean step in the code from a neutral mesh to a mesh of each expression of a dataset, at
    its highest level, over at most MESHES_PER_EXPRESSION people. If the code has a part
    `expression`, only that changes.

    Raises InputError if the dataset has no expressions, or no neutral meshes.
    """
    if "expression" not in data.labels:
        raise InputError("the dataset has no labels `expression`, so it names no expression")
    classes, neutral = data.labels.classes("expression"), neutral_targets(data)
    level = np.ones(len(data))
    if "level" in data.labels:
        level = np.nan_to_num(np.asarray(data.labels["level"], float), nan=1.0)
    found = []
    for number, name in enumerate(classes.names):
        rows = np.flatnonzero(classes.numbers == number)
        rows = rows[neutral.known(rows)]
        if name.lower() == NEUTRAL or not len(rows):
            continue
        rows = rows[level[rows] >= level[rows].max()]
        rows = rows[evenly_spread(len(rows), MESHES_PER_EXPRESSION)]
        step = encode_all(model, data.vertices[rows]) - encode_all(model, neutral.of(rows))
        mean = step.mean(0).cpu()
        if "expression" in model.parts:
            kept = torch.zeros_like(mean)
            kept[model.parts["expression"]] = mean[model.parts["expression"]]
            mean = kept
        found.append(Step(name, mean, True))
    if not found:
        raise InputError("the dataset names no expression of a person with a neutral mesh")
    return found
