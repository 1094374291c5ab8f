"""The linear model that is nearest to a model of any family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.mesh.io.linear_model import LinearModel
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all
from morphable.models.prior import CodePrior

MIN_SAMPLES, MAX_SAMPLES, PER_DIRECTION = 512, 4096, 8
"""Samples that the slopes are fitted to: PER_DIRECTION per direction, within these bounds."""
TEST_SAMPLES = 128
"""Fresh samples that the distance between a model and an approximation of it is measured on."""
FLOOR = 1e-12
"""Components whose variance is below this share of the largest one are left out."""


@dataclass(frozen=True)
class Distance:
    """How far an approximation is from the model, over the vertices of TEST_SAMPLES samples.

    mean, p95, max: mm. movement: mm, the mean distance of the samples from the mean shape.
    """

    mean: float
    p95: float
    max: float
    movement: float

    @classmethod
    def between(cls, model: np.ndarray, other: np.ndarray) -> Distance:
        """The distance between the samples (N, V, 3) mm of a model and an approximation of them."""
        error = np.linalg.norm(np.asarray(other, np.float64) - model, axis=-1)
        moved = np.linalg.norm(model - model.mean(axis=0, dtype=np.float64), axis=-1).mean()
        return cls(
            float(error.mean()), float(np.percentile(error, 95)), float(error.max()), float(moved)
        )

    def __str__(self) -> str:
        return (
            f"{self.mean:.2g} mm from the model on average, 95 % of all vertices within "
            f"{self.p95:.2g} mm, all within {self.max:.2g} mm, over {TEST_SAMPLES} samples, which "
            f"vary by {self.movement:.3g} mm"
        )


def linearized(model: MorphableModel, seed: int = 0) -> tuple[LinearModel, Distance]:
    """The best linear approximation of the decoder for codes from its prior, and its distance.

    Codes are mean + F w with w from N(0, I). The slopes S minimize the expected squared distance of
    decode(mean + F w) and m + S w. They are fitted to pairs of samples at w and -w, whose half
    difference holds no even term of the decoder (Hammersley and Morton 1956), and whose mean gives
    m. So a linear decoder gives itself, up to rounding. The components are the singular vectors of
    S; what S leaves over is the noise variance. Pinned parts are zero.

    Raises InputError if the model has no prior.
    """
    prior = model.require_prior()
    factor = whitening(prior)
    generator = torch.Generator().manual_seed(seed)
    fit = _fitted(model, factor, generator)
    turned, deviations, components = np.linalg.svd(fit.slopes, full_matrices=False)
    kept = deviations**2 > FLOOR * max(deviations[0] ** 2, 1e-30)
    shape = (-1, model.template.n_vertices, 3)
    found = LinearModel(
        model.template.mesh,
        fit.mean.reshape(shape[1:]),
        components[kept].reshape(shape),
        deviations[kept] ** 2,
        fit.left,
        model.template.name,
        f"least-squares linearization of a {model.name} model: the slopes and the mean are fitted "
        f"to {fit.samples} samples of its prior (antithetic pairs, seed {seed})",
    )
    fresh = torch.randn(TEST_SAMPLES, factor.shape[1], generator=generator)
    exact = decode_all(model, prior.mean.cpu() + fresh @ factor.T)
    whole = found.shapes((fresh.double().numpy() @ turned)[:, kept])
    return found, Distance.between(exact, whole)


@dataclass(frozen=True, eq=False)
class _Fit:
    """x = mean + w slopes. mean: (3V,) mm. slopes: (K, 3V) mm. left: mm² per coordinate that they
    leave over. samples: how many they are fitted to.
    """

    mean: np.ndarray
    slopes: np.ndarray
    left: float
    samples: int


def _fitted(model: MorphableModel, factor: Tensor, generator: torch.Generator) -> _Fit:
    """Fit the slopes to samples at codes mean + factor w and mean - factor w."""
    mean_code, rank = model.require_prior().mean.cpu(), factor.shape[1]
    pairs = min(max(PER_DIRECTION * rank, MIN_SAMPLES), MAX_SAMPLES) // 2
    size = 3 * model.template.n_vertices
    gram, moment = np.zeros((rank, rank)), np.zeros((rank, size))
    total, squares = np.zeros(size), 0.0
    for block in torch.randn(pairs, rank, generator=generator).split(64):
        above, below = (
            decode_all(model, mean_code + sign * block @ factor.T)
            .reshape(len(block), size)
            .astype(np.float64)
            for sign in (1, -1)
        )
        w = block.double().numpy()
        gram += w.T @ w
        moment += w.T @ (above - below) / 2
        total += (above + below).sum(axis=0)
        squares += float(np.square(above).sum() + np.square(below).sum())
    mean = total / (2 * pairs)
    slopes = np.linalg.solve(gram, moment)
    # The expected square of what is left is that of the samples less that of the linear part.
    spread = squares / (2 * pairs) - float(np.square(mean).sum())
    explained = float(np.sum(slopes * (gram @ slopes))) / pairs
    return _Fit(mean, slopes, max(0.0, spread - explained) / size, 2 * pairs)


def whitening(prior: CodePrior) -> Tensor:
    """(L, K) F such that mean + F w, with w from N(0, I), has the distribution of the prior, K being
    its rank. Raises InputError if the prior is a single point.
    """
    values, vectors = torch.linalg.eigh((prior.factor @ prior.factor.T).double().cpu())
    kept = values > values[-1].clamp(min=0) * 1e-9
    if values[-1] <= 0 or not kept.any():
        raise InputError("the prior of this model is a single shape, so there is nothing to vary")
    return (vectors[:, kept] * values[kept].sqrt()).flip(1).float()
