"""Section on arithmetic of codes (Chen and Kim 2021, figures 7 to 9): between, beyond, from one
shape to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from morphable.draw.camera import Camera
from morphable.draw.render import render
from morphable.edit.code import line, transfer
from morphable.evaluate.evaluation import PCA
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all, encode_all
from morphable.report.context import ReportContext
from morphable.report.section import Section, image, paragraph, table

HEIGHT = 300
BETWEEN = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BEYOND = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
POSED = 0.75
"""Of the test meshes, the one that is further from its neutral shape than this share is calculated
with.
"""
MAX_GROWTH = 1.5
"""How much extrapolated shapes may widen the frame."""
NARROW = '<div style="max-width: 52rem">{}</div>'


@dataclass(frozen=True, eq=False)
class Coded:
    """A model and its codes (N, L) of the measured meshes."""

    model: MorphableModel
    codes: torch.Tensor


@dataclass(frozen=True, eq=False)
class Actor:
    """A shape (V, 3) mm to calculate with, and which measured mesh it is, if it is one."""

    shape: np.ndarray
    name: str
    row: int | None

    def code(self, coded: Coded) -> torch.Tensor:
        """(L,) code by a model; a measured mesh is not encoded again."""
        if self.row is None:
            return encode_all(coded.model, self.shape[None])[0]
        return coded.codes[self.row]


@dataclass(frozen=True, eq=False)
class Cast:
    """What to calculate with: `rest` is the source's neutral shape if known (`neutral`), `posed` the
    same source otherwise, `other` someone else's shape in the place of `rest`, `far` someone else's
    in another pose.
    """

    rest: Actor
    posed: Actor
    other: Actor
    far: Actor
    neutral: bool


def arithmetic(context: ReportContext) -> Section | None:
    """Interpolation, extrapolation and deformation transfer, PCA's beside."""
    evaluation = context.result.evaluation
    models = {context.name: Coded(context.model, evaluation.codes)}
    if context.pca is not None:
        models[context.method_name(PCA)] = Coded(evaluation.pca, evaluation.pca_codes)
    html = strips(context, models)
    lead = "Codes of test meshes added, subtracted and decoded; below, PCA of equal size, whose paths are straight."
    return Section("Arithmetic of codes", paragraph(lead, "lead") + html) if html else None


def strips(context: ReportContext, models: Mapping[str, Coded]) -> str:
    """Between, beyond and transfer, a row of pictures for each model; empty if there are too few
    meshes.
    """
    cast = choose(context)
    if cast is None:
        return ""
    kind = "the neutral shape of the same" if cast.neutral else "another mesh of the same"
    html = f"<h3>Between</h3>{paragraph(f'0 is {cast.posed.name}, 1 is {cast.far.name}.', 'note')}"
    html += _walk(context, models, "between", (cast.posed, cast.far), BETWEEN)
    beyond = f"0 is {cast.rest.name}, {kind}, and 1 is {cast.posed.name}."
    html += f"<h3>Beyond</h3>{paragraph(beyond, 'note')}"
    html += _walk(context, models, "beyond", (cast.rest, cast.posed), BEYOND)
    html += f"<h3>From one to another</h3>{paragraph('T1 is T0 with what leads from S0 to S1.', 'note')}"
    return html + _transfer(context, models, cast)


def _transfer(context: ReportContext, models: Mapping[str, Coded], cast: Cast) -> str:
    given = (cast.rest, cast.posed, cast.other)
    texts = ["S0", "S1", "T0", "T1"]
    shapes = np.stack([actor.shape for actor in given])
    pictures = _pictures(context, context.camera, shapes, [f"given {t}" for t in texts[:3]])
    lines = [["given", *pictures, ""]]
    for title, coded in models.items():
        s0, s1, t0 = (actor.code(coded) for actor in given)
        t1 = transfer(coded.model.parts, s0, s1, t0)
        shapes = decode_all(coded.model, torch.stack([s0, s1, t0, t1]))
        cells = _pictures(context, context.camera, shapes, [f"{title}: {text}" for text in texts])
        lines.append([escape(title), *cells])
    names = [f"{text}<br>{escape(actor.name)}" for text, actor in zip(texts, given, strict=False)]
    return NARROW.format(table(["", *names, "T1<br>T0 + S1 − S0"], lines, "pictures"))


def choose(context: ReportContext) -> Cast | None:
    """A test mesh well apart from its subject's neutral shape, and the mesh of another subject that
    differs most.

    Where neutral shapes are not known, each subject's first mesh stands for them. None where meshes
    are too few.
    """
    meshes, subjects = np.asarray(context.test.vertices[:]), context.subjects
    rest, rows, neutral = _rest(context, meshes)
    distance = np.linalg.norm(meshes - rest, axis=-1).mean(-1)
    source = int(np.argsort(distance, kind="stable")[int(POSED * (len(distance) - 1))])
    others = np.flatnonzero(subjects != subjects[source])
    others = others if len(others) else np.flatnonzero(np.arange(len(meshes)) != source)
    if not len(others) or distance[source] == 0:
        return None
    gap = np.linalg.norm(meshes[others] - meshes[source], axis=-1).mean(-1)
    far = int(others[gap.argmax()])

    def at_rest(row: int) -> Actor:
        name = f"{_subject(context, row)} {'neutral' if neutral else 'at rest'}"
        return Actor(rest[row], name, rows[row])

    def itself(row: int) -> Actor:
        return Actor(meshes[row], context.caption(row), int(context.rows[row]))

    return Cast(at_rest(source), itself(source), at_rest(far), itself(far), neutral)


def _rest(context: ReportContext, meshes: np.ndarray) -> tuple[np.ndarray, list[int | None], bool]:
    """(N, V, 3) each mesh's neutral shape, which measured mesh that is if any, and True; or, if one
    is not known, the same of each subject's first mesh, and False.
    """
    targets, own = context.neutral, context.test.rows
    if targets.known(own).all():
        measured = {int(row): number for number, row in enumerate(context.measured.rows)}
        rows = [None if targets.computed else measured.get(int(r)) for r in targets.index[own]]
        return targets.of(own), rows, True
    subjects = context.subjects.tolist()
    first = {subject: row for row, subject in reversed(list(enumerate(subjects)))}
    drawn = [first[subject] for subject in subjects]
    return meshes[drawn], [int(row) for row in context.rows[drawn]], False


def _subject(context: ReportContext, row: int) -> str:
    labels = context.test.labels
    return str(labels["subject"][row]) if "subject" in labels else f"mesh {context.test.rows[row]}"


def _walk(
    context: ReportContext,
    models: Mapping[str, Coded],
    kind: str,
    ends: tuple[Actor, Actor],
    positions: tuple[float, ...],
) -> str:
    places, walked = torch.tensor(positions), {}
    for title, coded in models.items():
        first, last = (actor.code(coded) for actor in ends)
        codes = line(coded.model.parts, first, last, places)
        walked[title] = decode_all(coded.model, codes)
    camera = context.camera.widened(
        [shape for shapes in walked.values() for shape in shapes], MAX_GROWTH
    )
    lines = [
        [
            escape(title),
            *_pictures(context, camera, shapes, [f"{title}, {kind}, at {t:g}" for t in positions]),
        ]
        for title, shapes in walked.items()
    ]
    return table(["", *(f"{t:g}".replace("-", "−") for t in positions)], lines, "pictures")


def _pictures(
    context: ReportContext, camera: Camera, shapes: np.ndarray, texts: list[str]
) -> list[str]:
    size = camera.size(HEIGHT)
    pictures = [render(shape, context.triangles, camera, size) for shape in shapes]
    return [image(picture, text) for picture, text in zip(pictures, texts, strict=True)]
