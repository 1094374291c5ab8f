"""Small laws that every source follows: how a count spreads over subjects, how draws are made, how
labels are named.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from morphable.errors import InputError

LABEL_DECIMALS = 6
"""Parameters are rounded to this many decimals before use: labels.csv stays small and gives back
the very same mesh.
"""


def check_count(count: int, seed: int) -> None:
    """Raise InputError unless a source can make `count` meshes from `seed`."""
    if count < 1:
        raise InputError(f"`count` {count}: expected at least 1", "count")
    if seed < 0:
        raise InputError(f"`seed` {seed}: expected a whole number of at least 0", "seed")


def spread_evenly(count: int, groups: int) -> np.ndarray:
    """(count,) group number of every row, in groups whose sizes differ by at most one, the larger
    first.

    >>> spread_evenly(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    sizes = np.full(groups, count // groups)
    sizes[: count % groups] += 1
    return np.repeat(np.arange(groups), sizes)


def in_blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` rows that cover 0..count-1."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def clipped_normal(
    random: np.random.Generator, count: int, mean: float, spread: float, low: float, high: float
) -> np.ndarray:
    """(count,) draws of N(mean, spread) clipped to low..high."""
    return np.clip(random.normal(mean, spread, count), low, high)


def smoothstep(t: np.ndarray) -> np.ndarray:
    """A rise from 0 to 1 over t in 0..1 that starts and ends at rest; constant outside.

    >>> smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def centered(vertices: np.ndarray) -> np.ndarray:
    """(B, V, 3) float32 with the centroid of every mesh at the origin: what stands in for alignment
    in posed shapes.
    """
    return vertices - vertices.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)


def subject_names(prefix: str, numbers: np.ndarray) -> np.ndarray:
    """(N,) text such as "hand007"."""
    return np.array([f"{prefix}{number:03d}" for number in numbers.tolist()])


def subject_numbers(prefix: str, names: np.ndarray) -> np.ndarray:
    """(N,) the numbers that `subject_names` wrote; InputError for a name of another source."""
    texts = [str(name) for name in names]
    for text in texts:
        if not (text.startswith(prefix) and text.removeprefix(prefix).isdecimal()):
            raise InputError(f"subject {text!r}: expected a name like {prefix}007")
    return np.array([int(text.removeprefix(prefix)) for text in texts], np.int64)
