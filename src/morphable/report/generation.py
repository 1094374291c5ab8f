"""Sections on what a model with separate factors generates: samples that share one part of the
code, strips between two samples, codes of classes, and the samples nearest to and furthest from the
training meshes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from morphable.draw.blocks import Block, Heading, Section, Table, Text
from morphable.draw.numbers import millimeters
from morphable.edit.code import interpolate
from morphable.models.batched import decode_all
from morphable.models.gan import Gan
from morphable.report.context import ReportContext
from morphable.report.scene import Scene
from morphable.rows import evenly_spread

COLUMNS = 6
ROWS = 2
"""Fixed values of each part that are shown."""
DRAWN, SHOWN = 200, 3
"""Samples whose distance to the training meshes is measured, and how many of the nearest and of the
furthest are shown."""
RANKS = ("nearest", "second", "third", "third last", "second last", "furthest")
COMPARED = 2000
"""Training meshes, evenly spread, among which the nearest is searched."""
VERTICES = 600
"""Vertices, evenly spread, on which it is searched. Its distance is then measured on all."""


def shared_parts(context: ReportContext) -> Section | None:
    """Show random samples that share their identity, and others that share their expression."""
    scene = context.scene
    parts = _factors(scene)
    if not parts:
        return None
    blocks: list[Block] = []
    for part in parts:
        lines = []
        for row in range(ROWS):
            codes = _drawn(scene, COLUMNS, seed=row)
            codes[:, scene.model.parts[part]] = codes[0, scene.model.parts[part]]
            names = [f"sample {number}" for number in range(1, COLUMNS + 1)]
            lines.append(scene.view.row(f"{part} {row + 1}", decode_all(scene.model, codes), names))
        blocks += [Heading(f"One {part}"), Table([""] * (COLUMNS + 1), lines, "pictures")]
    lead = (
        "Random samples of the prior. In each row one part of the code is the same, and all else "
        "is drawn anew; none is left out."
    )
    return Section("Samples that share a part", [Text(lead, "lead"), *blocks])


def strips(context: ReportContext) -> Section | None:
    """Show straight lines between two random samples, within one part of the code at a time."""
    scene = context.scene
    parts = _factors(scene)
    if not parts:
        return None
    a, b = _drawn(scene, 2, seed=2)
    share = torch.linspace(0, 1, COLUMNS)
    names = [f"{100 * value:.0f} %" for value in share.tolist()]
    lines = []
    for part in (*parts, None):
        codes = interpolate(scene.model.parts, a, b, share, part)
        lines.append(scene.view.row(part or "all", decode_all(scene.model, codes), names))
    lead = "From one random sample to another, by changing one part of the code or all of it."
    return Section(
        "Interpolation within a part",
        [Text(lead, "lead"), Table(["", *names], lines, "pictures")],
    )


def class_codes(context: ReportContext) -> Section | None:
    """Show random samples with the code of each class of a factor; only a `gan` has such codes."""
    scene, model = context.scene, context.model
    if not isinstance(model, Gan):
        return None
    blocks: list[Block] = []
    for factor in model.class_codes:
        names = [model.config.names_of(factor)[i] for i in _some(model, factor)]
        lines = []
        for row in range(ROWS):
            codes = _drawn(scene, 1, seed=10 + row).repeat(len(names), 1)
            for number, name in enumerate(names):
                codes[number, model.parts[factor]] = model.class_code(factor, name)
            shapes = decode_all(model, codes)
            lines.append(scene.view.row(f"sample {row + 1}", shapes, names))
        blocks += [Heading(factor), Table(["", *names], lines, "pictures")]
    lead = (
        "Each row is one random sample whose identity or expression is replaced by the code of a "
        "class of the training labels."
    )
    return Section("Codes of classes", [Text(lead, "lead"), *blocks])


def nearest_and_furthest(context: ReportContext) -> Section | None:
    """Show the three samples with the smallest and the three with the largest distance to their
    nearest training mesh, above that mesh.
    """
    scene = context.scene
    if scene.model.prior is None or scene.model.parts.pinned_names:
        return None
    shapes = decode_all(scene.model, _drawn(scene, DRAWN, seed=0))
    train = context.result.evaluation.data.train.vertices
    rows, nearest = nearest_meshes(shapes, train)
    order = np.argsort(nearest, kind="stable")
    chosen = np.concatenate([order[:SHOWN], order[-SHOWN:]])
    pairs = zip(RANKS, nearest[chosen].tolist(), strict=True)
    names = [f"{rank}, {millimeters(distance)}" for rank, distance in pairs]
    view = scene.view.widened(list(shapes[chosen]), 1.2)
    lines = [
        view.row("Sample", shapes[chosen], names),
        view.row("Nearest training mesh", train[rows[chosen]], names),
    ]
    lead = (
        f"Of {len(shapes)} random samples, those with the smallest and the largest mean vertex "
        f"distance to the nearest training mesh (mean {millimeters(float(nearest.mean()))})."
    )
    return Section(
        "Most and least specific samples",
        [Text(lead, "lead"), Table(["", *names], lines, "pictures")],
    )


def nearest_meshes(shapes: np.ndarray, train: object) -> tuple[np.ndarray, np.ndarray]:
    """The row of the nearest training mesh of each shape (N, V, 3), and its mean vertex distance
    (N,) mm.
    """
    meshes: Sequence[np.ndarray] = train  # type: ignore[assignment]
    compared = evenly_spread(len(meshes), COMPARED)
    vertices = evenly_spread(shapes.shape[1], VERTICES)
    thinned = torch.from_numpy(np.ascontiguousarray(shapes[:, vertices]))
    best = torch.full((len(shapes),), torch.inf)
    rows = np.zeros(len(shapes), np.int64)
    for row in compared.tolist():
        other = torch.from_numpy(np.ascontiguousarray(meshes[row][vertices]))
        distance = (thinned - other).norm(dim=-1).mean(1)
        nearer = (distance < best).numpy()
        rows[nearer] = row
        best = torch.minimum(best, distance)
    own = np.stack([np.asarray(meshes[row]) for row in rows.tolist()])
    return rows, np.linalg.norm(shapes - own, axis=-1).mean(axis=1)


def _factors(scene: Scene) -> tuple[str, ...]:
    """The free parts with a meaning, if the model separates identity from the rest."""
    model = scene.model
    if model.prior is None or "identity" not in model.parts:
        return ()
    return tuple(part for part in model.parts.free_names if part != "noise")


def _drawn(scene: Scene, count: int, seed: int) -> Tensor:
    """(count, L) codes of the prior."""
    prior = scene.model.require_prior()
    return prior.sample(count, torch.Generator().manual_seed(seed))


def _some(model: Gan, factor: str) -> list[int]:
    return evenly_spread(len(model.config.names_of(factor)), COLUMNS + 1).tolist()
