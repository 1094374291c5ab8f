"""Functions that all makers share: spreading a count over subjects, random draws, subject names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from morphable.config import MAX_COUNT
from morphable.errors import InputError

LABEL_DECIMALS = 6
"""Parameters are rounded to this many decimals before use, so that labels.csv is small and still
reproduces exactly the same mesh.
"""


def check_count(count: int, seed: int) -> None:
    """Raise InputError if `count` is below 1 or above MAX_COUNT, or `seed` is negative."""
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"`count` {count}: expected at least 1, at most {MAX_COUNT:,}", "count")
    if seed < 0:
        raise InputError(f"`seed` {seed}: expected a whole number of at least 0", "seed")


def spread_evenly(count: int, groups: int) -> np.ndarray:
    """Assign `count` rows to groups whose sizes differ by at most one, larger ones first. Returns
    the group number (count,) of each row.

    >>> spread_evenly(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    sizes = np.full(groups, count // groups)
    sizes[: count % groups] += 1
    return np.repeat(np.arange(groups), sizes)


def in_blocks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` rows that cover 0..count-1."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def clipped_normal(
    random: np.random.Generator, count: int, mean: float, spread: float, low: float, high: float
) -> np.ndarray:
    """Draw (count,) numbers of a normal distribution with standard deviation `spread`, clipped to
    low..high.
    """
    return np.clip(random.normal(mean, spread, count), low, high)


def smoothstep(t: np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 to 1 for t in 0..1, with slope zero at both ends; constant outside.

    >>> smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def centered(vertices: np.ndarray) -> np.ndarray:
    """Move the centroid of every mesh (B, V, 3) float32 to the origin. Posed shapes have no rigid
    part to align, so this replaces the alignment.
    """
    return vertices - vertices.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)


def subject_names(prefix: str, numbers: np.ndarray) -> np.ndarray:
    """Name subjects by number: (N,) texts such as "hand007"."""
    return np.array([f"{prefix}{number:03d}" for number in numbers.tolist()])


def subject_numbers(prefix: str, names: np.ndarray) -> np.ndarray:
    """Invert `subject_names`: (N,) numbers. Raises InputError if a name has another form."""
    texts = [str(name) for name in names]
    for text in texts:
        if not (text.startswith(prefix) and text.removeprefix(prefix).isdecimal()):
            raise InputError(f"subject {text!r}: expected a name like {prefix}007")
    return np.array([int(text.removeprefix(prefix)) for text in texts], np.int64)
