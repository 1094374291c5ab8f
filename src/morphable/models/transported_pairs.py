"""Transported pairs: training meshes of one person with the expression of another, carried over by
deformation gradients or added offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from morphable.mesh.transport import Method, Transport
from morphable.models.base import Shapes
from morphable.models.linear_two_space import people_and_expressive

BLOCK = 128
JUDGED_PEOPLE = 3
"""`better_method` leaves out so many people, one at a time."""
JUDGED_MESHES, JUDGED_SOURCES = 40, 80
"""At most so many meshes of each, and so many meshes of other people that should explain them."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of P pairs among N meshes, all (P,): `person` a mesh of the person, `source` a mesh of
    another one whose expression the pair has, and the neutral mesh of each.
    """

    person: np.ndarray
    source: np.ndarray
    person_neutral: np.ndarray
    source_neutral: np.ndarray

    @classmethod
    def draw(cls, neutral: np.ndarray, count: int, random: np.random.Generator) -> Pairs:
        """Draw at most `count` pairs at random.

        neutral: (N,) the row of each mesh's neutral mesh, -1 = none.
        """
        known = np.flatnonzero(neutral >= 0)
        person, source = random.choice(known, (2, count)) if len(known) else np.zeros((2, 0), int)
        differ = neutral[person] != neutral[source]
        person, source = person[differ], source[differ]
        return cls(person, source, neutral[person], neutral[source])

    def __len__(self) -> int:
        return len(self.person)

    def meshes(self, shapes: Shapes, transport: Transport) -> Iterator[np.ndarray]:
        """Yield the meshes transported by gradients, in order, in blocks (n, V, 3) mm."""
        for start in range(0, len(self), BLOCK):
            rows = slice(start, start + BLOCK)
            yield transport.apply(
                shapes[self.source_neutral[rows]],
                shapes[self.source[rows]],
                shapes[self.person_neutral[rows]],
            )


def better_method(
    shapes: Shapes, neutral: np.ndarray, transport: Transport, random: np.random.Generator
) -> Method:
    """The method of transport that explains people's own meshes better.

    One person at a time is left out: meshes of others are transported to that person, and the
    person's own meshes are projected onto half as many principal directions of the results. The
    method that leaves the smaller error, in the geometric mean over people, is returned; with too
    few meshes, added offsets.
    """
    expressive = people_and_expressive(neutral)[1]
    people = np.unique(neutral[expressive])
    errors: dict[Method, list[float]] = {method: [] for method in get_args(Method)}
    for person in random.permutation(people)[:JUDGED_PEOPLE]:
        own = random.permutation(expressive[neutral[expressive] == person])[:JUDGED_MESHES]
        others = random.permutation(expressive[neutral[expressive] != person])[:JUDGED_SOURCES]
        if len(others) < 2:
            continue
        target = shapes[person]
        moved = (shapes[own] - target).reshape(len(own), -1)
        for method, found in errors.items():
            carried = transport.apply(shapes[neutral[others]], shapes[others], target, method)
            offsets = (carried - target).reshape(len(others), -1)
            axes = np.linalg.svd(offsets, full_matrices=False)[2][: len(others) // 2]
            rest = (moved - moved @ axes.T @ axes).reshape(len(own), -1, 3)
            found.append(float(np.linalg.norm(rest, axis=-1).mean()))
    # Equal errors, such as zero, do not speak for the costlier method.
    ratio = [np.log(max(g, 1e-12) / max(o, 1e-12)) for g, o in zip(*errors.values(), strict=True)]
    return "gradients" if ratio and np.mean(ratio) < 0 else "offsets"
