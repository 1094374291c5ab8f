"""Section on arithmetic of codes (Chen and Kim 2021, figures 7 to 9): between, beyond, from one
shape to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from morphable.draw.camera import Camera
from morphable.draw.render import render
from morphable.edit.code import interpolate, transfer
from morphable.models.base import MorphableModel
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


Models = dict[str, MorphableModel]
"""Models of one template by title."""


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


def arithmetic(context: ReportContext) -> Section | None:
    """Interpolation, extrapolation and deformation transfer, PCA's beside."""
    models: Models = {context.name: context.model}
    if context.pca is not None:
        models[f"PCA, {context.latent} latents"] = context.pca
    html = strips(context, models)
    lead = "Codes of test meshes added, subtracted and decoded; below, PCA of equal size, whose paths are straight."
    return Section("Arithmetic of codes", paragraph(lead, "lead") + html) if html else None


def strips(context: ReportContext, models: Models) -> str:
    """Between, beyond and transfer, a row of pictures for each model; empty where there are too few
    meshes.
    """
    cast = choose(context)
    if cast is None:
        return ""
    calm, posed, _, far = cast.names
    kind = "the neutral shape of the same" if cast.neutral else "another mesh of the same"
    html = f"<h3>Between</h3>{paragraph(f'0 is {posed}, 1 is {far}.', 'note')}"
    html += _walk(context, models, "between", cast.posed, cast.far, BETWEEN)
    html += f"<h3>Beyond</h3>{paragraph(f'0 is {calm}, {kind}, and 1 is {posed}.', 'note')}"
    html += _walk(context, models, "beyond", cast.rest, cast.posed, BEYOND)
    html += f"<h3>From one to another</h3>{paragraph('T1 is T0 with what leads from S0 to S1.', 'note')}"
    return html + _transfer(context, models, cast)


def _transfer(context: ReportContext, models: Models, cast: Cast) -> str:
    given = [cast.rest, cast.posed, cast.other]
    texts = ["S0", "S1", "T0", "T1"]
    lines = [
        [
            "given",
            *_pictures(context, context.camera, np.stack(given), [f"given {t}" for t in texts[:3]]),
            "",
        ]
    ]
    for title, model in models.items():
        s0, s1, t0 = _codes(model, given)
        shapes = _decode(model, torch.stack([s0, s1, t0, transfer(model.parts, s0, s1, t0)]))
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
    )


def _rest(context: ReportContext, meshes: np.ndarray) -> tuple[np.ndarray, bool]:
    """(N, V, 3) each mesh's neutral shape, True; or where one is not known each subject's first
    mesh, False.
    """
    rows = context.dataset.neutral_rows()[context.test.rows] if _whole(context) else np.array([-1])
    if (rows >= 0).all():
        return np.asarray(context.dataset.vertices[rows]), True
    first = {subject: row for row, subject in reversed(list(enumerate(context.subjects.tolist())))}
    return meshes[[first[subject] for subject in context.subjects.tolist()]], False


def _whole(context: ReportContext) -> bool:
    """The dataset's own rows are those of its folder, so that a selection's rows can be looked up
    in it.
    """
    rows = context.dataset.rows
    return (
        len(rows) > 0
        and bool((rows == np.arange(len(rows))).all())
        and int(context.test.rows.max()) < len(rows)
    )


def _subject(context: ReportContext, row: int) -> str:
    labels = context.test.labels
    return str(labels["subject"][row]) if "subject" in labels else f"mesh {context.test.rows[row]}"


def _walk(
    context: ReportContext,
    models: Models,
    kind: str,
    a: np.ndarray,
    b: np.ndarray,
    positions: tuple[float, ...],
) -> str:
    places, walked = torch.tensor(positions), {}
    for title, model in models.items():
        first, last = _codes(model, [a, b])
        walked[title] = _decode(model, interpolate(model.parts, first, last, places))
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


def _codes(model: MorphableModel, shapes: list[np.ndarray]) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(torch.from_numpy(np.stack(shapes)).to(model.device))


def _decode(model: MorphableModel, codes: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.decode(codes).cpu().numpy())


def _pictures(
    context: ReportContext, camera: Camera, shapes: np.ndarray, texts: list[str]
) -> list[str]:
    size = camera.size(HEIGHT)
    pictures = [render(shape, context.triangles, camera, size) for shape in shapes]
    return [image(picture, text) for picture, text in zip(pictures, texts, strict=True)]
