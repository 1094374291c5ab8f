"""Section on arithmetic of codes: interpolation, extrapolation and deformation transfer.

It follows figures 7 to 9 of Chen and Kim (CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.draw.blocks import Block, Cell, Heading, Picture, Section, Table, Text
from morphable.draw.view import View
from morphable.edit.code import interpolate, transfer
from morphable.evaluate.evaluation import PCA
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all, encode_all
from morphable.report.context import ReportContext
from morphable.report.scene import Scene

BETWEEN = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BEYOND = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
POSED = 0.75
"""The mesh that is calculated with is further from its neutral shape than this share of all meshes.
"""
MAX_GROWTH = 1.5
"""Extrapolated shapes may widen the frame by at most this factor."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A model and its codes (N, L) of the measured meshes."""

    model: MorphableModel
    codes: Tensor


@dataclass(frozen=True, eq=False)
class Operand:
    """A shape (V, 3) mm to calculate with.

    row: its number among the measured meshes; None if it is not one of them.
    """

    shape: np.ndarray
    name: str
    row: int | None

    def code(self, coded: Coded) -> Tensor:
        """Return the code (L,) by a model. A measured mesh is not encoded again."""
        if self.row is None:
            return encode_all(coded.model, self.shape[None])[0]
        return coded.codes[self.row]


@dataclass(frozen=True, eq=False)
class Operands:
    """The shapes of two subjects that are calculated with.

    posed: a subject with an expression or pose. rest: the neutral shape of that subject, or its
    first mesh if neutral shapes are not known. other_posed, other_rest: the same of another
    subject. neutral: whether neutral shapes are known.
    """

    posed: Operand
    rest: Operand
    other_posed: Operand
    other_rest: Operand
    neutral: bool


def arithmetic(context: ReportContext) -> Section | None:
    """Show interpolation, extrapolation and deformation transfer by the model and by PCA."""
    scene, evaluation = context.scene, context.result.evaluation
    models = {scene.name: Coded(evaluation.model, evaluation.codes)}
    if scene.pca is not None:
        models[scene.method_name(PCA)] = Coded(evaluation.pca, evaluation.pca_codes)
    blocks = calculations(scene, models)
    lead = (
        "Codes of test meshes, added, subtracted and decoded. Below each row the same by PCA of "
        "the same latent size, whose paths are straight."
    )
    return Section("Arithmetic of codes", [Text(lead, "lead"), *blocks]) if blocks else None


def calculations(scene: Scene, models: Mapping[str, Coded]) -> list[Block]:
    """Return interpolation, extrapolation and transfer with one row of pictures per model, or
    nothing if there are too few meshes.
    """
    chosen = choose(scene)
    if chosen is None:
        return []
    posed, rest, other = chosen.posed, chosen.rest, chosen.other_posed
    kind = "the neutral shape of" if chosen.neutral else "another mesh of"
    return [
        Heading("Interpolation"),
        Text(f"0 is {posed.name}, 1 is {other.name}.", "note"),
        _path(scene, models, "between", (posed, other), BETWEEN),
        Heading("Extrapolation"),
        Text(f"0 is {rest.name}, {kind} the same subject; 1 is {posed.name}.", "note"),
        _path(scene, models, "beyond", (rest, posed), BEYOND),
        Heading("Deformation transfer"),
        Text("T1 is T0 plus what leads from S0 to S1.", "note"),
        _transfer(scene.view, models, (rest, posed, chosen.other_rest)),
    ]


def _path(
    scene: Scene,
    models: Mapping[str, Coded],
    kind: str,
    ends: tuple[Operand, Operand],
    positions: tuple[float, ...],
) -> Table:
    """Show shapes on the line through two codes, one row per model."""
    shapes = {}
    for title, coded in models.items():
        first, last = (end.code(coded) for end in ends)
        codes = interpolate(coded.model.parts, first, last, torch.tensor(positions))
        shapes[title] = decode_all(coded.model, codes)
    view = scene.view.widened([shape for row in shapes.values() for shape in row], MAX_GROWTH)
    lines: list[list[Cell]] = [
        [title, *_pictures(view, row, [f"{title}, {kind}, at {t:g}" for t in positions])]
        for title, row in shapes.items()
    ]
    return Table(["", *(f"{t:g}".replace("-", "−") for t in positions)], lines, "pictures")


def _transfer(
    view: View, models: Mapping[str, Coded], given: tuple[Operand, Operand, Operand]
) -> Table:
    texts = ["S0", "S1", "T0", "T1"]
    inputs = np.stack([operand.shape for operand in given])
    lines: list[list[Cell]] = [
        ["given", *_pictures(view, inputs, [f"given {text}" for text in texts[:3]]), ""]
    ]
    for title, coded in models.items():
        s0, s1, t0 = (operand.code(coded) for operand in given)
        t1 = transfer(coded.model.parts, s0, s1, t0)
        shapes = decode_all(coded.model, torch.stack([s0, s1, t0, t1]))
        lines.append([title, *_pictures(view, shapes, [f"{title}: {text}" for text in texts])])
    heads = [f"{text}\n{operand.name}" for text, operand in zip(texts, given, strict=False)]
    return Table(["", *heads, "T1\nT0 + S1 − S0"], lines, "pictures")


def _pictures(view: View, shapes: np.ndarray, descriptions: Sequence[str]) -> list[Picture]:
    return [view.picture(shape, text) for shape, text in zip(shapes, descriptions, strict=True)]


def choose(scene: Scene) -> Operands | None:
    """Choose a mesh far from its subject's neutral shape, and the mesh of another subject that
    differs most from it.

    If neutral shapes are not known, the first mesh of each subject takes their place. Returns None
    if there are too few meshes.
    """
    meshes, subjects = np.asarray(scene.meshes.vertices[:]), scene.subjects
    rest, rows, neutral = _rest(scene, meshes)
    distance = np.linalg.norm(meshes - rest, axis=-1).mean(-1)
    # Not the mesh that is furthest from rest, which may be an outlier.
    source = int(np.argsort(distance, kind="stable")[int(POSED * (len(distance) - 1))])
    others = np.flatnonzero(subjects != subjects[source])
    # With one subject only, take another mesh of that subject.
    others = others if len(others) else np.flatnonzero(np.arange(len(meshes)) != source)
    if not len(others) or distance[source] == 0:
        return None
    gap = np.linalg.norm(meshes[others] - meshes[source], axis=-1).mean(-1)
    other = int(others[gap.argmax()])

    def at_rest(row: int) -> Operand:
        name = f"{_subject(scene, row)} {'neutral' if neutral else 'at rest'}"
        return Operand(rest[row], name, rows[row])

    def posed(row: int) -> Operand:
        return Operand(meshes[row], scene.caption(row), int(scene.rows[row]))

    return Operands(posed(source), at_rest(source), posed(other), at_rest(other), neutral)


def _rest(scene: Scene, meshes: np.ndarray) -> tuple[np.ndarray, list[int | None], bool]:
    """Return the shape at rest of each drawn mesh, (N, V, 3) mm, the number of the measured mesh
    that it is (None if it is not one), and whether these shapes are neutral ones.

    If a neutral shape is not known, each subject's first mesh is used for all.
    """
    targets, own = scene.neutral, scene.meshes.rows
    if targets.known(own).all():
        measured = {int(row): number for number, row in enumerate(scene.evaluation.measured.rows)}
        rows = [None if targets.computed else measured.get(int(r)) for r in targets.index[own]]
        return targets.of(own), rows, True
    subjects = scene.subjects.tolist()
    # Reversed, so that the first row of a subject is written last and is the one that is kept.
    first = {subject: row for row, subject in reversed(list(enumerate(subjects)))}
    drawn = [first[subject] for subject in subjects]
    return meshes[drawn], [int(row) for row in scene.rows[drawn]], False


def _subject(scene: Scene, row: int) -> str:
    labels = scene.meshes.labels
    return str(labels["subject"][row]) if "subject" in labels else f"mesh {scene.meshes.rows[row]}"
