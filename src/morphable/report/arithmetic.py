"""Section on arithmetic of codes (Chen and Kim 2021, figures 7 to 9): interpolation, extrapolation,
deformation transfer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.draw.blocks import Block, Cell, Heading, Picture, Section, Table, Text
from morphable.draw.view import View
from morphable.edit.code import line, transfer
from morphable.evaluate.evaluation import PCA
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all, encode_all
from morphable.report.context import ReportContext
from morphable.report.scene import Scene

BETWEEN = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BEYOND = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
POSED = 0.75
"""The mesh to calculate with is further from its neutral shape than this share of the meshes."""
MAX_GROWTH = 1.5
"""How much extrapolated shapes may widen the frame."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A model and its codes (N, L) of the drawn meshes."""

    model: MorphableModel
    codes: Tensor


@dataclass(frozen=True, eq=False)
class Example:
    """Shapes (V, 3) mm to calculate with.

    posed, rest: one subject with an expression or pose, and its neutral shape, or its first mesh if
    neutral shapes are not known (`neutral`). other_posed, other_rest: the same of another subject.
    names: of these four, in this order. rows: the drawn meshes that the two posed ones are.
    """

    posed: np.ndarray
    rest: np.ndarray
    other_posed: np.ndarray
    other_rest: np.ndarray
    neutral: bool
    names: tuple[str, str, str, str]
    rows: tuple[int, int]

    def codes(self, coded: Coded) -> ExampleCodes:
        """The codes of a model; only the neutral shapes have to be encoded."""
        rest, other_rest = encode_all(coded.model, np.stack([self.rest, self.other_rest]))
        posed, other_posed = coded.codes[list(self.rows)].to(rest)
        return ExampleCodes(coded.model, posed, rest, other_posed, other_rest)


@dataclass(frozen=True, eq=False)
class ExampleCodes:
    """A model, and its codes (L,) of an example's shapes."""

    model: MorphableModel
    posed: Tensor
    rest: Tensor
    other_posed: Tensor
    other_rest: Tensor


def arithmetic(context: ReportContext) -> Section | None:
    """Interpolation, extrapolation and deformation transfer, and the same by PCA."""
    scene = context.scene
    models = {scene.name: Coded(context.model, scene.codes)}
    if scene.pca is not None:
        pca_codes = scene.evaluation.pca_codes[torch.from_numpy(scene.rows)]
        models[scene.method_name(PCA)] = Coded(scene.pca, pca_codes)
    blocks = calculations(scene, models)
    lead = (
        "Codes of test meshes, added, subtracted and decoded. Below each row the same by PCA of "
        "the same latent size, whose paths are straight."
    )
    return Section("Arithmetic of codes", [Text(lead, "lead"), *blocks]) if blocks else None


def calculations(scene: Scene, models: Mapping[str, Coded]) -> list[Block]:
    """Interpolation, extrapolation and transfer, a row of pictures per model; empty if there are
    too few meshes.
    """
    example = choose(scene)
    if example is None:
        return []
    posed, rest, other_posed, _ = example.names
    codes = {title: example.codes(coded) for title, coded in models.items()}
    kind = "the neutral shape of" if example.neutral else "another mesh of"
    between = {title: (own.posed, own.other_posed) for title, own in codes.items()}
    beyond = {title: (own.rest, own.posed) for title, own in codes.items()}
    decoded = {title: own.model for title, own in codes.items()}
    return [
        Heading("Interpolation"),
        Text(f"0 is {posed}, 1 is {other_posed}.", "note"),
        _path(scene, "between", decoded, between, BETWEEN),
        Heading("Extrapolation"),
        Text(f"0 is {rest}, {kind} the same subject; 1 is {posed}.", "note"),
        _path(scene, "beyond", decoded, beyond, BEYOND),
        Heading("Deformation transfer"),
        Text("T1 is T0 plus what leads from S0 to S1.", "note"),
        _transfer(scene.view, example, codes),
    ]


def _path(
    scene: Scene,
    kind: str,
    models: Mapping[str, MorphableModel],
    ends: Mapping[str, tuple[Tensor, Tensor]],
    positions: tuple[float, ...],
) -> Table:
    """Shapes on the line through two codes, a row per model."""
    shapes = {
        title: decode_all(model, line(model.parts, *ends[title], torch.tensor(positions)))
        for title, model in models.items()
    }
    view = scene.view.widened([shape for found in shapes.values() for shape in found], MAX_GROWTH)
    lines: list[list[Cell]] = [
        [title, *_pictures(view, found, [f"{title}, {kind}, at {t:g}" for t in positions])]
        for title, found in shapes.items()
    ]
    return Table(["", *(f"{t:g}".replace("-", "−") for t in positions)], lines, "pictures")


def _transfer(view: View, example: Example, codes: Mapping[str, ExampleCodes]) -> Table:
    texts = ["S0", "S1", "T0", "T1"]
    given = np.stack([example.rest, example.posed, example.other_rest])
    lines: list[list[Cell]] = [
        ["given", *_pictures(view, given, [f"given {text}" for text in texts[:3]]), ""]
    ]
    for title, own in codes.items():
        target = transfer(own.model.parts, own.rest, own.posed, own.other_rest)
        shapes = decode_all(own.model, torch.stack([own.rest, own.posed, own.other_rest, target]))
        lines.append([title, *_pictures(view, shapes, [f"{title}: {text}" for text in texts])])
    posed, rest, _, other_rest = example.names
    heads = [f"S0\n{rest}", f"S1\n{posed}", f"T0\n{other_rest}", "T1\nT0 + S1 − S0"]
    return Table(["", *heads], lines, "pictures")


def _pictures(view: View, shapes: np.ndarray, descriptions: Sequence[str]) -> list[Picture]:
    return [view.picture(shape, text) for shape, text in zip(shapes, descriptions, strict=True)]


def choose(scene: Scene) -> Example | None:
    """A mesh well apart from its subject's neutral shape, and the mesh of another subject that
    differs most.

    If neutral shapes are not known, each subject's first mesh stands in for them. None if there are
    too few meshes.
    """
    meshes, subjects = np.asarray(scene.meshes.vertices[:]), scene.subjects
    rest, neutral = _rest(scene, meshes)
    distance = np.linalg.norm(meshes - rest, axis=-1).mean(-1)
    source = int(np.argsort(distance, kind="stable")[int(POSED * (len(distance) - 1))])
    others = np.flatnonzero(subjects != subjects[source])
    others = others if len(others) else np.flatnonzero(np.arange(len(meshes)) != source)
    if not len(others) or distance[source] == 0:
        return None
    gap = np.linalg.norm(meshes[others] - meshes[source], axis=-1).mean(-1)
    other = int(others[gap.argmax()])
    state = "neutral" if neutral else "at rest"
    return Example(
        posed=meshes[source],
        rest=rest[source],
        other_posed=meshes[other],
        other_rest=rest[other],
        neutral=neutral,
        names=(
            scene.caption(source),
            f"{_subject(scene, source)} {state}",
            scene.caption(other),
            f"{_subject(scene, other)} {state}",
        ),
        rows=(source, other),
    )


def _rest(scene: Scene, meshes: np.ndarray) -> tuple[np.ndarray, bool]:
    """(N, V, 3) each mesh's neutral shape, True; or if one is not known each subject's first mesh,
    False.
    """
    if scene.neutral.known(scene.meshes.rows).all():
        return scene.neutral.of(scene.meshes.rows), True
    subjects = scene.subjects.tolist()
    first = {subject: row for row, subject in reversed(list(enumerate(subjects)))}
    return meshes[[first[subject] for subject in subjects]], False


def _subject(scene: Scene, row: int) -> str:
    labels = scene.meshes.labels
    return str(labels["subject"][row]) if "subject" in labels else f"mesh {scene.meshes.rows[row]}"
