"""What `two-space` starts from: the linear two-space model in coefficients, and regressions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from morphable.models.base import Shapes, blocks
from morphable.models.linear_two_space import Offsets
from morphable.models.principal_basis import PrincipalBasis, principal_basis
from morphable.rows import evenly_spread

RIDGE = 1e-3
"""The variance of the noise that the regression of codes expects in its inputs of variance one."""

MAX_CONDITION = 100.0
"""A change of codes with a larger condition number is not made."""

BLOCK = 256

SPAN_MESHES = 2000
"""The components are those of at most so many meshes, evenly spread."""


@dataclass(frozen=True, eq=False)
class CoefficientStart:
    """The linear two-space model in coefficients c = components @ (x - mean) of shapes x: a code z
    gives c = center + z @ directions, and the code of c is (c - center) @ inverse.

    mean: (3V,) mm. components: (K, 3V) orthonormal. deviations: (K,) mm of the coefficients,
    descending. center: (K,) mm. directions: (L + n, K) mm, the last n of conditions. inverse: (K,
    L).
    """

    mean: np.ndarray
    components: np.ndarray
    deviations: np.ndarray
    center: np.ndarray
    directions: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(
        cls,
        shapes: Shapes,
        identity: PrincipalBasis,
        expression: PrincipalBasis,
        rank: int,
        conditioned: np.ndarray,
    ) -> Self:
        """shapes: (N, V, 3) mm. identity, expression: the two spaces. conditioned: (n, 3V) mm, what
        conditions add. The components span all these exactly, and the shapes as well as `rank`
        principal components can.
        """
        scaled = [space.components * space.deviations[:, None] for space in (identity, expression)]
        free = np.concatenate(scaled)
        directions = np.concatenate([free, conditioned])
        meshes = principal_basis(shapes[evenly_spread(len(shapes), SPAN_MESHES)], rank)
        spanned = orthonormal(np.concatenate([directions, [identity.mean - meshes.mean]]))
        rest = meshes.components - meshes.components @ spanned.T @ spanned
        spanned = np.concatenate([spanned, orthonormal(rest)])
        components, deviations = principal_axes(shapes, meshes.mean, spanned)
        return cls(
            meshes.mean,
            components,
            deviations,
            components @ (identity.mean - meshes.mean),
            directions @ components.T,
            components @ np.linalg.pinv(free),
        )


def effects(offsets: Offsets, conditions: np.ndarray) -> np.ndarray:
    """(n, 3V) mm what conditions add to neutral meshes: the ridge regression of offsets.

    conditions: (N, n) of all meshes.
    """
    known = conditions[offsets.rows].astype(np.float64)
    size = known.shape[1]
    total = np.zeros((size, math.prod(offsets.shape[1:])))
    for start in range(0, len(known) if size else 0, BLOCK):
        rows = slice(start, min(start + BLOCK, len(known)))
        total += known[rows].T @ offsets[rows].reshape(rows.stop - start, -1)
    found: np.ndarray = np.linalg.solve(known.T @ known + RIDGE * len(known) * np.eye(size), total)
    return found


class Unexplained(Offsets):
    """Offsets less what their conditions explain.

    conditions: (N, n) of all meshes. explained: (n, 3V) mm, see `effects`.
    """

    def __init__(self, offsets: Offsets, conditions: np.ndarray, explained: np.ndarray) -> None:
        super().__init__(offsets.shapes, offsets.rows, offsets.neutral)
        self.conditions, self.explained = conditions[offsets.rows], explained

    def once(self, number: np.ndarray) -> np.ndarray:
        found = super().once(number)
        explained = (self.conditions[number] @ self.explained).reshape(found.shape)
        return (found - explained).astype(np.float32)


def orthonormal(rows: np.ndarray) -> np.ndarray:
    """(k, D) an orthonormal basis of the span of rows (n, D), k <= n."""
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    basis: np.ndarray = axes[values > 1e-7 * max(values.max(initial=0.0), 1e-30)]
    return basis


def principal_axes(
    shapes: Shapes, mean: np.ndarray, spanned: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn an orthonormal basis (K, 3V) to the principal axes of the shapes (N, V, 3) mm within its
    span; returns it and the standard deviation along each axis (K,) mm, in descending order.
    """
    onto = spanned.T.astype(np.float32)
    coefficients = np.concatenate(
        [(b.reshape(len(b), -1) - mean).astype(np.float32) @ onto for b in blocks(shapes)]
    ).astype(np.float64)
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(coefficients.T)))
    components = axes[:, ::-1].T @ spanned
    # The sign of a component is arbitrary; see `principal_basis`.
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    deviations = np.sqrt(np.maximum(values[::-1], 0))
    return components * np.where(largest < 0, -1.0, 1.0), deviations


def moving_axes(offsets: Tensor, count: int) -> Tensor:
    """(count, R) mm: principal components of offsets (n, R) mm about their mean, each as long as its
    standard deviation. Those that do not exist are zero.
    """
    _, values, axes = torch.linalg.svd(offsets - offsets.mean(0), full_matrices=False)
    found = axes[:count] * values[:count, None] / max(1, len(offsets) - 1) ** 0.5
    return torch.nn.functional.pad(found, (0, 0, 0, count - len(found)))


def ridge(inputs: Tensor, outputs: Tensor, noise: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Weight (D, K) and bias (K,) of the ridge regression of outputs (N, K) on inputs (N, D).

    noise: the variance of the noise that it expects in the inputs; the default is for inputs in
    standard deviations.
    """
    mean, middle = inputs.mean(0), outputs.mean(0)
    centered = inputs - mean
    damping = noise * len(inputs) * torch.eye(inputs.shape[1]).to(inputs)
    weight = torch.linalg.solve(centered.T @ centered + damping, centered.T @ (outputs - middle))
    return weight, middle - mean @ weight


def alignment(codes: Tensor, shapes: Tensor, directions: Tensor) -> Tensor:
    """(K, K) a change of codes (N, K) after which they are amounts of directions (K, R): the least
    squares solution of codes @ change @ directions = shapes, for shapes (N, R).

    It is a rotation in dimensions in which codes hardly vary, and everywhere if the solution could
    not be undone.
    """
    codes, directions = codes.double(), directions.double()
    wanted = shapes.double() @ torch.linalg.pinv(directions)
    left, _, right = torch.linalg.svd(codes.T @ wanted)
    rotation = left @ right
    damping = RIDGE * len(codes) * torch.eye(codes.shape[1]).to(codes)
    rest = codes.T @ (wanted - codes @ rotation)
    change = rotation + torch.linalg.solve(codes.T @ codes + damping, rest)
    if not float(torch.linalg.cond(change)) < MAX_CONDITION:
        change = rotation
    return change.to(shapes)
