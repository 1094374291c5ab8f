"""Principal components of the factors of a population: of the means of each factor's classes, and
of what they leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphable.models.base import Shapes
from morphable.models.principal_basis import principal_basis


class Residuals:
    """Shapes minus the mean of their class, computed only when indexed. Shapes without a class are
    left out.

    shapes: (N, V, 3) mm. numbers: (N,) class of each, -1 = none. means: (n, V, 3) mm.
    """

    def __init__(self, shapes: Shapes, numbers: np.ndarray, means: np.ndarray) -> None:
        self.shapes, self.means = shapes, means
        self.rows = np.flatnonzero(numbers >= 0)
        self.numbers = numbers[self.rows]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.shapes.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        here = np.arange(len(self))[index]
        return np.asarray(self.shapes[self.rows[here]] - self.means[self.numbers[here]])


@dataclass(frozen=True, eq=False)
class FactorComponents:
    """The components of one factor: shapes (K, 3V) mm, each as long as its standard deviation; and
    the mean coordinates (n, K) of each class along them, in standard deviations, None without
    classes.
    """

    shapes: np.ndarray
    class_codes: np.ndarray | None


def factor_components(
    shapes: Shapes, classes: Sequence[np.ndarray | None], sizes: Sequence[int]
) -> list[FactorComponents]:
    """Compute the principal components of each factor, `sizes` of them.

    shapes: (N, V, 3) mm. classes: for each factor, the class (N,) of each mesh with -1 = none, or
    None.

    Each factor but the last has the components of the means of its classes, which the next factor
    no longer sees. The last factor, and one without two classes, has those of all that is left.
    """
    found = []
    left = list(classes)
    for position, size in enumerate(sizes):
        numbers, last = left[position], position == len(sizes) - 1
        if numbers is None or numbers.max(initial=-1) < 1:
            basis = principal_basis(shapes, size)
            found.append(FactorComponents(basis.components * basis.deviations[:, None], None))
            continue
        means = _class_means(shapes, numbers)
        basis = principal_basis(shapes if last else means[np.unique(numbers[numbers >= 0])], size)
        centered = means.reshape(len(means), -1) - basis.mean
        codes = centered @ basis.components.T / np.maximum(basis.deviations, 1e-6)
        found.append(FactorComponents(basis.components * basis.deviations[:, None], codes))
        if not last:
            shapes = Residuals(shapes, numbers, means)
            left = [None if other is None else other[numbers >= 0] for other in left]
    return found


def _class_means(shapes: Shapes, numbers: np.ndarray) -> np.ndarray:
    """(n, V, 3) mean of the shapes of each class; zero for a class without shapes."""
    count = int(numbers.max()) + 1
    total = np.zeros((count, *shapes.shape[1:]))
    for number in range(count):
        rows = np.flatnonzero(numbers == number)
        if len(rows):
            total[number] = shapes[rows].mean(axis=0, dtype=np.float64)
    return total.astype(np.float32)
