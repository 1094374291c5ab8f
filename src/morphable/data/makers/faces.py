"""faces and face-population: ICT-FaceKit identities with expressions, as sequences like COMA's or
as a large population.

`faces` follows the layout of COMA (Ranjan et al., ECCV 2018): few subjects, twelve extreme
expressions, many frames. `face_population` has many subjects, each with the same six named
expressions, so that the true result of swapping them is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.makers.draws import (
    LABEL_DECIMALS,
    check_count,
    in_blocks,
    spread_evenly,
    subject_names,
    subject_numbers,
)
from morphable.data.makers.expressions import random_weights, recipe, recipes, sequence_weights
from morphable.data.makers.face_shape import FaceShapes
from morphable.data.makers.face_template import FaceTopology, face_topology
from morphable.data.makers.ict import IDENTITY_MODES, IctModel, find_ict, load_ict
from morphable.data.source import MeshSource
from morphable.data.splits import first_ten
from morphable.errors import InputError

SEQUENCE_SUBJECTS = 12
SEQUENCE_COUNT = 12 + 12 * 12 * 140
POPULATION_SUBJECTS = 1_000
PER_SUBJECT = 20
GRID = ("bareteeth", "eyebrow", "high_smile", "mouth_down", "mouth_open", "mouth_side")
LARGE_SUBJECTS = 300
LARGE_PER_SUBJECT = 6
"""At 70k vertices there are fewer meshes: the neutral face and five of the named expressions."""
PREFIX = "face"
FLOATS_PER_BLOCK = 4_000_000


class FaceMaker:
    """Makes the mesh of any subject with any expression weights, on the chosen topology. Both
    datasets consist of such meshes.
    """

    def __init__(self, model: IctModel, topology: FaceTopology, seed: int, linear: bool) -> None:
        self.names = model.names
        self.topology = topology
        self.seed = seed
        self.shapes = FaceShapes(model, topology.n_base, linear)

    def identity(self, subject: int) -> np.ndarray:
        """Draw the identity weights (100,) of a subject from N(0, 1). They depend on the seed and
        the subject only, not on the other meshes made.
        """
        return np.random.default_rng([self.seed, 0, subject]).standard_normal(IDENTITY_MODES)

    def faces(self, subjects: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Make the meshes (B, V, 3) float32 mm of subjects (B,) with expression weights (B, 53)."""
        made = np.empty((len(subjects), self.shapes.n_vertices, 3), np.float32)
        for subject in np.unique(subjects):
            rows = np.flatnonzero(subjects == subject)
            made[rows] = self.shapes.express(
                self.shapes.individual(self.identity(int(subject))), weights[rows]
            )
        return self.topology.finish(made)


def face_maker(
    *,
    seed: int,
    source: Path | None = None,
    linear: bool = False,
    size: str = "12k",
    part: str = "head",
) -> FaceMaker:
    """Return the maker of the meshes that `faces` and `face_population` make with the same options.

    The options are those of `faces`.
    """
    model = _model(find_ict(source).resolve())
    return FaceMaker(model, face_topology(model, size, part), seed, linear)


def true_faces(options: Mapping[str, Any], people: LabelTable, faces: LabelTable) -> np.ndarray:
    """(n, V, 3) mm: the faces of `people` with the expressions of `faces`.

    options: those that the set was made with. Raises InputError if ICT-FaceKit is not at hand.
    """
    chosen = {name: options[name] for name in ("seed", "linear", "size", "part")}
    return face_maker(**chosen).faces(
        subject_numbers(PREFIX, people["subject"]), weight_labels(faces)
    )


def faces(
    *,
    count: int = SEQUENCE_COUNT,
    seed: int = 7,
    source: Path | None = None,
    linear: bool = False,
    size: str = "12k",
    part: str = "head",
) -> MeshSource:
    """Make `count` faces: for each of 12 subjects the neutral face, then frames spread evenly over
    12 expression sequences.

    source: a clone of ICT-FaceKit or a packed archive; None: the path in MORPHABLE_ICT. linear: use
    the model's own expressions, in which vertices move on straight lines. size: 5k, 12k or 70k
    vertices. part: head or face.

    Fewer than 156 meshes have fewer subjects. A sequence rises from neutral to its expression and
    falls back, each part of the face in its own time. Labels: subject, expression, sequence, level
    (the share of the expression that is reached), frame, neutral, and the 53 expression weights as
    `w/NAME`.

    Raises InputError if an option has an unknown value or the model is missing.
    """
    check_count(count, seed)
    maker = face_maker(seed=seed, source=source, linear=linear, size=size, part=part)
    expressions = list(recipes())
    subjects = spread_evenly(count, min(SEQUENCE_SUBJECTS, max(1, count // (len(expressions) + 1))))
    neutral = np.searchsorted(subjects, subjects)
    weights, level = np.zeros((count, len(maker.names))), np.zeros(count)
    frames, expression = np.zeros(count, np.int64), np.full(count, -1)
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)[1:]
        expression[rows] = spread_evenly(len(rows), len(expressions))
        for number in np.unique(expression[rows]):
            shot = rows[expression[rows] == number]
            random = np.random.default_rng([seed, 1, int(subject), int(number)])
            # Midpoints, not ends: no frame of a sequence is exactly neutral, as in recorded data.
            time = (np.arange(len(shot)) + 0.5) / len(shot)
            weights[shot], level[shot] = sequence_weights(
                random, expressions[number], maker.names, time
            )
            frames[shot] = np.arange(len(shot))
    named = np.array([*expressions, "neutral"])[expression]
    columns = {
        "subject": subject_names(PREFIX, subjects),
        "expression": named,
        "sequence": np.where(expression < 0, "", named),
        "level": np.round(level, LABEL_DECIMALS),
        "frame": frames,
        "neutral": neutral,
    }
    return _source(maker, subjects, weights, columns, "faces")


def face_population(
    *,
    count: int | None = None,
    seed: int = 1,
    source: Path | None = None,
    linear: bool = False,
    size: str = "12k",
    part: str = "head",
    neutral_only: bool = False,
    labelled: float | None = None,
) -> MeshSource:
    """Make up to 1,000 subjects with 20 faces each: the neutral face, six named expressions at full
    level, and thirteen random ones.

    neutral_only: make a single neutral face per subject, so that there are as many subjects as
    meshes. labelled: the share of all meshes that keep their expression name; the names of the
    others, chosen at random, are removed. The other options are those of `faces`.

    Smaller counts have fewer subjects of 20 faces; larger ones have more faces per subject. Size
    70k has up to 300 subjects of six faces. Random expressions have no expression name; their level
    is the largest weight. Labels are those of `faces` without `sequence`; `frame` is the number of
    the face within its subject. The split `first-ten` tests on the first ten subjects.

    Raises InputError if an option has an unknown value or the model is missing.
    """
    subjects, per_subject = (
        (LARGE_SUBJECTS, LARGE_PER_SUBJECT) if size == "70k" else (POPULATION_SUBJECTS, PER_SUBJECT)
    )
    if count is None:
        count = subjects if neutral_only else subjects * per_subject
    check_count(count, seed)
    if labelled is not None and not 0 <= labelled <= 1:
        raise InputError(f"`labelled` {labelled}: expected a share from 0 to 1", "labelled")
    maker = face_maker(seed=seed, source=source, linear=linear, size=size, part=part)
    groups = count if neutral_only else min(subjects, max(1, count // per_subject))
    subject = spread_evenly(count, groups)
    neutral = np.searchsorted(subject, subject)
    frames = np.arange(count) - neutral
    weights = np.zeros((count, len(maker.names)))
    for name in GRID:
        weights[frames == GRID.index(name) + 1] = recipe(name, maker.names)
    for number in np.unique(subject):
        rows = np.flatnonzero((subject == number) & (frames > len(GRID)))
        weights[rows] = random_weights(
            np.random.default_rng([seed, 1, int(number)]), maker.names, len(rows)
        )
    named = np.array(["neutral", *GRID, ""])[np.minimum(frames, len(GRID) + 1)]
    if labelled is not None:
        named = _hidden(named, round(labelled * count), np.random.default_rng([seed, 2]))
    columns = {
        "subject": subject_names(PREFIX, subject),
        "expression": named,
        "level": np.where(
            frames == 0,
            0.0,
            np.where(frames <= len(GRID), 1.0, weights.max(axis=1).round(LABEL_DECIMALS)),
        ),
        "frame": frames,
        "neutral": neutral,
    }
    made = _source(maker, subject, weights, columns, "face-population")
    return replace(made, splits=first_ten(made.labels))


def weight_labels(labels: LabelTable) -> np.ndarray:
    """Read the expression weights (N, 53) from the labels of one of these datasets, in the model's
    order.
    """
    return np.stack(
        [column for name, column in labels.columns.items() if name.startswith("w/")], axis=1
    )


@cache
def _model(path: Path) -> IctModel:
    return load_ict(path)


def _hidden(names: np.ndarray, keep: int, random: np.random.Generator) -> np.ndarray:
    """(N,) the names, with all but `keep` randomly drawn ones replaced by empty texts."""
    named = np.flatnonzero(names != "")
    kept = random.permutation(named)[:keep]
    hidden = np.full_like(names, "")
    hidden[kept] = names[kept]
    return hidden


def _source(
    maker: FaceMaker,
    subjects: np.ndarray,
    weights: np.ndarray,
    columns: dict[str, np.ndarray],
    name: str,
) -> MeshSource:
    weights = np.round(weights, LABEL_DECIMALS)
    columns |= {f"w/{shape}": weights[:, number] for number, shape in enumerate(maker.names)}
    template = maker.topology.template
    size = max(1, FLOATS_PER_BLOCK // (3 * template.n_vertices))

    def blocks() -> Iterator[np.ndarray]:
        for rows in in_blocks(len(subjects), size):
            yield maker.faces(subjects[rows], weights[rows])

    info = {
        "source": f"{name}: ICT-FaceKit Light, expressions by morphable",
        "licence": "MIT (ICT-FaceKit, copyright 2020 USC Institute for Creative Technologies)",
        "unit": "cm",
        "seed": maker.seed,
        "linear": maker.shapes.linear,
    }
    return MeshSource(template, LabelTable(columns, len(subjects)), blocks, info)
