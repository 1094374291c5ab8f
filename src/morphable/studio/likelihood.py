"""Likelihood: how unusual a code is for its model, and the warning that a person reads."""

from __future__ import annotations

import torch
from scipy.stats import chi2
from torch import Tensor

from morphable.models.base import MorphableModel
from morphable.models.prior import RELATIVE_FLOOR

UNUSUAL, IMPROBABLE = 0.95, 0.999
"""Shares of the model's own random shapes that are nearer to the mean."""


class Likelihood:
    """The squared Mahalanobis distance of a code under the prior. That of the model's own random
    codes has a chi-squared distribution with as many degrees of freedom as the prior has
    directions.

    The inverse of the prior's factor is computed once, so that it can follow a slider.
    """

    def __init__(self, model: MorphableModel) -> None:
        self._prior = model.prior
        if self._prior is not None:
            factor = self._prior.factor.double()
            floor = RELATIVE_FLOOR**0.5
            self._inverse = torch.linalg.pinv(factor, rtol=floor)
            self._directions = int(torch.linalg.matrix_rank(factor, rtol=floor))

    def share(self, code: Tensor) -> float | None:
        """The share of the model's random shapes that are nearer to the mean than the code (L,),
        from 0 to 1. None if the model has no prior.
        """
        if self._prior is None:
            return None
        away = self._inverse @ (code - self._prior.mean).double()
        return float(chi2.cdf(float(away.square().sum()), max(1, self._directions)))

    def sentence(self, code: Tensor) -> str:
        """What a person is told about the code (L,)."""
        share = self.share(code)
        if share is None:
            return "This model has no prior, so it cannot say how likely a shape is."
        if share > IMPROBABLE:
            return (
                "**Improbable.** More than 99.9 % of the model's random shapes are nearer to its "
                "mean. Do not trust details."
            )
        further = (
            f"{100 * (1 - share):.3g} % of the model's random shapes are further from the mean"
        )
        return f"**Unusual**: only {further}." if share > UNUSUAL else f"Plausible: {further}."
