"""Sections on identity and expression: codes by subject and expression, neutral shapes, swaps,
named expressions.
"""

from __future__ import annotations

from html import escape

import numpy as np
import torch

from morphable.draw.region_map import region_colors
from morphable.models.batched import neutral_all
from morphable.report.context import ReportContext, middles
from morphable.report.gallery import HEIGHT, error_row, picture_row
from morphable.report.latent import decode
from morphable.report.section import Section, color_bar, image, paragraph, table
from morphable.rows import evenly_spread

SHOWN = 6
SWAP_PEOPLE, SWAP_FACES = 6, 5
LEVELS = (0.33, 0.67, 1.0)
NAMED = 6
SIDE = 300
LEGEND = 16
"""Classes that a legend names; of more, the first."""


def identity_codes(context: ReportContext) -> Section | None:
    """The codes of the test meshes in the plane of each part's two principal directions, by subject
    and by expression.

    Identity codes should gather by subject and not by expression; expression codes the other way
    round.
    """
    columns = [name for name in ("subject", "expression") if name in context.test.labels]
    classes = {name: context.test.labels.classes(name) for name in columns}
    classes = {name: found for name, found in classes.items() if len(found[1]) > 1}
    if "identity" not in context.model.parts or not classes:
        return None
    codes = context.codes.cpu().numpy()
    free = [part.name for part in context.model.parts.items_ if not part.pinned]
    html = ""
    for part in free:
        points = _plane(codes[:, context.model.parts[part]])
        for column, (numbers, names) in classes.items():
            chart = _scatter(points, numbers, names, f"{part} codes by {column}")
            html += f"<div><h3>{escape(part)} code by {column}</h3>{chart}</div>"
    lead = (
        f"Codes of {len(codes)} measured meshes, in the plane of each part's two principal directions. Where the parts "
        "are apart, identity codes form a heap for each subject and mix expressions."
    )
    return Section(
        "Identity and expression codes", paragraph(lead, "lead") + f'<div class="two">{html}</div>'
    )


def neutral_shapes(context: ReportContext) -> Section | None:
    """Input, reconstruction and predicted neutral shape, each with its errors."""
    if "identity" not in context.model.parts:
        return None
    rows = middles(len(context.test), SHOWN)
    inputs = context.test.vertices[rows]
    codes = context.codes[torch.from_numpy(rows)]
    full, neutral = context.reconstruct(rows), neutral_all(context.model, codes)
    captions = [context.caption(row) for row in rows]
    truth = _true_neutral(context, rows)
    limit = context.error_limit
    lines = [
        picture_row(context, "Input", inputs, captions),
        picture_row(context, "Reconstruction", full, captions),
    ]
    lines.append(error_row(context, "Its error", full, inputs, captions, limit))
    lines.append(picture_row(context, "Neutral shape", neutral, captions))
    if truth is not None:
        lines.append(error_row(context, "Its error", neutral, truth, captions, limit))
    lead = "What the identity part alone says of each mesh: the same person without expression."
    html = table(["", *map(escape, captions)], lines, "pictures") + color_bar(
        limit, "distance to the true vertex"
    )
    return Section("Neutral shapes", paragraph(lead, "lead") + html)


def swaps(context: ReportContext) -> Section | None:
    """People by expressions: the identity of each mesh on the left with all else of each mesh at
    the top.
    """
    if "identity" not in context.model.parts or len(context.test) < 2:
        return None
    people = _one_each(context.subjects, SWAP_PEOPLE)
    posed = _posed(context)
    faces = posed[middles(len(posed), SWAP_FACES)]
    own = context.codes.cpu().numpy()[np.concatenate([people, faces])]
    where = context.model.parts["identity"]
    header = [
        image(context.picture(context.test.vertices[int(i)], HEIGHT), context.caption(i))
        for i in faces
    ]
    lines = []
    for number, row in enumerate(people):
        mixed = own[len(people) :].copy()
        mixed[:, where] = own[number, where]
        texts = [f"{context.caption(row)} with {context.caption(i)}" for i in faces]
        pictures = zip(decode(context.model, mixed), texts, strict=True)
        cells = [
            image(context.picture(context.test.vertices[int(row)], HEIGHT), context.caption(row))
        ]
        lines.append(
            [*cells, *(image(context.picture(shape, HEIGHT), text) for shape, text in pictures)]
        )
    lead = "The person of each mesh on the left with the expression of each mesh at the top, by exchanging codes."
    return Section("Swaps", paragraph(lead, "lead") + table(["", *header], lines, "pictures"))


def named_expressions(context: ReportContext) -> Section | None:
    """One person with named expressions at three levels, and people with one of them, where
    conditions have names.
    """
    named = [
        (part, every) for part in context.model.parts if (every := context.model.names_of(part))
    ]
    if not named:
        return None
    part, every = named[0]
    chosen = evenly_spread(len(every), NAMED)
    names = [every[i] for i in chosen]
    where = context.model.parts["identity"]
    numbers = context.model.parts[part].start + chosen
    people = _one_each(context.subjects, NAMED)
    codes = context.codes.cpu().numpy()[people]
    codes[:, : where.start] = codes[:, where.stop :] = 0
    one = len(people) // 2
    levels = np.tile(codes[one], (len(LEVELS), len(names), 1))
    levels[:, np.arange(len(names)), numbers] = np.array(LEVELS)[:, None]
    shapes = [decode(context.model, rows) for rows in levels]
    lines = [
        picture_row(context, f"level {level:g}", made, [f"{name} at {level:g}" for name in names])
        for level, made in zip(LEVELS, shapes, strict=True)
    ]
    lead = (
        f"The person of {context.caption(people[one])} with named expressions, generated at three levels; all else in "
        "the code is zero."
    )
    html = paragraph(lead, "lead") + table(["", *map(escape, names)], lines, "pictures")

    moved = np.linalg.norm(shapes[-1] - shapes[0], axis=-1).mean(-1)
    strongest = int(moved.argmax())
    codes[:, numbers[strongest]] = 1
    captions = [context.caption(row) for row in people]
    lines = [
        picture_row(context, "Mesh", context.test.vertices[people], captions),
        picture_row(context, f"{names[strongest]} at 1", decode(context.model, codes), captions),
    ]
    lead = f"People with one expression, the one of those above that moves the surface most: {names[strongest]}."
    html += paragraph(lead, "lead") + table(["", *map(escape, captions)], lines, "pictures")
    return Section("Named expressions", html)


def _true_neutral(context: ReportContext, rows: np.ndarray) -> np.ndarray | None:
    """(n, V, 3) mm, or None if one of them is not known."""
    folder_rows = context.test.rows[rows]
    known = context.neutral.known(folder_rows).all()
    return context.neutral.of(folder_rows) if known else None


def _posed(context: ReportContext) -> np.ndarray:
    """Rows of the test meshes that are not their subject's neutral mesh; of all, where no others
    are.
    """
    every = np.arange(len(context.test))
    own = context.neutral.index[context.test.rows] == context.test.rows
    rows = every if context.neutral.computed else np.flatnonzero(~own)
    return rows if len(rows) else every


def _one_each(subjects: np.ndarray, most: int) -> np.ndarray:
    """The row of the middle mesh of at most `most` subjects, evenly spread among them."""
    names = np.unique(subjects)
    chosen = names[evenly_spread(len(names), most)]
    return np.array(
        [rows[len(rows) // 2] for name in chosen for rows in [np.flatnonzero(subjects == name)]]
    )


def _plane(codes: np.ndarray) -> np.ndarray:
    """(N, 2) coordinates in the plane of the two principal directions; a code of one number lies on
    a line.
    """
    centered = codes - codes.mean(0)
    axes = np.linalg.svd(centered, full_matrices=False)[2][:2]
    points = np.zeros((len(codes), 2))
    points[:, : len(axes)] = centered @ axes.T
    return points


def _scatter(points: np.ndarray, numbers: np.ndarray, names: list[str], text: str) -> str:
    """An SVG of points (N, 2) colored by class (N,), with a legend; class -1 is gray."""
    low, high = points.min(0), points.max(0)
    size = max(float((high - low).max()), 1e-9)
    at = 12 + (SIDE - 24) * (0.5 + (points - (low + high) / 2) / size)
    colors = [
        "rgb({},{},{})".format(*np.round(255 * c).astype(int)) for c in region_colors(len(names))
    ]
    colors.append("rgb(150,150,150)")
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{SIDE - y:.1f}" r="3.2" fill="{colors[n]}" fill-opacity="0.75"/>'
        for (x, y), n in zip(at.tolist(), numbers.tolist(), strict=True)
    )
    legend = "".join(
        f'<circle cx="{SIDE + 14}" cy="{16 + 17 * i}" r="4" fill="{colors[i]}"/>'
        f'<text class="tick" x="{SIDE + 24}" y="{20 + 17 * i}">{escape(name[:18])}</text>'
        for i, name in enumerate(names[:LEGEND])
    )
    said = escape(f"{text}: scatter in the plane of two principal directions", quote=True)
    return f'<svg viewBox="0 0 {SIDE + 150} {SIDE}" role="img" aria-label="{said}">{dots}{legend}</svg>'
