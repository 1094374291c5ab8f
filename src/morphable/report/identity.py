"""Sections on identity and expression: codes, neutral shapes, swaps and named expressions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from morphable.draw.blocks import Block, Cell, ColorBar, Columns, Heading, Section, Table, Text
from morphable.draw.charts import Scatter
from morphable.models.batched import decode_all, neutral_all
from morphable.report.context import ReportContext
from morphable.report.scene import Scene, middles
from morphable.rows import evenly_spread

SHOWN = 6
SWAP_PEOPLE, SWAP_FACES = 6, 5
LEVELS = (0.33, 0.67, 1.0)
NAMED = 6


def identity_codes(context: ReportContext) -> Section | None:
    """Show the codes of the measured meshes in the plane of each part's two principal directions,
    colored by subject and by expression.

    Identity codes should cluster by subject and not by expression, expression codes the other way
    round.
    """
    scene, model = context.scene, context.model
    labels = scene.meshes.labels
    columns = [name for name in ("subject", "expression") if name in labels]
    classes = {name: labels.classes(name) for name in columns}
    classes = {name: labeled for name, labeled in classes.items() if len(labeled.names) > 1}
    if "identity" not in model.parts or not classes:
        return None
    codes = scene.codes.cpu().numpy()
    charts: list[Sequence[Block]] = []
    for part in model.parts.free_names:
        points = in_plane(codes[:, model.parts[part]])
        for column, labeled in classes.items():
            text = f"{part} codes by {column}: scatter in the plane of two principal directions"
            chart = Scatter(points, labeled.numbers, labeled.names, text)
            charts.append([Heading(f"{part} code by {column}"), chart])
    lead = (
        f"Codes of {len(codes)} measured meshes, in the plane of each part's two principal "
        "directions. If identity and expression are disentangled, identity codes cluster by "
        "subject and mix expressions."
    )
    return Section("Identity and expression codes", [Text(lead, "lead"), Columns(charts)])


def neutral_shapes(context: ReportContext) -> Section | None:
    """Show input, reconstruction and predicted neutral shape, the latter two with their errors."""
    if "identity" not in context.model.parts:
        return None
    scene, view = context.scene, context.scene.view
    rows = middles(len(scene.meshes), SHOWN)
    inputs, full = scene.meshes.vertices[rows], scene.reconstructions(rows)
    neutral = neutral_all(context.model, scene.codes[torch.from_numpy(rows)])
    names, limit = [scene.caption(row) for row in rows], scene.error_limit
    lines = [
        view.row("Input", inputs, names),
        view.row("Reconstruction", full, names),
        view.distance_row("Its error", full, _distances(full, inputs), names, limit),
        view.row("Neutral shape", neutral, names),
    ]
    truth = _true_neutral(scene, rows)
    if truth is not None:
        errors = _distances(neutral, truth)
        lines.append(view.distance_row("Error of the neutral shape", neutral, errors, names, limit))
    lead = "What the identity part alone gives for each mesh: the same person without expression."
    return Section(
        "Neutral shapes",
        [
            Text(lead, "lead"),
            Table(["", *names], lines, "pictures"),
            ColorBar(limit, "distance to the true vertex"),
        ],
    )


def swaps(context: ReportContext) -> Section | None:
    """Show people by expressions: the identity of each mesh on the left combined with the rest of
    the code of each mesh at the top.
    """
    scene = context.scene
    if "identity" not in context.model.parts or len(scene.meshes) < 2:
        return None
    people = _one_each(scene.subjects, SWAP_PEOPLE)
    posed = posed_rows(scene)
    faces = posed[middles(len(posed), SWAP_FACES)]
    identity = context.model.parts["identity"]
    lines = []
    for person in people:
        mixed = scene.codes[torch.from_numpy(faces)].clone()
        mixed[:, identity] = scene.codes[person, identity]
        names = [f"{scene.caption(person)} with {scene.caption(face)}" for face in faces]
        pairs = zip(decode_all(context.model, mixed), names, strict=True)
        lines.append([_mesh(scene, person), *(scene.view.picture(s, name) for s, name in pairs)])
    header = ["", *(_mesh(scene, face) for face in faces)]
    lead = (
        "The person of each mesh on the left with the expression of each mesh at the top, by "
        "exchanging the identity parts of their codes."
    )
    return Section("Swaps", [Text(lead, "lead"), Table(header, lines, "pictures")])


def _mesh(scene: Scene, row: int) -> Cell:
    return scene.view.picture(scene.meshes.vertices[int(row)], scene.caption(row))


def named_expressions(context: ReportContext) -> Section | None:
    """Show one person with named expressions at three levels, and several people with one of them.

    Only models whose conditions have names have this section.
    """
    scene, model = context.scene, context.model
    parts = [part for part in model.parts if model.names_of(part)]
    if not parts:
        return None
    names = model.names_of(parts[0])
    chosen = evenly_spread(len(names), NAMED)
    places = {names[i]: model.parts[parts[0]].start + int(i) for i in chosen}
    people = _one_each(scene.subjects, NAMED)
    person = people[len(people) // 2]
    shapes = [_with_expressions(scene, person, list(places.values()), level) for level in LEVELS]
    moved = np.linalg.norm(shapes[-1] - shapes[0], axis=-1).mean(-1)
    # The expression that moves the surface most is the easiest to compare between people.
    strongest = list(places)[int(moved.argmax())]
    return Section(
        "Named expressions",
        [
            *_three_levels(scene, person, list(places), shapes),
            *_people_with(scene, people, strongest, places[strongest]),
        ],
    )


def _three_levels(
    scene: Scene, person: int, names: list[str], shapes: list[np.ndarray]
) -> list[Block]:
    """Show one person with n expressions, one row per level. shapes: (n, V, 3) mm per level."""
    lines = [
        scene.view.row(f"level {level:g}", made, [f"{name} at {level:g}" for name in names])
        for level, made in zip(LEVELS, shapes, strict=True)
    ]
    lead = (
        f"The person of {scene.caption(person)} with named expressions, generated at three "
        "levels; all else in the code is zero."
    )
    return [Text(lead, "lead"), Table(["", *names], lines, "pictures")]


def _people_with(scene: Scene, people: np.ndarray, name: str, place: int) -> list[Block]:
    """Show several people with one expression. place: the index of its entry in the code."""
    captions = [scene.caption(row) for row in people]
    codes = _identity_alone(scene, people)
    codes[:, place] = 1
    lines = [
        scene.view.row("Mesh", scene.meshes.vertices[people], captions),
        scene.view.row(f"{name} at 1", decode_all(scene.model, codes), captions),
    ]
    lead = (
        f"People with one expression, the one of those above that moves the surface most: {name}."
    )
    return [Text(lead, "lead"), Table(["", *captions], lines, "pictures")]


def _identity_alone(scene: Scene, rows: np.ndarray) -> Tensor:
    """Return the codes (n, L) of drawn meshes with everything but the identity part set to zero."""
    own = scene.codes[torch.from_numpy(rows)]
    identity = scene.model.parts["identity"]
    codes = torch.zeros_like(own)
    codes[:, identity] = own[:, identity]
    return codes


def _with_expressions(scene: Scene, person: int, places: list[int], level: float) -> np.ndarray:
    """Decode one person with each of n entries of the code at a level: (n, V, 3) mm."""
    codes = _identity_alone(scene, np.array([person])).repeat(len(places), 1)
    codes[torch.arange(len(places)), torch.tensor(places)] = level
    return decode_all(scene.model, codes)


def _distances(shapes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(shapes - truth, axis=-1))


def _true_neutral(scene: Scene, rows: np.ndarray) -> np.ndarray | None:
    """Return the true neutral shapes (n, V, 3) mm, or None if one of them is not known."""
    folder_rows = scene.meshes.rows[rows]
    known = scene.neutral.known(folder_rows).all()
    return scene.neutral.of(folder_rows) if known else None


def posed_rows(scene: Scene) -> np.ndarray:
    """Return the drawn meshes that are not their subject's neutral mesh, or all if each one is."""
    all_rows = np.arange(len(scene.meshes))
    own = scene.neutral.index[scene.meshes.rows] == scene.meshes.rows
    # A computed neutral shape is a mean of frames, so no mesh of the dataset is one.
    rows = all_rows if scene.neutral.computed else np.flatnonzero(~own)
    return rows if len(rows) else all_rows


def _one_each(subjects: np.ndarray, limit: int) -> np.ndarray:
    """Return the row of the middle mesh of each of at most `limit` subjects, evenly spread."""
    names = np.unique(subjects)
    chosen = names[evenly_spread(len(names), limit)]
    rows = [np.flatnonzero(subjects == name) for name in chosen]
    return np.array([own[len(own) // 2] for own in rows])


def in_plane(codes: np.ndarray) -> np.ndarray:
    """Return coordinates (N, 2) in the plane of the two principal directions of codes (N, L).
    Codes with one dimension lie on a line.
    """
    centered = codes - codes.mean(0)
    axes = np.linalg.svd(centered, full_matrices=False)[2][:2]
    points = np.zeros((len(codes), 2))
    points[:, : len(axes)] = centered @ axes.T
    return points
