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
    """A model and its codes (N, L) of the drawn test meshes."""

    model: MorphableModel
    codes: torch.Tensor


@dataclass(frozen=True, eq=False)
class Cast:
    """Shapes (V, 3) mm to calculate with: `rest` is the source's neutral shape where known
    (`neutral`), `posed` the same source otherwise, `other` someone else's shape in the place of
    `rest`, `far` someone else's in another pose.
    """

    rest: np.ndarray
    posed: np.ndarray
    other: np.ndarray
    far: np.ndarray
    neutral: bool
    names: tuple[str, str, str, str]
    rows: tuple[int, int]
    """The drawn test meshes that `posed` and `far` are."""

    def codes(self, coded: Coded) -> tuple[torch.Tensor, ...]:
        """Codes (L,) of `rest`, `posed`, `other` and `far`; only the neutral shapes are encoded."""
        rest, other = encode_all(coded.model, np.stack([self.rest, self.other]))
        posed, far = coded.codes[list(self.rows)].to(rest)
        return rest, posed, other, far


def arithmetic(context: ReportContext) -> Section | None:
    """Interpolation, extrapolation and deformation transfer, PCA's beside."""
    rows, evaluation = torch.from_numpy(context.rows), context.result.evaluation
    models = {context.name: Coded(context.model, context.codes)}
    if context.pca is not None:
        models[context.method_name(PCA)] = Coded(evaluation.pca, evaluation.pca_codes[rows])
    html = strips(context, models)
    lead = "Codes of test meshes added, subtracted and decoded; below, PCA of equal size, whose paths are straight."
    return Section("Arithmetic of codes", paragraph(lead, "lead") + html) if html else None


def strips(context: ReportContext, models: Mapping[str, Coded]) -> str:
    """Between, beyond and transfer, a row of pictures for each model; empty where there are too few
    meshes.
    """
    cast = choose(context)
    if cast is None:
        return ""
    calm, posed, _, far = cast.names
    kind = "the neutral shape of the same" if cast.neutral else "another mesh of the same"
    html = f"<h3>Between</h3>{paragraph(f'0 is {posed}, 1 is {far}.', 'note')}"
    codes = {title: cast.codes(coded) for title, coded in models.items()}
    html += _walk(context, models, "between", {t: (c[1], c[3]) for t, c in codes.items()}, BETWEEN)
    html += f"<h3>Beyond</h3>{paragraph(f'0 is {calm}, {kind}, and 1 is {posed}.', 'note')}"
    html += _walk(context, models, "beyond", {t: (c[0], c[1]) for t, c in codes.items()}, BEYOND)
    html += f"<h3>From one to another</h3>{paragraph('T1 is T0 with what leads from S0 to S1.', 'note')}"
    return html + _transfer(context, models, cast, codes)


def _transfer(
    context: ReportContext,
    models: Mapping[str, Coded],
    cast: Cast,
    codes: Mapping[str, tuple[torch.Tensor, ...]],
) -> str:
    given = [cast.rest, cast.posed, cast.other]
    texts = ["S0", "S1", "T0", "T1"]
    lines = [
        [
            "given",
            *_pictures(context, context.camera, np.stack(given), [f"given {t}" for t in texts[:3]]),
            "",
        ]
    ]
    for title, coded in models.items():
        s0, s1, t0, _ = codes[title]
        t1 = transfer(coded.model.parts, s0, s1, t0)
        shapes = decode_all(coded.model, torch.stack([s0, s1, t0, t1]))
        cells = _pictures(context, context.camera, shapes, [f"{title}: {text}" for text in texts])
        lines.append([escape(title), *cells])
    names = [f"{text}<br>{escape(name)}" for text, name in zip(texts, cast.names, strict=False)]
    return NARROW.format(table(["", *names[:3], "T1<br>T0 + S1 − S0"], lines, "pictures"))


def choose(context: ReportContext) -> Cast | None:
    """A test mesh well apart from its subject's neutral shape, and the mesh of another subject that
    differs most.

    Where neutral shapes are not known, each subject's first mesh stands for them. None where meshes
    are too few.
    """
    meshes, subjects = np.asarray(context.test.vertices[:]), context.subjects
    rest, neutral = _rest(context, meshes)
    distance = np.linalg.norm(meshes - rest, axis=-1).mean(-1)
    source = int(np.argsort(distance, kind="stable")[int(POSED * (len(distance) - 1))])
    others = np.flatnonzero(subjects != subjects[source])
    others = others if len(others) else np.flatnonzero(np.arange(len(meshes)) != source)
    if not len(others) or distance[source] == 0:
        return None
    gap = np.linalg.norm(meshes[others] - meshes[source], axis=-1).mean(-1)
    far = int(others[gap.argmax()])
    name, other_name = context.caption(source), context.caption(far)
    calm = f"{_subject(context, source)} {'neutral' if neutral else 'at rest'}"
    target = f"{_subject(context, far)} {'neutral' if neutral else 'at rest'}"
    return Cast(
        rest[source],
        meshes[source],
        rest[far],
        meshes[far],
        neutral,
        (calm, name, target, other_name),
        (source, far),
    )


def _rest(context: ReportContext, meshes: np.ndarray) -> tuple[np.ndarray, bool]:
    """(N, V, 3) each mesh's neutral shape, True; or if one is not known each subject's first mesh,
    False.
    """
    if context.neutral.known(context.test.rows).all():
        return context.neutral.of(context.test.rows), True
    first = {subject: row for row, subject in reversed(list(enumerate(context.subjects.tolist())))}
    return meshes[[first[subject] for subject in context.subjects.tolist()]], False


def _subject(context: ReportContext, row: int) -> str:
    labels = context.test.labels
    return str(labels["subject"][row]) if "subject" in labels else f"mesh {context.test.rows[row]}"


def _walk(
    context: ReportContext,
    models: Mapping[str, Coded],
    kind: str,
    ends: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    positions: tuple[float, ...],
) -> str:
    places, walked = torch.tensor(positions), {}
    for title, coded in models.items():
        codes = line(coded.model.parts, *ends[title], places)
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
