"""Fit: what a fit found, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from morphable.fitting.problem import Problem
from morphable.mesh.align import Similarity, after, inverse
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all

CONFIDENCE = 0.9
"""Probability with which the true vertex lies within `Fit.uncertainty` of the fitted one."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Codes and poses that were fitted to B shapes.

    code: (B, L). vertices: (B, V, 3) float32 mm, the fitted shapes in the model's frame. map: what
    brings each target to the model's frame, B similarities. residuals: (B, K) mm, the distance of
    each thing that was seen from the fitted shape, in the target's own size; nan for vertices that
    were not seen. noise: (B,) mm, the standard deviation per coordinate of what was seen about the
    model, given or estimated. steps: (B,) gradients that were computed.
    """

    code: Tensor
    vertices: np.ndarray
    map: Similarity
    residuals: np.ndarray
    noise: np.ndarray
    steps: np.ndarray
    _problem: Problem
    _variables: Tensor
    _noise: np.ndarray
    """(B,) mm, `noise` in the frame of the problem."""
    _repeats: np.ndarray
    """(B,) how many observations count as one."""
    _freedom: np.ndarray
    """(B,) number of independent measurements that `noise` was estimated from."""

    @property
    def model(self) -> MorphableModel:
        return self._problem.model

    @property
    def error(self) -> np.ndarray:
        """(B,) mm, the mean residual of each shape."""
        return np.asarray(np.nanmean(self.residuals, axis=1))

    @property
    def placed(self) -> np.ndarray:
        """(B, V, 3) float32 mm, the fitted shapes where the targets lie."""
        return inverse(self.map).apply(self.vertices)

    @cached_property
    def covariance(self) -> np.ndarray:
        """(B, L, L) covariance of each code given what was seen: the posterior, which is exact for
        a linear model without a pose and Laplace's approximation otherwise.
        """
        basis = self._problem.frame.basis.double()
        size = self._problem.latent
        return np.stack(
            [
                (basis[row % len(basis)] @ one[:size, :size] @ basis[row % len(basis)].T).numpy()
                for row, (one, _) in enumerate(self._posteriors)
            ]
        )

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """(B, V) mm, the distance within which the true vertex lies with a probability of 90 %,
        given what was seen and that the model leaves `noise` unexplained at every vertex.
        """
        result = []
        for row, (covariance, slopes) in enumerate(self._posteriors):
            spread = slopes.double() @ covariance @ slopes.double().transpose(1, 2)  # (V, 3, 3)
            level = float(self._noise[row])
            spread = spread + level**2 * torch.eye(3).to(spread)
            result.append(_radius(spread.cpu().numpy(), self._freedom[row]))
        return np.stack(result) * (self.noise / self._noise)[:, None]

    @cached_property
    def _posteriors(self) -> list[tuple[Tensor, Tensor]]:
        """For each shape, the covariance (D, D) of its variables and the slopes (V, 3, D) mm."""
        result = []
        for row in range(len(self.code)):
            around = self._problem.linearize(self._variables[row], row)
            information = self._problem.information(around, torch.tensor([row]))
            noise = torch.tensor([self._noise[row] * self._repeats[row] ** 0.5])
            result.append((self._problem.covariance(information, noise)[0], around.slopes))
        return result


def _radius(spread: np.ndarray, freedom: float) -> np.ndarray:
    """(V,) mm radius of the ball that holds a Gaussian of covariance (V, 3, 3) with the probability
    CONFIDENCE, by Satterthwaite's approximation of the squared distance as a scaled chi-square.

    freedom: number of measurements from which the noise was estimated; few make it wider.
    """
    mean = np.trace(spread, axis1=1, axis2=2)
    axes = mean**2 / np.square(spread).sum((1, 2))
    return np.asarray(np.sqrt(mean * stats.f.ppf(CONFIDENCE, axes, freedom)))


class Noise(NamedTuple):
    """What B shapes were found to differ from the model by.

    level: (B,) mm per coordinate. repeats: (B,) how many observations count as one. freedom: (B,)
    number of independent measurements behind `level`.
    """

    level: Tensor
    repeats: Tensor
    freedom: Tensor


def found_fit(
    problem: Problem, variables: Tensor, start: Similarity, noise: Noise, steps: Tensor
) -> Fit:
    """The fit with these variables (B, D). start: what brought the targets to the problem's frame.
    steps: (B,) gradients that were computed.
    """
    everyone = torch.arange(len(variables), device=variables.device)
    seen = problem.observations
    code = problem.code(variables, everyone)
    vertices = decode_all(problem.model, code)
    offsets = seen.places(problem.placed(variables, everyone)) - seen.positions
    residuals = torch.where(seen.weights > 0, offsets.norm(dim=-1), torch.nan)
    level, repeats, freedom = (part.double().cpu().numpy() for part in noise)
    return Fit(
        code,
        vertices,
        inverse(after(inverse(start), problem.map(variables))),
        residuals.cpu().numpy() / start.scale[:, None],
        level / start.scale,
        steps.cpu().numpy(),
        problem,
        variables,
        level,
        repeats,
        freedom,
    )
