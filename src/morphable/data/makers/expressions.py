"""Expression weights: twelve named recipes, sequences that play them, and random combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from morphable.data.makers.draws import smoothstep
from morphable.data.makers.rig import ASSETS
from morphable.errors import InputError
from morphable.files import read_json

OPPOSITES = (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight"), ("mouthFunnel", "mouthPucker"))
MAX_EXTRA = 0.25


@cache
def recipes() -> Mapping[str, Mapping[str, float]]:
    """Read the named expressions: expression name -> shape name -> weight at level 1, in the order
    of the file.
    """
    expressions: Mapping[str, Mapping[str, float]] = read_json(ASSETS / "face_expressions.json")[
        "expressions"
    ]
    return expressions


def recipe(expression: str, names: Sequence[str]) -> np.ndarray:
    """Return the weights (53,) of a named expression at level 1. Raises InputError if the name is
    unknown.
    """
    if expression not in recipes():
        raise InputError(f"expression {expression!r}: expected one of {', '.join(recipes())}")
    weights = np.zeros(len(names))
    for shape, value in recipes()[expression].items():
        weights[names.index(shape)] = value
    return weights


def sequence_weights(
    random: np.random.Generator, expression: str, names: Sequence[str], time: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one performance of an expression: weights (T, 53) and levels (T,) at times (T,) in 0..1.

    Every shape of the recipe rises, holds and falls at its own times. Two other shapes rise and
    fall weakly.
    """
    target = recipe(expression, names)
    gain = random.uniform(0.75, 1.05)
    weights = np.zeros((len(time), len(names)))
    for shape in np.flatnonzero(target):
        onset, rise = random.uniform(0.05, 0.22), random.uniform(0.12, 0.25)
        hold, fall = random.uniform(0.2, 0.35), random.uniform(0.12, 0.3)
        up = smoothstep((time - onset) / rise)
        down = smoothstep((time - onset - rise - hold) / fall)
        weights[:, shape] = target[shape] * gain * random.uniform(0.85, 1.1) * (up - down)
    level = np.clip(weights.sum(axis=1) / target.sum(), 0, 1)
    others = [
        n
        for n, name in enumerate(names)
        if not target[n] and not name.startswith(("eyeLook", "mouthClose"))
    ]
    for shape in random.choice(others, 2, replace=False):
        weights[:, shape] += random.uniform(0, MAX_EXTRA) * np.sin(np.pi * time) ** 2
    return np.clip(weights, 0, 1), level


def random_weights(random: np.random.Generator, names: Sequence[str], count: int) -> np.ndarray:
    """Draw the weights (count, 53) of random expressions: one to four units at once, mostly
    symmetric, often with an open jaw.
    """
    return (
        np.stack([_random_expression(random, names) for _ in range(count)])
        if count
        else np.zeros((0, len(names)))
    )


def _random_expression(random: np.random.Generator, names: Sequence[str]) -> np.ndarray:
    units = _units(tuple(names))
    value: dict[str, float] = {}
    for number in random.permutation(len(units))[: random.integers(1, 5)]:
        unit = units[number]
        if any(unit[0] in pair and value.keys() & set(pair) for pair in OPPOSITES):
            continue
        strength = random.beta(2, 1.5)
        value[unit[0]] = strength
        if len(unit) == 2:
            value[unit[1]] = strength if random.uniform() < 0.8 else strength * random.uniform()
    if random.uniform() < 0.35:
        value["jawOpen"] = random.beta(2, 2)
    # mouthClose closes the lips of an open jaw, so it must not exceed jawOpen.
    if "mouthClose" in value:
        value["mouthClose"] = min(value["mouthClose"], value.get("jawOpen", 0.0))
    weights = np.zeros(len(names))
    for name, strength in value.items():
        weights[names.index(name)] = strength
    return weights


@cache
def _units(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Groups of shapes that move together: pairs of left and right, and single shapes."""
    lefts = [name for name in names if name.endswith("_L")]
    singles = [name for name in names if not name.endswith(("_L", "_R"))]
    return tuple((left, f"{left.removesuffix('_L')}_R") for left in lefts) + tuple(
        (name,) for name in singles
    )
